"""Tests the fence: of two workers, only the one with the current claim can write."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import Connection, text

from shared.config.search import Search
from shared.search import budget
from shared.search.leases import Claim, LeaseLost, Leases
from shared.search.search_state import SearchStep, make_study, write_search
from shared.search.storage import Database
from tests.support.search.drill import Drill


@pytest.fixture
def study(database: Database, make_drill: Callable[..., Drill]) -> optuna.Study:
    """Makes an open search of three queued trials."""
    drill = make_drill()
    made = make_study(database, drill.name, drill.search)
    write_search(database, drill.name, made._study_id, SearchStep(drill.name, "", ("x", "y"), {}), drill.search, None)
    budget.fill(database, made, 3, [], repeat_failed=False)
    Leases(database, 2).adopt(made._study_id)
    return made


def _claim(leases: Leases, study: optuna.Study) -> Claim:
    claim = leases.claim(study.study_name, study._study_id, "test", "cpu")
    assert claim is not None
    leases.start(claim)
    return claim


def _expire(database: Database, claim: Claim) -> None:
    with database.transaction() as connection:
        connection.execute(
            text("UPDATE tailfill_leases SET expires_at = clock_timestamp() - interval '1 s' WHERE trial_id = :trial"),
            {"trial": claim.trial_id},
        )


def _state(database: Database, claim: Claim) -> TrialState:
    state: TrialState = database.storage.get_trial(claim.trial_id).state
    return state


def _row(database: Database, claim: Claim) -> object:
    with database.transaction() as connection:
        return connection.execute(
            text("SELECT * FROM tailfill_leases WHERE trial_id = :trial"), {"trial": claim.trial_id}
        ).one()


def test_each_trial_is_claimed_once(database: Database, study: optuna.Study) -> None:
    leases = Leases(database, 60)
    claims = [_claim(leases, study) for _ in range(3)]
    assert len({claim.trial_id for claim in claims}) == 3
    assert leases.claim(study.study_name, study._study_id, "test", "cpu") is None
    assert all(_state(database, claim) == TrialState.RUNNING for claim in claims)


def test_closed_search_gives_no_trial(database: Database, study: optuna.Study) -> None:
    _close(database, study)
    assert Leases(database, 60).claim(study.study_name, study._study_id, "test", "cpu") is None


class HeldOpen(Database):
    """Keeps the next transaction of a database open, after its statements, until `go`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.ran, self.go = threading.Event(), threading.Event()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with super().transaction() as connection:
            yield connection
            self.ran.set()
            assert self.go.wait(20)


def _close(database: Database, study: optuna.Study) -> None:
    write_search(
        database, study.study_name, study._study_id, SearchStep(study.study_name, "", ("x", "y"), {}), Search(), "over"
    )


def _both(first: HeldOpen, one: Callable[[], object], other: Callable[[], object]) -> None:
    """Runs `other` for half a second while the transaction of `one` is open."""
    with ThreadPoolExecutor(2) as pool:
        begun = pool.submit(one)
        assert first.ran.wait(20)
        then = pool.submit(other)
        wait([then], timeout=0.5)
        first.go.set()
        begun.result()
        then.result()
    first.close()


def test_closing_waits_for_claims_under_way(database: Database, study: optuna.Study, postgres_url: str) -> None:
    """A count after it then includes every claimed trial."""
    claiming = HeldOpen(postgres_url)
    held: list[int] = []

    def close_and_count() -> None:
        _close(database, study)
        held.append(budget.count(database, study._study_id)[None].held)

    _both(
        claiming, lambda: Leases(claiming, 60).claim(study.study_name, study._study_id, "test", "cpu"), close_and_count
    )
    assert held == [1]


def test_claim_waits_for_a_closing_under_way(database: Database, study: optuna.Study, postgres_url: str) -> None:
    closing = HeldOpen(postgres_url)
    claims: list[Claim | None] = []
    _both(
        closing,
        lambda: _close(closing, study),
        lambda: claims.append(Leases(database, 60).claim(study.study_name, study._study_id, "test", "cpu")),
    )
    assert claims == [None]


def test_late_worker_cannot_report_or_finish(database: Database, study: optuna.Study, postgres_url: str) -> None:
    leases = Leases(database, 60, max_retries=3)
    late = _claim(leases, study)
    _expire(database, late)
    assert _reap(database, study) == 1
    assert _state(database, late) == TrialState.WAITING
    with pytest.raises(LeaseLost), database.guarded(leases.guard(late)):
        database.storage.set_trial_intermediate_value(late.trial_id, 0, 1.0)
    with pytest.raises(LeaseLost), database.guarded(leases.guard(late)):
        database.storage.set_trial_state_values(late.trial_id, TrialState.COMPLETE, [1.0])
    leases.give_back(late)  # it reports nothing and does nothing
    successor = _claim(leases, study)
    assert successor.trial_id == late.trial_id
    assert database.storage.get_trial(late.trial_id).intermediate_values == {}
    assert _state(database, late) == TrialState.RUNNING
    leases.give_back(late)
    assert _state(database, late) == TrialState.RUNNING


def _reap(database: Database, study: optuna.Study, max_retries: int = 3) -> int:
    """Reaps with leases that are much shorter than the time since the server's start."""
    return Leases(database, 0.001, max_retries).reap(study._study_id)


def test_expired_lease_that_nobody_took_is_renewed(database: Database, study: optuna.Study) -> None:
    leases = Leases(database, 60)
    claim = _claim(leases, study)
    _expire(database, claim)
    leases.renew(claim)
    assert _reap(database, study) == 0


def test_write_and_check_are_one_transaction(database: Database, study: optuna.Study, postgres_url: str) -> None:
    """A reaper that runs during a write of Optuna waits for it, and then finds the lease renewed."""
    leases = Leases(database, 60)
    claim = _claim(leases, study)
    _expire(database, claim)
    other = Database(postgres_url)
    taken: list[int] = []
    reaper = threading.Thread(target=lambda: taken.append(_reap(other, study)))
    renew = leases.guard(claim)

    def slow(connection: object) -> None:
        renew(connection)  # type: ignore[arg-type]
        reaper.start()
        time.sleep(0.5)
        assert not taken

    with database.guarded(slow):
        database.storage.set_trial_intermediate_value(claim.trial_id, 0, 0.5)
    reaper.join()
    other.close()
    assert taken == [0]
    assert _state(database, claim) == TrialState.RUNNING


def test_lost_worker_is_retried_from_its_checkpoint_and_then_given_up(database: Database, study: optuna.Study) -> None:
    leases = Leases(database, 60)
    claim = _claim(leases, study)
    for _ in range(2):
        _expire(database, claim)
        assert _reap(database, study, max_retries=2) == 1
        claim = _claim(leases, study)
    leases.checkpointed(claim, 4, "key/trial-0-3-4")  # there was progress, so the count starts again
    for _ in range(2):
        _expire(database, claim)
        assert _reap(database, study, max_retries=2) == 1
        claim = _claim(leases, study)
        assert (claim.epochs, claim.checkpoint) == (4, "key/trial-0-3-4")
    _expire(database, claim)
    assert _reap(database, study, max_retries=2) == 1
    frozen = database.storage.get_trial(claim.trial_id)
    assert frozen.state == TrialState.FAIL
    assert frozen.user_attrs["failure"] == "lost with its worker 3 times without progress"
    counts = budget.count(database, study._study_id)[None]
    assert (counts.failed, counts.held, counts.losses) == (1, 0, 5)


def test_given_back_trial_comes_first(database: Database, study: optuna.Study) -> None:
    leases = Leases(database, 60)
    _claim(leases, study)
    begun = _claim(leases, study)
    leases.checkpointed(begun, 1, "key/trial-1-1-1")
    leases.give_back(begun)
    assert _state(database, begun) == TrialState.WAITING
    assert _claim(leases, study).trial_id == begun.trial_id


def test_result_told_before_the_lease_ended_is_found(database: Database, study: optuna.Study) -> None:
    leases = Leases(database, 60)
    claim = _claim(leases, study)
    with database.guarded(leases.guard(claim)):
        database.storage.set_trial_state_values(claim.trial_id, TrialState.COMPLETE, [1.0])
    _expire(database, claim)  # its worker was killed here
    assert _reap(database, study) == 0
    leases.reconcile(study._study_id)
    assert _row(database, claim).state == "done"  # type: ignore[attr-defined]
    counts = budget.count(database, study._study_id)[None]
    assert (counts.complete, counts.held, counts.queued) == (1, 0, 2)


def test_seconds_held_and_lost_are_counted(database: Database, study: optuna.Study) -> None:
    leases = Leases(database, 60)
    claim = leases.claim(study.study_name, study._study_id, "test", "NVIDIA L4")
    assert claim is not None
    time.sleep(0.3)
    leases.checkpointed(claim, 1, "key/trial-0-1-1")
    time.sleep(0.2)
    leases.give_back(claim)
    row = _row(database, claim)
    assert 0.5 <= row.used_seconds < 2.0  # type: ignore[attr-defined]
    assert row.gpu_seconds == pytest.approx(row.used_seconds, abs=0.01)  # type: ignore[attr-defined]
    assert 0.2 <= row.lost_seconds < row.used_seconds - 0.2  # type: ignore[attr-defined]
