"""How a set of generated images relates to a set of real ones, on features: KID, and precision, recall, density, coverage."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from shared.score.neighbours import Features, squared_distances

SUBSETS, SUBSET_SIZE = 50, 1000  # of KID's mean (Bińkowski et al. 2018: 100 subsets of 1000)
NEIGHBOURS = 5  # k of precision, recall, density and coverage, as in Naeem et al. 2020


def kernel_distance(real: Features, generated: Features, seed: int) -> float | None:
    """KID: the squared maximum mean discrepancy with the kernel (x·y / F + 1)³, mean of unbiased estimates over random subsets.

    Bińkowski et al. 2018, Demystifying MMD GANs. About 0 where both sets have one distribution (it may lie a little below); None with
    fewer than two images in a set.
    """
    size = min(SUBSET_SIZE, len(real), len(generated))
    if size < 2:
        return None
    rng = np.random.default_rng(seed)
    # one subset is all there is where both sets are no larger than it
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
    """`precision`, `recall`, `density`, `coverage` (Naeem et al. 2020, Reliable Fidelity and Diversity Metrics), k = 5.

    A real image's ball reaches to its k-th nearest real neighbour. Precision: share of generated images in a real ball; density: mean
    number of real balls a generated image lies in, over k (may exceed 1); coverage: share of real balls with a generated image;
    recall: share of real images in a generated ball. None each where a set has no k + 1 images.
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
    """Squared distance of each row to its k-th nearest other, `[n]`."""
    out = np.empty(len(points), np.float32)
    for start, block in squared_distances(points, points):
        rows = torch.arange(len(block))
        block[rows, start + rows] = 0.0  # itself, the first of the k + 1 smallest
        out[start : start + len(block)] = block.kthvalue(NEIGHBOURS + 1, dim=1).values.numpy()
    return out
