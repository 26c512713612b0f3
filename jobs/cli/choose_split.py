"""Chooses for `tailfill init` whether all repetitions of a new study share one test split or each repetition tests on a fold of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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


def choose_split(summary: DataSummary, least: int) -> SplitChoice:
    """Returns the folds for data without splits if a single test split would leave a rare class fewer test units than its interval needs, and each
    rare class has units enough for the `least` repetitions of a verdict; in any other case the single split."""
    import numpy as np

    from shared.data.split import units_for_folds
    from shared.metrics.forecast import ENOUGH_UNITS

    if not summary.tail.fill_to or any(image.split is not None for image in summary.images):
        return SplitChoice(None)
    tested, names = summary.preview.split == "test", summary.tail.fill_to
    members = {name: summary.preview.labels[:, summary.schema.column(name)] == 1 for name in names}
    units, fewest = min((len(np.unique(summary.units[of])), name) for name, of in members.items())
    held_out, of_class = min((len(np.unique(summary.units[of & tested])), name) for name, of in members.items())
    if held_out >= ENOUGH_UNITS:
        return SplitChoice(None)
    few = f"a single test split has {held_out} images, or groups of them, of {of_class}, and an interval needs {ENOUGH_UNITS} to hold what it says"
    most = units - units_for_folds(0)
    if most < least:
        short = (
            f"{fewest} has {units}, fewer than the {units_for_folds(least)} that {least} test folds, val and train need"
        )
        return SplitChoice(None, (f"split: {few}; {short}, so one test split serves all repetitions",))
    said = f"split: each repetition tests on a fold of its own, so that every image is tested once: {few}"
    return SplitChoice(most, (said,))
