"""The bootstrap over test images and seeds together: how much a difference would vary with another test set and other repetitions.

Every resample draws the test images with replacement, once for all arms and repetitions, which all predict the same images. It also draws
the repetitions with replacement, in pairs. Scores are recomputed from weighted counts, thousands of resamples in a few matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import Labels, LabelSchema
from shared.metrics.counts import Floats, count
from shared.metrics.statistics import percentile_interval
from shared.metrics.table import metric_named

RESAMPLES = 2000  # its noise in a 95 % bound is about a tenth of the interval's half width
BATCH = 250  # resamples at once: 250 x 10,000 test images in float32 are 10 MB


@dataclass(frozen=True)
class Decisions:
    """The predicted classes of the repetitions of several arms on one test split."""

    schema: LabelSchema
    labels: Labels
    """The labels of the test images, `[n, C]`."""
    rare: NDArray[np.int64]
    decided: Mapping[tuple[str, int], NDArray[np.bool_]]
    """The predicted classes `[n, C]` by (experiment, repeat)."""


def resampled_scores(
    decisions: Decisions, metric: str, seed: int, resamples: int = RESAMPLES
) -> dict[tuple[str, int], Floats]:
    """Returns the metric of each (experiment, repeat) on the same bootstrap resamples of the test images, `[resamples]` each.

    Raises ValueError for a metric that cannot be computed from counts alone.
    """
    score = metric_named(metric).from_counts
    if score is None:
        raise ValueError(f"{metric}: cannot be resampled, as it is not computed from counts alone")
    random = np.random.default_rng(seed)
    n = len(decisions.labels)
    parts: dict[tuple[str, int], list[Floats]] = {who: [] for who in decisions.decided}
    for start in range(0, resamples, BATCH):
        size = min(BATCH, resamples - start)
        weights = random.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float32)
        for who, decided in decisions.decided.items():
            counts = count(decided, decisions.labels, weights)
            parts[who].append(score(decisions.schema, counts, decisions.rare))
    return {who: np.concatenate(values) for who, values in parts.items()}


def clustered_interval(
    scores: Mapping[tuple[str, int], Floats], arm: str, baseline: str, repeats: list[int], confidence: float, seed: int
) -> tuple[float, float] | None:
    """Returns the interval of the mean difference arm - baseline over paired repeats and test images; None without a pair."""
    if not repeats:
        return None
    differences = np.stack([scores[arm, r] - scores[baseline, r] for r in repeats])
    drawn = np.random.default_rng(seed).multinomial(
        len(repeats), np.full(len(repeats), 1 / len(repeats)), size=differences.shape[1]
    )
    return percentile_interval((drawn.T * differences).sum(axis=0) / len(repeats), confidence)
