"""Computes the scores of a classifier on labelled images: overall, per group and per class.

Unknown labels (-1) are masked everywhere. The scores of a class without a positive label are None, and means leave it out; predicting it
still counts against the true class. A group without any known label is left out likewise. `evaluate` returns JSON values: floats, or
None for a number that is not defined.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import Labels, LabelSchema
from shared.errors import DataError
from shared.metrics.counts import DEFAULT_THRESHOLD, Floats, count, decide
from shared.metrics.evaluation import Evaluation, operating_points
from shared.metrics.table import METRICS


def fast_scores(
    schema: LabelSchema,
    probabilities: NDArray[np.floating],
    labels: Labels,
    rare: NDArray[np.int64],
    thresholds: Floats | None = None,
) -> dict[str, float]:
    """Returns the metrics that are computed from counts alone, by name, fast enough for each epoch.

    A metric that is not defined is NaN, as is rare_macro_f1 without rare classes.
    """
    counts = count(decide(schema, probabilities, thresholds), labels)
    return {m.name: float(m.from_counts(schema, counts, rare)) for m in METRICS if m.from_counts is not None}


def evaluate(
    schema: LabelSchema,
    probabilities: NDArray[np.floating],
    labels: Labels,
    rare: NDArray[np.int64],
    thresholds: Floats | None = None,
    train_counts: NDArray[np.int64] | None = None,
    calibrated: NDArray[np.floating] | None = None,
) -> dict[str, Any]:
    """Returns the scores of probabilities `[n, C]` (softmax in a `one` group, sigmoid in an `any` group) against labels `[n, C]`.

    They are all of `METRICS` except those that need the training, then `groups` and `classes` by name. accuracy, balanced_accuracy,
    majority_accuracy, ece and nll are means over groups; macro_f1 and mean_average_precision are means over all classes, rare_macro_f1
    over the columns `rare`; group_macro_f1 is the mean over groups of their mean F1. exact_match is the share of images whose known
    labels are all predicted. In an `any` group a class is predicted from its threshold on (`[C]`, 0.5 by default).

    majority_accuracy is the accuracy of a constant prediction: in a `one` group of the most frequent class in training (`train_counts`
    `[C]`, or of these labels if it is not given), in an `any` group of each class's more frequent state among these labels.
    calibrated_ece and calibrated_nll are those of the probabilities `calibrated`, `[n, C]`, and None if these are not given.
    Raises DataError if probabilities are not finite because the training diverged.
    """
    _check(schema, probabilities, labels)
    seen = Evaluation(
        schema, probabilities, labels, decide(schema, probabilities, thresholds), rare, train_counts, calibrated
    )
    groups = {m.name: m.by_group(seen) for m in METRICS if m.by_group is not None}
    classes = {"ap": seen.average_precisions, "precision": seen.precision, "recall": seen.recall, "f1": seen.f1}
    support = seen.counts.support
    return {
        **_overall(seen),
        "groups": {
            group.name: {name: _defined(values[i]) for name, values in groups.items()}
            for i, group in enumerate(schema.groups)
        },
        "classes": {
            name: {**{key: _defined(values[i]) for key, values in classes.items()}, "support": int(support[i])}
            for i, name in enumerate(schema.class_names)
        },
    }


def _overall(seen: Evaluation) -> dict[str, float | None]:
    scores: dict[str, float | None] = {}
    for metric in METRICS:
        if metric.from_counts is not None:
            scores[metric.name] = _defined(float(metric.from_counts(seen.schema, seen.counts, seen.rare)))
        elif metric.from_evaluation is not None:
            scores[metric.name] = _defined(metric.from_evaluation(seen))
    return scores


def best_thresholds(schema: LabelSchema, probabilities: NDArray[np.floating], labels: Labels) -> Floats:
    """Returns the threshold per class, `[C]`, with the greatest F1 on these images.

    It is midway between the lowest probability above it and the next lower one. It is 0.5 in `one` groups, which do not use it, and for a
    class without a known positive.
    """
    thresholds = np.full(schema.width, DEFAULT_THRESHOLD)
    for name, columns in schema.slices().items():
        if schema.group(name).kind == "any":
            for column in range(columns.start, columns.stop):
                known = labels[:, column] >= 0
                if (labels[known, column] == 1).any():
                    thresholds[column] = _best_threshold(
                        probabilities[known, column].astype(np.float64), labels[known, column] == 1
                    )
    return thresholds


def _best_threshold(probabilities: Floats, positive: NDArray[np.bool_]) -> float:
    values, named, hits = operating_points(probabilities, positive)
    best = int((2 * hits / (named + positive.sum())).argmax())
    below = values[best + 1] if best + 1 < len(values) else 0.0
    return float((values[best] + below) / 2)


def _check(schema: LabelSchema, probabilities: NDArray[np.floating], labels: Labels) -> None:
    if probabilities.shape != labels.shape or probabilities.shape[1] != schema.width:
        raise DataError(
            f"probabilities {probabilities.shape} and labels {labels.shape}: must both be [n, {schema.width}]; "
            "they come from another data set"
        )
    if bad := int((~np.isfinite(probabilities)).any(axis=1).sum()):
        raise DataError(
            f"probabilities: not finite for {bad} of {len(labels)} images; the training diverged, lower training.lr"
        )


def _defined(value: float | np.floating) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number
