"""Tests what the monitor reads of a search in each phase of its life."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import text

from shared.errors import ConfigError, UnavailableError
from shared.search import budget
from shared.search.heartbeat import Heartbeat, worker_label
from shared.search.leases import Claim, Leases, fail
from shared.search.monitor import SearchSnapshot, read_searches
from shared.search.search_state import SearchProgress, SearchStep, make_study, write_search
from shared.search.storage import Database
from tests.support.search.drill import Drill


@pytest.fixture
def study(database: Database, make_drill: Callable[..., Drill]) -> optuna.Study:
    """Makes an open search of five queued trials."""
    drill = make_drill(lease_seconds=60)
    made = make_study(database, drill.name, drill.search)
    step = SearchStep(drill.name, "", ("x", "y"), {})
    write_search(database, drill.name, made._study_id, step, drill.search, None, SearchProgress("real", 5, 1, 2))
    budget.fill(database, made, 5, [], repeat_failed=False)
    Leases(database, 60).adopt(made._study_id)
    return made


def look(url: str, study: optuna.Study) -> SearchSnapshot:
    (found,) = read_searches(url, f"^{study.study_name}$")
    return found


def claimed(leases: Leases, study: optuna.Study, device: str = "cpu") -> Claim:
    claim = leases.claim(study.study_name, study._study_id, "host/1", device)
    assert claim is not None
    leases.start(claim)
    return claim


def finished(database: Database, leases: Leases, claim: Claim, state: TrialState, value: float) -> None:
    with database.guarded(leases.guard(claim)):
        database.storage.set_trial_state_values(claim.trial_id, state, [value])
    leases.finish(claim)


def older(database: Database, claim: Claim, column: str, seconds: float) -> None:
    with database.transaction() as connection:
        connection.execute(
            text(f"UPDATE tailfill_leases SET {column} = {column} - :s * interval '1 s' WHERE trial_id = :trial"),
            {"s": seconds, "trial": claim.trial_id},
        )


def test_nothing_has_begun(database_url: str, postgres_url: str, database: Database) -> None:
    assert read_searches(database_url, ".*") == []  # there is no table
    assert read_searches(postgres_url, "^no-such-search$") == []


def test_trials_by_state_best_and_pace(database: Database, study: optuna.Study, postgres_url: str) -> None:
    leases = Leases(database, 60)
    for value, state in ((0.5, TrialState.COMPLETE), (0.1, TrialState.PRUNED), (0.3, TrialState.COMPLETE)):
        claim = claimed(leases, study)
        older(database, claim, "claimed_at", 100)
        finished(database, leases, claim, state, value)
    failed = claimed(leases, study)
    fail(database, leases.guard(failed), failed.trial_id, "out of memory: 3 GiB")
    leases.finish(failed)
    budget.fill(database, study, 5, [], repeat_failed=False)
    leases.adopt(study._study_id)
    running = claimed(leases, study)
    older(database, running, "claimed_at", 50)
    found = look(postgres_url, study)
    counts = (found.complete, found.pruned, found.failed, found.running, found.stale, found.queued)
    assert counts == (2, 1, 1, 1, 0, 1)
    assert (found.finished, found.wanted, found.left, found.experiment) == (3, 5, 2, "real")
    assert found.best == 0.3  # the loss is minimised, and the pruned trial does not count
    assert found.last_failure == "out of memory: 3 GiB"
    assert found.trial_seconds == pytest.approx(100, abs=2)
    assert found.workers == 1  # the one that holds the lease
    # two trials of this step, five of the other, less the 50 seconds of the running one, by one worker
    assert found.seconds_left == pytest.approx(7 * 100 - 50, abs=20)
    assert found.ticked_seconds < 30


def test_hours_used_and_lost(database: Database, study: optuna.Study, postgres_url: str) -> None:
    leases = Leases(database, 60)
    claim = claimed(leases, study, "NVIDIA L4")
    older(database, claim, "claimed_at", 30)
    leases.checkpointed(claim, 1, "key")
    older(database, claim, "checkpoint_at", 10)
    leases.give_back(claim)
    again = claimed(leases, study, "NVIDIA L4")
    older(database, again, "claimed_at", 20)
    on_cpu = claimed(leases, study)
    older(database, on_cpu, "claimed_at", 5)
    found = look(postgres_url, study)
    assert found.gpu_seconds == pytest.approx(50, abs=2)  # running trials count
    assert found.gpu_lost_seconds == found.lost_seconds == pytest.approx(10, abs=1)
    assert found.used_seconds == pytest.approx(55, abs=3)
    assert (found.resumes, found.losses) == (1, 0)


def test_a_stale_lease_names_its_worker_and_its_end(database: Database, study: optuna.Study, postgres_url: str) -> None:
    leases = Leases(database, 60)
    claim = claimed(leases, study)
    assert look(postgres_url, study).reaped_in is None
    older(database, claim, "expires_at", 45)
    found = look(postgres_url, study)
    assert (found.running, found.stale, found.lost_worker, found.workers) == (0, 1, "host/1", 0)
    # at the lease's end, or one lease after the server's start, which was during these tests
    assert found.reaped_in is not None
    assert 10 <= found.reaped_in <= 60
    older(database, claim, "expires_at", 1e6)
    assert look(postgres_url, study).used_seconds == 0  # it counts until its lease ended, as the reaper counts it


def test_a_gpu_without_a_trial_is_used_too(database: Database, study: optuna.Study, postgres_url: str) -> None:
    for device, seconds in (("cpu", 900.0), ("H100", 50.0), ("H100", 20.0)):
        with Heartbeat(database, study.study_name, device, lambda seconds=seconds: seconds):
            pass  # it has ended, but its seconds stay
    found = look(postgres_url, study)
    assert (found.gpu_seconds, found.used_seconds, found.lost_seconds, found.workers) == (70, 70, 0, 0)


def test_an_idle_worker_is_alive_until_it_signs_off(database: Database, study: optuna.Study, postgres_url: str) -> None:
    mine = Database(postgres_url)
    try:
        with Heartbeat(mine, study.study_name, "cpu", lambda: 0.0):
            deadline = time.monotonic() + 10
            while look(postgres_url, study).workers == 0 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert look(postgres_url, study).workers == 1
            claimed(Leases(database, 60), study)
            with database.transaction() as connection:  # the same worker, seen twice
                sql = "UPDATE tailfill_leases SET worker = :me WHERE study_id = :study"
                connection.execute(text(sql), {"me": worker_label(), "study": study._study_id})
            assert look(postgres_url, study).workers == 1
            with database.transaction() as connection:
                sql = "UPDATE tailfill_leases SET state = 'done' WHERE study_id = :study"
                connection.execute(text(sql), {"study": study._study_id})
                sql = "UPDATE tailfill_workers SET seen_at = seen_at - interval '1 minute' WHERE search = :name"
                connection.execute(text(sql), {"name": study.study_name})
            assert look(postgres_url, study).workers == 0  # it was killed
        with database.transaction() as connection:
            sql = "SELECT count(*) FROM tailfill_workers WHERE worker = :me"
            assert connection.scalar(text(sql), {"me": worker_label()}) == 0
    finally:
        mine.close()


def test_it_writes_nothing(database: Database, study: optuna.Study, postgres_url: str) -> None:
    def rows() -> list[object]:
        with database.transaction() as connection:
            tables = ("tailfill_searches", "tailfill_leases", "trials")
            return [connection.execute(text(f"SELECT * FROM {table} ORDER BY 1")).all() for table in tables]

    before = rows()
    look(postgres_url, study)
    assert rows() == before


def test_a_server_that_is_away_or_refuses_us(postgres_url: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(
            UnavailableError, match=rf"PostgreSQL at 127\.0\.0\.1:{port}/d is unavailable .*; see that it runs"
        ):
            read_searches(f"postgresql://u:the-password@127.0.0.1:{port}/d", ".*")
    scheme, _, place = postgres_url.partition("@")
    with pytest.raises(ConfigError, match="refuses us") as refused:
        read_searches(f"{scheme.rpartition(':')[0]}:wrong-password@{place}", ".*")
    with pytest.raises(ConfigError, match="DATABASE_URL: unknown parameter nonsense") as wrong:
        read_searches("postgresql://u:the-password@h/d?nonsense=1", ".*")
    assert "-password" not in str(refused.value) + str(wrong.value)
