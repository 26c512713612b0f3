"""Lists images that are equal or nearly so as pairs, those that matter most first: copies in two splits, then copies with different labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from shared.data.leaks import Leak, Likeness
from shared.data.schema import Labels


@dataclass(frozen=True)
class Pair:
    """Names two similar images by their positions."""

    a: int
    b: int
    distance: int
    """Counts the differing bits of the perceptual hashes, of 256; 0 if the pixels are equal."""
    equal: bool
    """Says whether the pixels are equal."""
    leak: bool
    """Says whether the images are in two splits."""
    labels: Literal["agree", "conflict", "unknown"]
    """Says whether what is known of both is the same."""


def find_pairs(likeness: Likeness, split: NDArray[np.str_], labels: Labels, leaks: Sequence[Leak]) -> list[Pair]:
    """Returns pairs of similar images, for the splits `[n]` (blank if the source names none) and labels `[n, C]`, with all `leaks`.

    Of images that are all alike there are only so many pairs that a chain connects them, and each image that leaks with the one that it is most like.
    """
    n = len(split)
    copies = np.flatnonzero(likeness.first != np.arange(n))
    ends = np.concatenate([likeness.pairs, np.stack([likeness.first[copies], copies], axis=1)])
    bits = np.concatenate([likeness.distances, np.zeros(len(copies), np.int64)])
    # 1 more, as SciPy takes a weight of 0 for no edge
    tree = minimum_spanning_tree(coo_array((bits + 1.0, (ends[:, 0], ends[:, 1])), shape=(n, n)).tocsr()).tocoo()
    found = {}
    for a, b, weight in zip(tree.row.tolist(), tree.col.tolist(), tree.data.tolist(), strict=True):
        found[min(a, b), max(a, b)] = int(weight) - 1
    for leak in leaks:
        found[min(leak.image, leak.other), max(leak.image, leak.other)] = leak.distance
    pairs = [
        Pair(
            a,
            b,
            distance,
            bool(likeness.first[a] == likeness.first[b]),
            bool(split[a] and split[b] and split[a] != split[b]),
            _compared(labels[a], labels[b]),
        )
        for (a, b), distance in found.items()
    ]
    return sorted(pairs, key=lambda p: (not p.leak, p.labels != "conflict", not p.equal, p.distance, p.a, p.b))


def _compared(a: Labels, b: Labels) -> Literal["agree", "conflict", "unknown"]:
    known = (a >= 0) & (b >= 0)
    if not known.any():
        return "unknown"
    return "conflict" if (a[known] != b[known]).any() else "agree"
