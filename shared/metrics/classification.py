"""How well a classifier does on labelled images: overall, a group and a class.

Unknown labels (-1) are masked everywhere. A class that no known label of the images has says nothing: its own numbers are None and
means leave it out (predicting it still costs the class that was right). A group without any known label is left out likewise.
What `evaluate` returns is JSON: floats, or None where a number is not defined.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import Labels, LabelSchema
from shared.errors import DataError
from shared.metrics.counts import (
    DEFAULT_THRESHOLD,
    Floats,
    class_f1,
    count,
    decide,
    group_accuracy,
    group_balanced_accuracy,
    mean_defined,
    ratio,
    summary_scores,
)

CALIBRATION_BINS = 15  # of equal width, as in Guo et al. 2017
SMALLEST_PROBABILITY = 1e-7  # probabilities are float32: keeps the log-likelihood of a confident mistake finite


def fast_scores(
    schema: LabelSchema,
    probabilities: NDArray[np.floating],
    labels: Labels,
    rare: NDArray[np.int64],
    thresholds: Floats | None = None,
) -> dict[str, float]:
    """accuracy, macro_f1, rare_macro_f1 and balanced_accuracy (see `evaluate`), quick enough for each epoch; NaN where not defined
    (rare_macro_f1 without rare classes)."""
    scores = summary_scores(schema, count(decide(schema, probabilities, thresholds), labels), rare)
    return {name: float(value) for name, value in scores.items()}


def evaluate(
    schema: LabelSchema,
    probabilities: NDArray[np.floating],
    labels: Labels,
    rare: NDArray[np.int64],
    thresholds: Floats | None = None,
    train_counts: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Scores of probabilities `[n, C]` (softmax a `one` group, sigmoid an `any` group) against labels `[n, C]`.

    accuracy, balanced_accuracy, majority_accuracy, ece and nll are means over groups; macro_f1 and mean_average_precision over all
    classes; group_macro_f1 the mean over groups of each one's mean;
    rare_macro_f1 over the columns `rare`; exact_match is the share of images whose known labels are all right. In an `any`
    group a class is named from its threshold on (`[C]`, 0.5 by default).

    majority_accuracy is what always the same answer scores: in a `one` group the most frequent class of training (`train_counts`
    `[C]`; of these labels where it is not given), in an `any` group each class's commoner state among these labels.
    Raises DataError where probabilities are not finite: such a classifier diverged.
    """
    _check(schema, probabilities, labels)
    decided = decide(schema, probabilities, thresholds)
    counts = count(decided, labels)
    ap = _average_precisions(probabilities, labels)
    f1, recall = class_f1(counts), ratio(counts.tp, counts.support)
    precision = np.where(counts.support > 0, ratio(counts.tp, counts.tp + counts.fp), np.nan)
    group_f1 = np.array([mean_defined(f1[columns]) for columns in schema.slices().values()])
    columns_of = {
        "accuracy": group_accuracy(schema, counts),
        "macro_f1": group_f1,
        "balanced_accuracy": group_balanced_accuracy(schema, counts),
        "majority_accuracy": _majority_accuracy(schema, labels, train_counts),
        "ece": _calibration_errors(schema, probabilities, labels),
        "nll": _log_losses(schema, probabilities, labels),
    }
    overall = {name: float(value) for name, value in summary_scores(schema, counts, rare).items()}
    for name in ("majority_accuracy", "ece", "nll"):
        overall[name] = float(mean_defined(columns_of[name]))
    overall["group_macro_f1"] = float(mean_defined(group_f1))
    overall["exact_match"] = _exact_match(decided, labels)
    overall["mean_average_precision"] = float(mean_defined(ap))
    classes = {"ap": ap, "precision": precision, "recall": recall, "f1": f1}
    return {
        **{name: _defined(value) for name, value in overall.items()},
        "groups": {
            group.name: {name: _defined(values[i]) for name, values in columns_of.items()}
            for i, group in enumerate(schema.groups)
        },
        "classes": {
            name: {**{key: _defined(values[i]) for key, values in classes.items()}, "support": int(counts.support[i])}
            for i, name in enumerate(schema.class_names)
        },
    }


def best_thresholds(schema: LabelSchema, probabilities: NDArray[np.floating], labels: Labels) -> Floats:
    """Threshold a class, `[C]`, with the greatest F1 on these images: midway between the last probability that it lets in and the
    next lower one. 0.5 in `one` groups, where none is used, and for a class without a known positive."""
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
    values, named, hits = _operating_points(probabilities, positive)
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


def _average_precisions(probabilities: NDArray[np.floating], labels: Labels) -> Floats:
    """Average precision a class over the images whose label is known, the sum of (R_k - R_(k-1)) P_k over distinct thresholds, as
    scikit-learn has it (whose checks of its arguments take longer than the sum, times classes and repetitions); NaN without a positive."""
    scores = np.full(labels.shape[1], np.nan)
    for column in range(labels.shape[1]):
        known = labels[:, column] >= 0
        positive = labels[known, column] == 1
        if positive.any():
            _, named, hits = _operating_points(probabilities[known, column], positive)
            scores[column] = (np.diff(hits, prepend=0) * hits / named).sum() / positive.sum()
    return scores


def _operating_points(
    probabilities: NDArray[np.floating], positive: NDArray[np.bool_]
) -> tuple[Floats, Floats, Floats]:
    """The distinct probabilities from the highest down, how many images are named from each on, and how many of them rightly."""
    order = np.argsort(-probabilities, kind="stable")
    ordered, hits = probabilities[order], np.cumsum(positive[order])
    ends = np.flatnonzero(
        np.append(np.diff(ordered) != 0, True)
    )  # the last of equal ones: a threshold cannot part them
    return np.asarray(ordered[ends], np.float64), np.asarray(ends + 1, np.float64), np.asarray(hits[ends], np.float64)


def _exact_match(decided: NDArray[np.bool_], labels: Labels) -> float:
    known = labels >= 0
    judged = known.any(axis=1)
    right = (~known | (decided == (labels == 1))).all(axis=1)
    return float(right[judged].mean()) if judged.any() else math.nan


def _majority_accuracy(schema: LabelSchema, labels: Labels, train_counts: NDArray[np.int64] | None) -> Floats:
    shares = []
    for name, columns in schema.slices().items():
        block = labels[:, columns]
        positive = (block == 1).sum(axis=0)
        if schema.group(name).kind == "one":
            answer = int((positive if train_counts is None else train_counts[columns]).argmax())
            right, total = positive[answer], positive.sum()
        else:
            right, total = np.maximum(positive, (block == 0).sum(axis=0)).sum(), (block >= 0).sum()
        shares.append(float(right / total) if total else math.nan)
    return np.array(shares)


def _calibration_errors(schema: LabelSchema, probabilities: NDArray[np.floating], labels: Labels) -> Floats:
    """Expected calibration error a group: of the named class (`one`), of the likelier state of each entry (`any`)."""
    errors = []
    for confidence, right in (confidences(schema, name, probabilities, labels) for name in schema.slices()):
        errors.append(_calibration_error(confidence, right))
    return np.array(errors)


def confidences(
    schema: LabelSchema, group: str, probabilities: NDArray[np.floating], labels: Labels
) -> tuple[Floats, NDArray[np.bool_]]:
    """How sure each answer of a group with a known label was, and whether it was right."""
    columns = schema.slices()[group]
    p, y = probabilities[:, columns].astype(np.float64), labels[:, columns]
    if schema.group(group).kind == "one":
        known = (y == 1).any(axis=1)
        return p[known].max(axis=1), p[known].argmax(axis=1) == y[known].argmax(axis=1)
    p, y = p[y >= 0], y[y >= 0]
    return np.maximum(p, 1 - p), (p >= DEFAULT_THRESHOLD) == (y == 1)


def _calibration_error(confidence: Floats, right: NDArray[np.bool_]) -> float:
    if not len(confidence):
        return math.nan
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gap = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(confidence))


def _log_losses(schema: LabelSchema, probabilities: NDArray[np.floating], labels: Labels) -> Floats:
    """Mean negative log-likelihood a group: of the true class (`one`), of each entry's state (`any`)."""
    losses = []
    for name, columns in schema.slices().items():
        p = np.clip(probabilities[:, columns].astype(np.float64), SMALLEST_PROBABILITY, 1.0)
        y = labels[:, columns]
        logs = np.log(p)[y == 1]
        if schema.group(name).kind == "any":
            complement = np.clip(1 - probabilities[:, columns].astype(np.float64), SMALLEST_PROBABILITY, 1.0)
            logs = np.concatenate([logs, np.log(complement)[y == 0]])
        losses.append(float(-logs.mean()) if len(logs) else math.nan)
    return np.array(losses)


def _defined(value: float | np.floating) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number
