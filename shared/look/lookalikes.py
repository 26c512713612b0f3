"""Lists images of two splits that look alike to a network and are no copies, such as two photographs of one thing, for a person to judge."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.data.source import SPLITS
from shared.score.neighbours import distance_to_kth, nearest

NEAREST_SHARE = 0.01
"""Sets which share of the images have a neighbour in their own split that is as near as two look-alikes."""
SAMPLE, SEED = 2000, 0
"""Limit the images by which it is measured how near that is, and choose them."""


@dataclass(frozen=True)
class Lookalike:
    """Names two images of different splits by their positions."""

    image: int
    """Gives the image of the later split, in the order train, val, test."""
    other: int
    distance: float
    """Gives the distance of their features, in shares of the distance from which on images are no look-alikes: from 0 to 1."""


def find_lookalikes(
    features: NDArray[np.float32], split: NDArray[np.str_], unit: NDArray[np.int64], copies: Collection[tuple[int, int]]
) -> list[Lookalike]:
    """Returns the look-alikes, the nearest first, for features `[n, F]`, splits `[n]` and numbers of images that are copies of each other `[n]`.

    Of each image of a later split the nearest of the earlier ones is looked at. Images are look-alikes if they are nearer to each other than all but the
    nearest hundredth of the images of the largest split are to their nearest neighbours there, copies left out. Pairs in `copies` are left out.
    """
    _, firsts = np.unique(unit, return_index=True)
    sizes = {name: int((split[firsts] == name).sum()) for name in SPLITS}
    largest = firsts[split[firsts] == max(sizes, key=lambda name: sizes[name])]
    if len(largest) < 1 / NEAREST_SHARE:
        return []
    chosen = np.random.default_rng(SEED).permutation(len(largest))[:SAMPLE]
    usual = distance_to_kth(features[largest[chosen]], features[largest], 2)  # the first is the image itself
    limit = float(np.quantile(usual, NEAREST_SHARE))
    found: dict[tuple[int, int], Lookalike] = {}
    for place, name in enumerate(SPLITS):
        later, earlier = np.flatnonzero(split == name), np.flatnonzero(np.isin(split, SPLITS[:place]))
        if not len(later) or not len(earlier):
            continue
        rows, distances = nearest(features[later], features[earlier])
        for image, other, distance in zip(later.tolist(), earlier[rows].tolist(), distances.tolist(), strict=True):
            pair = (min(image, other), max(image, other))
            if distance < limit and pair not in copies:
                found[pair] = Lookalike(image, other, distance / limit)
    return sorted(found.values(), key=lambda each: (each.distance, each.image))
