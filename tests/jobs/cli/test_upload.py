"""Tests the copy of a folder into a bucket of a real S3 server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.cli.upload import list_files, upload
from shared.artifacts.s3 import S3Store
from shared.config.dataset import FolderSource
from shared.data.sources.digest import source_digest
from shared.errors import ArtifactError, ConfigError, DataError
from shared.settings import Settings

FILES = {"labels.csv": b"a.png,cat", "a/1.png": b"1", "a-b/ü 2.png": b"22", "w.safetensors": b"w1"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(data)
    for name in (".DS_Store", "a/Thumbs.db", "a/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg"):  # nobody's data
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"left behind")
    return tmp_path / "data"


def test_the_copy_is_the_same_data(folder: Path, s3_store: S3Store, s3_server: Settings) -> None:
    root = f"{s3_store.url}/set"
    said = upload(folder, f"{root}/", s3_server, False)
    assert said.splitlines()[0].startswith("4 files (0.0 MiB) are in ")
    assert said.splitlines()[1:] == [f"in the study: dataset.root: {root}"]
    here, there = (source_digest(FolderSource(source="folder", root=r), s3_server) for r in (str(folder), root))
    assert here == there
    assert {
        file.key: s3_store.get(f"set/{file.key}")
        for file in S3Store(s3_store.bucket, root.split("/", 3)[3], s3_server).files()
    } == FILES


def test_what_is_there_is_left_alone(folder: Path, s3_store: S3Store, s3_server: Settings) -> None:
    s3_store.put("a/1.png", b"1")
    s3_store.put("a/other.png", b"left of a set before")
    assert json.loads(upload(folder, s3_store.url, s3_server, True))["sent"] == 3
    again = json.loads(upload(folder, s3_store.url, s3_server, True))
    assert (again["files"], again["sent"], again["others"]) == (4, 0, ["a/other.png"])
    for name, data in (("labels.csv", b"a.png,dog"), ("w.safetensors", b"w2")):  # the same size as before
        (folder / name).write_bytes(data)
        assert json.loads(upload(folder, s3_store.url, s3_server, True))["sent"] == 1
        assert s3_store.get(name) == data
    assert "1 objects there are not in" in upload(folder, s3_store.url, s3_server, False)
    assert s3_store.get("a/other.png")


def test_weights_name_their_own_setting(tmp_path: Path, s3_store: S3Store, s3_server: Settings) -> None:
    for name, setting in (
        ("base/unet/config.json", "finetune.base"),
        ("newer/transformer/config.json", "finetune.base"),
        ("any/model_index.json", "finetune.base"),
        ("w/w.safetensors", "classifier.pretrained"),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"{}")
        top = name.split("/")[0]
        assert f"in the study: {setting}: " in upload(tmp_path / top, f"{s3_store.url}/{top}", s3_server, False)


def test_a_big_file_goes_up_in_parts(folder: Path, s3_store: S3Store, s3_server: Settings) -> None:
    (folder / "big.bin").write_bytes(bytes(17 << 20))
    upload(folder, s3_store.url, s3_server, True)
    assert {file.key: file.size for file in s3_store.files()}["big.bin"] == 17 << 20


def test_what_cannot_be_copied_is_named_before_anything_is_sent(
    folder: Path, s3_store: S3Store, s3_server: Settings
) -> None:
    secret = folder.parent / "secret"
    secret.write_text("s")
    (folder / "inside.png").symlink_to(folder / "a/1.png")
    assert "inside.png" in list_files(folder)
    for name, make, said in (
        ("out.png", lambda path: path.symlink_to(secret), "leaves the folder"),
        ("out", lambda path: path.symlink_to(folder.parent), "is a link to a folder"),
        ("gone.png", lambda path: path.symlink_to(folder / "nothing"), "a broken link"),
        ("pipe", os.mkfifo, "not a regular file"),
        ("new\nline.png", Path.touch, "not all tools can read"),
        ("back\\slash.png", Path.touch, "not all tools can read"),
        (os.fsdecode(b"latin-\xfc.png"), Path.touch, "not all tools can read"),
    ):
        path = folder / name
        make(path)
        with pytest.raises(DataError, match=said) as error:
            upload(folder, s3_store.url, s3_server, False)
        assert "\n" not in str(error.value)
        path.unlink()
    assert not s3_store.listed()


def test_a_wrong_folder_or_target(folder: Path, s3_server: Settings) -> None:
    with pytest.raises(ConfigError, match="must be like s3://bucket/prefix"):
        upload(folder, "bucket/prefix", s3_server, False)
    with pytest.raises(DataError, match="there is no such folder"):
        upload(folder / "none", "s3://tailfill/x", s3_server, False)
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file"):
        upload(folder / "empty", "s3://tailfill/x", s3_server, False)
    with pytest.raises(ArtifactError, match="has no bucket"):
        upload(folder, "s3://no-such-bucket/x", s3_server, False)


def _settled_count(store: S3Store) -> int:
    """The number of objects, once it stays the same: the server still ends requests that a killed process has sent."""
    count = -1
    while count != (count := len(store.listed())):
        time.sleep(1)
    return count


def test_killed_it_goes_on(tmp_path: Path, s3_store: S3Store, s3_server: Settings) -> None:
    assert s3_server.s3_access_key is not None
    assert s3_server.s3_secret_key is not None
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL_S3": s3_server.s3_endpoint or "",
        "AWS_ACCESS_KEY_ID": s3_server.s3_access_key.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": s3_server.s3_secret_key.get_secret_value(),
    }
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1500):
        (folder / f"{number}.png").write_bytes(b"%d" % number)
    command = [sys.executable, "-m", "jobs", "upload", str(folder), s3_store.url, "--json"]
    killed = subprocess.Popen(command, cwd=Path(__file__).parents[3], env=environment)
    deadline = time.monotonic() + 60
    while not s3_store.listed() and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    there = _settled_count(s3_store)
    ended = subprocess.run(command, cwd=Path(__file__).parents[3], env=environment, capture_output=True, check=True)
    said = json.loads(ended.stdout)
    assert 0 < there <= 1500
    assert (said["files"], said["sent"]) == (1500, 1500 - there)
    assert len(s3_store.listed()) == 1500
