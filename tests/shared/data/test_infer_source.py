from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shared.config.dataset import CsvSource, FolderSource
from shared.data.infer_source import infer_source
from shared.errors import DataError, TailfillError


def images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")


def inferred_csv(path: Path) -> CsvSource:
    dataset = infer_source(path).dataset
    assert isinstance(dataset, CsvSource)
    return dataset


def test_a_folder_a_class(tmp_path: Path) -> None:
    images(tmp_path / "cat", 2)
    images(tmp_path / "dog", 2)
    inferred = infer_source(tmp_path)
    assert isinstance(inferred.dataset, FolderSource)
    assert inferred.root == tmp_path


def test_columns_of_a_csv(tmp_path: Path) -> None:
    images(tmp_path / "photos", 12)
    rows = ["id;file;kind;mass;cyst;tags;age;patient_id;part"]
    for n in range(12):
        tags = ["red", "red|big", "big", "big|wet|red"][n % 4]
        part = ["train", "train", "val", "test"][n % 4]
        rows.append(
            f"{n + 100};{n}.png;{'cat' if n % 3 else 'dog'};{n % 2};{'' if n == 3 else n % 2};{tags};{20.5 + n};p{n // 2};{part}"
        )
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    dataset = inferred_csv(tmp_path)
    assert (dataset.path_column, dataset.image_folder, dataset.delimiter) == ("file", "photos", ";")
    assert (dataset.split_column, dataset.group_by) == ("part", "patient_id")
    assert set(dataset.groups) == {"labels", "kind", "tags"}
    assert dataset.groups["labels"].columns == ("mass", "cyst")
    assert (dataset.groups["tags"].kind, dataset.groups["tags"].separator) == ("any", "|")
    assert dataset.groups["kind"].kind == "one"
    assert inferred_csv(tmp_path / "labels.csv") == dataset


def test_numbers_are_classes_only_where_they_are_few_or_called_so(tmp_path: Path) -> None:
    images(tmp_path, 6)
    text = "path,label,height\n" + "\n".join(f"{n}.png,{n % 2},{n}" for n in range(6))
    (tmp_path / "a.csv").write_text(text)
    assert set(inferred_csv(tmp_path / "a.csv").groups) == {"label"}


def test_names_that_are_taken(tmp_path: Path) -> None:
    images(tmp_path, 6)
    (tmp_path / "a.csv").write_text(
        "path,model,größe?\n" + "\n".join(f"{n}.png,{'ab'[n % 2]},{'xy'[n % 2]}" for n in range(6))
    )
    assert set(inferred_csv(tmp_path).groups) == {"model_label", "gr__e"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither images in class folders nor a CSV"),
        ({"a.csv": "path,kind\n", "b.csv": "x\n"}, "2 CSVs, name one"),
        ({"a.csv": "path,kind\n"}, "has no rows"),
        ({"a.csv": "path,kind\nx.png,cat\n"}, "no column names image files"),
        ({"a.csv": "path,kind\n/etc/0.png,cat\n"}, "no column names image files"),
        ({"a.csv": "path,kind\n0.png,cat\n"}, "no column looks like labels"),
        ({"split/list_attr_cloth.txt": "26"}, "is DeepFashion; run studies/deepfashion.yaml"),
        ({"train-labels-idx1-ubyte": "\0\0\x08\x01\0\0\0\x0a\x09\0\0\x03\0\x02\x07\x02\x05\x05"}, "is Fashion-MNIST's"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    with pytest.raises(DataError, match=message):
        infer_source(tmp_path)


@pytest.mark.parametrize("part", ["images", "train2017", "labels"])
def test_a_part_of_a_data_set_names_the_folder_above(tmp_path: Path, part: str) -> None:
    images(tmp_path / part, 2)
    with pytest.raises(DataError, match=f"if {part}/ is a part of a data set, name the folder above it"):
        infer_source(tmp_path / part)


def test_an_image_is_no_data_set(tmp_path: Path) -> None:
    images(tmp_path, 1)
    with pytest.raises(DataError, match=r"0\.png: is an image; name the folder of all images"):
        infer_source(tmp_path / "0.png")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not found"):
        infer_source(tmp_path / "nowhere")


@settings(max_examples=100, deadline=None)
@given(raw=st.text(max_size=80), kinds=st.lists(st.text(max_size=6), min_size=1, max_size=6))
def test_free_text_is_inferred_or_refused(raw: str, kinds: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.new("RGB", (8, 8)).save(folder / "0.png")
        text = "path,kind\n" + "\n".join(f"0.png,{kind}" for kind in kinds * 3) + raw
        (folder / "labels.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            assert infer_source(folder).dataset.source == "csv"
        except TailfillError as error:
            assert str(error)


def test_words_in_the_names_of_columns_may_be_joined(tmp_path: Path) -> None:
    images(tmp_path, 12)
    rows = [f"{n}.png,{'cat' if n % 3 else 'dog'},p{n // 2},{'PA' if n % 2 else 'AP'},{64 + n % 2}" for n in range(12)]
    (tmp_path / "a.csv").write_text("\n".join(["file,kind,patientId,ViewPosition,ImageWidth", *rows]))
    dataset = inferred_csv(tmp_path)
    assert (dataset.group_by, set(dataset.groups)) == ("patientId", {"kind"})


def test_a_table_without_a_header_may_have_many_class_numbers(tmp_path: Path) -> None:
    images(tmp_path, 96)
    (tmp_path / "a.csv").write_text("\n".join(f"{n}.png,{n % 24},{n % 24 // 12}" for n in range(96)))
    dataset = inferred_csv(tmp_path / "a.csv")
    assert dataset.header == ("path", "label", "column_3")
    assert dataset.groups["label"].column == "label"


def test_many_values_are_no_labels_but_the_error_says_how_they_would_be(tmp_path: Path) -> None:
    images(tmp_path, 90)
    rows = [f"{n}.png,w_{n % 30}" for n in range(90)]
    (tmp_path / "a.csv").write_text("\n".join(["Image,Id", *rows]))
    assert set(inferred_csv(tmp_path).groups) == {"Id"}
    (tmp_path / "a.csv").write_text("\n".join(["Image,Id", *(f"{n}.png,{n % 30}" for n in range(90))]))
    with pytest.raises(
        DataError, match="if the 30 different values of 'Id' are the classes, call that column `label` in"
    ):
        infer_source(tmp_path)
    (tmp_path / "a.csv").write_text("\n".join(["Image,label", *(f"{n}.png,{n % 30}" for n in range(90))]))
    assert set(inferred_csv(tmp_path).groups) == {"label"}
