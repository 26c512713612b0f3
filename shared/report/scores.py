"""Computes the scores of every repetition on the test split, and the comparisons of the study."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.config.search import Verdict
from shared.config.stages import ReportedExperiment
from shared.data.schema import LabelSchema
from shared.errors import DataError
from shared.metrics.classification import evaluate
from shared.metrics.counts import Floats, decide
from shared.metrics.resample import Decisions, clustered_interval, resampled_scores
from shared.metrics.table import METRICS, metric_named
from shared.metrics.verdict import Comparison, Interval, compare, contrast
from shared.report.inputs import Predictions, StudyInputs, read_predictions


@dataclass(frozen=True)
class Spread:
    """The mean and standard deviation of a number over repetitions."""

    mean: float | None
    sd: float | None
    """The standard deviation with n - 1 in the denominator; None with fewer than two values."""
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
    """Scores by (experiment, repeat), all on the same test images and with the study's own rare classes."""

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
    def decisions(self) -> Decisions:
        """The predicted classes of every repetition; the labels are empty if there is none."""
        labels = next((p.labels for p in self.predictions.values()), np.empty((0, self.schema.width), np.int8))
        decided = {who: decide(self.schema, p.probabilities, p.thresholds) for who, p in self.predictions.items()}
        return Decisions(self.schema, labels, self.rare, decided)


def score_study(study: StudyInputs) -> StudyScores:
    """Reads and scores all predictions; raises DataError if repetitions were tested on different images."""
    predictions: dict[tuple[str, int], Predictions] = {}
    committed: dict[tuple[str, int], dict[str, float | None]] = {}
    for experiment in study.experiments:
        for repeat, result in experiment.finals.items():
            role = f"final/{experiment.config.name}/{repeat}"
            read = read_predictions(result, study.schema, role)
            first = next(iter(predictions.values()), read)
            if read.paths != first.paths or not np.array_equal(read.labels, first.labels):
                raise DataError(f"{role}: was tested on other images than the others; run it again (--rerun final)")
            predictions[experiment.config.name, repeat] = read
            written = result.json("metrics.json") or {}
            committed[experiment.config.name, repeat] = {
                m.name: written.get(m.name) for m in METRICS if m.from_training
            }
    counts = study.info.train_counts()
    metrics = {
        who: evaluate(study.schema, p.probabilities, p.labels, study.rare, p.thresholds, counts) | committed[who]
        for who, p in predictions.items()
    }
    return StudyScores(study.schema, study.rare, predictions, metrics)


@dataclass(frozen=True)
class Comparisons:
    """The comparisons of the study: arms with the baseline (the verdicts), and synthetic arms with placebos."""

    rule: Verdict
    comparisons: list[Comparison]
    against_placebo: list[Comparison]
    all_zero: bool = False
    """Whether the metric is exactly 0, its worst, in every repetition of every arm, so that no difference can be found."""

    def of(self, arm: str) -> Comparison | None:
        """Returns an arm's comparison with the baseline."""
        return next((c for c in self.comparisons if c.arm == arm), None)


def judge(rule: Verdict, experiments: tuple[ReportedExperiment, ...], scores: StudyScores, seed: int) -> Comparisons:
    """Compares all arms with the baseline, and each synthetic arm with each placebo, by the rule's metric."""
    confidence = 1 - rule.alpha
    resampled: dict[tuple[str, int], Floats] = (
        resampled_scores(scores.decisions, rule.metric, seed) if scores.predictions else {}
    )

    def image_interval(arm: str, baseline: str, repeats: list[int]) -> Interval | None:
        return clustered_interval(resampled, arm, baseline, repeats, confidence, seed)

    values = {e.name: scores.values(e.name, rule.metric) for e in experiments}
    synthetic = [e.name for e in experiments if e.images == "real+synthetic"]
    copies = [e.name for e in experiments if e.images == "real+copies"]
    return Comparisons(
        rule,
        compare(values, rule.baseline, rule.metric, rule.alpha, image_interval),
        [
            contrast(values, arm, placebo, rule.metric, rule.alpha, image_interval)
            for arm in synthetic
            for placebo in copies
            if rule.baseline not in (arm, placebo)
        ],
        metric_named(rule.metric).larger_is_better and _all_zero(values.values()),
    )


def _all_zero(arms: Iterable[dict[int, float | None]]) -> bool:
    known = [value for values in arms for value in values.values() if value is not None]
    return bool(known) and not any(known)
