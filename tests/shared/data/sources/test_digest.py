"""The fingerprint of a source's files: what changes it, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.config.dataset import FolderSource, GarmentsSource
from shared.data.sources.digest import source_digest
from shared.errors import DataError
from shared.settings import Settings

SETTINGS = Settings.from_environment({})


def source(folder: Path) -> FolderSource:
    return FolderSource(source="folder", root=str(folder))


def test_added_images_and_edited_labels_change_it(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("a.png,cat")
    first = source_digest(source(tmp_path), SETTINGS)
    assert first == source_digest(source(tmp_path), SETTINGS)
    (tmp_path / "labels.csv").write_text("a.png,dog")  # as long as before
    second = source_digest(source(tmp_path), SETTINGS)
    (tmp_path / "a.png").write_bytes(b"1")
    third = source_digest(source(tmp_path), SETTINGS)
    assert len({first, second, third}) == 3


def test_drawn_garments_have_none() -> None:
    assert source_digest(GarmentsSource(source="garments"), SETTINGS) is None


def test_a_folder_that_is_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        source_digest(source(tmp_path / "none"), SETTINGS)
    with pytest.raises(DataError, match="holds no file"):
        source_digest(source(tmp_path), SETTINGS)
