from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.config.dataset import ArraysSource
from shared.data.infer_source import infer_source
from shared.data.problems import Problems
from shared.data.source import SourceImage
from shared.data.sources.arrays import read_arrays
from shared.data.sources.table import open_source
from shared.errors import ConfigError, DataError

Arrays = dict[str, Any]
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 8, 8), np.uint8)
COLOUR = RNG.integers(0, 256, (6, 8, 8, 3), np.uint8)
FIRST = np.moveaxis(COLOUR, -1, 1)
NUMBERS = np.array([0, 1, 2, 0, 1, 2])
MEDMNIST = {
    f"{split}_{what}": values
    for split in ("train", "val", "test")
    for what, values in (("images", COLOUR), ("labels", NUMBERS[:, None]))
}


def inferred(data: Path) -> tuple[ArraysSource, list[SourceImage], tuple[str, ...]]:
    """Returns the source that `init` finds, and what is read by it."""
    source = infer_source(data)
    assert isinstance(source.dataset, ArraysSource)
    problems = Problems("fail")
    listing = open_source(source.dataset, source.root, 0, problems)
    images = list(listing.images)
    problems.raise_if_failing()
    return source.dataset, images, listing.schema.class_names


@pytest.mark.parametrize(
    ("arrays", "splits"),
    [
        (MEDMNIST, {"train", "val", "test"}),
        ({"x_train": GREY, "y_train": NUMBERS, "x_test": GREY, "y_test": NUMBERS}, {"train", "test"}),
        ({"X": GREY, "y": NUMBERS}, {None}),
        ({"images": COLOUR, "labels": NUMBERS.astype(float), "names": np.array(["a", "b", "c"])}, {None}),
        ({"train_data": FIRST, "train_targets": NUMBERS, "valid_data": FIRST, "valid_targets": NUMBERS}, {"train", "val"}),
        ({"x": GREY[..., None], "y": NUMBERS}, {None}),
    ],
    ids=["medmnist", "keras", "without splits", "other arrays beside", "channels first", "one channel"],
)  # fmt: skip
def test_arrays_are_known_by_their_names(tmp_path: Path, arrays: Arrays, splits: set[str | None]) -> None:
    np.savez_compressed(tmp_path / "set.npz", **arrays)
    for data in (tmp_path / "set.npz", tmp_path):
        dataset, images, classes = inferred(data)
        assert (dataset.file, dataset.root) == ("set.npz", str(tmp_path))
        assert classes == ("label/0", "label/1", "label/2")
        assert {image.split for image in images} == splits
        assert len({image.path for image in images}) == len(images) == 6 * len(splits)
        first = images[1]
        assert first.labels.tolist() == [0, 1, 0]
        assert isinstance(first.content, np.ndarray)
        expected = COLOUR[1] if first.content.ndim == 3 else GREY[1]
        np.testing.assert_array_equal(first.content, expected)


def test_a_row_of_0_and_1_per_image_is_any_number_of_classes(tmp_path: Path) -> None:
    np.savez(tmp_path / "chest.npz", images=GREY, labels=np.eye(6, 3, dtype=np.uint8))
    dataset, images, _ = inferred(tmp_path / "chest.npz")
    listing = read_arrays(dataset.model_copy(update={"classes": ("a", "b", "c")}), tmp_path, Problems("fail"))
    assert listing.schema.groups[0].kind == "any"
    assert listing.schema.class_names == ("label/a", "label/b", "label/c")
    assert [image.labels.tolist() for image in images[2:4]] == [[0, 0, 1], [0, 0, 0]]


def test_shares_of_1_become_bytes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=GREY / 255, y=NUMBERS)
    _, images, _ = inferred(tmp_path)
    np.testing.assert_array_equal(np.stack([np.asarray(image.content) for image in images]), GREY)


def idx(values: np.ndarray[Any, Any]) -> bytes:
    return (
        bytes([0, 0, 8, values.ndim])
        + struct.pack(f">{values.ndim}I", *values.shape)
        + values.astype(np.uint8).tobytes()
    )


@pytest.mark.parametrize(("prefix", "separator"), [("", "-"), ("emnist-letters-", "-"), ("", ".")])
def test_idx_files_of_other_sets_than_fashion_mnist(tmp_path: Path, prefix: str, separator: str) -> None:
    train, test = ("train", "test") if prefix else ("train", "t10k")
    for split in (train, test):
        (tmp_path / f"{prefix}{split}-images{separator}idx3-ubyte").write_bytes(idx(GREY))
        (tmp_path / f"{prefix}{split}-labels{separator}idx1-ubyte.gz").write_bytes(gzip.compress(idx(NUMBERS)))
    dataset, images, classes = inferred(tmp_path)
    assert dataset.file is None
    assert classes == ("label/0", "label/1", "label/2")
    assert sorted(str(image.split) for image in images) == ["test"] * 6 + ["train"] * 6
    np.testing.assert_array_equal(images[0].content, GREY[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": GREY, "y": np.array([0, 1, "a", 0, 1, 2], object)}, "arrays of Python objects are refused"),
        ({"x": GREY[:5], "y": NUMBERS}, "x has 5 images, y 6 labels"),
        ({"x": GREY.reshape(6, 64), "y": NUMBERS}, r"must have the shape .*, got \[6, 64\]; reshape it"),
        ({"x": np.zeros((6, 8, 8, 8), np.uint8), "y": NUMBERS}, r"got \[6, 8, 8, 8\]"),
        ({"x": GREY.astype(np.uint16) * 200, "y": NUMBERS}, "must be bytes, or shares from 0 to 1, got uint16"),
        ({"x": np.full((6, 8, 8), np.nan), "y": NUMBERS}, "must be bytes, or shares from 0 to 1, got float64 from nan"),
        ({"x": GREY, "y": NUMBERS + 0.5}, "must hold a class number per image"),
        ({"x": GREY, "y": np.array(list("abcabc"))}, "must hold a class number per image"),
        ({"x": GREY, "y": np.zeros(6, int)}, "at least two classes"),
        ({"x": GREY}, r"one array of images and one of labels without a split, got \['x'\] and \[\]"),
        ({"x": GREY, "images": GREY, "y": NUMBERS}, r"got \['x', 'images'\]"),
        ({"x_train": GREY, "y_train": NUMBERS, "x": GREY, "y": NUMBERS}, "name it for all or for none"),
        ({"train_x": GREY, "train_y": np.eye(6), "test_x": GREY, "test_y": NUMBERS}, "they must agree"),
        ({"a": GREY, "b": NUMBERS}, "holds no arrays named like train_images"),
    ],
)  # fmt: skip
def test_what_an_archive_may_not_be(tmp_path: Path, arrays: Arrays, message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        inferred(tmp_path / "a.npz")


def test_a_label_that_is_no_class_is_a_problem_of_its_image(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=GREY, y=np.array([0, 1, 2, 0, -1, 1]))
    problems = Problems("skip")
    listing = read_arrays(ArraysSource(source="arrays", root="unused", file="a.npz"), tmp_path, problems)
    assert listing.total == 5
    assert problems.lines == ["x item 4: the label must be 0 to 2, got '-1'"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut", "cannot be read as a NumPy archive"),
        ("no zip", "cannot be read as a NumPy archive"),
        ("bomb", r"'x\.npy' unpacks to 1,048,704 bytes, at most 1,000,000 are read"),
        ("missing", "not found"),
    ],
)
def test_damaged_archives_are_one_line(
    tmp_path: Path, damage: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros((16, 256, 256), np.uint8), y=NUMBERS)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "no zip":
        path.write_bytes(b"<html>")
    elif damage == "bomb":
        monkeypatch.setattr("shared.data.sources.arrays.MOST_BYTES", 1_000_000)
        assert path.stat().st_size < 4000
    else:
        path.unlink()
    with pytest.raises(DataError, match=message):
        read_arrays(ArraysSource(source="arrays", root="unused", file="a.npz"), tmp_path, Problems("fail"))


def test_several_archives_are_ambiguous_and_class_folders_come_first(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=GREY, y=NUMBERS)
    np.savez(tmp_path / "b.npz", x=GREY, y=NUMBERS)
    with pytest.raises(DataError, match=r"holds 2 NumPy archives; name one of them, e\.g\. .*a\.npz"):
        infer_source(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(b"")
    assert infer_source(tmp_path).dataset.source == "folder"


@pytest.mark.parametrize(
    ("labels", "numbers", "classes", "first"),
    [
        (NUMBERS + 1, (1, 2, 3), ("1", "2", "3"), [1, 0, 0]),
        (NUMBERS * 2, (0, 2, 4), ("0", "2", "4"), [1, 0, 0]),
        (np.eye(6, 5, dtype=np.uint8)[[1, 3, 1, 3, 1, 3]], (1, 3), ("1", "3"), [1, 0]),
        (NUMBERS, (), ("0", "1", "2"), [1, 0, 0]),
        (np.array([0, 1, 2, 0, -1, 1]), (), ("0", "1", "2"), [1, 0, 0]),
    ],
    ids=["from 1", "with gaps", "columns", "whole", "not known"],
)
def test_numbers_that_no_image_has_are_no_classes(
    tmp_path: Path, labels: np.ndarray[Any, Any], numbers: tuple[int, ...], classes: tuple[str, ...], first: list[int]
) -> None:
    np.savez(tmp_path / "a.npz", x=GREY, y=labels)
    source = infer_source(tmp_path)
    assert isinstance(source.dataset, ArraysSource)
    assert source.dataset.numbers == numbers
    assert bool(source.notes) == bool(numbers)
    listing = read_arrays(source.dataset, tmp_path, Problems("skip"))
    assert listing.schema.groups[0].classes == classes
    assert next(iter(listing.images)).labels.tolist() == first
    assert (np.stack([image.labels for image in listing.images]) == 1).any(axis=0).all()


def test_a_label_that_is_none_of_the_numbers_is_a_problem_of_its_image(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=GREY, y=NUMBERS + 1)
    config = ArraysSource(source="arrays", root="unused", file="a.npz", numbers=(1, 3), classes=("one", "three"))
    problems = Problems("skip")
    listing = read_arrays(config, tmp_path, problems)
    assert [image.labels.tolist() for image in listing.images] == [[1, 0], [0, 1]] * 2
    assert problems.lines[0] == "x item 1: the label must be one of ['1', '3'], got '2'"


def test_numbers_are_columns_of_the_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=GREY, y=np.eye(6, 3, dtype=np.uint8))
    config = ArraysSource(source="arrays", root="unused", file="a.npz", numbers=(1, 3))
    with pytest.raises(ConfigError, match=r"dataset\.numbers: the labels have the columns 0 to 2, got 3"):
        read_arrays(config, tmp_path, Problems("skip"))


def test_archives_whose_arrays_have_no_names_are_named_with_a_remedy(tmp_path: Path) -> None:
    for part in ("imgs", "labels"):
        np.savez(tmp_path / f"kmnist-train-{part}.npz", np.zeros((4, 28, 28), np.uint8))
    (tmp_path / "kmnist_classmap.csv").write_text("index,codepoint,char\n0,U+304A,o\n")
    with pytest.raises(DataError, match=r"kmnist-train-imgs\.npz.*arrays train_images, train_labels"):
        infer_source(tmp_path)
