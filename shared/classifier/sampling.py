"""Draws the batches of an epoch; which images each of them holds follows from (seed, epoch).

An epoch has as many batches, and as many images, as it has with the real images alone, whatever generated images add. So arms with and
without generated images take equally many optimizer steps with equal parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.classifier.rng import numpy_generator
from shared.config.stages import Arm
from shared.data.schema import Labels, class_counts

Rows = NDArray[np.int64]

REAL, GENERATED, MIXED = "order", "order of generated", "order of all"
"""Name the images that are drawn together, by the purpose of their random numbers."""


@dataclass(frozen=True)
class Sampler:
    """Draws batches of rows of an effective training set."""

    arm: Arm
    labels: Labels
    """Holds the labels, `[n, C]`."""
    generated: NDArray[np.bool_]
    """Says whether an image is generated, `[n]`."""
    epochs: int
    seed: int

    def batches(self, epoch: int) -> list[Rows]:
        """Returns the batches of an epoch (from 0), of nearly equal size, at most `training.batch_size`: a small last one would make a noisy step.

        An epoch takes as many images as there are real ones. Without `synthetic.share`, real and generated images are mixed in proportion to
        their numbers; with it, every batch has that share of generated ones. Images come in random order, pass after pass: an epoch goes
        on where the previous one stopped, and no image comes again before all others have come. With `class_power` they are drawn with
        replacement.
        """
        parts = [self._drawn(part, n, epoch) for part, n in self._sizes(epoch).items()]
        steps = math.ceil(self._real / self.arm.training.batch_size)
        split = [np.array_split(rows, steps) for rows in parts]
        # the larger parts of real images meet the smaller ones of generated images
        ordered = [pieces[::-1] if number else pieces for number, pieces in enumerate(split)]
        return [np.concatenate(pieces) for pieces in zip(*ordered, strict=True)]

    def expected_draws(self, epoch: int) -> NDArray[np.float64]:
        """Returns how often each image is expected in an epoch, `[n]`."""
        expected = np.zeros(len(self.generated))
        for part, n in self._sizes(epoch).items():
            rows = self._rows(part)
            expected[rows] = n * self._probabilities(rows)
        return expected

    @property
    def _real(self) -> int:
        return int((~self.generated).sum())

    def _sizes(self, epoch: int) -> Mapping[str, int]:
        """Returns how many images an epoch draws from each part."""
        synthetic = self.arm.synthetic
        if synthetic is None or not self.generated.any() or epoch >= synthetic.until * self.epochs:
            return {REAL: self._real}
        if synthetic.share is None:
            return {MIXED: self._real}
        generated = round(synthetic.share * self._real)
        return {REAL: self._real - generated, GENERATED: generated}

    def _rows(self, part: str) -> Rows:
        return {
            REAL: np.flatnonzero(~self.generated),
            GENERATED: np.flatnonzero(self.generated),
            MIXED: np.arange(len(self.generated)),
        }[part]

    def _drawn(self, part: str, n: int, epoch: int) -> Rows:
        """Returns n rows of a part in random order."""
        rows = self._rows(part)
        if self.arm.training.class_power > 0:
            return numpy_generator(part, self.seed, epoch).choice(rows, n, p=self._probabilities(rows))
        start = sum(self._sizes(earlier).get(part, 0) for earlier in range(epoch))
        passes = range(start // len(rows), -(-(start + n) // len(rows)))
        order = [numpy_generator(part, self.seed, number).permutation(rows) for number in passes]
        first = start % len(rows)
        return np.concatenate([rows[:0], *order])[first : first + n]

    def _probabilities(self, rows: Rows) -> NDArray[np.float64]:
        """Returns the probability of each of the rows: equal, or in proportion to (count of its rarest class) ** -class_power."""
        weight = _rarest_count(self.labels[rows]).astype(np.float64) ** -self.arm.training.class_power
        probabilities: NDArray[np.float64] = weight / weight.sum()
        return probabilities


def without_single_images(batches: list[Rows]) -> list[Rows]:
    """Returns the batches, in which an image that is alone in its batch joins the batch before it, or the one after it if it comes first.

    The only image of all batches is twice in its batch.
    """
    joined: list[Rows] = []
    for rows in batches:
        if joined and (len(rows) == 1 or len(joined[-1]) == 1):
            joined[-1] = np.concatenate([joined[-1], rows])
        else:
            joined.append(rows)
    return joined if len(joined[0]) > 1 else [np.repeat(joined[0], 2)]


def _rarest_count(labels: Labels) -> NDArray[np.int64]:
    """Returns, for each image, how many of these images have its rarest class, `[n]`; all of them if it has no known class."""
    counts = np.where(labels == 1, class_counts(labels)[None, :], len(labels))
    rarest: NDArray[np.int64] = counts.min(axis=1)
    return rarest
