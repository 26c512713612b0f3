"""Tests `strategy: sequential` with several workers: its steps are barriers, even if the coordinator and a worker are killed in them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any

import pytest
from sqlalchemy import text

from tests.support.search.drill import Drill
from tests.support.search.fleet import KILLED, Fleet, check_end
from tests.support.search.ledger import Ledger

MakeDrill = Callable[..., Drill]


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """Yields the ledger of an empty database."""
    with Ledger(database_url) as opened:
        yield opened


def steps(ledger: Ledger, drill: Drill) -> list[tuple[str, set[int]]]:
    """Returns Optuna's studies by name, in the order of the steps, each with its trials."""
    sql = """SELECT study_name, array_agg(trial_id) AS trials FROM studies JOIN trials USING (study_id)
             WHERE study_name LIKE :steps GROUP BY study_name ORDER BY study_name"""
    with ledger.database.transaction() as connection:
        rows = connection.execute(text(sql), {"steps": f"{drill.name}/%"}).all()
    return [(row.study_name, set(row.trials)) for row in rows]


def check_steps(ledger: Ledger, drill: Drill) -> dict[str, Any]:
    """Checks that each step has exactly its trials, each with one result, begins after the step before has ended, and keeps the best value.

    Returns the values after the last step.
    """
    found = steps(ledger, drill)
    assert [name.partition("/")[2][:4] for name, _ in found] == ["0-x-", "1-y-"]
    ledger.check_told_once()
    ledger.check_resumed(drill)
    fixed: dict[str, Any] = {}
    value, over = float("inf"), 0.0
    for (name, ids), path in zip(found, drill.search.space, strict=True):
        trials = check_end(ledger.database, drill, name, fixed)
        assert ids == {trial._trial_id for trial in trials}
        begun = [claim.at for claim in ledger.claims() if claim.trial_id in ids]
        assert min(begun) > over
        over = max(end.at for end in ledger.ends() if end.trial_id in ids)
        for attempt in ledger.attempts(drill):
            if attempt.trial_id in ids:
                assert {p: v for p, v in attempt.parameters.items() if p != path} == fixed
        best = min(trials, key=lambda trial: trial.values[0])
        if best.values[0] < value:
            fixed, value = {**fixed, path: best.params[path]}, best.values[0]
    return fixed


def in_the_middle(ledger: Ledger, fleet: Fleet, step: int) -> BaseProcess | None:
    """Returns a worker that holds a trial of the step which has a checkpoint."""
    sql = """SELECT worker FROM tailfill_leases JOIN studies USING (study_id)
             WHERE state = 'held' AND epochs BETWEEN 1 AND 3 AND study_name LIKE :step"""
    with ledger.database.transaction() as connection:
        held = {str(worker).rpartition("/")[2] for worker in connection.scalars(text(sql), {"step": f"%/{step}-%"})}
    return next((process for process in fleet.workers if str(process.pid) in held), None)


@pytest.mark.timeout(200)
def test_steps_are_barriers_for_two_workers(ledger: Ledger, make_drill: MakeDrill) -> None:
    """There are three trials: one worker runs the last, and the other waits."""
    drill = replace(make_drill(0.3, strategy="sequential", trials=3, lease_seconds=60.0), url=ledger.url)
    with Fleet(drill) as fleet:
        fleet.start_at_once(workers=2, coordinators=1)
        outcome = fleet.until(fleet.outcome)
        assert fleet.join(60) == [0, 0]
    assert outcome is not None
    assert outcome["parameters"] == check_steps(ledger, drill)
    assert len({attempt.lease["worker"] for attempt in ledger.attempts(drill)}) == 2
    assert len(ledger.claims()) == 6


@pytest.mark.slow
@pytest.mark.timeout(250)
def test_steps_under_fire(ledger: Ledger, make_drill: MakeDrill) -> None:
    """The coordinator and a worker are killed in the middle of a trial of each step."""
    drill = make_drill(0.15, strategy="sequential", trials=4, epochs=6, max_retries=20, lease_seconds=2.0)
    drill = replace(drill, url=ledger.url)
    with Fleet(drill) as fleet:
        fleet.add_coordinator()
        for step in (0, 1):
            fleet.restaff(2)
            worker = fleet.until(partial(in_the_middle, ledger, fleet, step))
            fleet.strike(worker, signal.SIGKILL)
            fleet.strike(fleet.coordinators[-1], signal.SIGKILL)
            worker.join()
            fleet.add_coordinator()
        fleet.restaff(2)
        outcome = fleet.until(fleet.outcome)
        assert set(fleet.join(60)) == {KILLED, 0}
    assert outcome is not None
    assert outcome["parameters"] == check_steps(ledger, drill)
