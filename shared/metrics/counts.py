"""Computes decisions, their counts per class, and the scores that follow from counts alone.

Every count array ends in the class axis `[..., C]`. The formulas use no operation that complex numbers lack, as `shared.metrics.influence`
takes their derivatives by a complex step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import Labels, LabelSchema

Floats = NDArray[np.float64]
DEFAULT_THRESHOLD = 0.5


class DecisionCounts(NamedTuple):
    """Counts true and false positives and negatives per class, `[..., C]`, without unknown labels."""

    tp: Floats
    fp: Floats
    fn: Floats
    tn: Floats

    @property
    def support(self) -> Floats:
        """Counts the images that are known to have the class, `[..., C]`."""
        return self.tp + self.fn


def decide(
    schema: LabelSchema, probabilities: NDArray[np.floating], thresholds: Floats | None = None
) -> NDArray[np.bool_]:
    """Returns the predicted classes, `[n, C]`.

    In a `one` group that is the most probable class (the first of equal ones), in an `any` group each class whose probability is at least
    its threshold (`[C]`, 0.5 by default).
    """
    limits = np.full(schema.width, DEFAULT_THRESHOLD) if thresholds is None else thresholds
    decided = np.zeros(probabilities.shape, bool)
    for name, columns in schema.slices().items():
        block = probabilities[:, columns]
        if schema.group(name).kind == "one":
            decided[np.arange(len(block)), columns.start + block.argmax(axis=1)] = True
        else:
            decided[:, columns] = block >= limits[columns]
    return decided


def thresholds_by_class(schema: LabelSchema, thresholds: Floats) -> dict[str, float]:
    """Returns the thresholds `[C]` of the classes of `any` groups by class, as files hold them."""
    return {name: float(thresholds[i]) for i, name in enumerate(schema.class_names) if schema.group_of(i).kind == "any"}


def threshold_array(schema: LabelSchema, by_class: Mapping[str, float]) -> Floats:
    """Returns the thresholds of all classes, `[C]`, from those that files hold by class; 0.5 for the others."""
    return np.array([float(by_class.get(name, DEFAULT_THRESHOLD)) for name in schema.class_names])


def hits_of(decided: NDArray[np.bool_], labels: Labels) -> tuple[NDArray[np.bool_], ...]:
    """Returns which decisions `[..., n, C]` are true and false positives, false negatives and true negatives of labels `[n, C]` (-1 is masked)."""
    positive, negative = labels == 1, labels == 0
    return decided & positive, decided & negative, ~decided & positive, ~decided & negative


def count(decided: NDArray[np.bool_], labels: Labels) -> DecisionCounts:
    """Counts decisions `[n, C]` against labels `[n, C]` (-1 is masked)."""
    return DecisionCounts(*(hits.sum(axis=0, dtype=np.float64) for hits in hits_of(decided, labels)))


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Returns the elementwise quotient, NaN if the denominator is 0."""
    defined = np.real(denominator) > 0
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)


def mean_defined(values: Floats) -> Floats:
    """Returns the mean over the last axis of values that are not NaN; NaN if all are."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))


def class_f1(counts: DecisionCounts) -> Floats:
    """Returns 2 TP / (2 TP + FP + FN) per class, `[..., C]`; NaN for a class without a positive label."""
    f1 = ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)
    return np.asarray(np.where(np.real(counts.support) > 0, f1, np.nan))


def class_recall(counts: DecisionCounts) -> Floats:
    """Returns TP / (TP + FN) per class, `[..., C]`; NaN for a class without a positive label."""
    return ratio(counts.tp, counts.support)


def class_precision(counts: DecisionCounts) -> Floats:
    """Returns TP / (TP + FP) per class, `[..., C]`; NaN for a class without a positive label, and for one that was never predicted."""
    precision = ratio(counts.tp, counts.tp + counts.fp)
    return np.asarray(np.where(np.real(counts.support) > 0, precision, np.nan))


def group_accuracy(schema: LabelSchema, counts: DecisionCounts) -> Floats:
    """Returns the accuracy per group, `[..., G]`: over images with a known class (`one`), over known entries (`any`)."""
    shares = []
    for name, columns in schema.slices().items():
        tp, fn = counts.tp[..., columns].sum(axis=-1), counts.fn[..., columns].sum(axis=-1)
        if schema.group(name).kind == "one":
            shares.append(ratio(tp, tp + fn))
        else:
            tn, fp = counts.tn[..., columns].sum(axis=-1), counts.fp[..., columns].sum(axis=-1)
            shares.append(ratio(tp + tn, tp + tn + fp + fn))
    return np.stack(shares, axis=-1)


def group_balanced_accuracy(schema: LabelSchema, counts: DecisionCounts) -> Floats:
    """Returns per group the mean over classes with support of recall (`one`) or of the mean of recall and specificity (`any`), `[..., G]`."""
    recall = ratio(counts.tp, counts.support)
    specificity = ratio(counts.tn, counts.tn + counts.fp)
    both = np.where(np.isnan(specificity), recall, (recall + specificity) / 2)
    shares = [
        mean_defined((recall if schema.group(name).kind == "one" else both)[..., columns])
        for name, columns in schema.slices().items()
    ]
    return np.stack(shares, axis=-1)
