"""Writes the report for machines: `results.json` (every number of the page) and `results.csv` (a row per experiment and repetition)."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from shared.csv_cells import safe_cells
from shared.metrics.table import COLUMNS, METRICS
from shared.metrics.verdict import Comparison
from shared.report.class_readings import ClassReadings
from shared.report.content import Report
from shared.report.forecast import beside_truth
from shared.report.generation import GeneratedSet
from shared.report.inputs import Experiment, StageResult, StudyInputs
from shared.report.lineage import gpu_budgets
from shared.report.paper_table import PAPER_ROWS
from shared.report.scores import Comparisons, Spread, StudyScores

PARAMETERS = ("batch_size", "lr", "weight_decay", "label_smoothing", "dropout", "beta1", "beta2")
"""Lists the columns of the paper's Table 3, by their names in `training:`."""
SCHEMA = 6
"""Gives the version of the tree of `results.json`, which is raised when a key is removed or changes its meaning."""
COMPARISON = (
    "arm", "baseline", "metric", "repeats", "dropped", "differences", "difference", "sd", "interval", "finding",
    "p", "p_adjusted", "p_repetitions", "p_units", "least", "alpha", "comparisons",
)  # fmt: skip
"""Lists the properties of a comparison that the tree has under their own names."""


def parameters(experiment: Experiment, repeat: int) -> dict[str, Any]:
    """Returns the parameters that a repetition was trained with: the arm's `training`, with those that its search found.

    A parameter outside `training` is named by its path.
    """
    if experiment.arm is None:
        return {}
    values: dict[str, Any] = experiment.arm.training.model_dump(mode="json")
    for path, value in experiment.finals[repeat].manifest.summary.get("parameters", {}).items():
        values[path.removeprefix("training.")] = value
    return values


def parameter_values(experiment: Experiment) -> dict[str, list[Any]]:
    """Returns the different values of each parameter over the repetitions, numbers in ascending order."""
    found: dict[str, list[Any]] = {}
    for repeat in experiment.finals:
        for name, value in parameters(experiment, repeat).items():
            values = found.setdefault(name, [])
            if value not in values:
                values.append(value)
    return {name: sorted(values) if all(_number(v) for v in values) else values for name, values in found.items()}


def temperatures_of(final: StageResult) -> dict[str, float]:
    """Returns the temperature of each label group with which a repetition is calibrated."""
    temperatures: dict[str, float] = final.json("calibration.json")["temperatures"]
    return temperatures


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def results_tree(report: Report) -> dict[str, Any]:
    """Returns all numbers as a JSON tree. They are shares, not percentage points, and None if they are not defined.

    `docs/statistics.md` lists its keys.
    """
    study, scores = report.study, report.scores
    return {
        "schema": SCHEMA,
        "study": study.config.study,
        "seed": study.config.seed,
        "test_design": "folds" if study.folds else "split",
        "answer": asdict(report.answer),
        "verdict": _verdict(report.judged),
        "recommended": asdict(report.recommended) if report.recommended else None,
        "next_steps": [asdict(step) for step in report.steps],
        "dataset": study.info.model_dump(mode="json", by_alias=True),
        "rare": [study.schema.class_names[i] for i in study.rare],
        "experiments": [_experiment(e, study, scores) for e in study.experiments],
        "classes": _classes(report.classes),
        "generated": [_generated(g) for g in report.generated],
        "search": {e.config.name: e.tune.json("best.json") for e in study.experiments if e.tune is not None},
        "importance": {e.config.name: e.tune.json("importance.json") for e in study.experiments if e.tune is not None},
        "searches": {e.config.name: e.tune.manifest.summary for e in study.experiments if e.tune is not None},
        "cost": [asdict(cost) for cost in report.costs],
        "money": {**asdict(report.money), "total": report.money.total} if report.money else None,
        "forecast": beside_truth(study.config.forecast, report.costs),
        "budget_gpu_hours": gpu_budgets(study.results),
        "lineage": [asdict(entry) for entry in report.entries],
    }


def write_csv(path: Path, study: StudyInputs, scores: StudyScores) -> None:
    """Writes a row per experiment and repetition with its parameters and overall metrics, blank if not defined."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["experiment", "repeat", "images", "augmentation", *PARAMETERS, *(m.name for m in COLUMNS)])
        for experiment in study.experiments:
            for repeat in experiment.finals:
                trained_with = parameters(experiment, repeat)
                measured = scores.metrics[experiment.config.name, repeat]
                writer.writerow(safe_cells([
                    experiment.config.name, repeat, experiment.config.images, experiment.config.augmentation,
                    *(trained_with.get(name, "") for name in PARAMETERS),
                    *("" if measured[m.name] is None else measured[m.name] for m in COLUMNS),
                ]))  # fmt: skip


def _verdict(judged: Comparisons | None) -> dict[str, Any] | None:
    if judged is None:
        return None
    return {
        **judged.rule.model_dump(mode="json"),
        "arms": [
            {
                "arm": verdict.arm,
                "outcome": verdict.outcome,
                "p": verdict.p,
                "p_images": verdict.p_images,
                "against_baseline": _comparison(verdict.against_baseline),
                "against_placebos": [_comparison(c) for c in verdict.against_placebos],
            }
            for verdict in judged.verdicts
        ],
        "readings": [_comparison(c) for c in (*judged.placebos, *judged.others)],
        "few_test_units": {few.name: few.units for few in judged.few},
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    """Returns a comparison; numbers that rest on repetitions and test units are None if there are fewer than two of either."""
    table = comparison.table
    return {
        **{name: getattr(comparison, name) for name in COMPARISON},
        "smallest_effect": comparison.smallest_effect,
        "test_units": table.units if table else None,
        "standard_error": math.sqrt(table.variance) if table else None,
        "freedom": table.freedom if table else None,
        "components": asdict(table.components) if table else None,
    }


def _classes(readings: ClassReadings) -> dict[str, Any]:
    """Returns the readings of classes: F1 and its gain by class and experiment, and the worst classes and group of each experiment."""
    return {
        "confidence": 1 - readings.alpha,
        "baseline": readings.baseline,
        "readings": {
            reading.name: {
                "judged": reading.judged,
                "train_images": reading.train_images,
                "test_images": reading.test_images,
                "test_units": reading.test_units,
                "f1": {name: asdict(found) for name, found in reading.f1.items()},
                "gain": {name: asdict(found) for name, found in reading.gain.items()},
            }
            for reading in readings.classes
        },
        "worst": {
            worst.experiment: {
                "class": asdict(worst.of_all) if worst.of_all else None,
                "group": asdict(worst.group) if worst.group else None,
                "class_by_group": {group: asdict(found) for group, found in worst.by_group.items()},
            }
            for worst in readings.worst
        },
    }


def _experiment(experiment: Experiment, study: StudyInputs, scores: StudyScores) -> dict[str, Any]:
    name, row = experiment.config.name, experiment.config.paper_row

    def spread(found: Spread) -> dict[str, Any]:
        return asdict(found)

    return {
        **experiment.config.model_dump(mode="json"),
        "parameters": {str(repeat): parameters(experiment, repeat) for repeat in experiment.finals},
        "paper": asdict(PAPER_ROWS[row]) if row is not None else None,
        "repeats": list(experiment.finals),
        "metrics": {m.name: spread(scores.spread(name, m.name)) for m in COLUMNS},
        "by_repeat": {
            str(repeat): {m.name: scores.metrics[name, repeat][m.name] for m in COLUMNS} for repeat in experiment.finals
        },
        "groups": {
            group.name: {
                m.name: spread(scores.group_spread(name, group.name, m.name))
                for m in METRICS
                if m.verdict and m.by_group is not None
            }
            for group in study.schema.groups
        },
        "temperatures": {str(repeat): temperatures_of(result) for repeat, result in experiment.finals.items()},
        "classes": {
            label: {m: spread(scores.class_spread(name, label, m)) for m in ("f1", "ap", "precision", "recall")}
            for label in study.schema.class_names
        },
    }


def _generated(generated: GeneratedSet) -> dict[str, Any]:
    plausibility = generated.plausibility
    quantiles: Mapping[str, float] = {}
    if plausibility is not None and len(plausibility):
        quantiles = {f"{q:g}": float(np.quantile(plausibility, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
    return {
        "used_by": generated.used_by,
        "images": len(generated.images),
        "pools": generated.pools,
        "accepted": int(generated.accepted.sum()),
        "accept": generated.accept.model_dump(mode="json") if generated.accept else None,
        **({"person": asdict(generated.person)} if generated.person else {}),
        "classes": [asdict(c) for c in generated.classes],
        "plausibility_quantiles": quantiles,
        "judges": generated.judges,
    }
