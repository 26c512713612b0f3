"""Selects the generated images that an arm trains on: a filter over the scores of `score`, so that a new threshold generates nothing again."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shared.config.generation import Accept
from shared.data.imageset import ImageSet
from shared.errors import DataError


def accepted_images(accept: Accept, generated: ImageSet, scores: pa.Table) -> NDArray[np.bool_]:
    """Returns which generated images the filter accepts, `[n]`, in their order.

    `scores` has one row per image. The filter is applied within each pool, so that what one pool accepts does not depend on the others.
    Raises DataError if the number of rows differs, or if the images have no column `pool` or the scores lack a column.
    """
    if scores.num_rows != len(generated):
        raise DataError(
            f"scores.parquet: has {scores.num_rows} rows for {len(generated)} images; run `score` again (--rerun score)"
        )
    if generated.extra is None or "pool" not in generated.extra.column_names:
        raise DataError("generated images: have no column 'pool'; run `generate` again (--rerun generate)")
    pools = generated.extra["pool"].to_numpy()
    accepted = np.zeros(len(generated), np.bool_)
    for pool in np.unique(pools):
        rows = np.flatnonzero(pools == pool)
        accepted[rows] = accept_mask(accept, scores.take(pa.array(rows)))
    return accepted


def accept_mask(accept: Accept, scores: pa.Table) -> NDArray[np.bool_]:
    """Returns which rows of one pool's `scores` are accepted, `[n]`, in their order.

    A row is accepted if its `plausibility` (the judges' probability of the class that the image fills) lies within the bounds, inclusive,
    and if it is not among the `copies` share of all rows (rounded down) with the smallest `neighbour_ratio`; of equal ratios the first rows
    are refused. Raises DataError if a column is missing.
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
    # bounds are compared in the precision that the scores were stored in: a float32 0.2 is no less than 0.2
    values: NDArray[np.float64] = np.round(scores[name].to_numpy().astype(np.float64), 6)
    return values
