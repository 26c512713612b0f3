"""Defines the result of one training, which is the same for both sides of the comparison."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.tune import MEAN_EPOCHS
from shared.classifier.snapshot import EpochRecord


@dataclass(frozen=True)
class Outcome:
    """Holds the times and scores of one training. The scores are validation means over the last epochs, like a trial's objective."""

    seed: int
    setup_seconds: float
    """The seconds before the first epoch: of decoding and of the frozen backbone, or 0."""
    seconds: float
    """The seconds of all epochs, with their validations and checkpoints."""
    accuracy: float
    macro_f1: float

    @classmethod
    def of(cls, seed: int, setup_seconds: float, seconds: float, history: list[EpochRecord]) -> Outcome:
        """Returns the outcome of a training from the records of its epochs."""
        last = history[-MEAN_EPOCHS:]
        accuracy, macro_f1 = (sum(values) / len(last) for values in zip(*((r.val_accuracy, r.val_macro_f1) for r in last), strict=True))  # fmt: skip
        return cls(seed, setup_seconds, seconds, accuracy, macro_f1)
