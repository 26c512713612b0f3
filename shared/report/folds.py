"""Puts the predictions of repetitions that test on a fold each together, so that a metric is computed once, from the counts of all images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import Labels
from shared.metrics.counts import Floats, count
from shared.metrics.influence import Formula, influences_on
from shared.metrics.outer_folds import pseudo_rows
from shared.report.inputs import Predictions


@dataclass(frozen=True)
class PooledFolds:
    """Holds the decisions of all repetitions of an experiment, one after the other."""

    repeats: tuple[int, ...]
    decided: NDArray[np.bool_]
    """Holds decisions `[n, C]`, each by the repetition that did not see the image."""
    labels: Labels
    """Holds labels `[n, C]`."""
    units: NDArray[np.int64]
    """Numbers the unit of each image, `[n]`."""
    fold: NDArray[np.int64]
    """Gives the position in `repeats` of the repetition that tests each unit, `[units]`."""

    @classmethod
    def of(cls, predictions: Mapping[int, Predictions], decided: Mapping[int, NDArray[np.bool_]]) -> PooledFolds:
        """Puts the predictions by repetition together; no image, and no unit, is in two of them."""
        names = [name for p in predictions.values() for name in p.units]
        sizes = [len(p.units) for p in predictions.values()]
        _, first, units = np.unique(names, return_index=True, return_inverse=True)
        return cls(
            tuple(predictions),
            np.concatenate([decided[repeat] for repeat in predictions]),
            np.concatenate([p.labels for p in predictions.values()]),
            units.astype(np.int64),
            np.repeat(np.arange(len(sizes)), sizes)[first],
        )

    def rows(self, formula: Formula, columns: Sequence[int] | slice) -> dict[int, Floats]:
        """Returns a row of pseudo-values per repetition, `[units of its fold]`, for a formula of the counts of these classes."""
        decided, labels = self.decided[:, columns], self.labels[:, columns]
        value = float(formula(count(decided, labels)))
        influence = influences_on(formula, decided, labels, self.units)
        return dict(zip(self.repeats, pseudo_rows(value, influence, self.fold), strict=True))
