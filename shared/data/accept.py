"""Selects the generated images that an arm trains on, by their scores and by what a person decided.

Both are applied by those who read the images, so that a new threshold or review generates nothing again.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shared.config.generation import Accept
from shared.data.imageset import ImageSet
from shared.data.review import KEEP, REJECT, Review
from shared.errors import DataError
from shared.names import shown

LEAK = "copy of a validation or test image"
"""Says of an image that it is refused whatever a person thinks of it: with it, the test would be no test."""
COPY = "copy of a training image"
NEAR_COPY = "as near to a training image as hardly a real one"
IMPLAUSIBLE = "less plausible than accepted"
TOO_PLAUSIBLE = "more plausible than accepted"


def accepted_images(
    accept: Accept, generated: ImageSet, scores: pa.Table, review: Review | None = None
) -> NDArray[np.bool_]:
    """Returns which generated images an arm accepts, `[n]`, in their order; `scores` has one row per image.

    `review` is the one that `accept.reviewed` names. An image that a person rejected is not accepted. One that a person kept is, unless it is a
    copy of a validation or test image. Raises DataError if the number of rows differs, if the scores lack a column, or if the review is
    missing or is of other images.
    """
    if scores.num_rows != len(generated):
        raise DataError(
            f"scores.parquet: has {scores.num_rows} rows for {len(generated)} images; run `score` again (--rerun score)"
        )
    refused = refusals(accept, scores)
    mask: NDArray[np.bool_] = refused == ""
    if accept.reviewed is None:
        return mask
    if review is None:
        raise DataError(f"accept.reviewed: {shown(accept.reviewed)} was not read, so its decisions are unknown")
    decided = review.decisions_of(generated)
    mask |= (decided == KEEP) & (refused != LEAK)
    mask &= decided != REJECT
    return mask


def accept_mask(accept: Accept, scores: pa.Table) -> NDArray[np.bool_]:
    """Returns which rows of `scores` are accepted, `[n]`, in their order; see `refusals`."""
    mask: NDArray[np.bool_] = refusals(accept, scores) == ""
    return mask


def refusals(accept: Accept, scores: pa.Table) -> NDArray[np.str_]:
    """Returns why each row of `scores` is refused, `[n]`, blank if it is accepted. What is said of a row does not depend on the others.

    A row is accepted if its `plausibility` (the judges' probability of the class that the image fills) lies within the bounds, inclusive; if
    it is no leak (`leak_of`, the validation or test image that it is a copy of, is null); and, with `copies: refuse`, if it is no copy:
    `copy_of` is null, and `as_near` is no less than `copy_quantile`. Raises DataError if a column is missing.
    """
    plausibility = _numbers(scores, "plausibility")
    least, greatest = accept.plausibility
    rules = [(~_is_null(scores, "leak_of"), LEAK)]
    if accept.copies == "refuse":
        near = ~(_numbers(scores, "as_near") >= accept.copy_quantile)
        rules += [(~_is_null(scores, "copy_of"), COPY), (near, NEAR_COPY)]
    # a plausibility that is no number is within no bounds
    rules += [(~(plausibility >= least), IMPLAUSIBLE), (~(plausibility <= greatest), TOO_PLAUSIBLE)]
    reasons: NDArray[np.str_] = np.select([rows for rows, _ in rules], [reason for _, reason in rules], "")
    return reasons


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
