"""A database that was away: whoever could not renew meanwhile gets a lease's time to do so."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from own_server import OwnServer
from sqlalchemy import text

from shared.context import StopSignal
from shared.search import budget
from shared.search.coordinator import Coordinator, Outcome
from shared.search.leases import Claim, Leases
from shared.search.searches import Step, make_study, write_search
from shared.search.simulate import Drill, FolderTrialCheckpoints, Place
from shared.search.storage import Database
from shared.search.worker import TrialHandle, Worker

LEASE_SECONDS = 3.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnServer]:
    """A PostgreSQL that this test may stop."""
    started = OwnServer(tmp_path / "postgres")
    yield started
    started.stop()


@pytest.fixture
def drill(server: OwnServer, make_drill: Callable[..., Drill]) -> Drill:
    """A search on it."""
    return dataclasses.replace(make_drill(trials=1, epochs=1, lease_seconds=LEASE_SECONDS), url=server.url)


def test_nothing_is_taken_within_a_lease_of_a_restart(server: OwnServer, drill: Drill) -> None:
    database = Database(server.url, patience=30)
    database.create_tables()
    study = make_study(database, drill.name, drill.search)
    write_search(database, drill.name, study._study_id, Step(drill.name, "", ("x", "y"), {}), drill.search, None)
    budget.fill(database, study, 2, [], repeat_failed=False)
    leases = Leases(database, LEASE_SECONDS, max_retries=9)
    leases.adopt(study._study_id)
    alive, gone = _claim(leases, study), _claim(leases, study)

    server.stop()
    time.sleep(LEASE_SECONDS + 0.5)  # both leases have run out
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


def test_worker_in_a_long_epoch_keeps_its_trial(server: OwnServer, drill: Drill) -> None:
    """Its lease runs out while the server is away; it renews before the coordinator may take it."""
    training, back = threading.Event(), threading.Event()

    class LongEpoch:
        def prepare(self) -> None:
            """Nothing to build."""

        def __call__(self, trial: TrialHandle) -> float:
            training.set()
            assert back.wait(60)
            time.sleep(2 * LEASE_SECONDS)  # in which a coordinator that may take it would
            trial.report(0, 1.0)
            return 1.0

    ended: list[Outcome] = []
    coordinating, working = Database(server.url), Database(server.url)
    coordinator = Coordinator(coordinating, drill.name, drill.search, drill.seed, Place(), StopSignal())
    worker = Worker(working, drill.name, drill.search, 0, FolderTrialCheckpoints(drill.folder), StopSignal())
    threads = [
        threading.Thread(target=lambda: ended.append(coordinator.run())),
        threading.Thread(target=lambda: worker.run(LongEpoch())),
    ]
    for thread in threads:
        thread.start()
    assert training.wait(60)
    server.stop()
    time.sleep(LEASE_SECONDS + 1)
    server.start()
    back.set()
    for thread in threads:
        thread.join()
    (trial,) = ended[0].steps[0].trials
    assert (trial.state, trial.claims, trial.losses) == ("complete", 1, 0)
    coordinating.close()
    working.close()
