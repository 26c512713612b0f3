"""Estimates F1 of every class in every arm, its gain over the baseline, and the worst class and group of each arm, with intervals.

The intervals are those of the verdict's own estimator (`shared.metrics.analysis`): over other repetitions and other test images. They are readings, not
verdicts: none is corrected for their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from shared.config.search import Verdict
from shared.metrics.analysis import ROUNDING, Analysis
from shared.metrics.counts import Floats, class_f1
from shared.metrics.forecast import ENOUGH_UNITS
from shared.metrics.table import metric_named
from shared.metrics.verdict import Interval
from shared.report.inputs import StudyInputs
from shared.report.scores import StudyScores, only_class

WITHOUT_VERDICT = 0.05  # 1 - confidence of intervals in a study without a verdict


@dataclass(frozen=True)
class Estimate:
    """Holds the mean of a share, or of a difference of shares, over the repetitions."""

    mean: float | None
    """Holds None if it is not defined, or in no repetition."""
    sd: float | None
    """Gives the standard deviation over the repetitions (n - 1); None with fewer than two."""
    interval: Interval | None
    """Gives the interval over repetitions and test units; None with fewer than two of either, and if neither varies, as for a class that no
    repetition recognises: that says nothing of others."""
    n: int
    """Counts the repetitions, or pairs of them."""

    @classmethod
    def of(cls, rows: Sequence[Floats], alpha: float, bounds: Interval, analysis: type[Analysis]) -> Estimate:
        """Returns the estimate for rows of values per test unit, `[units]`, one per repetition, whose means are the repetitions' values."""
        if not rows or np.isnan(rows[0]).any():
            return cls(None, None, None, 0)
        values = np.array([row.mean() for row in rows])
        sd = float(values.std(ddof=1)) if len(rows) > 1 else None
        interval = None
        table = analysis.of_rows(rows)
        if table is not None and table.variance > ROUNDING**2:
            low, high = table.interval(1 - alpha)
            interval = (max(low, bounds[0]), min(high, bounds[1]))
        return cls(float(values.mean()), sd, interval, len(rows))


@dataclass(frozen=True)
class ClassReading:
    """Holds what the test split says of one class."""

    name: str
    train_images: int
    test_images: int
    test_units: int
    judged: bool
    """Says whether the verdict's metric counts this class."""
    f1: Mapping[str, Estimate]
    """Holds F1 by experiment."""
    gain: Mapping[str, Estimate]
    """Holds the difference of F1 from the baseline, over paired repetitions, by experiment."""

    @property
    def few(self) -> bool:
        """Returns whether so few test units have the class that its intervals may be too narrow."""
        return self.test_units < ENOUGH_UNITS


@dataclass(frozen=True)
class Worst:
    """Names a class or label group that is the worst of several in an experiment, by F1 or macro-F1 on the test split."""

    name: str
    score: Estimate


@dataclass(frozen=True)
class WorstOfArm:
    """Holds the worst classes and the worst label group of an experiment. What cannot be scored is left out."""

    experiment: str
    by_group: Mapping[str, Worst]
    """Maps each label group to its worst class."""
    group: Worst | None
    """Names the label group with the lowest macro-F1; None if there is one group only."""

    @property
    def of_all(self) -> Worst | None:
        """Returns the worst class of all groups; None if none can be scored."""
        return min(self.by_group.values(), key=_mean, default=None)


@dataclass(frozen=True)
class ClassReadings:
    """Holds the readings of all classes."""

    alpha: float
    """Gives 1 - confidence of all intervals."""
    baseline: str | None
    """Names the experiment from which gains are measured; None in a study without a verdict."""
    arms: Sequence[str]
    """Lists the experiments whose gains are known, in the study's order."""
    classes: Sequence[ClassReading]
    worst: Sequence[WorstOfArm]

    def of(self, name: str) -> ClassReading:
        """Returns the reading of a class."""
        return next(reading for reading in self.classes if reading.name == name)

    @property
    def judged(self) -> list[ClassReading]:
        """Lists the classes that the verdict's metric counts and the test split has."""
        return [reading for reading in self.classes if reading.judged and reading.test_units]


def _mean(worst: Worst) -> float:
    assert worst.score.mean is not None  # only those that are defined are compared
    return worst.score.mean


def read_classes(study: StudyInputs, scores: StudyScores) -> ClassReadings:
    """Returns the readings of all classes, from the predictions of all repetitions on the test split."""
    rule = study.config.verdict if isinstance(study.config.verdict, Verdict) else None
    alpha = rule.alpha if rule else WITHOUT_VERDICT
    trained = [e.config.name for e in study.experiments if e.finals]
    baseline = rule.baseline if rule and rule.baseline in trained else None
    arms = [name for name in trained if baseline and name != baseline]
    readings = []
    by_group: dict[str, dict[str, list[Worst]]] = {name: {} for name in trained}
    of_groups: dict[str, list[Worst]] = {name: [] for name in trained}
    unit_counts = scores.unit_counts()
    judged = _judged(study, rule)

    def estimate(rows: Sequence[Floats], bounds: Interval) -> Estimate:
        return Estimate.of(rows, alpha, bounds, scores.analysis)

    for group, columns in study.schema.slices().items():
        sums: dict[tuple[str, int], list[Floats]] = {}
        for column in range(columns.start, columns.stop):
            own = scores.rows(partial(only_class, class_f1), [column])  # those of a class are in memory at a time
            name = study.schema.class_names[column]
            for who, row in own.items():
                if not np.isnan(row).any():
                    sums.setdefault(who, []).append(row)
            f1 = {arm: estimate(_of(arm, own), (0.0, 1.0)) for arm in trained}
            gain = {arm: estimate(_gains(arm, str(baseline), own), (-1.0, 1.0)) for arm in arms}
            for arm in trained:
                if f1[arm].mean is not None:
                    by_group[arm].setdefault(group, []).append(Worst(name, f1[arm]))
            trained_on, tested = study.info.counts["train"][name], study.test_counts[name]
            readings.append(
                ClassReading(
                    name, trained_on, tested, int(unit_counts[column]), column in judged, f1, gain
                )
            )  # fmt: skip
        means = {who: np.mean(of_classes, axis=0) for who, of_classes in sums.items()}
        for arm in trained:
            score = estimate(_of(arm, means), (0.0, 1.0))
            if score.mean is not None:
                of_groups[arm].append(Worst(group, score))
    several = len(study.schema.groups) > 1
    worst = [
        WorstOfArm(
            arm,
            {group: min(found, key=_mean) for group, found in by_group[arm].items()},
            min(of_groups[arm], key=_mean, default=None) if several else None,
        )
        for arm in trained
    ]
    return ClassReadings(alpha, baseline, arms, readings, worst)


def _judged(study: StudyInputs, rule: Verdict | None) -> set[int]:
    if rule is None or not metric_named(rule.metric).by_class:
        return set()
    return set(study.rare.tolist()) if metric_named(rule.metric).rare else set(range(study.schema.width))


def _of(arm: str, rows: Mapping[tuple[str, int], Floats]) -> list[Floats]:
    return [row for (name, _), row in rows.items() if name == arm]


def _gains(arm: str, baseline: str, rows: Mapping[tuple[str, int], Floats]) -> list[Floats]:
    return [
        row - rows[baseline, repeat]
        for (name, repeat), row in rows.items()
        if name == arm and (baseline, repeat) in rows
    ]
