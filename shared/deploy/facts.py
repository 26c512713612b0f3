"""Gathers what a study knows of a model for its card: scores with intervals, counts of its data, and where it comes from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.manifest import Manifest
from shared.data.dataset import rare_classes
from shared.deploy.choose import Chosen, Repetition
from shared.metrics.abstention import Z, wilson
from shared.metrics.classification import evaluate
from shared.metrics.counts import decide
from shared.metrics.influence import influences
from shared.metrics.table import METRICS


@dataclass(frozen=True)
class Score:
    """Holds a metric of the model on the test split."""

    name: str
    label: str
    value: float | None
    interval: tuple[float, float] | None
    """Holds the 95 % interval over test images (or products, patients and the like), for this one training; None if it has none."""
    share: bool
    """Says whether it is a share, which is shown in per cent."""


@dataclass(frozen=True)
class ClassScore:
    """Holds a class's counts, and its scores on the test split."""

    name: str
    images: tuple[int, int, int]
    """Counts the images of train, val and test."""
    f1: float | None
    recall: float | None
    recall_interval: tuple[float, float] | None
    """Holds the 95 % interval of the recall (Wilson); None without a test image."""


@dataclass(frozen=True)
class Origin:
    """Holds a committed result from which the model or its numbers come."""

    role: str
    stage: str
    key: str
    digest: str


def scores(chosen: Chosen, repetition: Repetition) -> list[Score]:
    """Returns every metric of a repetition on the test split."""
    schema, test = chosen.info.schema_, repetition.test
    rare = rare_classes(chosen.study.written.rare, chosen.info)
    found = evaluate(
        schema, test.probabilities, test.labels, rare, test.thresholds, repetition.info.train_counts(), test.calibrated
    )
    decided = decide(schema, test.probabilities, test.thresholds)
    units = np.unique(test.units, return_inverse=True)[1].astype(np.int64)
    rows = []
    for metric in METRICS:
        value, interval = found.get(metric.name), None
        if metric.from_counts is not None and value is not None:
            each = influences(metric, schema, decided, test.labels, rare, units)
            error = float(each.std(ddof=1)) / math.sqrt(len(each)) if len(each) > 1 else math.nan
            interval = (max(0.0, value - Z * error), min(1.0, value + Z * error)) if math.isfinite(error) else None
        if metric.from_training is None and not (metric.rare and not len(rare)):
            rows.append(Score(metric.name, metric.label, value, interval, metric.format == "share"))
    return rows


def class_scores(chosen: Chosen, repetition: Repetition) -> list[ClassScore]:
    """Returns a row per class."""
    schema, test, counts = repetition.schema, repetition.test, repetition.info.counts
    none = np.zeros(0, np.int64)
    found = evaluate(schema, test.probabilities, test.labels, none, test.thresholds)["classes"]
    rows = []
    for name in schema.class_names:
        images = (counts["train"][name], counts["val"][name], counts["test"][name])
        recall, n = found[name]["recall"], found[name]["support"]
        rows.append(ClassScore(name, images, found[name]["f1"], recall, None if recall is None else wilson(recall, n)))
    return rows


def lineage(artifacts: Artifacts, manifest: Manifest, report: Manifest | None) -> list[Origin]:
    """Returns the model's result, all results that it was made from, and the report, each once.

    Raises ArtifactError if one of them is missing or changed.
    """
    seen: dict[str, Origin] = {}

    def visit(role: str, found: Manifest) -> Iterator[Origin]:
        if found.digest in seen:
            return
        seen[found.digest] = Origin(role, found.stage, found.key, found.digest)
        yield seen[found.digest]
        for inner, source in sorted(found.inputs.items()):
            yield from visit(inner, artifacts.open(source))

    origins = list(visit("model", manifest))
    if report is not None:
        origins.append(Origin("report", report.stage, report.key, report.digest))
    return origins
