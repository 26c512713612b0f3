"""Measures how plausible the labels of each generated image are to the judges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import Labels, LabelSchema

Probabilities = NDArray[np.float32]
"""Holds a probability per image and class, `[n, C]`."""


def out_of_fold_mean(
    judges: Sequence[Probabilities], fold: NDArray[np.int64], start: NDArray[np.int64]
) -> Probabilities:
    """Returns the mean probabilities of the judges for each generated image, `[n, C]`.

    `start` `[n]` is the row of the training image that an image was made from, -1 for none; `fold` has the folds of the training images.
    An image made from a training image is judged only by the judge that was not trained on it.
    """
    mean: Probabilities = np.asarray(np.mean(np.stack(judges), axis=0, dtype=np.float64), np.float32)
    for number, probabilities in enumerate(judges):
        unseen = (start >= 0) & (fold[np.maximum(start, 0)] == number)
        mean[unseen] = probabilities[unseen]
    return mean


def target_probabilities(schema: LabelSchema, probabilities: Probabilities, labels: Labels) -> Probabilities:
    """Returns the probability of the wanted label per group, `[n, G]`; NaN if no label is known.

    In a `one` group it is that of the class. In an `any` group it is the mean over the known labels, of p for a 1 and 1 - p for a 0.
    """
    out = np.full((len(labels), len(schema.groups)), np.nan, np.float32)
    for position, (name, columns) in enumerate(schema.slices().items()):
        p, y = probabilities[:, columns], labels[:, columns]
        if schema.group(name).kind == "one":
            known = (y == 1).any(axis=1)
            out[known, position] = p[known, y[known].argmax(axis=1)]
        else:
            counted = (y >= 0).sum(axis=1)
            agreed = np.where(y == 1, p, 1 - p).sum(axis=1, where=y >= 0)
            known = counted > 0
            out[known, position] = (agreed / np.maximum(counted, 1))[known]
    return out


def group_accuracy(schema: LabelSchema, probabilities: Probabilities, labels: Labels) -> dict[str, float | None]:
    """Returns the accuracy per group over known labels: of the most probable class, or in an `any` group of each label at 0.5."""
    result: dict[str, float | None] = {}
    for name, columns in schema.slices().items():
        p, y = probabilities[:, columns], labels[:, columns]
        if schema.group(name).kind == "one":
            known = (y == 1).any(axis=1)
            right = p[known].argmax(axis=1) == y[known].argmax(axis=1)
        else:
            right = ((p >= 0.5) == (y == 1))[y >= 0]
        result[name] = float(right.mean()) if right.size else None
    return result
