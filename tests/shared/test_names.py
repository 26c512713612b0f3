"""Tests the rule for names, and that all code which makes a path from a name enforces it, so that nothing is written elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import httpx2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from jobs.cli import release, upload
from jobs.cli.export import write_dataset
from jobs.cli.report import fetch_report
from shared.artifacts import remote
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import File, Manifest, Run
from shared.artifacts.s3 import Listed, S3Store
from shared.artifacts.store import Unfinished
from shared.config.dataset import CsvSource
from shared.config.task import Input, TaskReference
from shared.data.imageset import ImageSet
from shared.data.problems import Problems
from shared.data.schema import LabelGroup, LabelSchema
from shared.data.sources.csv_table import read_csv
from shared.data.sources.paths import PathCheck
from shared.data.sources.table_paths import TablePaths
from shared.deploy.listing import list_images
from shared.errors import ArtifactError, ConfigError, DataError, InputError
from shared.names import checked_name, checked_part, has_control_character, name_fault, path_below
from shared.search import trial_checkpoints
from shared.settings import Settings
from shared.stop import StopSignal
from shared.tracking.event_files import EventFiles
from shared.tracking.records import RunRecord
from shared.weights import hub
from shared.weights.inputs import FetchedBase
from shared.weights.pretrained import read_state

KEY, DIGEST = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    "name",
    ["index.html", "plots/a.png", "unet/model.safetensors", ".hidden", "...", "a..b", "a b/ä—水色.json", "final/real/0", "b/c:d:e", "x" * 255],
)  # fmt: skip
def test_names_that_are_fine(name: str) -> None:
    assert checked_name(name, "thing") == name
    assert path_below(Path("folder"), name, "thing") == Path("folder") / name


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "empty"), ("/etc/x", "absolute"), ("//x", "absolute"), ("..", "part"), ("a/../b", "part"), ("a/..", "part"),
        (".", "normal"), ("./a", "normal"), ("a/./b", "normal"), ("a//b", "normal"), ("a/", "normal"),
        ("a\\b", "backslash"), ("..\\b", "backslash"), ("a\0b", "control"), ("a\n", "control"), ("a\x7f", "control"), ("a\x85", "control"),
        ("C:x", "drive"), ("c:/x", "drive"), ("a\ud800", "UTF-8"), ("ä" * 128, "too long"), ("a/" * 512 + "a", "too long"),
    ],
)  # fmt: skip
def test_names_that_are_not(name: str, fault: str) -> None:
    with pytest.raises(ArtifactError, match=rf"^thing: the name .*{fault}") as caught:
        checked_name(name, "thing")
    assert caught.value.exit_code == 2
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_part_is_no_path() -> None:
    assert checked_part("a", "thing") == "a"
    with pytest.raises(DataError, match="more than one part"):
        checked_part("a/b", "thing", DataError)


def test_links_that_lie_there(tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    (folder / "real").mkdir()
    outside.mkdir()
    (folder / "in").symlink_to(folder / "real")
    (folder / "out").symlink_to(outside)
    (folder / "circle").symlink_to(folder / "circle")
    assert path_below(folder, "in/x", "thing") == folder / "in/x"
    for name in ("out", "out/x", "circle/x"):
        with pytest.raises(ConfigError, match=r"^thing: .* a link that leaves the folder"):
            path_below(folder, name, "thing", ConfigError)
    assert path_below(folder, "out", "thing", replaces=True) == folder / "out"
    with pytest.raises(ArtifactError):
        path_below(folder, "out/x", "thing", replaces=True)
    (tmp_path / "linked").symlink_to(folder)
    assert path_below(tmp_path / "linked", "x", "thing") == tmp_path / "linked/x"


# -- all code that makes a path, a key or an archive member from a name that comes from elsewhere

PIECES = st.sampled_from(["..", ".", "", "a", "home", "\\", "a\0b", "\n", "\x7f", "C:", "ä", "~", "x" * 256, "\ud800"])
NAMES = st.lists(PIECES, min_size=1, max_size=6).map("/".join) | st.text(max_size=20) | st.just("BASE/stolen")
SCHEMA = LabelSchema(groups=(LabelGroup(name="g", classes=("x", "y")),))


class Sandbox:
    """Holds a folder to write in, and a file to write."""

    def __init__(self, base: Path) -> None:
        self.inside = base / "deep/down/inside"
        self.inside.mkdir(parents=True)
        self.file = base / "file"
        self.file.write_bytes(b"1")
        self.store = FolderStore(self.inside / "store")
        self.artifacts = Artifacts(self.store, "study", self.inside / "cache")
        self.settings = Settings.from_environment({"TAILFILL_CACHE": str(self.inside / "cache"), **AWS})
        self.blob = self.artifacts.upload("blob", self.file)


AWS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}


def event_file(box: Sandbox, name: str) -> None:
    settings = Settings.from_environment({"TAILFILL_TENSORBOARD": str(box.inside / "board")})
    EventFiles(settings, "study").log(RunRecord(name, name, name, name, (name, name)))


def unchecked(box: Sandbox, name: str) -> Any:
    """Returns a manifest without validating it."""
    return Manifest.model_construct(
        key=KEY, files=(File.model_construct(name=name, digest=box.blob.digest, size=1),), summary={"commit": "5" * 40}
    )


def read_manifest(box: Sandbox, **changed: Any) -> None:
    """Reads a manifest with changed fields from a store."""
    run = Run(created="", seconds=0, device="cpu", device_seconds=0, code="", libraries={})
    good = Manifest(
        study="study", stage="report", key=KEY, version=1, config={}, summary={}, run=run, files=(box.blob,),
        inputs={"prepare": Input(stage="prepare", key=KEY, digest=DIGEST)},
    )  # fmt: skip
    tree = {**json.loads(good.model_dump_json()), **changed}
    box.store.put(f"study/report/{KEY}/manifest.json", json.dumps(tree).encode())
    manifest = box.artifacts.find("report", KEY)
    assert manifest is not None
    fetch_report(box.artifacts, manifest, box.inside / "report")


def pointer(box: Sandbox, location: str) -> None:
    """Discards a checkpoint that claims another's object."""
    tree = {"files": [{"name": "w", "digest": box.blob.digest, "size": 1, "location": location}], "values": {}}
    box.store.put(f"study/tune/{KEY}/checkpoints/trial-1.json", json.dumps(tree).encode())
    box.artifacts.discard_checkpoint("tune", KEY, "trial-1")


class OfArtifacts:
    """Keeps trials' checkpoints as `tune` does."""

    def __init__(self, box: Sandbox) -> None:
        self.key, self._artifacts = KEY, box.artifacts

    def save(self, name: str, files: Any, values: Any) -> None:
        self._artifacts.save_checkpoint("tune", self.key, name, files, values)

    def load(self, key: str, name: str) -> Any:
        return self._artifacts.load_checkpoint("tune", key, name)

    def discard(self, key: str, name: str) -> None:
        self._artifacts.discard_checkpoint("tune", key, name)


def bucket(box: Sandbox, name: str) -> None:
    """Copies a data set whose bucket lists such a key."""

    class Store:
        url = "s3://bucket"

        def files(self) -> list[Listed]:
            return [Listed("good", "", 1), Listed(name, "", 1)]

        def get_file(self, key: str, path: Path, size: int) -> None:
            path.write_bytes(b"stolen")

    with mock.patch.object(remote, "open_bucket", return_value=Store()):
        remote.local_folder("s3://bucket/set", box.settings, box.inside / "scratch")


def of_s3(touch: Callable[[S3Store], object]) -> Callable[[Sandbox], None]:
    """Uses a server that does not exist: a name that is accepted ends in another error."""

    def call(box: Sandbox) -> None:
        with contextlib.suppress(ConnectionError):
            touch(S3Store("bucket", "", box.settings, attempts=1))

    return call


def download(box: Sandbox, name: str) -> None:
    def get(_: str, file: str, cache_dir: Path, **__: object) -> str:
        path = Path(cache_dir, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"stolen")
        return str(path)

    with mock.patch.object(hub, "hf_hub_download", get):
        repository = hub.Repository("a/b", "finetune.base", "5" * 40, {name: None}, box.inside / "hub")
        hub.download(repository, [name], box.settings, StopSignal())


def answered(header: str, value: str) -> None:
    with contextlib.suppress(UnicodeError):  # names that HTTP cannot transmit
        response = httpx2.Response(200, headers={header: value}, request=httpx2.Request("HEAD", "http://hub/x"))
        hub._check_headers(response)


def exported(box: Sandbox, split: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    splits = np.array([split], object)  # numpy's own strings drop a NUL at the end
    images = ImageSet(SCHEMA, [buffer.getvalue()], ["a"], splits, np.array([[1, 0]], np.int8))
    write_dataset(images, box.inside / "out")


def unpacked(box: Sandbox, name: str) -> None:
    buffer = io.BytesIO()
    with contextlib.suppress(UnicodeError), tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"1"))

    with mock.patch.object(release, "ask_control", return_value=buffer.getvalue()):
        release.fetch_release_report("release", None, box.inside / "report")


def listed(box: Sandbox, name: str) -> None:
    checked = PathCheck(box.inside.resolve(), Problems("skip")).check(name, "labels.csv line 2")
    if checked is None:
        raise DataError("reported")
    assert checked[1].is_relative_to(box.inside.resolve())


def cell(box: Sandbox, name: str) -> None:
    problems = Problems("skip")
    for paths in (TablePaths(box.inside.resolve()), TablePaths(box.inside.resolve(), lookup="name")):
        listed_path = paths.listed(name, "labels.csv line 2", problems)
        found = None if listed_path is None else PathCheck(box.inside.resolve(), problems).find(listed_path, "line 2")
        if found is None:
            raise DataError("reported")
        assert found[1].is_relative_to(box.inside.resolve())


def table(box: Sandbox, name: str) -> None:
    groups = {"kind": {"column": "kind", "classes": ["x", "y"]}}
    config = CsvSource.model_validate({"source": "csv", "root": ".", "file": name, "groups": groups}, strict=False)
    read_csv(config, box.inside, Problems("skip"))


def move_blob(box: Sandbox, name: str) -> None:
    """Moves an object to such a key."""
    box.store.put("a/b", b"1")
    box.store.move("a/b", name)


def table_of_images(box: Sandbox, name: str) -> None:
    table, fine = box.inside / "list.csv", box.inside / "fine.png"
    quoted = name.encode(errors="replace").decode().replace('"', '""')
    table.write_text(f'path,n\n"{quoted}",1\nfine.png,1\n')
    fine.touch()
    try:
        for image in list_images([table]):
            if image.fault is not None:
                raise DataError(image.fault)
            assert image.path.is_relative_to(box.inside.resolve())
    finally:
        table.unlink()
        fine.unlink()


def referring(**changes: Any) -> TaskReference:
    """Returns a reference that nothing has checked."""
    return TaskReference.model_construct(
        **{"study": "study", "stage": "final", "keys": (KEY,), "digest": DIGEST} | changes
    )


WAYS: dict[str, Callable[[Sandbox, str], object]] = {
    "a manifest's file": lambda box, name: read_manifest(box, files=[{"name": name, "digest": box.blob.digest, "size": 1}]),
    "a manifest's digest": lambda box, name: read_manifest(box, files=[{"name": "a", "digest": name, "size": 1}]),
    "a manifest's key": lambda box, name: read_manifest(box, key=name),
    "a manifest's study": lambda box, name: read_manifest(box, study=name),
    "an input's key": lambda box, name: read_manifest(box, inputs={"a": {"stage": "prepare", "key": name, "digest": DIGEST}}),
    "a table of images to label": table_of_images,
    "a report": lambda box, name: fetch_report(box.artifacts, unchecked(box, name), box.inside / "report"),
    "a run in TensorBoard": lambda box, name: event_file(box, name),
    "a blob": lambda box, name: box.artifacts.fetch(File.model_construct(name="a", digest=name, size=1)),
    "an upload of artifacts": lambda box, name: box.artifacts.upload(name, box.file),
    "a saved checkpoint": lambda box, name: box.artifacts.save_checkpoint("tune", KEY, name, {"w": box.file}, {}),
    "a checkpoint's file": lambda box, name: box.artifacts.save_checkpoint("tune", KEY, "a", {name: box.file}, {}),
    "a loaded checkpoint": lambda box, name: box.artifacts.load_checkpoint("tune", KEY, name),
    "a checkpoint's location": pointer,
    "a lease's checkpoint": lambda box, name: trial_checkpoints.discard(OfArtifacts(box), f"{KEY}/{name}"),
    "a lease's key": lambda box, name: box.artifacts.load_checkpoint("tune", name, "trial-1"),
    "tasks in the store": lambda box, name: box.artifacts.load_tasks(referring(keys=(name,))),
    "the digest of tasks in the store": lambda box, name: box.artifacts.load_tasks(referring(digest=name)),
    "a folder store: put": lambda box, name: box.store.put(name, b"1"),
    "a folder store: put_file": lambda box, name: box.store.put_file(name, box.file),
    "a folder store: create": lambda box, name: box.store.create(name, b"1"),
    "a folder store: delete": lambda box, name: box.store.delete(name),
    "a folder store: exists": lambda box, name: box.store.exists(name),
    "a folder store: list": lambda box, name: list(box.store.list(f"{name}/x/")),
    "a folder store: move": lambda box, name: move_blob(box, name),
    "a folder store: scan": lambda box, name: list(box.store.scan(f"{name}/x/")),
    "a folder store: abandon": lambda box, name: box.store.abandon(Unfinished(name, "", 0)),
    "S3: abandon": lambda box, name: of_s3(lambda s3: s3.abandon(Unfinished(name, "", 0)))(box),
    "S3: put": lambda box, name: of_s3(lambda s3: s3.put(name, b"1"))(box),
    "S3: create": lambda box, name: of_s3(lambda s3: s3.create(name, b"1"))(box),
    "S3: get": lambda box, name: of_s3(lambda s3: s3.get(name))(box),
    "S3: delete": lambda box, name: of_s3(lambda s3: s3.delete(name))(box),
    "a data set in a bucket": bucket,
    "a base model": lambda box, name: FetchedBase(unchecked(box, name), SimpleNamespace(scratch=box.inside, artifacts=box.artifacts)).folder([name]),  # type: ignore[arg-type]
    "weights of a package": lambda box, name: read_state(f"package:shared/{name}"),
    "a file of a hub": download,
    "a hub's tag": lambda box, name: answered("ETag", name),
    "a hub's commit": lambda box, name: answered("X-Repo-Commit", name),
    "an exported split": exported,
    "an archive of a report": unpacked,
    "a label file": listed,
    "a table": table,
    "a table's cell": cell,
    "tailfill upload": lambda box, name: upload._check(box.inside, name),
}  # fmt: skip
CLEANED = {
    "a run in TensorBoard",
    "a hub's tag",
    "a hub's commit",
    "an archive of a report",
    "a label file",
    "a table",
    "a table's cell",
    "a table of images to label",
}
"""The ways that change the name before the check: headers, archives, tables and PurePosixPath have their own spelling."""


def around(base: Path) -> dict[str, bytes | None]:
    """Returns everything in the sandbox that is outside of the folder to write in."""
    inside = base / "deep/down/inside"
    paths = [path for path in base.rglob("*") if path != inside and not path.is_relative_to(inside)]
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


@contextlib.contextmanager
def quiet_s3() -> Iterator[None]:
    """Makes every request fail before it is sent."""
    with mock.patch("botocore.endpoint.Endpoint.make_request", side_effect=ConnectionError):
        yield


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25, deadline=None)
@example("../../../home/x/.bashrc")
@example("BASE/stolen")
@example("a\\..\\b")
@example("a\0b")
@example("0\0")
@example("../../y")
@example("a/../../../../b")
@example("home/..")
@given(name=NAMES)
def test_a_name_writes_nowhere_else(way: str, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder, quiet_s3():
        base = Path(folder)
        name = name.replace("BASE", folder)
        box = Sandbox(base)
        before = around(base)
        refused = False
        try:
            WAYS[way](box, name)
        except InputError as error:
            refused = True
            assert error.exit_code == 2
            assert str(error).encode().splitlines() == [str(error).encode()]
        assert around(base) == before
        assert refused or name_fault(name) is None or way in CLEANED


def test_control_characters_are_those_of_the_unicode_category() -> None:
    for number in range(0x3000):
        assert has_control_character(chr(number)) is (unicodedata.category(chr(number)) == "Cc"), number
