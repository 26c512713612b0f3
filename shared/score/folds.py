"""Folds of the training split, so that every judge has images that it never saw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import Labels, class_counts


def assign_folds(labels: Labels, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each training image, `[n]`, 0 to `folds` - 1, equal in size to within one image.

    Stratified by the rarest class of each image: the images of one such class are dealt out in turn, so that every fold has its part of
    the tail.
    """
    counts = class_counts(labels)
    rarest = np.where(labels == 1, counts, np.iinfo(np.int64).max).argmin(axis=1)
    order = np.random.default_rng([seed, folds]).permutation(len(labels))
    order = order[np.argsort(rarest[order], kind="stable")]
    fold = np.empty(len(labels), np.int64)
    fold[order] = np.arange(len(labels)) % folds
    return fold
