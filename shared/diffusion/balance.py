"""Balances the training of a generator: images of rare classes are drawn more often."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import Labels, class_counts


def draw_probabilities(labels: Labels, power: float) -> NDArray[np.float64]:
    """Returns the probability that an image is drawn, `[n]`: in proportion to the count of its rarest class to the power of -`power`."""
    counts = np.where(labels == 1, class_counts(labels), len(labels))
    weights = counts.min(axis=1).astype(np.float64) ** -power
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities
