"""Tests a full disk, in a mount namespace of its own: a file system of 1 MiB that only the child process sees."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.artifacts.disk import disk_errors, whole_file
from shared.errors import ArtifactError, UnavailableError

MOUNT = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
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


def test_a_full_disk(tmp_path: Path) -> None:
    small, big = tmp_path / "small", tmp_path / "big"
    small.mkdir()
    big.mkdir()
    if not _can_mount(small):
        pytest.skip("no mount namespace of our own may be made here")
    script = 'mount -t tmpfs -o size=1m tmpfs "$1" && "$0" -c "$3" "$1" "$2"'
    command = [*MOUNT, script, sys.executable, small, big, FULL_DISK]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stderr


def test_other_refusals_are_for_good(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be written or read"), disk_errors(tmp_path):
        raise OSError(errno.EACCES, "Permission denied")
    with pytest.raises(UnavailableError, match="the disk is full"), disk_errors(tmp_path):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
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
