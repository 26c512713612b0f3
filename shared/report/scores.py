"""Computes the scores of every repetition on the test split, and the comparisons of the study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.config.search import Verdict
from shared.config.stages import ReportedExperiment
from shared.data.schema import LabelSchema
from shared.errors import DataError
from shared.metrics.classification import evaluate
from shared.metrics.counts import decide
from shared.metrics.forecast import ENOUGH_UNITS
from shared.metrics.influence import influences
from shared.metrics.table import METRICS, metric_named
from shared.metrics.verdict import ArmVerdict, Comparison, Measured, compare, give_verdicts
from shared.report.inputs import Predictions, StudyInputs, read_predictions

ALL_IMAGES = "all test images"


@dataclass(frozen=True)
class Spread:
    """Holds the mean and standard deviation of a number over repetitions."""

    mean: float | None
    sd: float | None
    """Gives the standard deviation with n - 1 in the denominator; None with fewer than two values."""
    n: int

    @classmethod
    def of(cls, values: list[float | None]) -> Spread:
        """Returns the spread of the values that are defined."""
        known = np.array([value for value in values if value is not None], np.float64)
        if not len(known):
            return cls(None, None, 0)
        return cls(float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else None, len(known))


@dataclass(frozen=True)
class StudyScores:
    """Holds the scores by (experiment, repeat), all on the same test images and with the study's own rare classes."""

    schema: LabelSchema
    rare: NDArray[np.int64]
    predictions: dict[tuple[str, int], Predictions]
    metrics: dict[tuple[str, int], dict[str, Any]] = field(repr=False)

    def values(self, experiment: str, metric: str) -> dict[int, float | None]:
        """Returns an overall metric by repetition."""
        return {repeat: scores[metric] for (name, repeat), scores in self.metrics.items() if name == experiment}

    def spread(self, experiment: str, metric: str) -> Spread:
        """Returns the spread of an overall metric over the repetitions."""
        return Spread.of(list(self.values(experiment, metric).values()))

    def class_spread(self, experiment: str, class_name: str, metric: str) -> Spread:
        """Returns the spread of a class's metric over the repetitions."""
        return Spread.of(
            [s["classes"][class_name][metric] for (name, _), s in self.metrics.items() if name == experiment]
        )

    def group_spread(self, experiment: str, group: str, metric: str) -> Spread:
        """Returns the spread of a group's metric over the repetitions."""
        return Spread.of([s["groups"][group][metric] for (name, _), s in self.metrics.items() if name == experiment])

    @cached_property
    def units(self) -> NDArray[np.int64]:
        """Returns the number of each test image's unit, `[n]` from 0, in the order of `Predictions.units`; empty if nothing was predicted."""
        first = next(iter(self.predictions.values()), None)
        return np.unique(first.units if first else [], return_inverse=True)[1].astype(np.int64)

    def unit_counts(self) -> NDArray[np.int64]:
        """Returns the number of test units with each class, `[C]`."""
        first = next(iter(self.predictions.values()), None)
        if first is None:
            return np.zeros(self.schema.width, np.int64)
        return np.array([len(np.unique(self.units[column == 1])) for column in first.labels.T], np.int64)

    def measured(self, metric: str) -> Measured:
        """Returns a metric of every repetition, with the influence of each test unit on it."""
        entry = metric_named(metric)
        values: dict[str, dict[int, float | None]] = {}
        influence = {}
        for (name, repeat), p in self.predictions.items():
            values.setdefault(name, {})[repeat] = self.metrics[name, repeat][metric]
            decided = decide(self.schema, p.probabilities, p.thresholds)
            influence[name, repeat] = influences(entry, self.schema, decided, p.labels, self.rare, self.units)
        return Measured(metric, values, influence)


def score_study(study: StudyInputs) -> StudyScores:
    """Reads and scores all predictions; raises DataError if repetitions were tested on different images."""
    predictions: dict[tuple[str, int], Predictions] = {}
    committed: dict[tuple[str, int], dict[str, float | None]] = {}
    for experiment in study.experiments:
        for repeat, result in experiment.finals.items():
            role = f"final/{experiment.config.name}/{repeat}"
            read = read_predictions(result, study.schema, role)
            first = next(iter(predictions.values()), read)
            if (read.paths, read.units) != (first.paths, first.units) or not np.array_equal(read.labels, first.labels):
                raise DataError(f"{role}: was tested on other images than the others; run it again (--rerun final)")
            predictions[experiment.config.name, repeat] = read
            written = result.json("metrics.json") or {}
            committed[experiment.config.name, repeat] = {
                m.name: written.get(m.name) for m in METRICS if m.from_training
            }
    counts = study.info.train_counts()
    metrics = {
        who: evaluate(study.schema, p.probabilities, p.labels, study.rare, p.thresholds, counts, p.calibrated)
        | committed[who]
        for who, p in predictions.items()
    }
    return StudyScores(study.schema, study.rare, predictions, metrics)


@dataclass(frozen=True)
class FewImages:
    """Names a judged class with so few test units that the interval may be too narrow."""

    name: str
    units: int


@dataclass(frozen=True)
class Comparisons:
    """Holds what the study compares: the arms with generated images, about which it gives verdicts, and further pairs of arms,
    which it only reports.
    """

    rule: Verdict
    verdicts: list[ArmVerdict]
    placebos: list[Comparison]
    """Compares the placebo arms with the baseline. They are readings, without correction."""
    others: list[Comparison]
    """Compares further arms, with real images only, with the baseline. They are readings, without correction."""
    few: list[FewImages] = field(default_factory=list)
    """Lists the judged classes with fewer than 20 test units; if the metric counts images, all test images are one class."""
    all_zero: bool = False
    """Says whether the metric is exactly 0, its worst, in every repetition of every arm, so that no difference can be found."""

    @property
    def with_baseline(self) -> list[Comparison]:
        """Lists all comparisons with the baseline, the verdicts first."""
        return [*(verdict.against_baseline for verdict in self.verdicts), *self.placebos, *self.others]

    @property
    def readings(self) -> list[Comparison]:
        """Lists all comparisons that are not verdicts, those of arms with placebos first."""
        return [*(c for verdict in self.verdicts for c in verdict.against_placebos), *self.placebos, *self.others]


def judge(rule: Verdict, experiments: tuple[ReportedExperiment, ...], scores: StudyScores) -> Comparisons:
    """Judges each arm with generated images against the baseline and the placebos, and compares the other arms with the baseline."""
    measured = scores.measured(rule.metric)
    values = {e.name: measured.values.get(e.name, {}) for e in experiments}
    measured = replace(measured, values=values)
    arms: dict[str, list[str]] = {"real+synthetic": [], "real+copies": [], "real": []}
    for experiment in experiments:
        if experiment.name != rule.baseline:
            arms[experiment.images].append(experiment.name)
    placebos = arms["real+copies"] if rule.compares == "images" else []
    return Comparisons(
        rule,
        give_verdicts(measured, rule.baseline, arms["real+synthetic"], placebos, rule.alpha),
        [compare(measured, arm, rule.baseline, rule.alpha) for arm in arms["real+copies"]],
        [compare(measured, arm, rule.baseline, rule.alpha) for arm in arms["real"]],
        _few(rule.metric, scores),
        metric_named(rule.metric).larger_is_better and _all_zero(values.values()),
    )


def _few(metric: str, scores: StudyScores) -> list[FewImages]:
    if not scores.predictions:
        return []
    judged = {ALL_IMAGES: int(scores.units.max(initial=-1)) + 1}
    if metric_named(metric).by_class:
        counts = scores.unit_counts()
        columns = scores.rare if metric_named(metric).rare else np.arange(scores.schema.width)
        judged = {scores.schema.class_names[c]: int(counts[c]) for c in columns if counts[c]}
    return [FewImages(name, units) for name, units in judged.items() if units < ENOUGH_UNITS]


def _all_zero(arms: Iterable[Mapping[int, float | None]]) -> bool:
    known = [value for values in arms for value in values.values() if value is not None]
    return bool(known) and not any(known)
