from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import File, Manifest, Run
from shared.artifacts.s3 import S3Store
from shared.artifacts.store import Store
from shared.config.task import Input
from shared.errors import ArtifactError, UnavailableError

KEY = "0" * 64


@pytest.fixture(params=["folder", "seaweedfs"])
def store(request: pytest.FixtureRequest) -> Store:
    found: FolderStore | S3Store = request.getfixturevalue("folder_store" if request.param == "folder" else "s3_store")
    return found


@pytest.fixture
def artifacts(store: Store, tmp_path: Path) -> Artifacts:
    return Artifacts(store, "study", tmp_path / "cache")


def manifest(*files: File, summary: str = "") -> Manifest:
    return Manifest(
        study="study",
        stage="prepare",
        key=KEY,
        version=1,
        config={"lr": 1e-5},
        inputs={},
        files=files,
        summary={"who": summary},
        run=Run(
            created="2026-11-24T00:00:00+00:00", seconds=1.5, device="cpu", device_seconds=0, code="c", libraries={}
        ),
    )


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def cached(artifacts: Artifacts, file: File) -> Path:
    return artifacts.cache / "sha256" / file.digest[:2] / file.digest


def test_commit_and_read_back(artifacts: Artifacts, tmp_path: Path) -> None:
    assert artifacts.find("prepare", KEY) is None
    file = artifacts.upload("data", written(tmp_path / "data", b"hello"))
    committed = artifacts.commit(manifest(file))
    assert committed == artifacts.find("prepare", KEY) == manifest(file)
    opened = artifacts.open(Input(stage="prepare", key=KEY, digest=committed.digest))
    assert artifacts.fetch(opened.file("data")).read_bytes() == b"hello"


def test_the_second_commit_reads_the_first(artifacts: Artifacts) -> None:
    first = artifacts.commit(manifest(summary="first"))
    assert artifacts.commit(manifest(summary="second")) == first


def test_of_racing_commits_one_stands_for_all(artifacts: Artifacts) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: artifacts.commit(manifest(summary=str(i))), range(8)))
    assert len({result.digest for result in results}) == 1


def test_inputs_are_checked(artifacts: Artifacts) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json: not found; run the stage prepare first"):
        artifacts.open(Input(stage="prepare", key=KEY, digest="d" * 64))
    artifacts.commit(manifest())
    with pytest.raises(ArtifactError, match="expected ddd"):
        artifacts.open(Input(stage="prepare", key=KEY, digest="d" * 64))


def test_an_unreadable_manifest(artifacts: Artifacts) -> None:
    artifacts.store.put(f"study/prepare/{KEY}/manifest.json", b'{"study": ')
    with pytest.raises(ArtifactError, match=r"manifest\.json: not a manifest that this version can read"):
        artifacts.find("prepare", KEY)


@pytest.mark.parametrize("damaged", [b"hellO", b"hell", b""])
def test_a_changed_object_names_place_and_both_digests(artifacts: Artifacts, tmp_path: Path, damaged: bytes) -> None:
    file = artifacts.upload("data", written(tmp_path / "data", b"hello"))
    artifacts.store.put(f"blobs/sha256/{file.digest}", damaged)
    with pytest.raises(
        ArtifactError, match=rf"{artifacts.store.url}/blobs/sha256/{file.digest} .*has digest .*, expected"
    ):
        artifacts.fetch(file)
    assert list(cached(artifacts, file).parent.iterdir()) == []
    assert artifacts.upload("data", tmp_path / "data") == file  # uploading it again repairs it
    assert artifacts.fetch(file).read_bytes() == b"hello"


@pytest.mark.parametrize("longer", [b"hello!", b"hello" * 1_000_000])
def test_an_object_that_is_longer_than_its_manifest_says_is_not_read_on(
    artifacts: Artifacts, tmp_path: Path, longer: bytes
) -> None:
    file = artifacts.upload("data", written(tmp_path / "data", b"hello"))
    artifacts.store.put(f"blobs/sha256/{file.digest}", longer)
    with pytest.raises(ArtifactError, match=rf"{file.digest}: has more than the 5 bytes that were expected"):
        artifacts.fetch(file)
    assert list(cached(artifacts, file).parent.iterdir()) == []


def test_a_lost_object(artifacts: Artifacts, tmp_path: Path) -> None:
    file = artifacts.upload("data", written(tmp_path / "data", b"hello"))
    artifacts.store.delete(f"blobs/sha256/{file.digest}")
    with pytest.raises(ArtifactError, match="not found, though its manifest is"):
        artifacts.fetch(file)


@pytest.mark.parametrize("damaged", [b"hellO", b"hell", b""])
def test_a_damaged_cache_is_mended(artifacts: Artifacts, tmp_path: Path, damaged: bytes) -> None:
    file = artifacts.upload("data", written(tmp_path / "data", b"hello"))
    artifacts.fetch(file)
    cached(artifacts, file).write_bytes(damaged)
    another = Artifacts(artifacts.store, "study", artifacts.cache)
    assert another.fetch(file).read_bytes() == b"hello"


def test_the_cache_spares_the_store(artifacts: Artifacts, tmp_path: Path) -> None:
    file = artifacts.upload("data", written(tmp_path / "data", b"hello"))
    artifacts.fetch(file)
    artifacts.store.delete(f"blobs/sha256/{file.digest}")
    assert Artifacts(artifacts.store, "another", artifacts.cache).fetch(file).read_bytes() == b"hello"


def test_a_cache_shared_by_many(artifacts: Artifacts, tmp_path: Path) -> None:
    file = artifacts.upload("data", written(tmp_path / "data", os.urandom(1_000_000)))
    with ThreadPoolExecutor(8) as pool:
        fetch = lambda _: Artifacts(artifacts.store, "study", artifacts.cache).fetch(file).read_bytes()  # noqa: E731
        assert set(pool.map(fetch, range(8))) == {(tmp_path / "data").read_bytes()}
    assert list(cached(artifacts, file).parent.iterdir()) == [cached(artifacts, file)]


def test_checkpoints_are_replaced_whole_and_go_at_the_commit(artifacts: Artifacts, tmp_path: Path) -> None:
    assert artifacts.load_checkpoint("prepare", KEY, "fold-0") is None
    for step in (1, 2):
        weights = written(tmp_path / "w", b"weights %d" % step)
        artifacts.save_checkpoint("prepare", KEY, "fold-0", {"w.safetensors": weights}, {"step": step, "lr": 0.5})
    found = artifacts.load_checkpoint("prepare", KEY, "fold-0")
    assert found is not None
    assert found[1] == {"step": 2, "lr": 0.5}
    assert found[0]["w.safetensors"].read_bytes() == b"weights 2"
    folder = f"study/prepare/{KEY}/checkpoints/"
    assert len(list(artifacts.store.list(folder))) == 2  # the pointer and one file: the earlier checkpoint was removed
    artifacts.store.put(f"{folder}fold-0/{'f' * 32}/w.safetensors", b"of a killed process")
    artifacts.commit(manifest())
    assert list(artifacts.store.list(f"study/prepare/{KEY}/")) == [f"study/prepare/{KEY}/manifest.json"]


def test_a_commit_leaves_the_checkpoints_that_are_named(artifacts: Artifacts, tmp_path: Path) -> None:
    """They belong to unfinished work, which continues from them under another key. Forgetting the result removes them too."""
    for name in ("trial-1", "trial-12"):
        artifacts.save_checkpoint("prepare", KEY, name, {"w": written(tmp_path / "w", name.encode())}, {"step": 1})
    artifacts.commit(manifest(), ["trial-1"])
    found = artifacts.load_checkpoint("prepare", KEY, "trial-1")
    assert found is not None
    assert found[0]["w"].read_bytes() == b"trial-1"
    assert artifacts.load_checkpoint("prepare", KEY, "trial-12") is None
    assert not any("trial-12" in location for location in artifacts.store.list(f"study/prepare/{KEY}/"))
    artifacts.forget("prepare", KEY)
    assert list(artifacts.store.list(f"study/prepare/{KEY}/")) == [f"study/prepare/{KEY}/generation"]


def test_a_checkpoint_never_takes_bytes_from_under_a_manifest(artifacts: Artifacts, tmp_path: Path) -> None:
    weights = written(tmp_path / "w", b"the same bytes")
    file = artifacts.upload("model", weights)
    artifacts.save_checkpoint("tune", KEY, "trial", {"w": weights}, {})
    artifacts.save_checkpoint("tune", KEY, "trial", {"w": written(tmp_path / "v", b"others")}, {})
    artifacts.clean("tune", KEY)
    assert artifacts.fetch(file).read_bytes() == b"the same bytes"


def test_a_discarded_checkpoint_leaves_nothing(artifacts: Artifacts, tmp_path: Path) -> None:
    for name in ("a", "b"):
        artifacts.save_checkpoint("tune", KEY, name, {"w": written(tmp_path / "w", name.encode())}, {"step": 1})
    for _ in range(2):
        artifacts.discard_checkpoint("tune", KEY, "a")
    assert artifacts.load_checkpoint("tune", KEY, "a") is None
    assert all("/b" in location for location in artifacts.store.list(f"study/tune/{KEY}/"))
    assert artifacts.load_checkpoint("tune", KEY, "b") is not None


def test_a_kill_between_upload_and_pointer_leaves_the_old_checkpoint(artifacts: Artifacts, tmp_path: Path) -> None:
    artifacts.save_checkpoint("tune", KEY, "trial", {"w": written(tmp_path / "w", b"old")}, {"step": 1})
    artifacts.store.put(f"study/tune/{KEY}/checkpoints/trial/{'a' * 32}/w", b"new, its pointer not written")
    found = artifacts.load_checkpoint("tune", KEY, "trial")
    assert found is not None
    assert found[0]["w"].read_bytes() == b"old"


def test_parts_are_listed_by_index(artifacts: Artifacts, tmp_path: Path) -> None:
    for index in (0, 11, 3, 11):
        path = written(tmp_path / f"part-{index}", b"part %d" % index)
        artifacts.save_part("generate", KEY, index, {"images": path, "more": path}, {"index": index})
    parts = artifacts.parts("generate", KEY)
    assert sorted(parts) == [0, 3, 11]
    assert artifacts.fetch(parts[3].files[0]).read_bytes() == b"part 3"
    assert parts[11].values == {"index": 11}
    part = parts[0].files[0]
    artifacts.clean("generate", KEY)
    with pytest.raises(
        UnavailableError, match="committed by another process"
    ):  # a slower process, whose next run finds the commit
        Artifacts(artifacts.store, "study", tmp_path / "empty").fetch(part)


def test_digests_do_not_depend_on_the_run() -> None:
    one = manifest(summary="a")
    assert one.digest == one.model_copy(update={"run": one.run.model_copy(update={"seconds": 9.0})}).digest
    assert one.digest != manifest(summary="b").digest
    assert Manifest.model_validate_json(one.model_dump_json()).digest == one.digest


@pytest.mark.parametrize(
    "location",
    ["blobs/sha256/" + "0" * 64, f"study/tune/{KEY}/checkpoints/b/1/w", f"study/tune/{KEY}/checkpoints/a2/w"],
)
def test_a_checkpoint_names_its_own_files_only(artifacts: Artifacts, location: str) -> None:
    """Otherwise whoever writes a checkpoint could have the objects of others removed."""
    artifacts.store.put(location, b"another's")
    text = (
        f'{{"files": [{{"name": "w", "digest": "{"0" * 64}", "size": 1, "location": "{location}"}}], "values": {{}}}}'
    )
    artifacts.store.put(f"study/tune/{KEY}/checkpoints/a.json", text.encode())
    for touch in (artifacts.load_checkpoint, artifacts.discard_checkpoint):
        with pytest.raises(ArtifactError, match=r"a\.json: names .*, which is not below"):
            touch("tune", KEY, "a")
    assert artifacts.store.get(location) == b"another's"


def test_a_stray_object_is_no_part(artifacts: Artifacts, tmp_path: Path) -> None:
    artifacts.save_part("generate", KEY, 1, {"images": written(tmp_path / "w", b"1")}, {})
    artifacts.store.put(f"study/generate/{KEY}/parts/notes.json", b"")
    assert list(artifacts.parts("generate", KEY)) == [1]


def test_a_manifest_that_fills_the_memory_is_refused(
    artifacts: Artifacts, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.artifacts.store.LARGEST_IN_MEMORY", 100)
    store.put(f"study/prepare/{KEY}/manifest.json", b" " * 101)
    with pytest.raises(ArtifactError, match=r"manifest\.json: has 101 bytes, more than the 100 of anything"):
        artifacts.find("prepare", KEY)
    store.put(f"study/prepare/{KEY}/generation", b"7")
    assert artifacts.generation("prepare", KEY) == 7


@pytest.mark.parametrize("text", [b"", b"-1", b"seven", b"9" * 5000, b"\xff", b"\x1b[31m"])
def test_a_generation_that_is_none(artifacts: Artifacts, store: Store, text: bytes) -> None:
    store.put(f"study/prepare/{KEY}/generation", text)
    with pytest.raises(ArtifactError, match="must be a small whole number") as caught:
        artifacts.generation("prepare", KEY)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
