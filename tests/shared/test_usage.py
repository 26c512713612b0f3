"""Tests the records of the time that processes spend on a result that is not committed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from shared import usage as meter
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import Manifest, Run
from shared.errors import Stopped, UnavailableError
from shared.usage import Meter, Record, records_under_way


class Flaky(FolderStore):
    """Stores in a folder, but can be made unavailable."""

    unavailable = False

    def put(self, key: str, data: bytes) -> None:
        if self.unavailable:
            raise UnavailableError("the store is unavailable")
        super().put(key, data)


@pytest.fixture
def store(tmp_path: Path) -> Flaky:
    return Flaky(tmp_path / "store")


@pytest.fixture
def artifacts(store: Flaky, tmp_path: Path) -> Artifacts:
    return Artifacts(store, "study", tmp_path / "cache")


def begun(artifacts: Artifacts, ago: float = 0.0, gpus: int = 0, key: str = "k") -> Meter:
    return Meter(artifacts, "finetune", key, gpus, time.monotonic() - ago)


def commit(artifacts: Artifacts) -> None:
    run = Run(created="", seconds=0, device="cpu", device_seconds=0, code="", libraries={})
    artifacts.commit(
        Manifest(study="study", stage="finetune", key="k", version=1, config={}, inputs={}, files=(), summary={}, run=run)
    )  # fmt: skip


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.005)
    return holds()


def only(artifacts: Artifacts) -> Record | None:
    """Returns the only record, or None if there is none yet."""
    found = records_under_way(artifacts, "finetune")
    assert len(found) < 2
    return found[0] if found else None


def test_a_record_from_the_beginning_on(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "RECORD_SECONDS", 0.01)
    with begun(artifacts, ago=100, gpus=2):
        assert eventually(lambda: only(artifacts) is not None)
        first = only(artifacts)
        assert first is not None
        assert (first.gpus, first.kept) == (2, 0)
        assert first.gpu_seconds == pytest.approx(200, abs=20)
        assert eventually(lambda: (only(artifacts) or first).seconds > first.seconds)


def test_what_a_checkpoint_keeps_is_recorded_at_once(artifacts: Artifacts) -> None:
    with begun(artifacts, ago=100) as measured:
        measured.keep(70)
        assert eventually(lambda: (only(artifacts) or Record(gpus=0, seconds=0, kept=0)).kept == 70)
        measured.keep(60)  # an older checkpoint, whose upload took longer
        measured.keep(80)
        assert eventually(lambda: (only(artifacts) or Record(gpus=0, seconds=0, kept=0)).kept == 80)


def test_who_is_stopped_loses_what_came_after_its_checkpoint_and_who_ends_well_nothing(artifacts: Artifacts) -> None:
    with suppress(Stopped), begun(artifacts, ago=100) as measured:
        measured.keep(70)
        raise Stopped("a signal")
    stopped = only(artifacts)
    assert stopped is not None
    assert (stopped.kept, stopped.seconds) == (70, pytest.approx(100, abs=10))
    with begun(artifacts, ago=10, key="other"):
        pass
    well = next(record for record in records_under_way(artifacts, "finetune") if record.seconds < 50)
    assert well.kept == pytest.approx(well.seconds, abs=0.1)


def test_who_commits_reads_the_others_and_leaves_no_record(artifacts: Artifacts) -> None:
    with begun(artifacts, ago=5):
        pass  # another process, which made its part
    with begun(artifacts, ago=100) as measured:
        (other,) = measured.settle()
        assert other.seconds == pytest.approx(5, abs=4)
        commit(artifacts)
    assert not list(artifacts.store.list("study/finetune/k/spent/"))


def test_who_ends_after_the_commit_of_another_leaves_no_record(artifacts: Artifacts) -> None:
    with begun(artifacts) as late:
        assert eventually(lambda: artifacts.store.exists(late._own))
        commit(artifacts)
        late.keep(0)
    assert not artifacts.store.exists(late._own)


def test_an_unavailable_store_is_logged_once_and_ends_nothing(
    store: Flaky, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(meter, "RECORD_SECONDS", 0.01)
    store.unavailable = True
    with begun(artifacts):
        time.sleep(0.1)
    assert [record.message for record in caplog.records] == ["the time that this process spends is not recorded"]
    assert only(artifacts) is None
    with begun(artifacts):
        store.unavailable = False  # now it is recorded again
    assert only(artifacts) is not None


def test_a_record_of_another_version_is_left_out(artifacts: Artifacts, caplog: pytest.LogCaptureFixture) -> None:
    artifacts.store.put("study/finetune/k/spent/a.json", b'{"hours": 3}')
    assert records_under_way(artifacts, "finetune") == []
    assert "left out" in caplog.text
