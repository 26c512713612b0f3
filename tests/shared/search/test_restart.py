"""Tests a database that was stopped: workers that could not renew their leases meanwhile have the time of a lease to do so."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from sqlalchemy import text

from shared.errors import Stopped
from shared.search import budget
from shared.search.coordinator import Coordinator
from shared.search.leases import Claim, Leases
from shared.search.search_state import SearchStep, make_study, read_search, write_search
from shared.search.storage import Database
from shared.stop import StopSignal
from tests.support.search.drill import Drill, Place
from tests.support.search.own_server import OwnServer, Proxy

LEASE_SECONDS = 3.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnServer]:
    """Yields a PostgreSQL that this test may stop."""
    started = OwnServer(tmp_path / "postgres")
    yield started
    started.stop()


def test_nothing_is_taken_within_a_lease_of_a_restart(server: OwnServer, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill()
    database = Database(server.url, patience=30)
    database.create_tables()
    study = make_study(database, drill.name, drill.search)
    write_search(database, drill.name, study._study_id, SearchStep(drill.name, "", ("x", "y"), {}), drill.search, None)
    budget.fill(database, study, 2, [], repeat_failed=False)
    leases = Leases(database, LEASE_SECONDS, max_retries=9)
    leases.adopt(study._study_id)
    alive, gone = _claim(leases, study), _claim(leases, study)

    server.stop()
    time.sleep(LEASE_SECONDS + 0.5)  # both leases have expired
    server.start()
    database.call("renewing", lambda: leases.renew(alive))
    while leases.reap(study._study_id) == 0:
        leases.renew(alive)
        time.sleep(0.1)
    assert _seconds_since_start(database) >= LEASE_SECONDS
    leases.renew(alive)
    assert leases.claim(drill.name, study._study_id, "test", "cpu").trial_id == gone.trial_id  # type: ignore[union-attr]
    database.close()


def _claim(leases: Leases, study: optuna.Study) -> Claim:
    claim = leases.claim(study.study_name, study._study_id, "test", "cpu")
    assert claim is not None
    leases.start(claim)
    return claim


def _seconds_since_start(database: Database) -> float:
    with database.transaction() as connection:
        return float(
            connection.scalar(text("SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())")) or 0
        )


def test_coordinator_that_was_cut_off_takes_nothing_within_a_lease(
    database: Database, make_drill: Callable[..., Drill]
) -> None:
    """A worker may have lost its connection at the same time."""
    drill = make_drill(trials=1, lease_seconds=LEASE_SECONDS)
    leases, stop = Leases(database, LEASE_SECONDS), StopSignal()
    with Proxy(drill.url) as proxy:
        through = Database(proxy.url, patience=60)
        coordinator = Coordinator(through, drill.spec, Place(), stop)
        thread = threading.Thread(target=lambda: _until_stopped(coordinator))
        thread.start()
        try:
            _ticks_after(database, drill, 0.0)
            row = read_search(database, drill.name)
            assert row is not None
            claim = leases.claim(drill.name, row.study_id, "test", "cpu")
            assert claim is not None
            leases.start(claim)
            proxy.cut()
            time.sleep(LEASE_SECONDS + 0.5)  # the lease has expired
            cut = _now(database)
            proxy.mend()
            back = _ticks_after(database, drill, cut)
            leases.renew(claim)  # it is not reaped yet
            while _held(database, claim):
                time.sleep(0.1)
            assert _now(database) - back >= LEASE_SECONDS
        finally:
            stop.set()
            thread.join()
            through.close()


def _until_stopped(coordinator: Coordinator) -> None:
    with contextlib.suppress(Stopped):
        coordinator.run()


def _now(database: Database) -> float:
    with database.transaction() as connection:
        return float(connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0)


def _ticks_after(database: Database, drill: Drill, moment: float) -> float:
    """Waits for a later heartbeat of the coordinator, and returns its time."""
    sql = text("SELECT extract(epoch FROM ticked_at) FROM tailfill_searches WHERE name = :name")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with database.transaction() as connection:
            ticked = float(connection.scalar(sql, {"name": drill.name}) or 0)
        if ticked > moment:
            return ticked
        time.sleep(0.05)
    raise AssertionError("the coordinator gives no sign")


def _held(database: Database, claim: Claim) -> bool:
    with database.transaction() as connection:
        sql = text("SELECT state = 'held' FROM tailfill_leases WHERE trial_id = :trial")
        return bool(connection.scalar(sql, {"trial": claim.trial_id}))
