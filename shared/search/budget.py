"""The budget is exact because it is rows, not a counter: exactly N trials of Optuna that did not fail.

A row is created in the same transaction, and under the same lock, in which the rows are counted; whoever else counts at that moment waits
for it. So neither two coordinators nor a lost answer to a commit make one too many.

Rows are created WAITING, at most `WINDOW` ahead of the workers: a sampler reads every unfinished row anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.study import Study
from optuna.trial import TrialState
from sqlalchemy import Connection, text

from shared.search.leases import Raced, only_if_changed
from shared.search.storage import Database, Guard

WINDOW = 64
_LOCK_CLASS = 0x74616C  # first half of the advisory lock's key; the second is the study
Point = Mapping[str, Any]


@dataclass(frozen=True)
class TrialCounts:
    """Trials of one study by what became of them."""

    complete: int
    pruned: int
    failed: int
    held: int
    queued: int
    begun: int
    """Of the queued ones, those with a checkpoint or an earlier worker."""
    losses: int
    """Workers lost."""

    @property
    def finished(self) -> int:
        """What counts: complete and pruned."""
        return self.complete + self.pruned

    @property
    def live(self) -> int:
        """Rows that did not fail."""
        return self.finished + self.held + self.queued


def count(database: Database, study_id: int) -> TrialCounts:
    """Counts the trials of a study; all of them have lease rows (`Leases.adopt`)."""
    with database.transaction() as connection:
        row = connection.execute(
            text(
                """SELECT count(*) FILTER (WHERE t.state = 'COMPLETE') AS complete,
                     count(*) FILTER (WHERE t.state = 'PRUNED') AS pruned,
                     count(*) FILTER (WHERE t.state = 'FAIL' AND l.state <> 'withdrawn') AS failed,
                     count(*) FILTER (WHERE t.state IN ('WAITING', 'RUNNING') AND l.state = 'held') AS held,
                     count(*) FILTER (WHERE t.state IN ('WAITING', 'RUNNING') AND l.state <> 'held') AS queued,
                     count(*) FILTER (WHERE t.state IN ('WAITING', 'RUNNING') AND l.state <> 'held' AND l.claims > 0) AS begun,
                     coalesce(sum(l.losses), 0) AS losses
                   FROM trials t JOIN tailfill_leases l USING (trial_id) WHERE t.study_id = :study"""
            ),
            {"study": study_id},
        ).one()
    return TrialCounts(**{name: int(value) for name, value in row._mapping.items()})


def fill(database: Database, study: Study, target: int, points: Sequence[Point], repeat_failed: bool) -> int:
    """Creates WAITING trials up to `target` rows that did not fail (and `WINDOW` queued); returns how many.

    Of `points`, in order, the first that no row has yet is taken, with `repeat_failed` at the end those that only failed rows have;
    when there is none left the sampler chooses. A faster coordinator's rows end this one's turn.
    """
    live, queued, tried, alive = _rows(database, study._study_id)
    created = 0
    while live + created < target and queued + created < WINDOW:
        point = next((p for p in points if _spelling(p) not in tried), None)
        if point is None and repeat_failed:
            point = next((p for p in points if _spelling(p) not in alive), None)
        try:
            with database.guarded(_may_create(study._study_id, target, point)):
                study.enqueue_trial(dict(point or {}))
        except Raced:
            break
        if point is not None:
            tried.add(_spelling(point))
            alive.add(_spelling(point))
        created += 1
    return created


def trim(database: Database, study_id: int, target: int) -> int:
    """Withdraws trials beyond `target` that nobody has begun, the newest first; returns how many.

    Optuna has no way to remove a trial, and a WAITING one would wait for ever: it becomes FAIL, and its lease `withdrawn`, so that it
    counts as no failure and is in no table. Trials that were begun end as usual.
    """
    with database.transaction() as connection:
        rows = connection.scalars(
            text(
                """SELECT trial_id FROM tailfill_leases WHERE study_id = :study AND state = 'queued' AND claims = 0
                   ORDER BY trial_id DESC"""
            ),
            {"study": study_id},
        ).all()
    withdrawn = 0
    for trial_id in rows:
        try:
            with database.guarded(_may_withdraw(study_id, target, trial_id)):
                database.storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except Raced:
            if _rows(database, study_id)[0] <= target:
                break
            continue  # a worker claimed this one
        withdrawn += 1
    return withdrawn


def _may_create(study_id: int, target: int, point: Point | None) -> Guard:
    def check(connection: Connection) -> None:
        _lock(connection, study_id)
        if _live(connection, study_id) >= target:
            raise Raced
        if point is not None and connection.scalar(
            text(
                """SELECT 1 FROM trials JOIN trial_system_attributes a USING (trial_id)
                   WHERE study_id = :study AND state <> 'FAIL' AND key = 'fixed_params' AND value_json = :point LIMIT 1"""
            ),
            {"study": study_id, "point": _spelling(point)},
        ):
            raise Raced

    return check


def _may_withdraw(study_id: int, target: int, trial_id: int) -> Guard:
    take = only_if_changed(
        "UPDATE tailfill_leases SET state = 'withdrawn' WHERE trial_id = :trial AND state = 'queued' AND claims = 0",
        trial=trial_id,
    )

    def check(connection: Connection) -> None:
        _lock(connection, study_id)
        if _live(connection, study_id) <= target:
            raise Raced
        take(connection)

    return check


def _lock(connection: Connection, study_id: int) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:c, :s)"), {"c": _LOCK_CLASS, "s": study_id})


def _live(connection: Connection, study_id: int) -> int:
    sql = "SELECT count(*) FROM trials WHERE study_id = :study AND state <> 'FAIL'"
    return int(connection.scalar(text(sql), {"study": study_id}) or 0)


def _rows(database: Database, study_id: int) -> tuple[int, int, set[str], set[str]]:
    """Rows that did not fail, WAITING ones of them, and the points (as Optuna spells them) of all rows and of those that did not fail."""
    with database.transaction() as connection:
        rows = connection.execute(
            text(
                """SELECT t.state::text AS state, a.value_json AS point FROM trials t
                   LEFT JOIN trial_system_attributes a ON a.trial_id = t.trial_id AND a.key = 'fixed_params'
                   LEFT JOIN tailfill_leases l ON l.trial_id = t.trial_id
                   WHERE t.study_id = :study AND l.state IS DISTINCT FROM 'withdrawn'"""
            ),
            {"study": study_id},
        ).all()
    alive = [row for row in rows if row.state != "FAIL"]
    return (
        len(alive),
        sum(row.state == "WAITING" for row in rows),
        {row.point for row in rows},
        {row.point for row in alive},
    )


def _spelling(point: Point) -> str:
    return json.dumps(dict(point))  # as Optuna writes `fixed_params`
