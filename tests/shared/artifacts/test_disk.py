"""Tests a full disk, in a mount namespace of its own: a file system of 1 MiB that only the child process sees."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from shared.artifacts.disk import disk_errors, full_disk_named, lack_of_room, room_errors, whole_file
from shared.errors import ArtifactError, UnavailableError
from shared.tensors import save_tensors

MOUNT = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
WRITERS = """
import sys
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq, torch
from PIL import Image
from shared.artifacts.disk import room_errors
from shared.classifier.snapshot import Snapshot
from shared.artifacts.checkpoints import NoCheckpoints
from shared.errors import UnavailableError
from shared.tensors import save_tensors
from shared.weights.pickles import convert
import sqlite3, tempfile

small, big = Path(sys.argv[1]), Path(sys.argv[2])
noise = np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), np.uint8)
weights = {"a": torch.zeros(800_000)}
torch.save(weights, big / "w.bin")
tempfile.tempdir = str(small)

def sqlite():
    with room_errors(small / "db"):
        database = sqlite3.connect(small / "db")
        database.execute("CREATE TABLE t (x)")
        database.execute("INSERT INTO t VALUES (zeroblob(3000000))")
        database.commit()

def inside(write):
    def attempt():
        with room_errors(small):
            write()
    return attempt

for call in (
    lambda: save_tensors(weights, small / "a.safetensors"),
    lambda: Snapshot(weights, [], {}).save(NoCheckpoints()),
    lambda: convert(big / "w.bin", small / "b.safetensors", "w.bin", "no remedy"),
    inside(lambda: pq.write_table(pa.table({"a": np.random.rand(400_000)}), small / "a.parquet")),
    inside(lambda: Image.fromarray(noise).save(small / "a.png")),
    inside(lambda: (small / "a.json").write_text("x" * 3_000_000)),
    sqlite,
):
    try:
        call()
    except UnavailableError as error:
        assert str(small) in str(error) and "the disk is full" in str(error) and "MB are free" in str(error), error
        assert error.exit_code == 75 and "run the same command again" in str(error)
    else:
        raise AssertionError("written to a full disk")
    for left in small.iterdir():
        left.unlink()
print("refused")
"""
FULL_DISK = """
import sys
from pathlib import Path
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import File
from shared.errors import UnavailableError

small, big = Path(sys.argv[1]), Path(sys.argv[2])
source = big / "source"
source.write_bytes(b"x" * 3_000_000)
store = FolderStore(small / "store")
spacious = FolderStore(big / "store")
file = Artifacts(spacious, "study", big / "cache").upload("data", source)
for call in (
    lambda: store.put_file("a", source),
    lambda: store.put("b", source.read_bytes()),
    lambda: store.create("c", source.read_bytes()),
    lambda: Artifacts(spacious, "study", small / "cache").fetch(file),
):
    try:
        call()
    except UnavailableError as error:
        assert str(small) in str(error) and "disk is full" in str(error) and error.exit_code == 75, error
    else:
        raise AssertionError("written to a full disk")
assert list(store.list("")) == [], list(store.list(""))
assert [p for p in small.rglob("*") if p.is_file()] == []
store.put("fits", b"x")
print("refused")
"""


def _can_mount(folder: Path) -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*MOUNT, 'mount -t tmpfs tmpfs "$0"', folder], capture_output=True).returncode == 0
    )


@pytest.mark.parametrize("script", [FULL_DISK, WRITERS], ids=["stores", "writers"])
def test_a_full_disk(tmp_path: Path, script: str) -> None:
    small, big = tmp_path / "small", tmp_path / "big"
    small.mkdir()
    big.mkdir()
    if not _can_mount(small):
        pytest.skip("no mount namespace of our own may be made here")
    mounted = 'mount -t tmpfs -o size=1m tmpfs "$1" && "$0" -c "$3" "$1" "$2"'
    command = [*MOUNT, mounted, sys.executable, small, big, script]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stderr


def test_other_refusals_are_for_good(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be written or read"), disk_errors(tmp_path):
        raise OSError(errno.EACCES, "Permission denied")
    for number, what in {
        errno.EDQUOT: "the disk is full for this user",
        errno.EROFS: "the file system is read-only.*choose another folder",
        errno.EFBIG: "the file is larger than .*; raise that limit and run the same command again",
    }.items():
        with pytest.raises(UnavailableError, match=what), disk_errors(tmp_path):
            raise OSError(number, os.strerror(number))
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError), whole_file(tmp_path / "file" / "below") as path:
        path.touch()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(ArtifactError), whole_file(target) as path:
        path.write_bytes(b"ne") and (path / "below").touch()
    assert target.read_bytes() == b"old"
    with whole_file(target) as path:
        path.write_bytes(b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_limit_of_file_sizes(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UnavailableError, match=r"a\.safetensors: the file is larger than .*ulimit -f"):
            save_tensors({"a": torch.zeros(1000)}, tmp_path / "a.safetensors")
        with pytest.raises(UnavailableError, match="the file is larger"), whole_file(tmp_path / "b") as path:
            path.write_bytes(b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_other_errors_pass(tmp_path: Path) -> None:
    for error in (
        ValueError("no space"),
        OSError(errno.ENOENT, "No such file"),
        KeyError("a"),
        SafetensorError("HeaderTooLarge"),
    ):
        with pytest.raises(type(error), match=re.escape(str(error))), room_errors(tmp_path):
            raise error
        assert lack_of_room(error) is None


def test_no_folder_for_temporary_files() -> None:
    error = lack_of_room(FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"))
    assert error is not None
    assert "TMPDIR" in str(error)
    assert error.exit_code == 75


def test_a_server_whose_disk_has_little_room_has_its_cause_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        with full_disk_named(tmp_path / "work"):
            raise UnavailableError("the server failed with 500 InternalError")

    with pytest.raises(UnavailableError, match=r"^the server failed with 500 InternalError$"):
        fail()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5_000_000))
    with pytest.raises(
        UnavailableError, match=r"InternalError; .*the disk has little room \(5.0 of .* which may be the cause"
    ):
        fail()
    small = usage._replace(total=31_300_000, free=31_300_000)  # initdb removes what it wrote when it does not fit
    monkeypatch.setattr(shutil, "disk_usage", lambda path: small)
    with pytest.raises(UnavailableError, match=r"has little room \(31.3 of 31.3 MB are free\).*choose a larger one$"):
        fail()


def test_only_one_module_writes_safetensors() -> None:
    root = Path(__file__).parents[3]
    found = {
        path.relative_to(root).as_posix()
        for folder in ("shared", "jobs")
        for path in (root / folder).rglob("*.py")
        if re.search(r"\bsave_file\(|\bserialize_file\(", path.read_text())
    }
    assert found == {"shared/tensors.py"}
