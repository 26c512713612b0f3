from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.config.dataset import CsvSource
from shared.data.problems import Problems
from shared.data.sources.csv_file import Table
from shared.data.sources.csv_parts import FILE_SPLIT, joined_table
from shared.errors import ConfigError, DataError


def joined(root: Path, **values: Any) -> Table:
    config = CsvSource.model_validate(
        {"source": "csv", "root": str(root), "path_column": "image", "groups": {"label": {"column": "label"}}, **values}
    )
    return joined_table(config, root.resolve(), Problems("fail"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "labels.csv").write_text("image,label\na.png,cat\nb.png,dog\n")
    return tmp_path


def test_rows_of_another_split_are_added(root: Path) -> None:
    (root / "test.csv").write_text("label,image,more\ncat,c.png,x\n")
    table = joined(root, file_split="train", more=({"file": "test.csv", "split": "test"},))
    assert [(row.cells["image"], row.cells["label"], row.cells[FILE_SPLIT], row.file) for row in table.rows] == [
        ("a.png", "cat", "train", "labels.csv"),
        ("b.png", "dog", "train", "labels.csv"),
        ("c.png", "cat", "test", "test.csv"),
    ]


def test_columns_without_a_name_need_not_be_in_each_file(root: Path) -> None:
    (root / "labels.csv").write_text("image,label,,\na.png,cat,,\n")
    (root / "test.csv").write_text("image,label\nc.png,dog\n")
    table = joined(root, file_split="train", more=({"file": "test.csv", "split": "test"},))
    assert [row.cells["label"] for row in table.rows] == ["cat", "dog"]


def test_columns_are_joined_by_the_names_of_images(root: Path) -> None:
    """One file has a folder, another no ending."""
    (root / "patients.csv").write_text("id,patient\nimages/b.png,7\na,9\n")
    table = joined(root, more=({"file": "patients.csv", "on": "image", "key": "id"},))
    assert [row.cells["patient"] for row in table.rows] == ["9", "7"]


def test_a_row_without_a_match_is_blank(root: Path) -> None:
    (root / "splits.csv").write_text("image\nb.png\n")
    table = joined(root, more=({"file": "splits.csv", "on": "image", "split": "val"},))
    assert [row.cells[FILE_SPLIT] for row in table.rows] == ["", "val"]


@pytest.mark.parametrize(
    ("text", "part", "kind", "message"),
    [
        ("image,kind\nx.png,cat\n", {}, ConfigError, r"dataset.more.0: more.csv has no column 'label'"),
        ("a,b\n1,2\n", {"on": "image"}, ConfigError, r"dataset.more.0.key: there is no column 'image'"),
        ("image,p\na.png,1\n", {"on": "id", "key": "image"}, ConfigError, r"dataset.more.0.on: there is no column 'id'"),
        ("image,p\na.png,1\na.png,2\n", {"on": "image"}, DataError, r"more.csv line 3: 'a.png' has other cells than on line 2"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_joined(
    root: Path, text: str, part: dict[str, str], kind: type[Exception], message: str
) -> None:
    (root / "more.csv").write_text(text)
    with pytest.raises(kind, match=message):
        joined(root, more=({"file": "more.csv", **part},))


def test_a_file_outside_of_the_root_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset.more.0.file: must lie inside dataset.root"):
        joined(root, more=({"file": "../other.csv"},))
