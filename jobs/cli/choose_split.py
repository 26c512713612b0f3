"""Chooses for `tailfill init` whether a new study carves one test split or lets each repetition test on a fold of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shared.config.study import LEAST_REPETITIONS

if TYPE_CHECKING:
    from jobs.cli.study_text import DataSummary, Design


@dataclass(frozen=True)
class SplitChoice:
    """Says how the repetitions of a study test."""

    most_repetitions: int | None
    """Limits the repetitions by the images of the smallest class, if each tests on a fold; None if they share a test split."""
    lines: tuple[str, ...] = ()
    """Says why."""

    def of(self, design: Design) -> Design:
        """Returns the design with this choice, with fewer repetitions if it has too many for the folds."""
        if self.most_repetitions is None:
            return design
        return replace(design, folds=True, repetitions=min(design.repetitions, self.most_repetitions))


def choose_split(summary: DataSummary) -> SplitChoice:
    """Returns the folds for data without splits if a carved test split would leave a rare class fewer test images than its interval needs, or if the
    folds are expected to find a smaller effect; in any other case the carved split."""
    import numpy as np

    from jobs.cli.study_text import USUAL
    from shared.data.split import units_for_folds
    from shared.metrics.forecast import ENOUGH_UNITS

    if not summary.tail.fill_to or any(image.split is not None for image in summary.images):
        return SplitChoice(None)
    labels, names = summary.preview.labels, summary.tail.fill_to
    columns = {name: summary.schema.column(name) for name in names}
    images, fewest = min((len(np.unique(summary.units[labels[:, c] == 1])), name) for name, c in columns.items())
    carved, of_class = min((int(summary.test_counts[c]), name) for name, c in columns.items())
    most = images - units_for_folds(0)
    choice = SplitChoice(most)
    design = choice.of(USUAL)
    smaller = most >= LEAST_REPETITIONS and foreseen_effect(
        summary.with_folds(design.repetitions), design
    ) < foreseen_effect(summary, USUAL)
    if carved >= ENOUGH_UNITS and not smaller:
        return SplitChoice(None)
    few = f"of {of_class} a carved test split has {carved} images, and an interval needs {ENOUGH_UNITS} to hold what it says"
    if most < LEAST_REPETITIONS:
        needs = units_for_folds(LEAST_REPETITIONS)
        short = f"{fewest} has {images} images or groups of them, fewer than the {needs} that {LEAST_REPETITIONS} test folds, val and train need"
        return SplitChoice(None, (f"split: {few}; {short}, so one test split is carved",))
    why = few if carved < ENOUGH_UNITS else "that is expected to find a smaller effect than a carved test split"
    said = f"split: each repetition tests on a fold of its own, so that every image is tested once: {why}"
    return replace(choice, lines=(said,))


def foreseen_effect(summary: DataSummary, design: Design) -> float:
    """Returns the smallest effect that a study finds in 80 % of cases, with the variances that are assumed before anything is measured.

    It is infinite without a judged class that has test images.
    """
    from shared.config.search import Verdict
    from shared.metrics.forecast import assumed_components, smallest_effect
    from shared.metrics.outer_folds import OuterFolds
    from shared.metrics.two_way import TwoWay

    columns = [summary.schema.column(name) for name in summary.tail.fill_to]
    judged = [int(summary.test_counts[c]) for c in columns if summary.test_counts[c]]
    if not judged:
        return math.inf
    components = assumed_components(judged, summary.test_images)
    analysis = OuterFolds if design.folds else TwoWay
    return smallest_effect(components, design.repetitions, summary.test_images, Verdict().alpha, analysis=analysis)
