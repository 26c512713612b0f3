"""Compares a set of generated images with a set of real ones by their features: KID, precision, recall, density, coverage."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from shared.score.neighbours import Features, squared_distances

SUBSETS, SUBSET_SIZE = 50, 1000  # random subsets for KID (Bińkowski et al. 2018: 100 subsets of 1000)
NEIGHBOURS = 5  # k for precision, recall, density and coverage, as in Naeem et al. 2020


def kernel_distance(real: Features, generated: Features, seed: int) -> float | None:
    """Returns the kernel inception distance (Bińkowski et al. 2018, Demystifying MMD GANs) of two sets of features.

    It is the squared maximum mean discrepancy with the kernel (x·y / F + 1)³, the mean of unbiased estimates over random subsets. It is
    about 0, or a little below, if both sets have the same distribution. It is None if a set has fewer than two images.
    """
    size = min(SUBSET_SIZE, len(real), len(generated))
    if size < 2:
        return None
    rng = np.random.default_rng(seed)
    # if both sets have the size of a subset there is only one
    subsets = 1 if size == len(real) == len(generated) else SUBSETS
    estimates = [_unbiased_mmd(_subset(real, size, rng), _subset(generated, size, rng)) for _ in range(subsets)]
    return float(np.mean(estimates))


def _subset(features: Features, size: int, rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(features[rng.choice(len(features), size, replace=False)].astype(np.float64))


def _unbiased_mmd(x: torch.Tensor, y: torch.Tensor) -> float:
    n, width = x.shape

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a @ b.T / width + 1) ** 3

    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (n * (n - 1))
    return float(within - 2 * xy.mean())


def precision_recall_density_coverage(real: Features, generated: Features) -> dict[str, float | None]:
    """Returns `precision`, `recall`, `density` and `coverage` (Naeem et al. 2020, Reliable Fidelity and Diversity Metrics), k = 5.

    The ball of a real image reaches to its k-th nearest real neighbour. Precision is the share of generated images in a real ball.
    Density is the mean number of real balls that contain a generated image, over k (it may exceed 1). Coverage is the share of real balls
    that contain a generated image. Recall is the share of real images in a generated ball. All are None if a set has fewer than k + 1
    images.
    """
    if min(len(real), len(generated)) <= NEIGHBOURS:
        return {"precision": None, "recall": None, "density": None, "coverage": None}
    real_radius, generated_radius = _radii(real), _radii(generated)
    balls = np.zeros(len(generated), np.int64)
    recalled = np.zeros(len(real), np.bool_)
    nearest_generated = np.full(len(real), np.inf, np.float32)
    for start, block in squared_distances(generated, real):
        rows = slice(start, start + len(block))
        distances = block.numpy()
        balls[rows] = (distances < real_radius[None, :]).sum(axis=1)
        recalled |= (distances < generated_radius[rows, None]).any(axis=0)
        nearest_generated = np.minimum(nearest_generated, distances.min(axis=0))
    return {
        "precision": float((balls > 0).mean()),
        "recall": float(recalled.mean()),
        "density": float(balls.mean() / NEIGHBOURS),
        "coverage": float((nearest_generated < real_radius).mean()),
    }


def _radii(points: Features) -> NDArray[np.float32]:
    """Returns the squared distance of each row to its k-th nearest other row, `[n]`."""
    out = np.empty(len(points), np.float32)
    for start, block in squared_distances(points, points):
        rows = torch.arange(len(block))
        block[rows, start + rows] = 0.0  # the distance to itself is the first of the k + 1 smallest
        out[start : start + len(block)] = block.kthvalue(NEIGHBOURS + 1, dim=1).values.numpy()
    return out
