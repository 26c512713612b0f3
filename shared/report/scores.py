"""Computes the scores of every repetition on its test images, and the comparisons of the study."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.config.search import Verdict
from shared.config.stages import ReportedExperiment
from shared.data.schema import Labels, LabelSchema
from shared.errors import DataError
from shared.metrics.analysis import Analysis
from shared.metrics.classification import evaluate
from shared.metrics.counts import DecisionCounts, Floats, class_f1, class_precision, class_recall, count, decide
from shared.metrics.forecast import ENOUGH_UNITS
from shared.metrics.influence import Formula, influences_on
from shared.metrics.outer_folds import OuterFolds
from shared.metrics.table import METRICS, metric_named
from shared.metrics.two_way import TwoWay
from shared.metrics.verdict import ArmVerdict, Comparison, Measured, compare, give_verdicts
from shared.report.folds import PooledFolds
from shared.report.inputs import Predictions, StudyInputs, read_predictions

ALL_IMAGES = "all test images"
OF_CLASS = {"f1": class_f1, "precision": class_precision, "recall": class_recall}
"""Maps the scores of a class that are computed from counts to their formulas, `[..., C]`."""


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
    """Holds the scores by (experiment, repeat) with the study's own rare classes, all on the same test images, or on those of a fold each.

    If each repetition tests on a fold, a metric of counts has a pseudo-value per repetition: their mean is the metric of all images together.
    """

    schema: LabelSchema
    rare: NDArray[np.int64]
    predictions: dict[tuple[str, int], Predictions]
    metrics: dict[tuple[str, int], dict[str, Any]] = field(repr=False)
    folds: bool = False
    """Says whether each repetition tests on a fold of its own."""

    @property
    def analysis(self) -> type[Analysis]:
        """Returns how means over the repetitions are analysed."""
        return OuterFolds if self.folds else TwoWay

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
    def decided(self) -> dict[tuple[str, int], NDArray[np.bool_]]:
        """Returns the decisions of every repetition, `[n, C]`."""
        return {who: decide(self.schema, p.probabilities, p.thresholds) for who, p in self.predictions.items()}

    @cached_property
    def _pooled(self) -> dict[str, PooledFolds]:
        """Returns the decisions of all folds together, by experiment."""
        repeats: dict[str, list[int]] = {}
        for name, repeat in self.predictions:
            repeats.setdefault(name, []).append(repeat)
        return {
            name: PooledFolds.of(
                {r: self.predictions[name, r] for r in numbers}, {r: self.decided[name, r] for r in numbers}
            )
            for name, numbers in repeats.items()
        }

    @cached_property
    def _tested(self) -> tuple[NDArray[np.int64], Labels]:
        """Returns the number of each test image's unit, `[n]` from 0, and the labels `[n, C]`; empty if nothing was predicted."""
        if self.folds:
            pooled = next(iter(self._pooled.values()))
            return pooled.units, pooled.labels
        first = next(iter(self.predictions.values()), None)
        if first is None:
            return np.zeros(0, np.int64), np.zeros((0, self.schema.width), np.int8)
        return np.unique(first.units, return_inverse=True)[1].astype(np.int64), first.labels

    @property
    def units(self) -> int:
        """Counts the test units of all repetitions, each once."""
        return int(self._tested[0].max(initial=-1)) + 1

    def unit_counts(self) -> NDArray[np.int64]:
        """Returns the number of test units with each class, `[C]`."""
        units, labels = self._tested
        return np.array([len(np.unique(units[column == 1])) for column in labels.T], np.int64)

    def rows(self, formula: Formula, columns: Sequence[int] | slice = slice(None)) -> dict[tuple[str, int], Floats]:
        """Returns a row of values per repetition, one per test unit, for a formula of the counts of these classes.

        The mean of a row is the repetition's value: that on the test split, or the pseudo-value of its fold. It is NaN if that is not defined.
        """
        if self.folds:
            return {
                (name, repeat): row
                for name, pooled in self._pooled.items()
                for repeat, row in pooled.rows(formula, columns).items()
            }
        units, found = self._tested[0], {}
        for who, p in self.predictions.items():
            decided, labels = self.decided[who][:, columns], p.labels[:, columns]
            value = float(formula(count(decided, labels)))
            found[who] = value + influences_on(formula, decided, labels, units)
        return found

    def measured(self, metric: str) -> Measured:
        """Returns a metric of every repetition, with the influence of each test unit on it."""
        formula = metric_named(metric).from_counts
        assert formula is not None
        values: dict[str, dict[int, float | None]] = {}
        influence = {}
        for (name, repeat), row in self.rows(partial(_of_metric, formula, self.schema, self.rare)).items():
            value = self.metrics[name, repeat][metric]
            values.setdefault(name, {})[repeat] = value
            influence[name, repeat] = row - (np.nan if value is None else value)
        return Measured(metric, values, influence, self.analysis)


def score_study(study: StudyInputs) -> StudyScores:
    """Reads and scores all predictions; raises DataError if repetitions were tested on other images than they should have been."""
    predictions: dict[tuple[str, int], Predictions] = {}
    committed: dict[tuple[str, int], dict[str, float | None]] = {}
    first: dict[int, Predictions] = {}
    for experiment in study.experiments:
        for repeat, result in experiment.finals.items():
            role = f"final/{experiment.config.name}/{repeat}"
            read = read_predictions(result, study.schema, role)
            as_before = first.setdefault(repeat if study.folds else 0, read)
            if (read.paths, read.units) != (as_before.paths, as_before.units) or not np.array_equal(
                read.labels, as_before.labels
            ):
                raise DataError(f"{role}: was tested on other images than the others; run it again (--rerun final)")
            predictions[experiment.config.name, repeat] = read
            written = result.json("metrics.json") or {}
            committed[experiment.config.name, repeat] = {
                m.name: written.get(m.name) for m in METRICS if m.from_training
            }
    _check_disjoint(first)
    metrics = {
        (name, repeat): evaluate(
            study.schema, p.probabilities, p.labels, study.rare, p.thresholds, study.train_counts(repeat), p.calibrated
        )
        | committed[name, repeat]
        for (name, repeat), p in predictions.items()
    }
    scores = StudyScores(study.schema, study.rare, predictions, metrics, study.folds)
    if study.folds:
        _set_pseudo_values(scores)
    return scores


def _check_disjoint(folds: Mapping[int, Predictions]) -> None:
    """Raises DataError if a unit is tested in two folds."""
    seen: dict[str, int] = {}
    for repeat, read in folds.items():
        for unit in set(read.units):
            if seen.setdefault(unit, repeat) != repeat:
                raise DataError(
                    f"final/*/{repeat}: was tested on images of fold {seen[unit]}, too; run it again (--rerun final)"
                )


def _set_pseudo_values(scores: StudyScores) -> None:
    """Replaces the metrics of counts of each repetition, over all, by group and by class, by the pseudo-values of its fold."""
    schema, rare, none = scores.schema, scores.rare, np.zeros(0, np.int64)

    def replace_by(formula: Formula, columns: Sequence[int] | slice, *path: str) -> None:
        for who, row in scores.rows(formula, columns).items():
            place = scores.metrics[who]
            for key in path[:-1]:
                place = place[key]
            value = float(row.mean())
            place[path[-1]] = None if math.isnan(value) else value

    for metric in METRICS:
        if metric.from_counts is None:
            continue
        replace_by(partial(_of_metric, metric.from_counts, schema, rare), slice(None), metric.name)
        for group in schema.groups if metric.by_group is not None else ():
            alone = partial(_of_metric, metric.from_counts, LabelSchema(groups=(group,)), none)
            replace_by(alone, schema.slices()[group.name], "groups", group.name, metric.name)
    for column, name in enumerate(schema.class_names):
        for score, of_class in OF_CLASS.items():
            replace_by(partial(only_class, of_class), [column], "classes", name, score)


def _of_metric(
    formula: Callable[[LabelSchema, DecisionCounts, NDArray[np.int64]], Floats],
    schema: LabelSchema,
    rare: NDArray[np.int64],
    counts: DecisionCounts,
) -> Floats:
    return formula(schema, counts, rare)


def only_class(of_class: Formula, counts: DecisionCounts) -> Floats:
    """Returns the score of the only class of the counts, `[...]`, for a formula of the scores of classes, `[..., C]`."""
    return of_class(counts)[..., 0]


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
    folds: bool = False
    """Says whether each repetition tests on a fold of its own."""

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
        scores.folds,
    )


def _few(metric: str, scores: StudyScores) -> list[FewImages]:
    if not scores.predictions:
        return []
    judged = {ALL_IMAGES: scores.units}
    if metric_named(metric).by_class:
        counts = scores.unit_counts()
        columns = scores.rare if metric_named(metric).rare else np.arange(scores.schema.width)
        judged = {scores.schema.class_names[c]: int(counts[c]) for c in columns if counts[c]}
    return [FewImages(name, units) for name, units in judged.items() if units < ENOUGH_UNITS]


def _all_zero(arms: Iterable[Mapping[int, float | None]]) -> bool:
    known = [value for values in arms for value in values.values() if value is not None]
    return bool(known) and not any(known)
