"""Tests what changes the digest of a source's files, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.artifacts.s3 import S3Store
from shared.config.dataset import FolderSource, GarmentsSource
from shared.data.sources.digest import _entry, _name, source_digest
from shared.errors import DataError
from shared.settings import Settings

SETTINGS = Settings.from_environment({})


def source(folder: Path) -> FolderSource:
    return FolderSource(source="folder", root=str(folder))


def test_added_images_and_edited_labels_change_it(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("a.png,cat")
    first = source_digest(source(tmp_path), SETTINGS)
    assert first == source_digest(source(tmp_path), SETTINGS)
    (tmp_path / "labels.csv").write_text("a.png,dog")  # the same size as before
    second = source_digest(source(tmp_path), SETTINGS)
    (tmp_path / "a.png").write_bytes(b"1")
    third = source_digest(source(tmp_path), SETTINGS)
    assert len({first, second, third}) == 3


def test_a_source_says_which_files_hold_labels(tmp_path: Path) -> None:
    class JsonSource(FolderSource):
        label_files = frozenset({".json"})

    digests = {}
    for name in ("labels.json", "labels.JSON", "labels.csv"):
        (tmp_path / name).write_text("cat")
        first = source_digest(JsonSource(source="folder", root=str(tmp_path)), SETTINGS)
        (tmp_path / name).write_text("dog")
        digests[name] = first != source_digest(JsonSource(source="folder", root=str(tmp_path)), SETTINGS)
    assert digests == {"labels.json": True, "labels.JSON": True, "labels.csv": False}


def test_drawn_garments_have_none() -> None:
    assert source_digest(GarmentsSource(source="garments"), SETTINGS) is None


def test_a_folder_that_is_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        source_digest(source(tmp_path / "none"), SETTINGS)
    with pytest.raises(DataError, match="holds no file"):
        source_digest(source(tmp_path), SETTINGS)


def test_a_bucket_and_a_folder_with_the_same_files_agree(
    tmp_path: Path, s3_store: S3Store, s3_server: Settings
) -> None:
    # `a-b/` sorts before `a/` as a string, and after it as a path
    files = {"labels.csv": b"a.png,cat", "a/1.png": b"1", "a-b/2.png": b"22", "notes/x.TXT": b"x", "empty.png": b""}
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
        s3_store.put(f"set/{name}", data)
    # web consoles create folders in this way
    s3_store._client.put_object(Bucket=s3_store.bucket, Key=f"{s3_store._at.prefix}set/a/")
    s3_store._client.put_object(Bucket=s3_store.bucket, Key=f"{s3_store._at.prefix}set/of-another/")
    there = FolderSource(source="folder", root=f"{s3_store.url}/set")
    assert source_digest(there, s3_server) == source_digest(source(tmp_path), SETTINGS)
    s3_store.put("set/labels.csv", b"a.png,dog")
    changed = source_digest(there, s3_server)
    assert changed != source_digest(source(tmp_path), SETTINGS)
    (tmp_path / "labels.csv").write_bytes(b"a.png,dog")
    assert changed == source_digest(source(tmp_path), SETTINGS)
    with pytest.raises(DataError, match="holds no file"):
        source_digest(FolderSource(source="folder", root=f"{s3_store.url}/none"), s3_server)


def test_an_empty_object_beside_a_folder_of_its_name(s3_store: S3Store) -> None:
    for key, data in {"img": b"", "img/1.png": b"1", "lone": b""}.items():
        s3_store.put(key, data)
    assert [file.key for file in s3_store.files()] == ["img/1.png", "lone"]


NAMES = st.lists(st.text(alphabet="a-./é\udc80￿𐀀 0", min_size=1, max_size=6), max_size=12, unique=True)


@given(NAMES)
def test_entries_sort_as_the_parts_of_their_names(names: list[str]) -> None:
    """Covers names that are no UTF-8, whose bytes Python keeps as surrogates."""
    entries = sorted(_entry(name, "1") for name in names)
    assert [_name(entry) for entry in entries] == sorted(names, key=lambda name: name.split("/"))
