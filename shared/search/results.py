"""Reads what a search found: its trials, the best of them, which parameters mattered, and what another search tries first."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
import pyarrow as pa
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import select

from shared.config.search import MOST_SEEDS, Range, Search
from shared.search.intermediate_values import Values, read_values
from shared.search.monitor import damaged
from shared.search.repetitions import REPETITION
from shared.search.search_state import SearchStep, directions, read_search
from shared.search.space import Parameters, inside
from shared.search.storage import Database, quiet_optuna
from shared.search.tables import leases

PATIENCE_SECONDS = 10.0  # how long a command waits for PostgreSQL
WARM_TRIALS = 5


@dataclass(frozen=True)
class TrialRecord:
    """Holds a trial as `trials.parquet` has it."""

    step: str
    number: int
    state: str
    """Says how it ended: `complete`, `pruned` or `failed`."""
    values: Values
    """Holds one value per objective; a failed trial has none, a pruned one has those of its last epoch."""
    parameters: dict[str, Any]
    curve: list[Values]
    """Holds the reported values by epoch."""
    failure: str | None
    started: str | None
    """Says when it began, in ISO 8601, in the local time of the database's clients."""
    seconds: float
    """Counts the seconds for which workers held it."""
    lost_seconds: float
    claims: int
    """Counts how often a worker claimed it."""
    losses: int
    """Counts the workers that were lost with it."""
    front: bool
    """Says whether no other trial is better in one objective and as good in the rest."""
    repetition: int | None
    """Gives the repetition that it belongs to; None if the search is not repeated."""

    @property
    def value(self) -> float | None:
        """Returns the value of the first objective."""
        return self.values[0] if self.values else None


@dataclass(frozen=True)
class StepResult:
    """Holds what a step found: its finished and failed trials."""

    step: SearchStep
    study: Study
    trials: list[TrialRecord]
    gpu_seconds: float
    device: str

    def best(self, search: Search) -> TrialRecord | None:
        """Returns the trial of the front with the best value of the first objective, None if there is none.

        If several trials are equal, the next objective decides, and finally the number.
        """
        front = [trial for trial in self.trials if trial.front]
        return min(front, key=partial(_rank, signs=_signs(search)), default=None)

    def best_of(self, repetition: int, trials: int, search: Search) -> TrialRecord | None:
        """Returns the best trial of a repetition among its first `trials` that did not fail; None if none of these is complete.

        Further trials, which a larger budget has begun, do not count, so that all arms choose among equally many.
        """
        own = [trial for trial in self.trials if trial.repetition == repetition and trial.state != "failed"][:trials]
        complete = [trial for trial in own if trial.state == "complete"]
        return min(complete, key=partial(_rank, signs=_signs(search)), default=None)


def _signs(search: Search) -> list[int]:
    """Returns the sign by which the values of each objective are multiplied, so that lower is better."""
    return [1 if direction == "minimize" else -1 for direction in directions(search)]


def _rank(trial: TrialRecord, signs: Sequence[int]) -> tuple[list[float], int]:
    return [sign * value for sign, value in zip(signs, trial.values, strict=True)], trial.number


def read_step(database: Database, study: Study, step: SearchStep) -> StepResult:
    """Reads a step's trials; those withdrawn when a budget was lowered, and those that never ran, are left out."""
    with database.transaction() as connection:
        rows = connection.execute(select(leases).where(leases.c.study_id == study._study_id)).all()
    by_trial = {row.trial_id: row for row in rows}
    try:
        stored = database.storage.get_all_trials(study._study_id)
        front = {trial.number for trial in study.best_trials}
    except (ValueError, TypeError, KeyError, AssertionError, RecursionError) as error:  # Optuna asserts what it wrote
        raise damaged(study.study_name, f"a trial: {error}") from error
    trials = []
    for trial in stored:
        lease = by_trial.get(trial._trial_id)  # a trial that was enqueued a moment ago has none yet
        if lease is None or not trial.state.is_finished() or lease.state == "withdrawn":
            continue
        _check(study.study_name, trial)
        trials.append(
            TrialRecord(
                step=step.label,
                number=trial.number,
                state="failed" if trial.state == TrialState.FAIL else trial.state.name.lower(),
                values=tuple(trial.values or ()),
                parameters={**step.fixed, **trial.params},
                curve=list(read_values(trial).values()),
                failure=trial.user_attrs.get("failure"),
                started=trial.datetime_start.isoformat(timespec="seconds") if trial.datetime_start else None,
                seconds=lease.used_seconds,
                lost_seconds=lease.lost_seconds,
                claims=lease.claims,
                losses=lease.losses,
                front=trial.number in front,
                repetition=trial.user_attrs.get(REPETITION),
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


def _check(name: str, trial: FrozenTrial) -> None:
    """Raises InputError for a trial whose values no worker can have written, as everybody who may write to the database can."""
    failure, repetition = trial.user_attrs.get("failure"), trial.user_attrs.get(REPETITION)
    what = {
        "values": all(map(math.isfinite, trial.values or ())),
        "parameters": all(
            isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
            for value in trial.params.values()
        ),
        "failure": isinstance(failure, str | None),
        "repetition": isinstance(repetition, int | None) and -1 < (repetition or 0) < MOST_SEEDS,
    }
    if wrong := [key for key, right in what.items() if not right]:
        raise damaged(name, f"trial {trial.number} has invalid {', '.join(wrong)}")


def describe_front(front: Sequence[TrialRecord], search: Search, inherited: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the direction of each of several objectives, and the trials of the front, best first; nothing for one objective.

    `inherited` holds further parameters with which all trials were trained.
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
    """Returns the share of each parameter in the variation of the first objective. The shares sum to 1; there are none if fewer
    than two trials completed.

    Parameters that were searched together are judged by PED-ANOVA. Those that were searched one after the other are judged by the spread
    (greatest minus least value) of their own step, as each step varies nothing else.
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
    # the evaluator takes low values for the best, hence the sign
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes")
        return optuna.importance.get_param_importances(result.study, target=lambda trial: sign * trial.values[0])


def trials_table(steps: Sequence[StepResult], paths: Sequence[str], objectives: Sequence[str]) -> pa.Table:
    """Returns a table with one row per trial: the fields of TrialRecord, with one column per path of `parameters` (null if the trial's step
    did not search it).

    With one objective there are the columns `value` and `curve`; with several `value.<objective>` and `curve.<objective>` for each, and
    `front`.
    """
    records = [trial for result in steps for trial in result.trials]
    plain = (
        "step",
        "number",
        "repetition",
        "state",
        "failure",
        "started",
        "seconds",
        "lost_seconds",
        "claims",
        "losses",
    )
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
    "repetition": pa.int32(),
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


def warm_points(table: pa.Table, best: Mapping[str, Any], space: Mapping[str, Range]) -> list[Parameters]:
    """Returns the points of an earlier search that another one tries first: its best completed trials, at most five, each once, best first.

    `table` is the earlier search's `trials.parquet`, `best` its `best.json`. What counts as best is that search's own objective; if it had
    several, the front comes first, ordered by the first objective. Of each trial only the values that lie in `space` are taken; a trial
    that has none is passed over.
    """
    towards: Mapping[str, str] = best.get("directions") or {"": best["direction"]}
    first, direction = next(iter(towards.items()))
    value = f"value.{first}" if first else "value"
    sign = 1 if direction == "minimize" else -1
    complete = [row for row in table.to_pylist() if row["state"] == "complete"]
    complete.sort(key=lambda row: (not row.get("front", True), sign * row[value], row["number"]))
    points: list[Parameters] = []
    for row in complete:
        point = {path: row[path] for path in space if path in row and inside(space[path], row[path])}
        if point and point not in points:
            points.append(point)
    return points[:WARM_TRIALS]


def ended_trials(url: str, name: str, search: Search) -> list[dict[str, Any]]:
    """Returns the trials of a running search's current step that have ended, as rows of `trials_table`; none if it has not begun.

    Raises UnavailableError if PostgreSQL is unavailable.
    """
    quiet_optuna()
    database = Database(url)
    try:
        row = database.call("reading the search", lambda: read_search(database, name), patience=PATIENCE_SECONDS)
        if row is None:
            return []
        study = optuna.load_study(study_name=row.step.study, storage=database.storage)
        result = read_step(database, study, row.step)
        rows: list[dict[str, Any]] = trials_table([result], list(search.space), search.objectives).to_pylist()
        return rows
    finally:
        database.close()


def best_so_far(url: str, name: str, search: Search) -> Parameters | None:
    """Returns the best parameters that a running search has found so far, None if it has found none.

    They are those with which the steps before the current one ended; in the first step they are those of the best complete trial. Raises
    UnavailableError if PostgreSQL is unavailable.
    """
    database = Database(url)
    try:
        row = database.call("reading the search", lambda: read_search(database, name), patience=PATIENCE_SECONDS)
        if row is None:
            return None
        if row.step.fixed:
            return row.step.fixed
        study = optuna.load_study(study_name=row.step.study, storage=database.storage)
        best = read_step(database, study, row.step).best(search)
        return None if best is None else best.parameters
    finally:
        database.close()
