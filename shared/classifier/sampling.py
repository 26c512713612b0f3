"""The batches of an epoch; which images each of them holds follows from (seed, epoch)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.classifier.rng import numpy_generator
from shared.config.stages import Arm
from shared.data.schema import Labels, class_counts

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Sampler:
    """Batches of rows of an effective training set."""

    arm: Arm
    labels: Labels
    """`[n, C]`."""
    generated: NDArray[np.bool_]
    """`[n]`."""
    epochs: int
    seed: int

    def batches(self, epoch: int) -> list[Rows]:
        """Returns the batches of an epoch (from 0), of nearly equal size, at most `training.batch_size`: a small last one would be a noisy step.

        Without `synthetic.share` every image comes once, real and generated mixed, or with `class_power` as many images are drawn with
        replacement. With it every batch has that share of generated images, and the epoch ends when every real image has come.
        """
        rng = numpy_generator("order", self.seed, epoch)
        real, generated = np.flatnonzero(~self.generated), np.flatnonzero(self.generated)
        size, synthetic = self.arm.training.batch_size, self.arm.synthetic
        if synthetic is None or len(generated) == 0 or epoch >= synthetic.until * self.epochs:
            return _split(self._drawn(real, len(real), rng), size)
        if synthetic.share is None:
            every = np.arange(len(self.generated))
            return _split(self._drawn(every, len(every), rng), size)
        if synthetic.share >= 1:
            return _split(self._drawn(generated, len(generated), rng), size)
        total = round(len(real) / (1 - synthetic.share))
        steps = math.ceil(total / size)
        parts = (
            np.array_split(self._drawn(real, len(real), rng), steps),
            np.array_split(self._drawn(generated, total - len(real), rng), steps)[
                ::-1
            ],  # larger parts meet smaller ones
        )
        return [np.concatenate(pair) for pair in zip(*parts, strict=True)]

    def _drawn(self, rows: Rows, n: int, rng: np.random.Generator) -> Rows:
        """Draws n of the rows in random order: each equally often, or in proportion to (count of its rarest class) ** -class_power."""
        power = self.arm.training.class_power
        if power > 0:
            rarest = _rarest_count(self.labels[rows])
            weight = rarest.astype(np.float64) ** -power
            return rng.choice(rows, n, p=weight / weight.sum())
        rounds = [rng.permutation(rows) for _ in range(math.ceil(n / len(rows)))] if n else [rows[:0]]
        return np.concatenate(rounds)[:n]


def _split(rows: Rows, size: int) -> list[Rows]:
    return np.array_split(rows, math.ceil(len(rows) / size))


def _rarest_count(labels: Labels) -> NDArray[np.int64]:
    """Returns how many of these images have the rarest class of each image, `[n]`; all of them if it has no known class."""
    counts = np.where(labels == 1, class_counts(labels)[None, :], len(labels))
    rarest: NDArray[np.int64] = counts.min(axis=1)
    return rarest
