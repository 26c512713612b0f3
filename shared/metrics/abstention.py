"""Measures what it costs to answer only if sure: the risk and the coverage of answers by their confidence (Geifman and El-Yaniv 2017)."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from shared.config.base import Section
from shared.data.schema import Labels, LabelSchema
from shared.metrics.counts import Floats, decide

LIMITS = (*(round(step / 100, 2) for step in range(100)), 0.995, 0.999)
"""Lists the confidences at which risk and coverage are counted."""
Z = 1.959964
"""Gives the quantile of the normal distribution for an interval of 95 %."""


class Abstention(Section):
    """Counts a group's answers on labelled images by their confidence; an answer is of an image (`one`) or of an image and a class (`any`)."""

    known: int
    """Counts the answers whose truth is known."""
    answered: Annotated[tuple[int, ...], Field(min_length=len(LIMITS), max_length=len(LIMITS))]
    """Counts those whose confidence is at least each of LIMITS."""
    wrong: Annotated[tuple[int, ...], Field(min_length=len(LIMITS), max_length=len(LIMITS))]
    """Counts the wrong ones of these."""

    def at(self, confidence: float) -> RiskAndCoverage:
        """Returns risk and coverage at the largest of LIMITS that is not above `confidence`."""
        place = bisect_right(LIMITS, confidence) - 1
        return RiskAndCoverage(LIMITS[place], self.known, self.answered[place], self.wrong[place])


@dataclass(frozen=True)
class RiskAndCoverage:
    """Holds what happened on labelled images when answers below a confidence were withheld."""

    confidence: float
    known: int
    answered: int
    wrong: int

    @property
    def coverage(self) -> float | None:
        """Returns the share of answers that were given; None without a known label."""
        return self.answered / self.known if self.known else None

    @property
    def risk(self) -> float | None:
        """Returns the share of given answers that were wrong; None if none was given."""
        return self.wrong / self.answered if self.answered else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Returns the 95 % interval of the risk (Wilson 1927); None if no answer was given."""
        return None if self.risk is None else wilson(self.risk, self.answered)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share of n (Wilson 1927)."""
    middle, half = share + Z**2 / (2 * n), Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, (middle - half) / (1 + Z**2 / n)), min(1.0, (middle + half) / (1 + Z**2 / n))


def decision_confidences(
    schema: LabelSchema, probabilities: NDArray[np.floating], decided: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Returns how sure each decision `[n, C]` is: the probability of the state that was decided, and in a `one` group that of the decided class."""
    sure = np.where(decided, probabilities, 1 - probabilities.astype(np.float64))
    for name, columns in schema.slices().items():
        if schema.group(name).kind == "one":
            sure[:, columns] = probabilities[:, columns].max(axis=1, keepdims=True)
    return sure


def measure_abstention(
    schema: LabelSchema, probabilities: NDArray[np.floating], labels: Labels, thresholds: Floats
) -> dict[str, Abstention]:
    """Returns the counts of each group for calibrated probabilities, labels (-1 is unknown), both `[n, C]`, and thresholds `[C]`."""
    decided = decide(schema, probabilities, thresholds)
    sure = decision_confidences(schema, probabilities, decided)
    right = decided == (labels == 1)
    found = {}
    for name, columns in schema.slices().items():
        if schema.group(name).kind == "one":
            known = (labels[:, columns] == 1).any(axis=1)
            each, correct = sure[known, columns.start], right[known, columns].all(axis=1)
        else:
            known = labels[:, columns] >= 0
            each, correct = sure[:, columns][known], right[:, columns][known]
        kept = [each >= limit for limit in LIMITS]
        found[name] = Abstention(
            known=len(each),
            answered=tuple(int(k.sum()) for k in kept),
            wrong=tuple(int((k & ~correct).sum()) for k in kept),
        )
    return found
