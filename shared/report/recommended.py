"""Recommends one of a study's final trainings, by the verdict and the validation split alone; the test split is never asked.

The report's page names what it recommends, and `tailfill predict` and `tailfill export model` take it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.config.search import Verdict
from shared.config.stages import ReportConfig
from shared.data.schema import Labels, LabelSchema
from shared.errors import DataError
from shared.metrics.calibration import NEUTRAL, calibrated
from shared.metrics.classification import best_thresholds, fast_scores
from shared.metrics.table import metric_named
from shared.metrics.verdict import Outcome
from shared.report.inputs import Experiment, StudyInputs, read_validation
from shared.report.scores import Comparisons

WITHOUT_VERDICT = "macro_f1"
"""Names the metric by which the repetitions of a study without a verdict are compared."""
HELPS: tuple[Outcome, ...] = ("images help", "recipe helps")
"""Lists the outcomes for which the verdict recommends an arm in place of the baseline."""


@dataclass(frozen=True)
class ValidationScores:
    """Holds a metric on the validation split of an experiment's repetitions."""

    metric: str
    by_repetition: Mapping[int, float]
    """Maps each repetition to its value; NaN if it is not defined."""

    @property
    def best(self) -> int:
        """Returns the number of the repetition with the best value, the first of equal ones."""
        return max(self.by_repetition, key=lambda n: (self._worth(self.by_repetition[n]), -n))

    @property
    def mean_worth(self) -> float:
        """Returns the mean of the defined values, as a number that is the larger, the better it is."""
        known = [value for value in self.by_repetition.values() if not math.isnan(value)]
        return self._worth(float(np.mean(known)) if known else math.nan)

    def _worth(self, value: float) -> float:
        if math.isnan(value):
            return -math.inf
        return value if metric_named(self.metric).larger_is_better else -value


@dataclass(frozen=True)
class Recommended:
    """Names the experiment and the repetition whose model to use."""

    experiment: str
    repeat: int
    metric: str
    """Names the metric by which the repetition is the best of its experiment on the validation split."""
    validation: float | None
    """Gives its value; None if it is not defined."""
    among: int
    """Counts the repetitions of the experiment."""


def deciding_metric(verdict: Verdict | str) -> str:
    """Returns the name of the metric by which repetitions are compared on the validation split."""
    return verdict.metric if isinstance(verdict, Verdict) else WITHOUT_VERDICT


def validation_score(
    schema: LabelSchema, logits: NDArray[np.float32], labels: Labels, rare: NDArray[np.int64], metric: str
) -> float:
    """Returns a metric of a training on the validation split, for logits and labels `[m, C]`, before calibration; NaN if it is not defined."""
    p = calibrated(schema, logits, dict.fromkeys(schema.slices(), NEUTRAL))
    return fast_scores(schema, p, labels, rare, best_thresholds(schema, p, labels))[metric]


def recommend(
    config: ReportConfig, validation: Mapping[str, ValidationScores], judged: Comparisons | None
) -> Recommended | None:
    """Returns the best repetition of an arm that helps, of several the best on average on the validation split; if none does, of the baseline.

    Without a verdict it is that of the only experiment, and None if there are several. It is None if the experiment has no training, too.
    """
    if judged is not None:
        helping = [verdict.arm for verdict in judged.verdicts if verdict.outcome in HELPS]
        names = helping or [judged.rule.baseline]
    else:
        names = [config.experiments[0].name] if len(config.experiments) == 1 else []
    names = [name for name in names if name in validation]
    if not names:
        return None
    name = max(names, key=lambda each: validation[each].mean_worth)
    scores = validation[name]
    value = scores.by_repetition[scores.best]
    among = len(scores.by_repetition)
    return Recommended(name, scores.best, scores.metric, None if math.isnan(value) else value, among)


def best_of(study: StudyInputs, experiment: Experiment) -> ValidationScores:
    """Returns the scores of an experiment's repetitions on the validation split; raises DataError if one is missing or cannot be read."""
    metric, scores = deciding_metric(study.config.verdict), {}
    for repeat, result in experiment.finals.items():
        role = f"final/{experiment.config.name}/{repeat}"
        if "validation.parquet" not in result.files:
            raise DataError(f"{role}: has no validation.parquet; run it again (--rerun final)")
        try:
            logits, labels = read_validation(result.files["validation.parquet"], study.schema)
        except (ValueError, KeyError, TypeError) as error:
            said = " ".join(str(error).split())
            raise DataError(
                f"{role}: validation.parquet cannot be read ({said}); run it again (--rerun final)"
            ) from error
        scores[repeat] = validation_score(study.schema, logits, labels, study.rare, metric)
    return ValidationScores(metric, scores)
