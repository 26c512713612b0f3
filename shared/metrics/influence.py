"""Computes how much each test unit influences a metric: the linear part of the metric in the weights of the units.

A unit is what was sampled into the test split as one: an image, or all images of one product or patient. The infinitesimal jackknife (Jaeckel 1972;
Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, chapter 6) approximates the error of a metric T by that of a mean: with a
weight per unit, 1 for each of n, unit i has the influence n dT/dw_i. The influences of a metric of shares sum to 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import Labels, LabelSchema
from shared.metrics.counts import DecisionCounts, Floats, class_f1, hits_of
from shared.metrics.table import Metric

STEP = 1e-100  # nothing is subtracted, so the step may be so small that its square vanishes


def influences(
    metric: Metric,
    schema: LabelSchema,
    decided: NDArray[np.bool_],
    labels: Labels,
    rare: NDArray[np.int64],
    units: NDArray[np.int64],
) -> Floats:
    """Returns the influence of each unit on the metric, `[..., units]`, for decisions `[..., n, C]`, labels `[n, C]` and the unit of each image, `[n]`.

    Units are numbered from 0 without a gap. An influence is the derivative of the metric's own formula along what the unit adds to the
    counts, NaN if the metric is not defined. It is taken by a complex step, which is exact to rounding: Im f(x + ih) / h (Squire
    and Trapp 1998, SIAM Review 40). Raises ValueError for a metric that is not computed from counts.
    """
    if metric.from_counts is None:
        raise ValueError(f"{metric.name}: has no influence per image, as it is not computed from counts alone")
    formula = metric.from_counts
    return _derivative(lambda counts: formula(schema, counts, rare), decided, labels, units)


def class_f1_influences(decided: NDArray[np.bool_], labels: NDArray[np.int8], units: NDArray[np.int64]) -> Floats:
    """Returns the influence of each unit on F1 of one class, `[units]`, for its decisions and labels `[n]`, and the unit of each image, `[n]`.

    It is NaN for a class without a positive label.
    """
    return _derivative(lambda counts: class_f1(counts)[..., 0], decided[:, None], labels[:, None], units)


def _derivative(
    formula: Callable[[DecisionCounts], Floats], decided: NDArray[np.bool_], labels: Labels, units: NDArray[np.int64]
) -> Floats:
    """Returns n times the derivative of a formula of counts along what each of the n units adds to them, `[..., units]`.

    By the chain rule: the formula's derivative in each count, times what the images of a unit add to that count.
    """
    hits = hits_of(decided, labels)
    gradients = _gradients(formula, DecisionCounts(*(kind.sum(axis=-2, dtype=np.float64) for kind in hits)))
    of_images = sum((kind @ along[..., None])[..., 0] for kind, along in zip(hits, gradients, strict=True))
    order = np.argsort(units, kind="stable")
    first = np.flatnonzero(np.diff(units[order], prepend=-1))
    return len(first) * np.add.reduceat(np.asarray(of_images)[..., order], first, axis=-1)


def _gradients(formula: Callable[[DecisionCounts], Floats], counts: DecisionCounts) -> list[Floats]:
    """Returns the derivatives of a formula in each of the counts `[..., C]`, an array `[..., C]` per kind of count; NaN if it is not defined."""
    along_classes = 1j * STEP * np.eye(counts.tp.shape[-1])
    gradients = []
    for kind in range(len(counts)):
        stepped = [count[..., None, :] + along_classes * (other == kind) for other, count in enumerate(counts)]
        moved = formula(DecisionCounts(*(cast(Floats, count) for count in stepped)))
        gradients.append(np.where(np.isnan(moved), np.nan, np.imag(moved) / STEP))
    return gradients
