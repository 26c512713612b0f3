"""Tests what counts against `budget.gpu_hours`: the whole study, and no other one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import Manifest, Run
from shared.config.stages import Stage
from shared.search import budget, spending
from shared.search.heartbeat import Heartbeat
from shared.search.leases import Leases
from shared.search.search_state import SearchStep, make_study, write_search
from shared.search.spending import Spending
from shared.search.storage import Database
from shared.usage import Meter, records_under_way
from tests.support.search.drill import Drill

DIGITS = "0123456789abcdef"


@pytest.fixture
def empty(database_url: str) -> Iterator[Database]:
    """Yields a database for this test alone."""
    opened = Database(database_url, patience=10)
    opened.create_tables()
    yield opened
    opened.close()


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(FolderStore(tmp_path / "store"), "study", tmp_path / "cache")


def commit(artifacts: Artifacts, stage: Stage, key: str, gpu: float) -> None:
    run = Run(created="", seconds=gpu, device="H100", device_seconds=gpu, code="", libraries={})
    artifacts.commit(
        Manifest(study=artifacts.study, stage=stage, key=key, version=1, config={}, inputs={}, files=(), summary={}, run=run)
    )  # fmt: skip


def trial(database: Database, drill: Drill, name: str, device: str, seconds: float) -> tuple[Leases, int]:
    """Adds a running trial of a search (or a step of one) that began so long ago."""
    study = make_study(database, name, drill.search)
    write_search(database, name, study._study_id, SearchStep(name, "", ("x", "y"), {}), drill.search, None)
    budget.fill(database, study, 1, [], repeat_failed=False)
    leases = Leases(database, 3600)
    leases.adopt(study._study_id)
    claim = leases.claim(name, study._study_id, "host/1", device)
    assert claim is not None
    with database.transaction() as connection:
        sql = "UPDATE tailfill_leases SET claimed_at = claimed_at - :s * interval '1 s' WHERE trial_id = :trial"
        connection.execute(text(sql), {"s": seconds, "trial": claim.trial_id})
    return leases, study._study_id


def test_all_stages_and_all_searches_of_the_study(
    empty: Database, artifacts: Artifacts, make_drill: Callable[..., Drill]
) -> None:
    drill, now = make_drill(), [0.0]
    spent = Spending(empty, artifacts, lambda: now[0])
    assert spent.gpu_seconds() == 0
    commit(artifacts, "finetune", "f", 1000)
    commit(artifacts, "final", "a", 50)
    commit(artifacts, "final", "superseded", 50)  # under other settings, but the hours are spent
    commit(artifacts, "tune", "t", 5000)  # the leases of its search count the same time
    commit(replaced(artifacts, "other"), "final", "b", 7000)
    trial(empty, drill, f"study-{DIGITS}", "H100", 200)
    trial(empty, drill, f"study-{DIGITS[::-1]}/0-lr-12345678", "H100", 30)  # a step of a sequential search
    trial(empty, drill, f"study-b-{DIGITS}", "H100", 9000)  # another study
    trial(empty, drill, f"study-{DIGITS[1:]}0", "cpu", 9000)
    now[0] = spending.STORE_SECONDS - 0.1
    assert spent.gpu_seconds() == pytest.approx(230, abs=5)  # the store was read a moment ago
    now[0] = spending.STORE_SECONDS
    assert spent.gpu_seconds() == pytest.approx(1330, abs=5)


def test_work_under_way_and_lost_work_of_other_stages_is_spent(empty: Database, artifacts: Artifacts) -> None:
    def process(study: Artifacts, gpus: int, ago: float, key: str = "f") -> Meter:
        return Meter(study, "finetune", key, gpus, time.monotonic() - ago)

    for study, gpus, ago in ((artifacts, 2, 100), (artifacts, 0, 900), (replaced(artifacts, "other"), 1, 4000)):
        with process(study, gpus, ago):
            pass  # it has ended, in whichever way
    assert Spending(empty, artifacts).gpu_seconds() == pytest.approx(200, abs=20)
    with process(artifacts, 1, 50) as running:
        running.keep(0)
        deadline = time.monotonic() + 20
        while len(records_under_way(artifacts, "finetune")) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert Spending(empty, artifacts).gpu_seconds() == pytest.approx(250, abs=30)
        commit(artifacts, "finetune", "f", 333)  # the manifest includes them all
        assert Spending(empty, artifacts).gpu_seconds() == 333
    with process(artifacts, 1, 10, "superseded"):
        pass
    assert Spending(empty, artifacts).gpu_seconds() == pytest.approx(343, abs=5)


def test_a_tuning_worker_s_gpu_is_spent_while_it_has_no_trial(empty: Database, artifacts: Artifacts) -> None:
    for name in (f"study-{DIGITS}", f"study-b-{DIGITS}"):
        with Heartbeat(empty, name, "H100", lambda: 70.0):
            pass
    assert Spending(empty, artifacts).gpu_seconds() == 70


def replaced(artifacts: Artifacts, study: str) -> Artifacts:
    """Returns the same store for another study."""
    return Artifacts(artifacts.store, study, artifacts.cache)


def test_hours_lost_with_a_worker_are_spent(
    empty: Database, artifacts: Artifacts, make_drill: Callable[..., Drill]
) -> None:
    _, study_id = trial(empty, make_drill(), f"study-{DIGITS}", "H100", 200)
    spent = Spending(empty, artifacts)
    with empty.transaction() as connection:
        connection.execute(text("UPDATE tailfill_leases SET expires_at = clock_timestamp() - interval '100 s'"))
    before = spent.gpu_seconds()
    assert before == pytest.approx(100, abs=2)  # the hours of a lost worker end with its lease
    assert Leases(empty, 0.001, max_retries=3).reap(study_id) == 1
    assert spent.gpu_seconds() == pytest.approx(before, abs=0.1)
