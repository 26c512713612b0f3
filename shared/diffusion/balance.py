"""How often a generator sees an image in training: rare classes more often than they come."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import Labels, class_counts


def draw_probabilities(labels: Labels, power: float) -> NDArray[np.float64]:
    """Probability of each image to be drawn, `[n]`: in proportion to n to the power of -`power`, n the count of its rarest class."""
    counts = np.where(labels == 1, class_counts(labels), len(labels))
    weights = counts.min(axis=1).astype(np.float64) ** -power
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities
