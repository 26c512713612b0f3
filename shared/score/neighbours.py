"""Finds nearest neighbours in feature space, block by block: 20,000 and 14,000 images need no 20,000 x 14,000 matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Features = NDArray[np.float32]
"""Holds one row per image, `[n, F]`."""
BLOCK_BYTES = 64 * 2**20  # of the distances in memory at once


def distance_to_kth(points: Features, reference: Features, k: int) -> NDArray[np.float32]:
    """Returns the distance of each point to its k-th nearest row of the reference, `[n]`, or to its farthest if there are fewer.

    Raises ValueError if the reference has no row.
    """
    return kth_of([squares_of_nearest(points, reference, k)], k)


def squares_of_nearest(
    points: Features, reference: Features, k: int, own: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Returns the squared distances of each point to its k nearest rows of the reference, `[n, k]`, fewer columns if there are fewer rows.

    `own` has the row that is the point itself, `[n]`, at an infinite distance; other numbers than those of rows are of no row.
    """
    out = np.empty((len(points), min(k, len(reference))), np.float32)
    for start, block in squared_distances(points, reference):
        if own is not None:
            rows = own[start : start + len(block)]
            inside = np.flatnonzero((rows >= 0) & (rows < len(reference)))
            block[torch.from_numpy(inside), torch.from_numpy(rows[inside])] = torch.inf
        out[start : start + len(block)] = block.topk(out.shape[1], dim=1, largest=False).values.numpy()
    return out


def kth_of(squares: Sequence[NDArray[np.float32]], k: int) -> NDArray[np.float32]:
    """Returns the distance of each point to its k-th nearest row, `[n]`, by its nearest rows in each part of a reference (`squares_of_nearest`).

    It is the distance to its farthest row if there are fewer. Raises ValueError if a point has no row.
    """
    ordered = np.sort(np.concatenate(squares, axis=1), axis=1)[:, :k]
    there = np.isfinite(ordered).sum(axis=1)
    if not there.all():
        raise ValueError(f"an image has no neighbour in a set of {ordered.shape[1]}")
    kth: NDArray[np.float32] = np.sqrt(ordered[np.arange(len(ordered)), there - 1])
    return kth


def nearest(points: Features, reference: Features) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Returns the row of the reference that is nearest to each point, `[n]`, and its distance, `[n]`. The reference must not be empty."""
    rows, distances = np.empty(len(points), np.int64), np.empty(len(points), np.float32)
    for start, block in squared_distances(points, reference):
        least = block.min(dim=1)
        rows[start : start + len(block)] = least.indices.numpy()
        distances[start : start + len(block)] = least.values.sqrt().numpy()
    return rows, distances


def squared_distances(queries: Features, reference: Features) -> Iterator[tuple[int, torch.Tensor]]:
    """Yields blocks of squared Euclidean distances: the row of the first query, and the distances `[block, len(reference)]`, at least 0."""
    base = torch.from_numpy(np.ascontiguousarray(reference))
    # a common shift changes no distance, and keeps the products small if all features are far from 0
    middle = base.mean(dim=0)
    base = base - middle
    norms = base.square().sum(dim=1)
    rows = max(1, BLOCK_BYTES // (4 * max(len(reference), 1)))
    for start in range(0, len(queries), rows):
        block = torch.from_numpy(np.ascontiguousarray(queries[start : start + rows])) - middle
        squares = torch.addmm(norms[None, :], block, base.T, alpha=-2.0)
        yield start, (squares + block.square().sum(dim=1, keepdim=True)).clamp_(min=0)
