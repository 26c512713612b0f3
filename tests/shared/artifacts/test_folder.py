from __future__ import annotations

from pathlib import Path

import pytest

from shared.artifacts.folder import FolderStore
from shared.errors import ArtifactError


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "", ".incoming/x"])
def test_keys_that_leave_the_folder(folder_store: FolderStore, key: str) -> None:
    with pytest.raises(ArtifactError, match="would leave the store"):
        folder_store.put(key, b"")


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
