"""Finds nearest neighbours in feature space, block by block: 20,000 and 14,000 images need no 20,000 x 14,000 matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Features = NDArray[np.float32]
"""One row per image, `[n, F]`."""
BLOCK_BYTES = 64 * 2**20  # of the distances in memory at once


@dataclass(frozen=True)
class Neighbours:
    """The nearest row of a reference set for each row of another."""

    index: NDArray[np.int64]
    """Rows of the reference set, `[n]`."""
    distance: NDArray[np.float64]
    """Euclidean distances, `[n]`."""


def nearest(queries: Features, reference: Features) -> Neighbours:
    """Returns the nearest reference row of every query. Raises ValueError if the reference is empty."""
    if len(reference) == 0:
        raise ValueError("no reference images to be near to")
    index = np.empty(len(queries), np.int64)
    for start, block in squared_distances(queries, reference):
        index[start : start + len(block)] = block.argmin(dim=1).numpy()
    return Neighbours(index, _exact(queries, reference[index]))


def nearest_other(points: Features) -> Neighbours:
    """Returns the nearest other row of the same set. Raises ValueError if it has fewer than two rows."""
    if len(points) < 2:
        raise ValueError(f"an image has no neighbour in a set of {len(points)}")
    index = np.empty(len(points), np.int64)
    for start, block in squared_distances(points, points):
        rows = torch.arange(len(block))
        block[rows, start + rows] = torch.inf
        index[start : start + len(block)] = block.argmin(dim=1).numpy()
    return Neighbours(index, _exact(points, points[index]))


def neighbour_ratio(found: Neighbours, own: NDArray[np.float64]) -> NDArray[np.float32]:
    """Returns the distance to the nearest reference image over that image's own distance `own` to its neighbour, `[n]`.

    An image with a ratio well below 1 is nearer to a real image than real images are to each other, so it is probably a copy. If images
    of the reference are equal, their own distance counts as a thousandth of the median, so that the ratio stays finite.
    """
    floor = max(float(np.median(own)) * 1e-3, 1e-12)
    ratio: NDArray[np.float32] = (found.distance / np.maximum(own[found.index], floor)).astype(np.float32)
    return ratio


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


def _exact(first: Features, second: Features) -> NDArray[np.float64]:
    """Returns distances row by row, without the cancellation that the product form suffers between near copies."""
    out: NDArray[np.float64] = np.empty(len(first), np.float64)
    for start in range(0, len(first), 1024):
        rows = slice(start, start + 1024)
        out[rows] = np.linalg.norm(first[rows].astype(np.float64) - second[rows].astype(np.float64), axis=1)
    return out
