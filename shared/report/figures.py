"""Draws the figures of a report, chosen by what the study contains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shared.metrics.evaluation import CALIBRATION_BINS, confidences
from shared.report import charts, search_charts
from shared.report.class_readings import ClassReadings
from shared.report.generation import GeneratedSet
from shared.report.inputs import Experiment, StudyInputs
from shared.report.scores import Comparisons, StudyScores
from shared.report.svg import Plot

ARMS_A_FIGURE = 6  # as many as there are colours and markers; the tables show all arms
CLASSES_A_FIGURE = 14


@dataclass(frozen=True)
class Figures:
    """Holds the figures of a report; one is None or missing if the study has no data for it."""

    verdicts: Plot | None = None
    gains: Plot | None = None
    distribution: Plot | None = None
    rare: Plot | None = None
    calibration: Plot | None = None
    curves: list[Plot] = field(default_factory=list)
    search: dict[str, list[Plot]] = field(default_factory=dict)
    """Holds the figures of searches, by experiment."""
    generated: dict[str, list[Plot]] = field(default_factory=dict)
    """Holds the figures of generated images, by the name of the set."""

    def all(self) -> list[Plot]:
        """Returns every figure."""
        single = [
            p for p in (self.verdicts, self.gains, self.distribution, self.rare, self.calibration) if p is not None
        ]
        listed = [plot for by_name in (self.search, self.generated) for plots in by_name.values() for plot in plots]
        return [*single, *self.curves, *listed]


def draw(
    study: StudyInputs,
    scores: StudyScores,
    judged: Comparisons | None,
    classes: ClassReadings,
    generated: list[GeneratedSet],
) -> Figures:
    """Draws all figures of a study."""
    trained = [e for e in study.experiments if e.finals]
    series_numbers = {e.config.name: i for i, e in enumerate(study.experiments)}
    shown = _shown(trained, judged)
    compared = [c for c in judged.with_baseline if c.n] if judged else []
    labels = {e.config.name: e.label for e in study.experiments}
    return Figures(
        verdicts=charts.forest(compared, labels, series_numbers, judged.rule.alpha) if judged and compared else None,
        gains=_gains_plot(study, classes, shown),
        distribution=charts.class_distribution(_bars(study, generated), study.config.rare.below),
        rare=_rare_plot(study, scores, shown),
        calibration=_calibration_plot(study, scores, shown),
        curves=[_curves(experiment) for experiment in trained],
        search={e.config.name: _search_plots(e) for e in study.experiments if e.tune is not None},
        generated={g.name: _generated_plots(g) for g in generated},
    )


def _shown(trained: list[Experiment], judged: Comparisons | None) -> dict[str, Experiment]:
    """Returns the arms of figures that compare arms, by label: the baseline first, at most as many as there are colours."""
    baseline = judged.rule.baseline if judged else ""
    ordered = sorted(trained, key=lambda e: e.config.name != baseline)
    return {e.label: e for e in ordered[:ARMS_A_FIGURE]}


def _series_numbers(shown: Mapping[str, Experiment], study: StudyInputs) -> dict[str, int]:
    order = [e.config.name for e in study.experiments]
    return {label: order.index(e.config.name) for label, e in shown.items()}


def _bars(study: StudyInputs, generated: list[GeneratedSet]) -> list[charts.ClassBar]:
    zero = np.zeros(study.schema.width, np.int64)
    accepted, refused = generated[0].class_counts_of_first_pool() if generated else (zero, zero)
    rare = set(study.rare.tolist())
    several = len(study.schema.groups) > 1
    return [
        charts.ClassBar(name if several else name.split("/", 1)[1], int(n), int(a), int(r), i in rare)
        for i, (name, n, a, r) in enumerate(
            zip(study.schema.class_names, study.info.train_counts(), accepted, refused, strict=True)
        )
    ]


def _rare_plot(study: StudyInputs, scores: StudyScores, shown: dict[str, Experiment]) -> Plot | None:
    names = [study.schema.class_names[i] for i in study.rare][:CLASSES_A_FIGURE]
    if not names or not shown:
        return None
    spreads = {label: [scores.class_spread(e.config.name, n, "f1") for n in names] for label, e in shown.items()}
    return charts.class_scores(names, spreads, _series_numbers(shown, study), "F1")


def _gains_plot(study: StudyInputs, classes: ClassReadings, shown: dict[str, Experiment]) -> Plot | None:
    """Draws the gains of the classes that the verdict counts and then of others, as far as there is room."""
    drawn = [e for e in shown.values() if e.config.name in classes.arms]
    rows = [r for r in classes.classes if r.test_units and any(e.mean is not None for e in r.gain.values())]
    rows = sorted(rows, key=lambda r: not r.judged)[:CLASSES_A_FIGURE]
    if not drawn or not rows or classes.baseline is None:
        return None
    arms = {e.config.name: e.label for e in drawn}
    numbers = _series_numbers(shown, study)
    return charts.class_gains(
        rows, arms, {name: numbers[label] for name, label in arms.items()}, study.experiment(classes.baseline).label
    )


def _calibration_plot(study: StudyInputs, scores: StudyScores, shown: dict[str, Experiment]) -> Plot | None:
    lines = {}
    for label, experiment in shown.items():
        read = [scores.predictions[experiment.config.name, repeat] for repeat in experiment.finals]
        answers = [confidences(study.schema, g, p.probabilities, p.labels) for p in read for g in study.schema.slices()]
        lines[label] = _reliability_line(
            np.concatenate([confidence for confidence, _ in answers]), np.concatenate([right for _, right in answers])
        )
    return charts.reliability(lines, _series_numbers(shown, study)) if lines else None


def _reliability_line(
    confidence: NDArray[np.float64], right: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the mean confidence and the accuracy in each bin that holds at least 10 predictions."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    total = np.bincount(bins, minlength=CALIBRATION_BINS)
    used = total >= 10
    means = [
        np.bincount(bins, weights=values, minlength=CALIBRATION_BINS)[used] / total[used]
        for values in (confidence, right)
    ]
    return means[0], means[1]


def _curves(experiment: Experiment) -> Plot:
    histories = [result.json("curve.json") or [] for result in experiment.finals.values()]
    return charts.curves(experiment.config.name, experiment.label, histories)


def _search_plots(experiment: Experiment) -> list[Plot]:
    assert experiment.tune is not None
    plots = []
    name, label = experiment.config.name, experiment.label
    trials, best = experiment.tune.table("trials.parquet"), experiment.tune.json("best.json") or {}
    several: dict[str, str] = best.get("directions", {})
    if trials is not None and len(trials):
        state = np.array([str(s).rsplit(".", 1)[-1].upper() for s in trials["state"].to_pylist()])
        first = next(iter(several), None)
        value = _numbers(trials, f"value.{first}" if first else "value")
        kept = np.isin(state, ("COMPLETE", "PRUNED")) & np.isfinite(value)
        if kept.any():
            objective = first or str(experiment.tune.manifest.config.get("search", {}).get("objective", "objective"))
            plots.append(
                search_charts.search_history(
                    name, label, np.flatnonzero(kept), value[kept], state[kept] == "PRUNED",
                    maximise=best.get("direction") != "minimize", objective=objective.replace("_", " "),
                )
            )  # fmt: skip
        if several and (state == "COMPLETE").any():
            plots += _fronts(name, label, trials.filter(state == "COMPLETE"), several, best["number"])
    shares = experiment.tune.json("importance.json")
    if shares:
        plots.append(search_charts.importance(name, shares))
    return plots


def _fronts(name: str, label: str, complete: pa.Table, directions: dict[str, str], number: int) -> list[Plot]:
    """Draws the first objective against each of the others."""
    axes = [
        search_charts.Axis(objective.replace("_", " "), _numbers(complete, f"value.{objective}"), towards == "maximize")
        for objective, towards in directions.items()
    ]
    front = np.array(complete["front"].to_pylist(), np.bool_)
    taken = complete["number"].to_pylist().index(number)
    return [
        search_charts.pareto_front(
            f"front-{name}-{objective}", label, axes[0], axis, front, taken, number, only_two=len(axes) == 2
        )
        for objective, axis in zip(list(directions)[1:], axes[1:], strict=True)
    ]


def _numbers(table: pa.Table, column: str) -> NDArray[np.float64]:
    return np.array([np.nan if v is None else v for v in table[column].to_pylist()], np.float64)


def _generated_plots(generated: GeneratedSet) -> list[Plot]:
    plots = []
    if generated.plausibility is not None and len(generated.plausibility):
        bounds = generated.accept.plausibility if generated.accept else None
        plots.append(search_charts.plausibility(generated.name, generated.plausibility, bounds, generated.accepted))
    if generated.neighbours:
        plots.append(search_charts.neighbour_ratios(generated.name, generated.neighbours))
    return plots
