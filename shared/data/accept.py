"""Which generated images an arm trains on: a filter over what `score` committed, so that a new threshold generates nothing again."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shared.config.generation import Accept
from shared.errors import DataError


def accept_mask(accept: Accept, scores: pa.Table) -> NDArray[np.bool_]:
    """Which rows of `scores` are let in, `[n]` in their order.

    A row needs a `plausibility` (the judges' probability of the class it fills) within the bounds, inclusive, and must not be among the
    `copies` share of all rows (rounded down) with the smallest `neighbour_ratio`; of equal ratios the first rows are refused.
    Pass one pool's rows, so that what one pool accepts does not depend on the others. Raises DataError where a column is missing.
    """
    plausibility = _column(scores, "plausibility")
    ratio = _column(scores, "neighbour_ratio")
    least, greatest = accept.plausibility
    mask: NDArray[np.bool_] = (plausibility >= least) & (plausibility <= greatest)
    # a float share such as 0.29 of 100 must refuse 29, not 28
    refused = int(np.floor(accept.copies * len(ratio) + 1e-9))
    mask[np.argsort(ratio, kind="stable")[:refused]] = False
    return mask


def _column(scores: pa.Table, name: str) -> NDArray[np.float64]:
    if name not in scores.column_names:
        raise DataError(
            f"scores.parquet: has no column {name!r}; it has {scores.column_names}; run `score` again (--rerun score)"
        )
    # bounds are compared in the precision that the scores were kept in: a float32 0.2 is no less than 0.2
    values: NDArray[np.float64] = np.round(scores[name].to_numpy().astype(np.float64), 6)
    return values
