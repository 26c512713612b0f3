"""What a search found: its trials, the best of them, and which parameters mattered."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
import pyarrow as pa
from optuna.study import Study, StudyDirection
from optuna.trial import TrialState
from sqlalchemy import text

from shared.config.search import Search
from shared.search.reported import Values, reported
from shared.search.searches import Step, directions, read_search
from shared.search.space import Parameters
from shared.search.storage import Database

ONLOOKER_SECONDS = 10.0  # that somebody who asks waits for PostgreSQL


@dataclass(frozen=True)
class TrialRecord:
    """One trial, as `trials.parquet` holds it."""

    step: str
    number: int
    state: str
    """`complete`, `pruned` or `failed`."""
    values: Values
    """One an objective; none of a failed trial, and of a pruned one that of its last epoch."""
    parameters: dict[str, Any]
    curve: list[Values]
    """Reported values of each epoch."""
    failure: str | None
    started: str | None
    """Local time of the database's clients, ISO 8601."""
    seconds: float
    """For which workers held it."""
    lost_seconds: float
    claims: int
    """Times it was taken up by a worker."""
    losses: int
    """Workers lost."""
    front: bool
    """Whether no other trial is better in one objective and as good in the rest."""

    @property
    def value(self) -> float | None:
        """Of the first objective."""
        return self.values[0] if self.values else None


@dataclass(frozen=True)
class StepResult:
    """The finished and failed trials of a step."""

    step: Step
    study: Study
    trials: list[TrialRecord]
    gpu_seconds: float
    device: str

    def best(self, search: Search) -> TrialRecord | None:
        """Of the front, the trial with the best value of the first objective; among equal ones the next objective decides, and at last
        the number."""
        front = [trial for trial in self.trials if trial.front]
        return min(front, key=partial(_rank, signs=_signs(search)), default=None)


def _signs(search: Search) -> list[int]:
    """What an objective's values are multiplied by, so that less is better."""
    return [1 if direction == "minimize" else -1 for direction in directions(search)]


def _rank(trial: TrialRecord, signs: Sequence[int]) -> tuple[list[float], int]:
    return [sign * value for sign, value in zip(signs, trial.values, strict=True)], trial.number


def read_step(database: Database, study: Study, step: Step) -> StepResult:
    """Reads a step's trials; those withdrawn when a budget was lowered, and those that never ran, are left out."""
    with database.transaction() as connection:
        rows = connection.execute(
            text("SELECT * FROM tailfill_leases WHERE study_id = :study"), {"study": study._study_id}
        ).all()
    leases = {row.trial_id: row for row in rows}
    front = {trial.number for trial in study.best_trials}
    trials = []
    for trial in database.storage.get_all_trials(study._study_id):
        lease = leases.get(trial._trial_id)  # one that was enqueued a moment ago has none yet
        if lease is None or not trial.state.is_finished() or lease.state == "withdrawn":
            continue
        trials.append(
            TrialRecord(
                step=step.label,
                number=trial.number,
                state="failed" if trial.state == TrialState.FAIL else trial.state.name.lower(),
                values=tuple(trial.values or ()),
                parameters={**step.fixed, **trial.params},
                curve=list(reported(trial).values()),
                failure=trial.user_attrs.get("failure"),
                started=trial.datetime_start.isoformat(timespec="seconds") if trial.datetime_start else None,
                seconds=lease.used_seconds,
                lost_seconds=lease.lost_seconds,
                claims=lease.claims,
                losses=lease.losses,
                front=trial.number in front,
            )
        )
    devices = [row.device for row in rows if row.device]
    return StepResult(
        step,
        study,
        trials,
        sum(row.gpu_seconds for row in rows),
        max(set(devices), key=devices.count) if devices else "cpu",
    )


def describe_front(front: Sequence[TrialRecord], search: Search, inherited: Mapping[str, Any]) -> dict[str, Any]:
    """Of several objectives: the direction of each, and the front's trials, the one that was taken first; empty for one objective.

    `inherited` are parameters that all trials were trained with besides.
    """
    if len(search.objectives) == 1:
        return {}
    towards = dict(zip(search.objectives, directions(search), strict=True))
    rows: list[dict[str, Any]] = [
        {
            "number": trial.number,
            "values": dict(zip(search.objectives, trial.values, strict=True)),
            "parameters": {**inherited, **trial.parameters},
        }
        for trial in sorted(front, key=partial(_rank, signs=_signs(search)))
    ]
    return {"directions": towards, "front": rows}


def importance(steps: Sequence[StepResult]) -> dict[str, float]:
    """Share of each parameter in what the first objective varied by, sum 1; empty where fewer than two trials were completed.

    Searched together: PED-ANOVA. One after the other: the spread (greatest less least value) of each parameter's own step, as each step
    varies nothing else.
    """
    values = [[t.value for t in r.trials if t.state == "complete" and t.value is not None] for r in steps]
    if len(steps) == 1:
        if len(values[0]) < 2:
            return {}
        shares = _shares(steps[0])
        return {path: float(share) for path, share in shares.items()}
    spreads = {
        result.step.parameters[0]: max(found) - min(found) for result, found in zip(steps, values, strict=True) if found
    }
    total = sum(spreads.values())
    return {path: spread / total for path, spread in spreads.items()} if total > 0 else {}


def _shares(result: StepResult) -> dict[str, float]:
    towards = result.study.directions
    if len(towards) == 1:
        return optuna.importance.get_param_importances(result.study)
    sign = 1 if towards[0] == StudyDirection.MINIMIZE else -1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes")  # for low values: so the sign
        return optuna.importance.get_param_importances(result.study, target=lambda trial: sign * trial.values[0])


def trials_table(steps: Sequence[StepResult], paths: Sequence[str], objectives: Sequence[str]) -> pa.Table:
    """All trials, a row each: the fields of TrialRecord, `parameters` as a column a path (null where a step left it at its own value).

    Of one objective the columns are `value` and `curve`; of several `value.<objective>` and `curve.<objective>` for each, and `front`.
    """
    records = [trial for result in steps for trial in result.trials]
    plain = ("step", "number", "state", "failure", "started", "seconds", "lost_seconds", "claims", "losses")
    columns: dict[str, pa.Array] = {
        name: pa.array([getattr(r, name) for r in records], _TYPES.get(name, pa.string())) for name in plain
    }
    columns |= {path: _column([record.parameters.get(path) for record in records]) for path in paths}
    several = len(objectives) > 1
    for index, objective in enumerate(objectives):
        end = f".{objective}" if several else ""
        values = [record.values[index] if record.values else None for record in records]
        curves = [[epoch[index] for epoch in record.curve] for record in records]
        columns[f"value{end}"] = pa.array(values, pa.float64())
        columns[f"curve{end}"] = pa.array(curves, pa.list_(pa.float64()))
    if several:
        columns["front"] = pa.array([record.front for record in records])
    return pa.table(columns)


_TYPES = {
    "number": pa.int32(),
    "seconds": pa.float64(),
    "lost_seconds": pa.float64(),
    "claims": pa.int32(),
    "losses": pa.int32(),
}


def _column(values: list[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or len(kinds) == 1:
        return pa.array(values, pa.float64() if kinds == {int, float} else None)
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def best_so_far(url: str, name: str, search: Search) -> Parameters | None:
    """What a search that is under way has found: what the steps before the one that is searched now ended with, or, where there are none,
    the best complete trial's values; None while there is neither. Raises UnavailableError where PostgreSQL is away.
    """
    database = Database(url)
    try:
        row = database.call("reading the search", lambda: read_search(database, name), patience=ONLOOKER_SECONDS)
        if row is None:
            return None
        if row.step.fixed:
            return row.step.fixed
        study = optuna.load_study(study_name=row.step.study, storage=database.storage)
        best = read_step(database, study, row.step).best(search)
        return None if best is None else best.parameters
    finally:
        database.close()
