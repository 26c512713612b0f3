from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.config.dataset import CsvSource
from shared.data.problems import Problems
from shared.data.source import ImageListing
from shared.data.sources.csv_table import read_csv
from shared.errors import ConfigError, DataError, TailfillError

Picture = Callable[[Path], Path]


def config(**values: Any) -> CsvSource:
    tree = {"source": "csv", "root": "unused", "groups": {"kind": {"column": "kind"}}, **values}
    return CsvSource.model_validate_json(json.dumps(tree))


def read(root: Path, text: str, **values: Any) -> tuple[ImageListing, Problems]:
    (root / "labels.csv").write_text(text, encoding="utf-8")
    problems = Problems("skip")
    return read_csv(config(**values), root, problems), problems


def test_one_class_an_image_and_blank_is_unknown(tmp_path: Path) -> None:
    source, problems = read(tmp_path, "path,kind\na.png,cat\nb.png,dog\nc.png,\n")
    assert source.schema.class_names == ("kind/cat", "kind/dog")
    assert [image.labels.tolist() for image in source.images] == [[1, 0], [0, 1], [-1, -1]]
    assert [image.where for image in source.images] == [f"labels.csv line {n}" for n in (2, 3, 4)]
    assert problems.counts == {}


def test_any_by_columns_and_by_list(tmp_path: Path) -> None:
    groups = {
        "finding": {"kind": "any", "columns": ["mass", "cyst"]},
        "tag": {"kind": "any", "column": "tags"},
    }
    text = "path,mass,cyst,tags\na.png,1,0,x|y\nb.png,,1.0,\nc.png,0,0,|\n"
    source, _ = read(tmp_path, text, groups=groups)
    assert source.schema.class_names == ("finding/mass", "finding/cyst", "tag/x", "tag/y")
    assert [i.labels.tolist() for i in source.images] == [[1, 0, 1, 1], [-1, 1, -1, -1], [0, 0, 0, 0]]


def test_every_bad_row_is_reported_with_file_and_line(tmp_path: Path, picture: Picture) -> None:
    outside = picture(tmp_path / "elsewhere" / "secret.png")
    root = tmp_path / "root"
    picture(root / "a.png")
    (root / "link.png").symlink_to(outside)
    text = (
        "path,kind\na.png,cat\na.png,cat\n../elsewhere/secret.png,cat\n/etc/passwd,dog\nlink.png,dog\n"
        'b.png,"bi\nrd"\n,cat\nshort\n'
    )
    source, problems = read(root, text, groups={"kind": {"column": "kind", "classes": ["cat", "dog"]}})
    assert [image.path for image in source.images] == ["a.png"]
    assert problems.counts == {
        "duplicate path": 1,
        "label outside its group": 1,
        "leaves the folder": 3,
        "no path": 1,
        "wrong number of cells": 1,
    }
    places = [line.partition(":")[0] for line in problems.lines]
    assert sorted(places) == sorted(f"labels.csv line {n}" for n in (3, 4, 5, 6, 7, 9, 10))
    assert "is already listed at labels.csv line 2" in next(line for line in problems.lines if "line 3" in line)


def test_an_image_in_a_folder_that_may_not_be_entered_is_left_to_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_symlink", closed)  # as the system does, but for root, which may enter every folder
    source, problems = read(tmp_path, "path,kind\nclosed/a.png,cat\nb.png,dog\n")
    assert [image.content for image in source.images] == [tmp_path / "closed/a.png", tmp_path / "b.png"]
    assert problems.counts == {}


def test_split_column_and_a_product_in_two_splits(tmp_path: Path) -> None:
    text = "path,kind,part,product\na.png,x,train,1\nb.png,y,Validation,2\nc.png,x,test,1\nd.png,y,later,3\n"
    source, problems = read(tmp_path, text, split_column="part", group_by="product")
    assert [(image.split, image.group) for image in source.images] == [("train", "1"), ("val", "2")]
    assert problems.counts == {"group in two splits": 1, "unknown split": 1}
    assert "at line 2" in problems.lines[0]


def test_image_folder_and_delimiter(tmp_path: Path, picture: Picture) -> None:
    file = picture(tmp_path / "photos" / "a.png")
    source, _ = read(tmp_path, "path;kind\na.png;x\nb.png;y\n", image_folder="photos", delimiter=";")
    assert next(iter(source.images)).content == file


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        ("", {}, "is empty"),
        ("path,path\n", {}, "is named twice"),
        ("file,kind\na.png,x\n", {}, "dataset.path_column: labels.csv has no column 'path'; it has"),
        ("path,kind\na.png,x\n", {}, "needs two"),
        ("path,kind\n", {"split_column": "part"}, "dataset.split_column"),
        ("path,kind\n", {"groups": {"g": {"kind": "any", "columns": ["q"]}}}, "dataset.groups.g.columns"),
        ('path,kind\n"a.png"b,x\n', {}, "line 2"),
        ("path,kind\n", {"image_folder": "../x"}, "dataset.image_folder: must lie inside"),
        ("path,kind\n", {"file": "nowhere.csv"}, "not found"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(tmp_path: Path, text: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises((DataError, ConfigError), match=message):
        read(tmp_path, text, **values)


def test_a_table_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("path,kind\nä.png,x\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_csv(config(), tmp_path, Problems("fail"))


def test_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset\.root: must be a folder"):
        read_csv(config(), tmp_path / "nowhere", Problems("fail"))


ANY_GROUPS = {"kind": {"column": "kind"}, "tags": {"kind": "any", "column": "tags"}}
CELL = st.text(max_size=12) | st.sampled_from(["a.png", "../x", "/x", "x|y", "", "train", '"', "\0", "a" * 300])


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.lists(CELL, max_size=5), max_size=8), raw=st.text(max_size=60))
def test_free_text_is_read_or_refused(rows: list[list[str]], raw: str) -> None:
    text = "path,kind,tags,part\n" + "\n".join(",".join(row) for row in rows) + raw
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "labels.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            source = read_csv(config(groups=ANY_GROUPS, split_column="part"), Path(folder), Problems("skip"))
        except TailfillError as error:
            assert str(error)
            return
        for image in source.images:
            assert isinstance(image.content, Path)
            assert image.content.is_relative_to(os.path.realpath(folder))
            assert image.labels.shape == (source.schema.width,)
            assert np.isin(image.labels, [-1, 0, 1]).all()
