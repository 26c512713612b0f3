from __future__ import annotations

from pathlib import Path

import pytest

from shared.artifacts.folder import FolderStore
from shared.errors import ArtifactError


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "", ".incoming/x"])
def test_keys_that_leave_the_folder(folder_store: FolderStore, key: str) -> None:
    with pytest.raises(ArtifactError, match=r"names are relative and normal|is no key of an object"):
        folder_store.put(key, b"")


def test_a_link_is_no_way_out(folder_store: FolderStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (folder_store.root / "study").symlink_to(outside)
    for touch in (
        lambda: folder_store.get("study/secret"),
        lambda: folder_store.put("study/secret", b""),
        lambda: folder_store.create("study/new", b""),
        lambda: folder_store.delete("study/secret"),
        lambda: list(folder_store.list("study/")),
    ):
        with pytest.raises(ArtifactError, match="a link that leaves the folder"):
            touch()
    assert [path.read_bytes() for path in outside.iterdir()] == [b"secret"]


def test_a_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    FolderStore(tmp_path / "store").put("a/b", b"1")
    assert (tmp_path / "disk/a/b").read_bytes() == b"1"


def test_unfinished_writes_are_no_objects(folder_store: FolderStore) -> None:
    (folder_store.root / ".incoming" / "killed").write_bytes(b"half")
    assert list(folder_store.list("")) == []


def test_a_root_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="cannot be written or read"):
        FolderStore(tmp_path / "file" / "store")


def test_a_folder_is_no_object(folder_store: FolderStore) -> None:
    folder_store.put("a/b", b"")
    assert not folder_store.exists("a")
