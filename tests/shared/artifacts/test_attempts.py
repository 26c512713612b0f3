from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.attempts import Attempt
from shared.artifacts.folder import FolderStore
from shared.artifacts.s3 import S3Store
from shared.artifacts.store import Store
from tests.shared.artifacts.test_artifacts import KEY, manifest

PREFIX = f"study/prepare/{KEY}/"


@pytest.fixture(params=["folder", "seaweedfs"])
def store(request: pytest.FixtureRequest) -> Store:
    found: FolderStore | S3Store = request.getfixturevalue("folder_store" if request.param == "folder" else "s3_store")
    return found


class Process:
    """Stands for a process on a machine of its own, which has a cache of its own."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.artifacts = Artifacts(store, "study", folder / "cache")
        self._file = folder / "w.bin"
        self._attempt = Attempt(self.artifacts, "prepare", KEY, "training")

    def load(self) -> tuple[bytes, int] | None:
        found = self._attempt.load()
        return None if found is None else (found[0]["w.bin"].read_bytes(), int(found[1]["step"]))

    def save(self, text: bytes, step: int) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_bytes(text)
        self._attempt.save({"w.bin": self._file}, {"step": step})


def test_each_attempt_goes_on_from_the_newest_checkpoint(store: Store, tmp_path: Path) -> None:
    first = Process(store, tmp_path / "1")
    assert first.load() is None
    for step in (1, 2):
        first.save(b"first", step)
    second = Process(store, tmp_path / "2")
    assert second.load() == (b"first", 2)
    third = Process(store, tmp_path / "3")  # the second ended before it had saved anything
    assert third.load() == (b"first", 2)
    third.save(b"third", 3)
    assert Process(store, tmp_path / "4").load() == (b"third", 3)


def test_a_process_that_was_replaced_and_works_on_to_the_end_changes_nothing(store: Store, tmp_path: Path) -> None:
    """Its node did not answer for a while, and another process has taken over its work."""
    replaced = Process(store, tmp_path / "1")
    replaced.save(b"replaced", 1)
    other = Process(store, tmp_path / "2")
    assert other.load() == (b"replaced", 1)
    other.save(b"other", 2)
    for step in (2, 3, 4):
        replaced.save(b"replaced", step)
        assert Process(store, tmp_path / f"reader-{step}").load() == (b"other", 2)
    other.save(b"other", 3)
    replaced.save(b"replaced", 5)
    assert Process(store, tmp_path / "3").load() == (b"other", 3)
    committed = other.artifacts.commit(manifest(summary="other"))
    replaced.save(b"replaced", 6)
    assert replaced.artifacts.commit(manifest(summary="replaced")) == committed
    assert replaced.artifacts.find("prepare", KEY) == committed
    assert list(store.list(PREFIX)) == [f"{PREFIX}manifest.json"]


def test_a_process_that_was_replaced_before_it_saved_anything(store: Store, tmp_path: Path) -> None:
    replaced = Process(store, tmp_path / "1")
    assert replaced.load() is None
    other = Process(store, tmp_path / "2")
    assert other.load() is None
    other.save(b"other", 1)
    replaced.save(b"replaced", 9)
    assert Process(store, tmp_path / "3").load() == (b"other", 1)


def test_the_checkpoints_of_earlier_attempts_are_removed(store: Store, tmp_path: Path) -> None:
    for number in range(5):
        Process(store, tmp_path / str(number)).save(b"w", number)
    assert len([location for location in store.list(PREFIX) if not location.endswith(".json")]) == 1


def test_attempts_that_begin_at_once_have_different_numbers(store: Store, tmp_path: Path) -> None:
    artifacts = Artifacts(store, "study", tmp_path)
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: artifacts.begin_attempt("prepare", KEY, "training"), range(8)))
    assert sorted(numbers) == list(range(1, 9)) == artifacts.attempts("prepare", KEY, "training")


def test_a_checkpoint_of_an_earlier_version_is_continued(store: Store, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"earlier")
    artifacts = Artifacts(store, "study", tmp_path / "cache")
    artifacts.save_checkpoint("prepare", KEY, "training", {"w.bin": tmp_path / "w.bin"}, {"step": 7})
    process = Process(store, tmp_path / "1")
    assert process.load() == (b"earlier", 7)
    process.save(b"own", 8)
    assert Process(store, tmp_path / "2").load() == (b"own", 8)
    assert artifacts.load_checkpoint("prepare", KEY, "training") is None


def test_only_attempts_at_the_same_work_count(store: Store, tmp_path: Path) -> None:
    artifacts = Artifacts(store, "study", tmp_path)
    artifacts.begin_attempt("prepare", KEY, "training-2")
    for stray in ("training.x.json", "training.1234567890.json", "training.7/json", "training.notes"):
        store.put(f"{PREFIX}checkpoints/{stray}", b"")
    assert artifacts.attempts("prepare", KEY, "training") == []
    assert artifacts.begin_attempt("prepare", KEY, "training") == 1
