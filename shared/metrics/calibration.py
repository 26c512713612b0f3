"""Calibrates probabilities: divides a group's logits by one number, its temperature, which is fitted on the validation split.

A classifier that is trained for long is mostly too sure of itself. Temperature scaling (Guo et al. 2017, *On Calibration of Modern Neural
Networks*) mends that with one number and changes no decision of a `one` group, as the order of its logits stays. In an `any` group the logit of
each class is divided alike, and its threshold moves with it (`calibrated_thresholds`), so that these decisions stay too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from shared.config.base import Section
from shared.data.schema import Labels, LabelSchema
from shared.metrics.counts import Floats

LEAST, MOST = 0.05, 20.0
"""Bound a temperature, so that a small validation split cannot make it extreme."""
NEUTRAL = 1.0
"""Gives the temperature that changes nothing."""

Temperatures = Mapping[str, float]
"""Maps each label group to its temperature."""


class Calibration(Section):
    """Holds what a final training commits to calibrate its logits."""

    temperatures: dict[str, Annotated[float, Field(gt=0)]]
    """Maps each label group to its temperature."""
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]]
    """Maps each class of the `any` groups to the calibrated probability from which it is predicted."""


def fit_temperatures(schema: LabelSchema, logits: NDArray[np.floating], labels: Labels) -> dict[str, float]:
    """Returns the temperature of each group with the least negative log-likelihood of labels `[n, C]` (-1 is unknown), given logits `[n, C]`.

    It lies between LEAST and MOST. It is NEUTRAL for a group without a known label, and for one whose known labels are all predicted: the
    likelihood then grows without end as the temperature falls, which says how few images there are, and not how sure to be.
    """
    return {
        name: _fitted(schema.group(name).kind == "one", logits[:, columns].astype(np.float64), labels[:, columns])
        for name, columns in schema.slices().items()
    }


def calibrated(schema: LabelSchema, logits: NDArray[np.floating], temperatures: Temperatures) -> NDArray[np.float32]:
    """Returns the calibrated probabilities `[n, C]` of logits `[n, C]`: the softmax over each `one` group of its logits by its temperature,
    and the sigmoid of theirs in each `any` group."""
    out = np.empty(logits.shape, np.float32)
    for name, columns in schema.slices().items():
        scaled = logits[:, columns].astype(np.float64) / temperatures[name]
        if schema.group(name).kind == "one":
            out[:, columns] = np.exp(_log_softmax(scaled))
        else:
            out[:, columns] = np.exp(-np.logaddexp(0, -scaled))
    return out


def calibrated_thresholds(schema: LabelSchema, thresholds: Floats, temperatures: Temperatures) -> Floats:
    """Returns thresholds `[C]` of calibrated probabilities that decide as the given ones, `[C]`, do of probabilities as they were."""
    moved = thresholds.astype(np.float64).copy()
    for name, columns in schema.slices().items():
        if schema.group(name).kind == "any":
            inner = np.clip(moved[columns], 1e-12, 1 - 1e-12)
            moved[columns] = 1 / (1 + np.exp(-np.log(inner / (1 - inner)) / temperatures[name]))
    return moved


def _fitted(one: bool, logits: Floats, labels: Labels) -> float:
    from scipy.optimize import minimize_scalar

    if one:
        known = (labels == 1).any(axis=1)
        logits, right = logits[known], labels[known].argmax(axis=1)
        if not len(right) or (logits.argmax(axis=1) == right).all():
            return NEUTRAL
    else:
        # each known label is a question of its own, and the logit of its true answer has the sign of the label
        logits = np.where(labels == 1, logits, -logits)[labels >= 0]
        if not len(logits) or (logits > 0).all():
            return NEUTRAL

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        if one:
            return float(-_log_softmax(scaled)[np.arange(len(right)), right].mean())
        return float(np.logaddexp(0, -scaled).mean())

    # the loss is convex in 1 / temperature, so that it has one minimum
    found = minimize_scalar(loss, bounds=(math.log(LEAST), math.log(MOST)), method="bounded", options={"xatol": 1e-6})
    return float(math.exp(found.x))


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
