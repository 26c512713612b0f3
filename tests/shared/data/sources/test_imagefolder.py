from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.cli.export import write_dataset
from jobs.cli.init import init
from jobs.prepare import prepare
from shared.config.dataset import ColumnGroup, ImagefolderSource
from shared.config.load import load_study
from shared.config.stages import PrepareConfig
from shared.data.imageset import ImageSet, read_shards, unit_column
from shared.data.infer_source import infer_source
from shared.data.problems import Problems
from shared.data.schema import LabelGroup, LabelSchema
from shared.data.source import SourceImage
from shared.data.sources.imagefolder import read_imagefolder
from shared.data.sources.table import open_source
from shared.errors import ConfigError, DataError
from shared.stop import StopSignal

Row = dict[str, Any]


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)).save(path)


def folder(root: Path, rows: list[Row], name: str = "metadata.jsonl", first: int = 0) -> Path:
    """Writes images and the file that describes them."""
    for number, row in enumerate(rows):
        picture(root / row["file_name"], first + number)
    if name.endswith(".jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        text = "\n".join([",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]) + "\n"
    (root / name).write_text(text)
    return root


def inferred(data: Path) -> tuple[ImagefolderSource, list[SourceImage], tuple[str, ...]]:
    source = infer_source(data)
    assert isinstance(source.dataset, ImagefolderSource)
    problems = Problems("fail")
    listing = open_source(source.dataset, source.root, 0, problems)
    images = list(listing.images)
    problems.raise_if_failing()
    return source.dataset, images, listing.schema.class_names


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_a_file_per_split(tmp_path: Path, name: str) -> None:
    for first, split in enumerate(("train", "validation", "test")):
        rows = [{"file_name": f"{i}.png", "label": ["cat", "dog", "emu"][i % 3], "width": 1.5 + i} for i in range(6)]
        folder(tmp_path / split, rows, name, 10 * first)
    dataset, images, classes = inferred(tmp_path)
    assert list(dataset.groups) == ["label"]
    assert classes == ("label/cat", "label/dog", "label/emu")
    assert {image.path.partition("/")[0]: image.split for image in images} == {
        "train": "train",
        "validation": "val",
        "test": "test",
    }
    assert len(images) == 18
    assert images[1].labels.tolist() == [0, 1, 0]


def test_one_file_for_all_folders_with_lists_units_and_a_split(tmp_path: Path) -> None:
    marks = [["x"], ["x", "y"], [], None]
    rows = [
        {"file_name": f"images/{i}.png", "marks": marks[i % 4], "grade": i % 2, "split": ["train", "test"][i % 2], "patient": f"p{i // 2}"}
        for i in range(8)
    ]  # fmt: skip
    dataset, images, classes = inferred(folder(tmp_path, rows))
    assert (dataset.split_column, dataset.group_by) == ("split", "patient")
    assert classes == ("marks/x", "marks/y", "grade/0", "grade/1")
    assert [image.labels.tolist() for image in images[:4]] == [[1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 0], [-1, -1, 0, 1]]
    assert [(image.split, image.group) for image in images[:3]] == [("train", "p0"), ("test", "p0"), ("train", "p1")]


def test_lists_in_the_cells_of_a_csv(tmp_path: Path) -> None:
    cells = ["['cat', 'dog']", "['cat']", "[]", "dog", "", '["dog"]', "['cat', 'dog']", "['cat']"]
    rows = [
        {"file_name": f"{i}.png", "animals": f'"{cell.replace(chr(34), chr(34) * 2)}"'} for i, cell in enumerate(cells)
    ]
    dataset, images, classes = inferred(folder(tmp_path, rows, "metadata.csv"))
    assert dataset.groups == {"animals": ColumnGroup(column="animals", kind="any")}
    assert classes == ("animals/cat", "animals/dog")
    assert [image.labels.tolist() for image in images] == [
        [1, 1], [1, 0], [0, 0], [0, 1], [-1, -1], [0, 1], [1, 1], [1, 0],
    ]  # fmt: skip


def test_what_export_writes_is_read_back_as_the_same_set(tmp_path: Path) -> None:
    schema = LabelSchema(
        groups=(
            LabelGroup(name="kind", classes=("cat", "dog")),
            LabelGroup(name="marks", kind="any", classes=("x", "y")),
        )
    )
    labels = np.array([[1, 0, 1, 0], [0, 1, 0, -1], [-1, -1, 1, 1], [0, 1, 0, 0], [1, 0, 1, 1]] * 4, np.int8)
    files = [tmp_path / "drawn" / f"{i}.png" for i in range(20)]
    for number, file in enumerate(files):
        picture(file, number)
    split = np.array((["train"] * 3 + ["val", "test"]) * 4)
    units = unit_column([f"p{i // 2}" for i in range(20)])
    images = ImageSet(
        schema, [file.read_bytes() for file in files], [file.name for file in files], split, labels, units
    )
    write_dataset(images, tmp_path / "exported")
    init(tmp_path / "exported", tmp_path / "study.yaml")
    study = load_study(tmp_path / "study.yaml")
    (tmp_path / "out").mkdir()
    stage = PrepareConfig(dataset=study.dataset.model_copy(update={"resolution": 32}), rare=study.written.rare, seed=0)
    prepared = prepare(stage, tmp_path / "exported", tmp_path / "out", StopSignal())
    shards = [file for name, file in sorted(prepared.files.items()) if name.startswith("images-")]
    again = read_shards(shards, schema)
    order = [images.encoded.index(data) for data in again.encoded]
    assert sorted(order) == list(range(20))
    np.testing.assert_array_equal(again.labels, labels[order])
    assert again.split.tolist() == split[order].tolist()
    assert again.units() == [f"p{i // 2}" for i in order]


def test_without_labels_in_the_metadata_the_folders_are_the_classes(tmp_path: Path) -> None:
    rows = [{"file_name": f"{name}/{i}.png", "caption": f"a {name} {i}"} for name in ("cat", "dog") for i in range(4)]
    assert infer_source(folder(tmp_path, rows)).dataset.source == "folder"


def test_a_table_that_names_images_in_another_way_is_a_csv(tmp_path: Path) -> None:
    rows = [{"file_name": f"{i}.png", "label": ["cat", "dog"][i % 2]} for i in range(8)]
    folder(tmp_path, rows)
    (tmp_path / "metadata.jsonl").unlink()
    table = ["image_id,label", *(f"{row['file_name'].removesuffix('.png')},{row['label']}" for row in rows)]
    (tmp_path / "metadata.csv").write_text("\n".join(table))
    assert infer_source(tmp_path).dataset.source == "csv"


def test_any_usual_name_of_a_split_column_is_found_and_two_columns_keep_their_groups(tmp_path: Path) -> None:
    rows = [
        {
            "file_name": f"{i}.png",
            "a b": ["x", "y"][i % 2],
            "a_b": ["u", "v"][i % 2],
            "Subset": ["training", "dev"][i // 4],
        }
        for i in range(8)
    ]
    dataset, images, _ = inferred(folder(tmp_path, rows))
    assert dataset.split_column == "Subset"
    assert {name: group.column for name, group in dataset.groups.items()} == {"a_b": "a b", "a_b_2": "a_b"}
    assert [image.split for image in images] == ["train"] * 4 + ["val"] * 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "metadata.jsonl line 7: must be a JSON object"),
        ("[1, 2]", "metadata.jsonl line 7: must be a JSON object, got '[1, 2]'"),
        ('{"label": "cat"}', "metadata.jsonl line 7: file_name must name an image, got None"),
        ('{"file_name": "../x.png", "label": "cat"}', "leaves the folder"),
        ('{"file_name": "/etc/passwd", "label": "cat"}', "leaves the folder"),
        ('{"file_name": "0.png", "label": "cat"}', "already listed at metadata.jsonl line 1"),
        ('{"file_name": "9.png", "label": ["cat"]}', "label must be one class, got"),
        ("[" * 100_000, "must be a JSON object"),
        ('{"file_name": "9.png", "label": ' + "9" * 5000 + "}", "must be a JSON object"),
    ],
)  # fmt: skip
def test_wrong_lines_are_said(tmp_path: Path, line: str, message: str) -> None:
    rows = [{"file_name": f"{i}.png", "label": ["cat", "dog"][i % 2]} for i in range(6)]
    with (folder(tmp_path, rows) / "metadata.jsonl").open("a") as file:
        file.write(line + "\n")
    problems = Problems("skip")
    config = ImagefolderSource(source="imagefolder", root="unused", groups={"label": ColumnGroup(column="label")})
    assert read_imagefolder(config, tmp_path, problems).total == 6
    assert message in "; ".join(problems.lines)


def test_what_is_refused_whole(tmp_path: Path) -> None:
    config = ImagefolderSource(source="imagefolder", root="unused", groups={"label": ColumnGroup(column="label")})

    def read() -> None:
        read_imagefolder(config, tmp_path, Problems("fail"))

    with pytest.raises(DataError, match=r"holds no metadata\.jsonl or metadata\.csv"):
        read()
    (tmp_path / "metadata.jsonl").write_text('{"image": "0.png"}\n')
    with pytest.raises(DataError, match=r"metadata\.jsonl: no row has the key 'file_name'"):
        read()
    (tmp_path / "metadata.jsonl").write_bytes(b'{"file_name": "caf\xe9.png"}\n')
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read()
    rows = [{"file_name": f"{i}.png", "kind": ["cat", "dog"][i % 2]} for i in range(6)]
    folder(tmp_path, rows)
    with pytest.raises(
        ConfigError,
        match=r"dataset\.groups\.label\.column: metadata\.jsonl has no key 'label'; it has \['file_name', 'kind'\]",
    ):
        read()
    folder(
        tmp_path,
        [{"file_name": f"{part}/{i}.png", "label": "ab"[i % 2]} for part in ("train", "more") for i in range(3)],
    )
    with pytest.raises(DataError, match=r"more/0\.png is in no split's folder, other images are; move it into one"):
        read()


def test_many_numbers_are_classes_in_a_key_that_is_called_so(tmp_path: Path) -> None:
    rows = [{"file_name": f"{n}.png", "label": n % 24, "PatientID": n // 2} for n in range(48)]
    dataset, _, classes = inferred(folder(tmp_path, rows))
    assert list(dataset.groups) == ["label"]
    assert dataset.group_by == "PatientID"
    assert len(classes) == 24


def test_many_values_of_another_key_are_said_unless_folders_are_the_classes(tmp_path: Path) -> None:
    rows = [{"file_name": f"train/{n}.png", "Id": n % 24} for n in range(48)]
    with pytest.raises(DataError, match="if the 24 different values of 'Id' are the classes, call that column `label`"):
        infer_source(folder(tmp_path / "flat", rows))
    rows = [{"file_name": f"{'cat' if n % 2 else 'dog'}/{n}.png", "Id": n % 24} for n in range(48)]
    assert infer_source(folder(tmp_path / "classes", rows)).dataset.source == "folder"


def test_objects_are_no_units_and_no_splits(tmp_path: Path) -> None:
    rows = [
        {"file_name": f"{n}.png", "label": "ab"[n % 2], "patient": {"age": n}, "split": {"of": n}, "more": [{"x": n}]}
        for n in range(8)
    ]
    dataset, images, _ = inferred(folder(tmp_path, rows))
    assert list(dataset.groups) == ["label"]
    assert len(images) == 8
