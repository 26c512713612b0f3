"""What a search found: its trials, the best of them, and which parameters mattered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import pyarrow as pa
from optuna.study import Study
from optuna.trial import TrialState
from sqlalchemy import text

from shared.search.searches import Step
from shared.search.storage import Database


@dataclass(frozen=True)
class TrialRecord:
    """One trial, as `trials.parquet` holds it."""

    step: str
    number: int
    state: str
    """`complete`, `pruned` or `failed`."""
    value: float | None
    """Of a pruned trial, that of its last epoch."""
    parameters: dict[str, Any]
    curve: list[float]
    """Reported value of each epoch."""
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


@dataclass(frozen=True)
class StepResult:
    """The finished and failed trials of a step."""

    step: Step
    study: Study
    trials: list[TrialRecord]
    gpu_seconds: float
    device: str

    def best(self, objective: str) -> TrialRecord | None:
        """The completed trial with the best value, the earliest of equal ones."""
        complete = [trial for trial in self.trials if trial.state == "complete" and trial.value is not None]
        sign = 1.0 if objective == "val_loss" else -1.0
        return min(complete, key=lambda t: (sign * (t.value or 0.0), t.number), default=None)


def read_step(database: Database, study: Study, step: Step) -> StepResult:
    """Reads a step's trials; those withdrawn when a budget was lowered, and those that never ran, are left out."""
    with database.transaction() as connection:
        rows = connection.execute(
            text("SELECT * FROM tailfill_leases WHERE study_id = :study"), {"study": study._study_id}
        ).all()
    leases = {row.trial_id: row for row in rows}
    trials = []
    for trial in database.storage.get_all_trials(study._study_id):
        lease = leases[trial._trial_id]
        if not trial.state.is_finished() or lease.state == "withdrawn":
            continue
        trials.append(
            TrialRecord(
                step=step.label,
                number=trial.number,
                state="failed" if trial.state == TrialState.FAIL else trial.state.name.lower(),
                value=trial.values[0] if trial.values else None,
                parameters={**step.fixed, **trial.params},
                curve=[trial.intermediate_values[epoch] for epoch in sorted(trial.intermediate_values)],
                failure=trial.user_attrs.get("failure"),
                started=trial.datetime_start.isoformat(timespec="seconds") if trial.datetime_start else None,
                seconds=lease.used_seconds,
                lost_seconds=lease.lost_seconds,
                claims=lease.claims,
                losses=lease.losses,
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


def importance(steps: Sequence[StepResult]) -> dict[str, float]:
    """Share of each parameter in what the objective varied by, sum 1; empty where fewer than two trials were completed.

    Searched together: PED-ANOVA. One after the other: the spread (greatest less least value) of each parameter's own step, as each step
    varies nothing else.
    """
    values = [[t.value for t in r.trials if t.state == "complete" and t.value is not None] for r in steps]
    if len(steps) == 1:
        if len(values[0]) < 2:
            return {}
        shares = optuna.importance.get_param_importances(steps[0].study)
        return {path: float(share) for path, share in shares.items()}
    spreads = {
        result.step.parameters[0]: max(found) - min(found) for result, found in zip(steps, values, strict=True) if found
    }
    total = sum(spreads.values())
    return {path: spread / total for path, spread in spreads.items()} if total > 0 else {}


def trials_table(steps: Sequence[StepResult], paths: Sequence[str]) -> pa.Table:
    """All trials, a row each: the fields of TrialRecord, `parameters` as a column a path (null where a step left it at its own value)."""
    records = [trial for result in steps for trial in result.trials]
    plain = ("step", "number", "state", "value", "failure", "started", "seconds", "lost_seconds", "claims", "losses")
    columns: dict[str, pa.Array] = {
        name: pa.array([getattr(r, name) for r in records], _TYPES.get(name, pa.string())) for name in plain
    }
    columns |= {path: _column([record.parameters.get(path) for record in records]) for path in paths}
    columns["curve"] = pa.array([record.curve for record in records], pa.list_(pa.float64()))
    return pa.table(columns)


_TYPES = {
    "number": pa.int32(),
    "value": pa.float64(),
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
