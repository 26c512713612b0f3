from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shared.data.problems import Problems
from shared.data.source import SourceImage
from shared.data.sources.class_lists import divided, listed_name, table_images
from shared.data.sources.paths import PathCheck
from shared.errors import DataError

CAT, DOG = np.array([1, 0], np.int8), np.array([0, 1], np.int8)


def images(*paths: str) -> list[SourceImage]:
    return [SourceImage(path, path, Path(path), CAT) for path in paths]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("cat/1.jpg", "cat/1"),
        ("./cat/1.jpg 3", "cat/1"),
        ("cat\\1.png", "cat/1"),
        ("cat/1", "cat/1"),
        ("big cat/1", "big cat/1"),
        ("  ", ""),
    ],
)
def test_the_name_in_a_line(line: str, name: str) -> None:
    assert listed_name(line) == name


def test_images_are_divided_by_lists_of_the_ends_of_their_paths(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("cat/1.jpg\n2\n")
    (tmp_path / "test.txt").write_text("images/dog/3.jpg\n")
    given = images("images/cat/1.jpg", "images/cat/2.jpg", "images/dog/3.jpg", "images/dog/4.jpg")
    found, notes = divided(given, tmp_path, {"train": "train.txt", "test": "test.txt"})
    assert [(image.path, image.split) for image in found] == [
        ("images/cat/1.jpg", "train"),
        ("images/cat/2.jpg", "train"),
        ("images/dog/3.jpg", "test"),
    ]
    assert notes == ("1 images are in no list of a split, and were left out.",)


def test_lists_that_disagree_or_name_nothing(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("1\n")
    (tmp_path / "test.txt").write_text("\n1\n")
    with pytest.raises(DataError, match=r"test.txt line 2: '1' is listed for train, too"):
        divided(images("a/1.jpg"), tmp_path, {"train": "train.txt", "test": "test.txt"})
    with pytest.raises(DataError, match=r"train\.txt: name no image below"):
        divided(images("a/9.jpg"), tmp_path, {"train": "train.txt"})


def test_a_text_file_labels_the_images_near_it(tmp_path: Path, picture: Callable[[Path], Path]) -> None:
    picture(tmp_path / "val" / "images" / "a.png")
    picture(tmp_path / "val" / "images" / "b.png")
    lines = "a.png\tn01\t0\nb n02\n\nc.png n01\na.png n09\n"
    (tmp_path / "val" / "labels.txt").write_text(lines)
    problems = Problems("skip")
    found = table_images(
        tmp_path, None, "val/labels.txt", "val", {"n01": CAT, "n02": DOG}, PathCheck(tmp_path, problems), problems
    )
    assert [(image.path, image.labels.tolist(), image.split) for image in found] == [
        ("val/images/a.png", [1, 0], "val"),
        ("val/images/b.png", [0, 1], "val"),
    ]
    assert problems.counts == {"missing file": 1, "label outside its group": 1}


def test_a_table_labels_the_images_of_a_folder_elsewhere(tmp_path: Path, picture: Callable[[Path], Path]) -> None:
    for name in ("val/a.JPEG", "val/b.JPEG", "train/c.JPEG"):
        picture(tmp_path / name)
    lines = "ImageId,PredictionString\na,n01 1 2 3 4 \nb,n02 5 6 7 8 n02 1 1 1 1 \nc,n01 1 2 3 4 \n"
    (tmp_path / "val.csv").write_text(lines)
    problems, labels = Problems("skip"), {"n01": CAT, "n02": DOG}
    found = table_images(tmp_path, tmp_path / "val", "val.csv", "val", labels, PathCheck(tmp_path, problems), problems)
    assert [(image.path, image.labels.tolist()) for image in found] == [
        ("val/a.JPEG", [1, 0]),
        ("val/b.JPEG", [0, 1]),
    ]
    assert problems.counts == {"missing file": 1}
