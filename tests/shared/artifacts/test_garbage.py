"""Tests what is garbage, and that removing it loses nothing that a commit needs, on a folder and on a real S3 server."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.artifacts import garbage
from shared.artifacts.artifacts import BLOBS, Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.garbage import REMOVED, find_garbage, remove_garbage
from shared.artifacts.manifest import Manifest, Run
from shared.artifacts.s3 import S3Store
from shared.artifacts.store import Store, Unfinished
from shared.errors import ArtifactError

RUN = Run(created="", seconds=0, device="cpu", device_seconds=0, code="", libraries={})
ANY_AGE = -1.0  # seconds: every blob is old, so that no rule about ages protects it
SHORT = 4.0  # seconds, within which a machine that is busy uploads and lists a few blobs


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(f"{request.param}_store")
    return found


def artifacts_of(store: Store, tmp_path: Path, study: str = "study") -> Artifacts:
    return Artifacts(store, study, tmp_path / "cache")


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / uuid.uuid4().hex
    path.write_bytes(data)
    return path


def commit(artifacts: Artifacts, path: Path, between: Callable[[], object] = lambda: None) -> Manifest:
    """Commits a result with one file, as a stage does; calls `between` after the upload and before the manifest."""
    file = artifacts.upload("data", path)
    between()
    key = uuid.uuid4().hex
    manifest = Manifest(study=artifacts.study, stage="prepare", key=key, version=1, config={}, inputs={}, files=(file,), summary={}, run=RUN)  # fmt: skip
    return artifacts.commit(manifest, paths={"data": path})


def blobs(store: Store) -> list[str]:
    return list(store.list(BLOBS))


def test_only_what_no_study_names_goes(store: Store, tmp_path: Path) -> None:
    mine, other = artifacts_of(store, tmp_path), artifacts_of(store, tmp_path, "other")
    kept = {commit(each, written(tmp_path, data)).files[0] for each, data in ((mine, b"mine"), (other, b"other"))}
    waste = mine.upload("waste", written(tmp_path, b"waste"))
    mine.save_checkpoint("tune", "k", "trial-1", {"weights": written(tmp_path, b"checkpoint")}, {"step": 1})
    mine.save_part("generate", "k", 0, {"part": written(tmp_path, b"part")}, {})
    store.put(f"{BLOBS}readme", b"of somebody else")
    store.put(f"{REMOVED}readme", b"of somebody else")
    time.sleep(SHORT + 1.5)
    young = mine.upload("young", written(tmp_path, b"young"))
    found = find_garbage(store, SHORT)
    assert [blob.key for blob in found.blobs] == [BLOBS + waste.digest]
    assert (found.bytes, found.named, found.young, found.manifests) == (5, 2, 1, 2)
    assert remove_garbage(store, found, SHORT) == 1
    assert set(blobs(store)) == {BLOBS + file.digest for file in {*kept, young}} | {f"{BLOBS}readme"}
    assert list(store.list("removed/")) == [f"{REMOVED}readme"]
    assert mine.load_checkpoint("tune", "k", "trial-1") is not None
    assert mine.has_part("generate", "k", 0)
    assert [blob.key for blob in find_garbage(store, ANY_AGE).blobs] == [BLOBS + young.digest]


def test_a_listing_alone_removes_nothing(store: Store, tmp_path: Path) -> None:
    artifacts_of(store, tmp_path).upload("waste", written(tmp_path, b"waste"))
    before = list(store.list(""))
    assert len(find_garbage(store, ANY_AGE).blobs) == 1
    assert list(store.list("")) == before


def test_a_manifest_of_another_version_keeps_its_blobs(store: Store, tmp_path: Path) -> None:
    artifacts = artifacts_of(store, tmp_path)
    file = artifacts.upload("data", written(tmp_path, b"data"))
    store.put("study/distill/k/manifest.json", b'{"blobs": ["%s"]}' % file.digest.encode())
    assert not find_garbage(store, ANY_AGE).blobs


def test_a_manifest_that_cannot_be_read_stops_it(folder_store: FolderStore, tmp_path: Path) -> None:
    artifacts_of(folder_store, tmp_path).upload("data", written(tmp_path, b"data"))
    folder_store.put("study/prepare/k/manifest.json", b"")
    with (folder_store.root / "study/prepare/k/manifest.json").open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        find_garbage(folder_store, ANY_AGE)


def test_a_blob_that_is_put_again_is_young(store: Store, tmp_path: Path) -> None:
    artifacts = artifacts_of(store, tmp_path)
    artifacts.upload("data", written(tmp_path, b"data"))
    time.sleep(SHORT + 1.5)
    found = find_garbage(store, SHORT)
    assert len(found.blobs) == 1
    artifacts.upload("data", written(tmp_path, b"data"))  # after the listing, before the removal
    assert remove_garbage(store, found, SHORT) == 0
    assert len(blobs(store)) == 1


def moves(monkeypatch: pytest.MonkeyPatch, store: Store, **hooks: Callable[[], object]) -> None:
    """Calls the hooks `before` and `after` around the first move of a blob to `removed/`."""
    move, left = store.move, dict(hooks)

    def hooked(key: str, target: str) -> None:
        left.pop("before", lambda: None)()
        move(key, target)
        left.pop("after", lambda: None)()

    monkeypatch.setattr(store, "move", hooked)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_whole_commit_beside_a_removal(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    artifacts, path = artifacts_of(store, tmp_path), written(tmp_path, b"data")
    artifacts.upload("data", path)
    found = find_garbage(store, ANY_AGE)
    committed: list[Manifest] = []
    moves(monkeypatch, store, **{when: lambda: committed.append(commit(artifacts, path))})
    assert remove_garbage(store, found, ANY_AGE) == 0
    assert artifacts.fetch(committed[0].files[0]).read_bytes() == b"data"
    assert not list(store.list(REMOVED))


def test_a_removal_between_the_upload_and_the_manifest(store: Store, tmp_path: Path) -> None:
    artifacts, path = artifacts_of(store, tmp_path), written(tmp_path, b"data")

    def collect() -> None:
        assert remove_garbage(store, find_garbage(store, ANY_AGE), ANY_AGE) == 1

    manifest = commit(artifacts, path, collect)
    assert artifacts.fetch(manifest.files[0]).read_bytes() == b"data"


def test_a_manifest_between_the_move_and_the_second_reading(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts, path = artifacts_of(store, tmp_path), written(tmp_path, b"data")
    file = artifacts.upload("data", path)

    def killed_after_its_manifest() -> None:
        store.put("study/prepare/k/manifest.json", file.model_dump_json().encode())

    found = find_garbage(store, ANY_AGE)
    moves(monkeypatch, store, after=killed_after_its_manifest)
    assert remove_garbage(store, found, ANY_AGE) == 0
    assert artifacts.fetch(file).read_bytes() == b"data"


@pytest.mark.parametrize("committed_again", [True, False])
def test_a_removal_that_pauses_within_a_move_beside_another(
    s3_store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed_again: bool
) -> None:
    """On a server a move is a copy and then a deletion, between which anything may happen."""
    store, artifacts, path = s3_store, artifacts_of(s3_store, tmp_path), written(tmp_path, b"data")
    artifacts.upload("data", path)
    found, delete = find_garbage(store, ANY_AGE), store.delete

    def paused(key: str) -> None:
        monkeypatch.setattr(store, "delete", delete)
        if committed_again:
            commit(artifacts, path)
        remove_garbage(
            store, find_garbage(store, ANY_AGE)
        )  # by another process, for which a blob in `removed/` is young
        if not committed_again:
            commit(artifacts, path)
        delete(key)

    monkeypatch.setattr(store, "delete", paused)
    assert remove_garbage(store, found, ANY_AGE) == 0
    assert [store.get(key) for key in blobs(store)] == [b"data"]


def test_a_removal_that_pauses_before_its_move_beside_another(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts, path = artifacts_of(store, tmp_path), written(tmp_path, b"data")
    artifacts.upload("data", path)
    time.sleep(SHORT + 1.5)
    found, move, named = find_garbage(store, SHORT), store.move, garbage._named

    def slow(key: str, target: str) -> None:
        monkeypatch.setattr(store, "move", move)

        def read(at: Store) -> tuple[int, set[bytes]]:
            monkeypatch.setattr(garbage, "_named", named)
            before = named(at)
            commit(artifacts, path)
            move(key, target)
            return before

        monkeypatch.setattr(garbage, "_named", read)
        assert remove_garbage(store, found, SHORT) == 1  # by another process: the commit comes after its second reading

    monkeypatch.setattr(store, "move", slow)
    assert remove_garbage(store, found, SHORT) == 0
    assert [store.get(key) for key in blobs(store)] == [b"data"]


@pytest.mark.parametrize("needed", [True, False])
def test_what_a_killed_removal_left(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: bool
) -> None:
    artifacts = artifacts_of(store, tmp_path)
    file = artifacts.upload("data", written(tmp_path, b"data"))

    def killed() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        moves(patched, store, after=killed)
        with pytest.raises(KeyboardInterrupt):
            remove_garbage(store, find_garbage(store, ANY_AGE), ANY_AGE)
    if needed:
        store.put("study/prepare/k/manifest.json", file.model_dump_json().encode())
    assert find_garbage(store).interrupted == 1
    remove_garbage(store, find_garbage(store))  # it is young: another process may be about to move it back
    assert [key.rpartition("/")[2] for key in store.list(REMOVED)] == ([] if needed else [file.digest])
    remove_garbage(store, find_garbage(store), ANY_AGE)
    assert not list(store.list(REMOVED))
    assert blobs(store) == ([BLOBS + file.digest] if needed else [])


def test_commits_race_removals(store: Store, tmp_path: Path) -> None:
    artifacts = artifacts_of(store, tmp_path)
    paths = [written(tmp_path, b"content %d" % number) for number in range(3)]
    ended = threading.Event()

    def collect() -> int:
        removals = 0
        while not ended.is_set():
            found = replace(find_garbage(store, ANY_AGE), uploads=())  # the writes under way are young in truth
            removals += remove_garbage(store, found, ANY_AGE)
        return removals

    def write(path: Path) -> Manifest:
        for _ in range(11):
            artifacts.forget("prepare", commit(artifacts, path).key)  # its blob is garbage again
        return commit(artifacts, path)

    with ThreadPoolExecutor(4) as pool:
        collector = pool.submit(collect)
        try:
            kept = list(pool.map(write, paths))
            time.sleep(0.2)
        finally:
            ended.set()
        assert collector.result() > 0
    assert sorted(artifacts.fetch(manifest.files[0]).read_bytes() for manifest in kept) == [
        b"content 0", b"content 1", b"content 2",
    ]  # fmt: skip


def test_several_removals_at_once(store: Store, tmp_path: Path) -> None:
    artifacts = artifacts_of(store, tmp_path)
    kept = commit(artifacts, written(tmp_path, b"kept"))
    for number in range(10):
        artifacts.upload("waste", written(tmp_path, b"%d" % number))
    time.sleep(SHORT + 1.5)
    found, results = find_garbage(store, SHORT), list[int]()
    threads = [threading.Thread(target=lambda: results.append(remove_garbage(store, found, SHORT))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert blobs(store) == [BLOBS + kept.files[0].digest]
    assert not list(store.list(REMOVED))


def test_unfinished_uploads(s3_store: S3Store) -> None:
    store: Any = s3_store

    def begin(key: str) -> str:
        answer = store._client.create_multipart_upload(Bucket=store.bucket, Key=store._key(key))
        return str(answer["UploadId"])

    old, foreign = begin(f"{BLOBS}{'a' * 64}"), begin("films/summer.mp4")
    time.sleep(SHORT + 1.5)
    begin(f"study/tune/{'b' * 64}/checkpoints/trial-1/c/weights")
    found = find_garbage(store, SHORT)
    assert [write.id for write in found.uploads] == [old]
    remove_garbage(store, found, SHORT)
    remove_garbage(store, found, SHORT)  # it is gone already
    assert {write.id for write in store.unfinished()} >= {foreign}
    assert len(list(store.unfinished())) == 2


def test_temporary_files_of_killed_writers(folder_store: FolderStore) -> None:
    (folder_store.root / ".incoming/tmp1").write_bytes(b"half")
    assert not find_garbage(folder_store).uploads
    found = find_garbage(folder_store, ANY_AGE)
    assert [write.key for write in found.uploads] == [".incoming/tmp1"]
    remove_garbage(folder_store, found, ANY_AGE)
    assert not list(folder_store.unfinished())
    with pytest.raises(ArtifactError, match="names are relative"):
        folder_store.abandon(Unfinished("../other", "", 0))


def test_a_large_store_says_how_far_it_is(
    folder_store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(garbage, "LISTED_PER_LINE", 2)
    artifacts = artifacts_of(folder_store, tmp_path)
    for number in range(5):
        artifacts.upload("waste", written(tmp_path, b"%d" % number))
    with caplog.at_level("INFO", "tailfill"):
        remove_garbage(folder_store, find_garbage(folder_store, ANY_AGE), ANY_AGE)
    lines = [(record.getMessage(), getattr(record, "progress", None)) for record in caplog.records]
    assert any(event.startswith("listed") for event, _ in lines)
    assert any(progress and progress["done"] == progress["total"] == 5 for _, progress in lines)
