"""Holds probabilities and labels, and computes the arrays that several metrics use, each once, when it is first used."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import Labels, LabelSchema
from shared.metrics.counts import (
    DEFAULT_THRESHOLD,
    DecisionCounts,
    Floats,
    class_f1,
    class_precision,
    class_recall,
    count,
    mean_defined,
)

CALIBRATION_BINS = 15  # bins of equal width, as in Guo et al. 2017
SMALLEST_PROBABILITY = 1e-7  # probabilities are float32: keeps the log-likelihood of a confident mistake finite


@dataclass(frozen=True)
class Evaluation:
    """Holds one prediction of a labelled image set. Arrays that end in C have a number per class, those that end in G one per group."""

    schema: LabelSchema
    probabilities: NDArray[np.floating]
    """Holds probabilities `[n, C]`."""
    labels: Labels
    """Holds labels `[n, C]`."""
    decided: NDArray[np.bool_]
    """Holds the predicted classes, `[n, C]`."""
    rare: NDArray[np.int64]
    """Holds the columns of the rare classes."""
    train_counts: NDArray[np.int64] | None
    """Counts the training images per class, `[C]`, if it is known."""
    calibrated: NDArray[np.floating] | None = None
    """Holds the calibrated probabilities `[n, C]` of the same decisions; None if they are not calibrated."""

    @cached_property
    def counts(self) -> DecisionCounts:
        """Counts the decisions, `[C]` each."""
        return count(self.decided, self.labels)

    @cached_property
    def f1(self) -> Floats:
        """Returns F1 `[C]`; NaN for a class without support."""
        return class_f1(self.counts)

    @cached_property
    def recall(self) -> Floats:
        """Returns recall `[C]`; NaN for a class without support."""
        return class_recall(self.counts)

    @cached_property
    def precision(self) -> Floats:
        """Returns precision `[C]`; NaN for a class without support, and for one that was never predicted."""
        return class_precision(self.counts)

    @cached_property
    def group_f1(self) -> Floats:
        """Returns the mean F1 of each group's classes, `[G]`."""
        return np.array([mean_defined(self.f1[columns]) for columns in self.schema.slices().values()])

    @cached_property
    def average_precisions(self) -> Floats:
        """Returns the average precision `[C]` over the images whose label is known; NaN without a positive.

        It is the sum of (R_k - R_(k-1)) P_k over distinct thresholds, as in scikit-learn, whose checks of arguments take longer than the
        sum itself.
        """
        scores = np.full(self.labels.shape[1], np.nan)
        for column in range(self.labels.shape[1]):
            known = self.labels[:, column] >= 0
            positive = self.labels[known, column] == 1
            if positive.any():
                _, named, hits = operating_points(self.probabilities[known, column], positive)
                scores[column] = (np.diff(hits, prepend=0) * hits / named).sum() / positive.sum()
        return scores

    @cached_property
    def exact_match(self) -> float:
        """Returns the share of images whose known labels are all predicted; NaN if no label is known."""
        known = self.labels >= 0
        judged = known.any(axis=1)
        right = (~known | (self.decided == (self.labels == 1))).all(axis=1)
        return float(right[judged].mean()) if judged.any() else math.nan

    @cached_property
    def majority_accuracies(self) -> Floats:
        """Returns the accuracy of a constant prediction, `[G]`.

        In a `one` group it predicts the most frequent class in training (of these labels if `train_counts` is None), in an `any` group
        each class's more frequent state among these labels.
        """
        shares = []
        for name, columns in self.schema.slices().items():
            block = self.labels[:, columns]
            positive = (block == 1).sum(axis=0)
            if self.schema.group(name).kind == "one":
                answer = int((positive if self.train_counts is None else self.train_counts[columns]).argmax())
                right, total = positive[answer], positive.sum()
            else:
                right, total = np.maximum(positive, (block == 0).sum(axis=0)).sum(), (block >= 0).sum()
            shares.append(float(right / total) if total else math.nan)
        return np.array(shares)

    @cached_property
    def calibration_errors(self) -> Floats:
        """Returns the expected calibration error `[G]`: of the predicted class (`one`), of the more probable state of each entry (`any`)."""
        answers = (confidences(self.schema, name, self.probabilities, self.labels) for name in self.schema.slices())
        return np.array([_calibration_error(confidence, right) for confidence, right in answers])

    @cached_property
    def after_calibration(self) -> Evaluation | None:
        """Returns the evaluation of the calibrated probabilities; None if there are none."""
        return None if self.calibrated is None else replace(self, probabilities=self.calibrated, calibrated=None)

    @cached_property
    def log_losses(self) -> Floats:
        """Returns the mean negative log-likelihood `[G]`: of the true class (`one`), of each entry's state (`any`)."""
        losses = []
        for name, columns in self.schema.slices().items():
            p = np.clip(self.probabilities[:, columns].astype(np.float64), SMALLEST_PROBABILITY, 1.0)
            y = self.labels[:, columns]
            logs = np.log(p)[y == 1]
            if self.schema.group(name).kind == "any":
                complement = np.clip(1 - self.probabilities[:, columns].astype(np.float64), SMALLEST_PROBABILITY, 1.0)
                logs = np.concatenate([logs, np.log(complement)[y == 0]])
            losses.append(float(-logs.mean()) if len(logs) else math.nan)
        return np.array(losses)


def operating_points(probabilities: NDArray[np.floating], positive: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Returns the distinct probabilities in descending order, and for each as a threshold the predicted and the true positives."""
    order = np.argsort(-probabilities, kind="stable")
    ordered, hits = probabilities[order], np.cumsum(positive[order])
    ends = np.flatnonzero(
        np.append(np.diff(ordered) != 0, True)
    )  # the last of equal ones: a threshold cannot separate them
    return np.asarray(ordered[ends], np.float64), np.asarray(ends + 1, np.float64), np.asarray(hits[ends], np.float64)


def confidences(
    schema: LabelSchema, group: str, probabilities: NDArray[np.floating], labels: Labels
) -> tuple[Floats, NDArray[np.bool_]]:
    """Returns the confidence of each prediction of a group with a known label, and whether it was right."""
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
