"""Keeps the budget of a search: its number of trials. It is exact because rows are counted: exactly N of Optuna's trials did not fail.

Rows are counted and created in one transaction and under one lock, for which every other coordinator waits. So neither two coordinators nor
a lost answer to a commit can create a row too many.

Rows are created WAITING, at most `WINDOW` ahead of the workers, because a sampler reads every unfinished row anew.

A repeated search has one such budget per repetition, all in one Optuna study. The user attribute `repetition` of a trial says
to which one it belongs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from optuna.study import Study
from optuna.trial import TrialState
from sqlalchemy import Connection, Text, and_, bindparam, func, select, text, update

from shared.search import statements
from shared.search.leases import Raced, only_if_changed
from shared.search.repetitions import REPETITION
from shared.search.storage import Database, Guard
from shared.search.tables import leases, trial_system_attributes, trial_user_attributes, trials

WINDOW = 64
Point = Mapping[str, Any]

_POINT = and_(  # as Optuna keeps the parameters that a trial was queued with
    trial_system_attributes.c.trial_id == trials.c.trial_id, trial_system_attributes.c.key == "fixed_params"
)
_REPETITION = and_(trial_user_attributes.c.trial_id == trials.c.trial_id, trial_user_attributes.c.key == REPETITION)
_BUDGETED = trials.outerjoin(trial_user_attributes, _REPETITION).outerjoin(trial_system_attributes, _POINT)
_OF_BUDGET = and_(
    trials.c.study_id == bindparam("study"),
    trial_user_attributes.c.value_json.is_not_distinct_from(bindparam("repetition", type_=Text)),
)
_LIVE = select(func.count()).select_from(_BUDGETED).where(_OF_BUDGET, trials.c.state != "FAIL")
_IS_TAKEN = (
    select(1)
    .select_from(_BUDGETED)
    .where(_OF_BUDGET, trials.c.state != "FAIL", trial_system_attributes.c.value_json == bindparam("point"))
    .limit(1)
)
_ROWS = (
    select(trials.c.state, trial_system_attributes.c.value_json.label("point"))
    .select_from(_BUDGETED.outerjoin(leases, leases.c.trial_id == trials.c.trial_id))
    .where(_OF_BUDGET, leases.c.state.is_distinct_from("withdrawn"))
)
_UNTOUCHED = and_(leases.c.state == "queued", leases.c.claims == 0)
_TO_WITHDRAW = (
    select(leases.c.trial_id)
    .select_from(leases.join(_BUDGETED, leases.c.trial_id == trials.c.trial_id))
    .where(_OF_BUDGET, _UNTOUCHED)
    .order_by(leases.c.trial_id.desc())
)
_WITHDRAW = update(leases).where(leases.c.trial_id == bindparam("trial"), _UNTOUCHED).values(state="withdrawn")


@dataclass(frozen=True)
class TrialCounts:
    """Counts the trials of a study by their state."""

    complete: int
    pruned: int
    failed: int
    held: int
    queued: int
    begun: int
    """Counts the queued trials that have a checkpoint or had a worker before."""
    losses: int
    """Counts how often a worker was lost with a trial."""

    @property
    def finished(self) -> int:
        """Returns the number of trials that count for the budget: complete and pruned ones."""
        return self.complete + self.pruned

    @property
    def live(self) -> int:
        """Returns the number of trials that did not fail."""
        return self.finished + self.held + self.queued

    @classmethod
    def total(cls, counts: Iterable[TrialCounts]) -> TrialCounts:
        """Returns the sums over several budgets."""
        every = list(counts)
        return cls(**{field.name: sum(getattr(each, field.name) for each in every) for field in fields(cls)})


def count(database: Database, study_id: int) -> dict[int | None, TrialCounts]:
    """Counts the trials of a study by repetition (None if they belong to none); all of them must have lease rows (`Leases.adopt`)."""
    with database.transaction() as connection:
        rows = connection.execute(text(statements.COUNT_TRIALS), {"study": study_id}).all()
    return {
        None if row.repetition is None else int(row.repetition): TrialCounts(
            **{field.name: int(getattr(row, field.name)) for field in fields(TrialCounts)}
        )
        for row in rows
    }


def fill(
    database: Database,
    study: Study,
    target: int,
    points: Sequence[Point],
    repeat_failed: bool,
    repetition: int | None = None,
) -> int:
    """Creates WAITING trials until `target` trials of the repetition did not fail, or `WINDOW` are queued; returns how many it created.

    Each trial gets the first of `points` that no trial has yet. With `repeat_failed`, points that only failed trials have come last. If no
    point is left, the sampler chooses. The call ends early if another coordinator creates trials meanwhile.
    """
    own = {} if repetition is None else {REPETITION: repetition}
    live, queued, tried, alive = _rows(database, study._study_id, repetition)
    created = 0
    while live + created < target and queued + created < WINDOW:
        point = next((p for p in points if _spelling(p) not in tried), None)
        if point is None and repeat_failed:
            point = next((p for p in points if _spelling(p) not in alive), None)
        try:
            with database.guarded(_may_create(study._study_id, target, point, repetition)):
                study.enqueue_trial(dict(point or {}), user_attrs=own)
        except Raced:
            break
        if point is not None:
            tried.add(_spelling(point))
            alive.add(_spelling(point))
        created += 1
    return created


def trim(database: Database, study_id: int, target: int, repetition: int | None = None) -> int:
    """Withdraws trials of the repetition beyond `target` that no worker has begun, the newest first; returns how many.

    Optuna cannot remove a trial, and a WAITING one would wait for ever. So its state becomes FAIL and its lease `withdrawn`, by which it
    counts as no failure and is in no table. Trials that were begun end as usual.
    """
    with database.transaction() as connection:
        rows = connection.scalars(_TO_WITHDRAW, _budget_of(study_id, repetition)).all()
    withdrawn = 0
    for trial_id in rows:
        try:
            with database.guarded(_may_withdraw(study_id, target, trial_id, repetition)):
                database.storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except Raced:
            if _rows(database, study_id, repetition)[0] <= target:
                break
            continue  # a worker claimed this one
        withdrawn += 1
    return withdrawn


def _budget_of(study_id: int, repetition: int | None) -> dict[str, Any]:
    return {"study": study_id, "repetition": None if repetition is None else json.dumps(repetition)}


def _may_create(study_id: int, target: int, point: Point | None, repetition: int | None) -> Guard:
    budget = _budget_of(study_id, repetition)

    def check(connection: Connection) -> None:
        _lock(connection, study_id)
        if int(connection.scalar(_LIVE, budget) or 0) >= target:
            raise Raced
        if point is not None and connection.scalar(_IS_TAKEN, {**budget, "point": _spelling(point)}):
            raise Raced

    return check


def _may_withdraw(study_id: int, target: int, trial_id: int, repetition: int | None) -> Guard:
    take = only_if_changed(_WITHDRAW, trial=trial_id)

    def check(connection: Connection) -> None:
        _lock(connection, study_id)
        if int(connection.scalar(_LIVE, _budget_of(study_id, repetition)) or 0) <= target:
            raise Raced
        take(connection)

    return check


def _lock(connection: Connection, study_id: int) -> None:
    connection.execute(text(statements.LOCK_BUDGET), {"study": study_id})


def _rows(database: Database, study_id: int, repetition: int | None) -> tuple[int, int, set[str], set[str]]:
    """Returns how many trials did not fail, how many are WAITING, and the points (in Optuna's spelling) of all trials and of those
    that did not fail.
    """
    with database.transaction() as connection:
        rows = connection.execute(_ROWS, _budget_of(study_id, repetition)).all()
    alive = [row for row in rows if row.state != "FAIL"]
    return (
        len(alive),
        sum(row.state == "WAITING" for row in rows),
        {row.point for row in rows},
        {row.point for row in alive},
    )


def _spelling(point: Point) -> str:
    return json.dumps(dict(point))  # as Optuna writes it
