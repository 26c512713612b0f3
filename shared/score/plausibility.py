"""From the judges' probabilities to how plausible the labels of each generated image are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import Labels, LabelSchema

Probabilities = NDArray[np.float32]
"""`[n, C]`."""


def out_of_fold_mean(
    judges: Sequence[Probabilities], fold: NDArray[np.int64], start: NDArray[np.int64]
) -> Probabilities:
    """The judges' mean for each generated image, `[n, C]`.

    An image that was made from a training image (`start` `[n]`: its row, -1 for none; `fold` its fold) is judged only by the judge that
    did not see that image.
    """
    mean: Probabilities = np.asarray(np.mean(np.stack(judges), axis=0, dtype=np.float64), np.float32)
    for number, probabilities in enumerate(judges):
        unseen = (start >= 0) & (fold[np.maximum(start, 0)] == number)
        mean[unseen] = probabilities[unseen]
    return mean


def target_probabilities(schema: LabelSchema, probabilities: Probabilities, labels: Labels) -> Probabilities:
    """Probability of the wanted label a group, `[n, G]`; NaN where none is known.

    In a `one` group that of the class, in an `any` group the mean over the known labels of what the label says (1 - p for a 0).
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
    """Share of the known labels that are named right, a group: the likeliest class, or in an `any` group each label at 0.5."""
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
