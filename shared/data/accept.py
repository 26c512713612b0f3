"""Selects the generated images that an arm trains on: a filter over the scores of `score`, so that a new threshold generates nothing again."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shared.config.generation import Accept
from shared.data.imageset import ImageSet
from shared.errors import DataError


def accepted_images(accept: Accept, generated: ImageSet, scores: pa.Table) -> NDArray[np.bool_]:
    """Returns which generated images the filter accepts, `[n]`, in their order; `scores` has one row per image.

    Raises DataError if the number of rows differs, or if the scores lack a column.
    """
    if scores.num_rows != len(generated):
        raise DataError(
            f"scores.parquet: has {scores.num_rows} rows for {len(generated)} images; run `score` again (--rerun score)"
        )
    return accept_mask(accept, scores)


def accept_mask(accept: Accept, scores: pa.Table) -> NDArray[np.bool_]:
    """Returns which rows of `scores` are accepted, `[n]`, in their order. What is said of a row does not depend on the others.

    A row is accepted if its `plausibility` (the judges' probability of the class that the image fills) lies within the bounds, inclusive; if
    it is no leak (`leak_of`, the validation or test image that it is a copy of, is null); and, with `copies: refuse`, if it is no copy:
    `copy_of` is null, and `as_near` is no less than `copy_quantile`. Raises DataError if a column is missing.
    """
    plausibility = _numbers(scores, "plausibility")
    least, greatest = accept.plausibility
    mask: NDArray[np.bool_] = (plausibility >= least) & (plausibility <= greatest) & _is_null(scores, "leak_of")
    if accept.copies == "refuse":
        mask &= _is_null(scores, "copy_of") & (_numbers(scores, "as_near") >= accept.copy_quantile)
    return mask


def _is_null(scores: pa.Table, name: str) -> NDArray[np.bool_]:
    nulls: NDArray[np.bool_] = _column(scores, name).is_null().to_numpy()
    return nulls


def _numbers(scores: pa.Table, name: str) -> NDArray[np.float64]:
    # bounds are compared in the precision that the scores were stored in: a float32 0.2 is no less than 0.2
    values: NDArray[np.float64] = np.round(_column(scores, name).to_numpy().astype(np.float64), 6)
    return values


def _column(scores: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in scores.column_names:
        raise DataError(
            f"scores.parquet: has no column {name!r}; it has {scores.column_names}; run `score` again (--rerun score)"
        )
    return scores[name]
