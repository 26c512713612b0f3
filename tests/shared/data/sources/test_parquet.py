from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.cli.init import init
from jobs.prepare import prepare
from shared.config.dataset import ColumnGroup, ParquetSource
from shared.config.load import load_study
from shared.config.stages import PrepareConfig
from shared.data.canonical import canonical
from shared.data.dataset import read_info
from shared.data.infer_source import infer_source
from shared.data.problems import BadImage, Problems
from shared.data.source import SourceImage
from shared.data.sources.parquet import RowImage, read_parquet
from shared.data.sources.table import open_source
from shared.errors import ConfigError, DataError
from shared.stop import StopSignal

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ANIMALS = {"names": ["cat", "dog", "emu"], "_type": "ClassLabel"}
# as datasets 5.2 and 2.x write a list of class labels
MARKS = [{"feature": {"names": ["x", "y"], "_type": "ClassLabel"}, "_type": kind} for kind in ("List", "Sequence")]


def encoded(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def write(path: Path, columns: dict[str, list[Any]], features: dict[str, Any] | None = None, first: int = 0) -> Path:
    """Writes a file as `datasets` does, in row groups of four."""
    count = len(next(iter(columns.values())))
    images = [{"bytes": encoded(first + i), "path": f"{i}.png"} for i in range(count)]
    table = pa.table({"image": pa.array(images, IMAGE), **columns})
    if features is not None:
        info = {"info": {"features": {"image": {"_type": "Image"}, **features}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=4)
    return path


def inferred(data: Path) -> tuple[ParquetSource, list[SourceImage], tuple[str, ...]]:
    source = infer_source(data)
    assert isinstance(source.dataset, ParquetSource)
    problems = Problems("fail")
    listing = open_source(source.dataset, source.root, 0, problems)
    images = list(listing.images)
    problems.raise_if_failing()
    return source.dataset, images, listing.schema.class_names


@pytest.mark.parametrize("marks", MARKS, ids=["List", "Sequence"])
def test_class_labels_have_their_names_and_files_their_splits(tmp_path: Path, marks: dict[str, Any]) -> None:
    features = {"label": ANIMALS, "marks": marks}
    columns = {"label": [0, 1, 2, 0, -1, 1], "marks": [[0], [1], [], [0, 1], None, [1]]}
    write(tmp_path / "data" / "train-00000-of-00002.parquet", columns, features)
    write(tmp_path / "data" / "train-00001-of-00002.parquet", columns, features, first=6)
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", columns, features, first=12)
    dataset, images, classes = inferred(tmp_path)
    assert {name: group.kind for name, group in dataset.groups.items()} == {"label": "one", "marks": "any"}
    assert classes == ("label/cat", "label/dog", "label/emu", "marks/x", "marks/y")
    assert [image.split for image in images] == ["train"] * 12 + ["val"] * 6
    assert [image.labels.tolist() for image in images[:6]] == [
        [1, 0, 0, 1, 0],
        [0, 1, 0, 0, 1],
        [0, 0, 1, 0, 0],
        [1, 0, 0, 1, 1],
        [-1, -1, -1, -1, -1],
        [0, 1, 0, 0, 1],
    ]
    assert images[7].path == "data/train-00001-of-00002.parquet/000001"
    for row in (0, 5, 17, 3):  # in any order
        content = images[row].content
        assert isinstance(content, RowImage)
        assert content.read() == encoded(row)
        assert canonical(content, 32, "squash").data == encoded(row)


@pytest.mark.parametrize(
    ("name", "split"),
    [("default/train/0000.parquet", "train"), ("test.parquet", "test"), ("train/dev-0.parquet", "val"), ("0000.parquet", None)],
)  # fmt: skip
def test_a_word_of_the_path_names_the_split(tmp_path: Path, name: str, split: str | None) -> None:
    write(tmp_path / name, {"label": ["cat", "dog"] * 3})
    _, images, _ = inferred(tmp_path)
    assert {image.split for image in images} == {split}


def test_columns_without_names_are_read_as_they_are(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "kind": ["cat", " dog", None, "cat", "dog", "cat"],
        "grade": [1, 2, 1, 2, 1, 2],
        "split": ["train", "TEST", "train", "val", "train", "train"],
        "patient": ["a", "b", None, "a", "b", "a"],
        "caption": ["a", "a", "a", "b", "b", "b"],
    }
    file = write(tmp_path / "one.parquet", columns)
    write(tmp_path / "other.parquet", {"label": ["x", "y"] * 3})
    dataset, images, classes = inferred(file)
    assert (dataset.file, dataset.split_column, dataset.group_by) == ("one.parquet", "split", "patient")
    assert classes == ("kind/cat", "kind/dog", "grade/1", "grade/2")
    assert [image.split for image in images] == ["train", "test", "train", "val", "train", "train"]
    assert [image.group for image in images] == ["a", "b", None, "a", "b", "a"]
    assert images[2].labels.tolist() == [-1, -1, 1, 0]


def test_tables_without_images_are_not_the_data_set(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(encoded(0))
    pq.write_table(pa.table({"feature": [0.5, 1.5]}), tmp_path / "features.parquet")
    assert infer_source(tmp_path).dataset.source == "folder"
    with pytest.raises(DataError, match=r"features\.parquet: no column holds images"):
        infer_source(tmp_path / "features.parquet")


def test_init_and_prepare_read_it(tmp_path: Path) -> None:
    labels = ["cat"] * 20 + ["dog"] * 16 + ["emu"] * 5
    write(
        tmp_path / "data" / "set.parquet",
        {"label": [["cat", "dog", "emu"].index(label) for label in labels]},
        {"label": ANIMALS},
    )
    init(tmp_path / "data", tmp_path / "study.yaml")
    study = load_study(tmp_path / "study.yaml")
    (tmp_path / "out").mkdir()
    stage = PrepareConfig(dataset=study.dataset, rare=study.written.rare, seed=0)
    prepared = prepare(stage, tmp_path / "data", tmp_path / "out", StopSignal())
    info = read_info(prepared.files["dataset.json"])
    assert sum(info.sizes.values()) == 41
    assert {name: sum(info.counts[s][name] for s in info.sizes) for name in info.counts["train"]} == {
        "label/cat": 20,
        "label/dog": 16,
        "label/emu": 5,
    }


@pytest.mark.parametrize(
    ("columns", "features", "message"),
    [
        ({"name": ["a", "b"] * 3}, {"name": {"names": ["a"], "_type": "ClassLabel"}}, "a group needs two"),
        ({"label": [0, 7, 1, 0, 1, 2]}, {"label": ANIMALS}, "label must be one of .*, got '7'"),
        ({"x": [0.5] * 6}, None, "no column looks like labels"),
        ({"label": [0] * 6}, {"label": {"names": ["a", "a"], "_type": "ClassLabel"}}, "names a class twice"),
        ({"label": ["a"] * 6, "b": ["x", "y"] * 3, "split": ["train"] * 5 + ["fold 1"]}, None, "split must be train, val or test, got 'fold 1'"),
    ],
)  # fmt: skip
def test_wrong_labels_are_said(
    tmp_path: Path, columns: dict[str, list[Any]], features: dict[str, Any] | None, message: str
) -> None:
    write(tmp_path / "a.parquet", columns, features)

    def read() -> None:
        problems = Problems("fail")
        source = infer_source(tmp_path)
        open_source(source.dataset, source.root, 0, problems)
        problems.raise_if_failing()

    with pytest.raises(DataError, match=message):
        read()


def test_files_that_disagree_or_cannot_be_read(tmp_path: Path) -> None:
    def read(**values: Any) -> None:
        groups = {"label": ColumnGroup(column="label")}
        config = ParquetSource.model_validate({"source": "parquet", "root": "unused", "groups": groups, **values})
        read_parquet(config, tmp_path, Problems("fail"))

    with pytest.raises(DataError, match="holds no Parquet file"):
        read()
    good = write(tmp_path / "train.parquet", {"label": [0, 1, 2] * 2}, {"label": ANIMALS})
    with pytest.raises(ConfigError, match=r"dataset\.group_by: train\.parquet has no column 'patient'; it has"):
        read(group_by="patient")
    with pytest.raises(ConfigError, match=r"dataset\.image_column: 'label' of train\.parquet must hold bytes"):
        read(image_column="label")
    with pytest.raises(DataError, match=r"holds no \.\./train\.parquet"):
        read(file="../train.parquet")
    other = write(
        tmp_path / "test.parquet", {"label": [0, 1] * 3}, {"label": {"names": ["dog", "cat"], "_type": "ClassLabel"}}
    )
    with pytest.raises(DataError, match="has other class names than another file"):
        read()
    other.rename(tmp_path / "more.parquet")
    write(tmp_path / "more.parquet", {"label": [0, 1, 2] * 2}, {"label": ANIMALS})
    with pytest.raises(DataError, match=r"more\.parquet names no split, other files do"):
        read()
    (tmp_path / "more.parquet").unlink()
    data = good.read_bytes()
    for damaged in (
        data[:-30],
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
        data[:8] + b"\0" * 200 + data[208:],
    ):
        good.write_bytes(damaged)
        with pytest.raises((DataError, BadImage), match=r"cannot be read|train\.parquet"):
            decode_all(tmp_path)


def decode_all(root: Path) -> None:
    groups = {"label": ColumnGroup(column="label")}
    listing = read_parquet(ParquetSource(source="parquet", root="unused", groups=groups), root, Problems("fail"))
    for image in listing.images:
        canonical(image.content, 32, "squash")


def test_a_row_without_bytes_is_a_bad_image(tmp_path: Path) -> None:
    table = pa.table(
        {"image": pa.array([{"bytes": None, "path": "/home/x/0.png"}] * 6, IMAGE), "label": ["a", "b"] * 3}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    _, images, _ = inferred(tmp_path)
    with pytest.raises(BadImage, match="its row holds no bytes of an image"):
        canonical(images[0].content, 32, "squash")


def test_many_numbers_are_classes_in_a_column_that_is_called_so(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"label": list(range(24)) * 2, "age": list(range(24)) * 2})
    dataset, _, classes = inferred(tmp_path)
    assert list(dataset.groups) == ["label"]
    assert len(classes) == 24


def test_many_values_in_a_column_of_another_name_are_said(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"Id": [f"w_{n % 24}" if n < 48 else f"x_{n % 201}" for n in range(450)]})
    with pytest.raises(
        DataError, match="if the 225 different values of 'Id' are the classes, call that column `label`"
    ):
        infer_source(tmp_path)


def test_classes_that_no_row_has_are_left_out(tmp_path: Path) -> None:
    names = {"names": ["cat", "dog", "emu", "fox"], "_type": "ClassLabel"}
    write(tmp_path / "train.parquet", {"label": [0, 2] * 3}, {"label": names})
    write(tmp_path / "test.parquet", {"label": [0, 3] * 3}, {"label": names}, first=6)
    dataset, images, classes = inferred(tmp_path)
    assert dataset.groups["label"].classes == ("cat", "emu", "fox")
    assert classes == ("label/cat", "label/emu", "label/fox")
    assert [image.labels.tolist() for image in images[1:8:6]] == [[0, 0, 1], [0, 1, 0]]
    assert "no image is of ['dog']" in infer_source(tmp_path).notes[0]
