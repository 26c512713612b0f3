"""What a training gave: the figures that both sides of the comparison hand over."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.tune import MEAN_EPOCHS
from shared.classifier.snapshot import EpochRecord


@dataclass(frozen=True)
class Outcome:
    """One training; the scores are validation means over the last epochs, as a trial's objective is."""

    seed: int
    setup_seconds: float
    """Before the first epoch: decoding and the pass through the frozen part, or nothing."""
    seconds: float
    """All epochs with their validations and checkpoints."""
    accuracy: float
    macro_f1: float

    @classmethod
    def of(cls, seed: int, setup_seconds: float, seconds: float, history: list[EpochRecord]) -> Outcome:
        """From the epochs' records."""
        last = history[-MEAN_EPOCHS:]
        accuracy, macro_f1 = (sum(values) / len(last) for values in zip(*((r.val_accuracy, r.val_macro_f1) for r in last), strict=True))  # fmt: skip
        return cls(seed, setup_seconds, seconds, accuracy, macro_f1)
