from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shared.config.dataset import FolderSource
from shared.data.problems import Problems
from shared.data.source import ImageListing
from shared.data.sources.class_folders import read_folder
from shared.errors import DataError

Picture = Callable[[Path], Path]


def read(root: Path) -> tuple[ImageListing, Problems]:
    problems = Problems("skip")
    return read_folder(FolderSource(source="folder", root="unused", group="animal"), root, problems), problems


def test_a_folder_a_class(tmp_path: Path, picture: Picture) -> None:
    for name in ("dog/b.png", "dog/more/c.png", "cat/a.png", "dog/.DS_Store"):
        picture(tmp_path / name) if name.endswith("png") else (tmp_path / name).write_text("x")
    (tmp_path / "README.md").write_text("about")
    source, problems = read(tmp_path)
    assert source.schema.class_names == ("animal/cat", "animal/dog")
    assert [(i.path, i.labels.tolist(), i.split) for i in source.images] == [
        ("cat/a.png", [1, 0], None),
        ("dog/b.png", [0, 1], None),
        ("dog/more/c.png", [0, 1], None),
    ]
    assert source.total == 3
    assert problems.counts == {}


def test_split_folders(tmp_path: Path, picture: Picture) -> None:
    for name in ("train/cat/a.png", "train/dog/b.png", "valid/cat/c.png", "test/dog/d.png"):
        picture(tmp_path / name)
    source, _ = read(tmp_path)
    assert sorted((i.split or "", i.path) for i in source.images) == [
        ("test", "test/dog/d.png"),
        ("train", "train/cat/a.png"),
        ("train", "train/dog/b.png"),
        ("val", "valid/cat/c.png"),
    ]


def test_a_class_named_train_is_a_class(tmp_path: Path, picture: Picture) -> None:
    for name in ("train/a.png", "bus/b.png"):
        picture(tmp_path / name)
    assert read(tmp_path)[0].schema.class_names == ("animal/bus", "animal/train")


def test_links_that_leave_and_stray_images(tmp_path: Path, picture: Picture) -> None:
    root = tmp_path / "root"
    for name in ("cat/a.png", "dog/b.png", "stray.png"):
        picture(root / name)
    (root / "cat" / "link.png").symlink_to(picture(tmp_path / "out" / "c.png"))
    (root / "fox").symlink_to(tmp_path / "out")
    (root / "dog" / "circle").symlink_to(root)
    source, problems = read(root)
    assert [i.path for i in source.images] == ["cat/a.png", "dog/b.png"]
    assert problems.counts == {"leaves the folder": 1, "linked folder": 2, "no class": 1}
    assert any(line.startswith("cat/link.png:") for line in problems.lines)


def test_folders_beside_the_splits_are_reported(tmp_path: Path, picture: Picture) -> None:
    for name in ("train/cat/a.png", "train/dog/b.png", "test/cat/c.png", "extra/cat/d.png"):
        picture(tmp_path / name)
    source, problems = read(tmp_path)
    assert len(list(source.images)) == 3
    assert problems.counts == {"no split": 1}


@pytest.mark.parametrize("names", [[], ["cat/a.png"]])
def test_fewer_than_two_classes(tmp_path: Path, names: list[str], picture: Picture) -> None:
    for name in names:
        picture(tmp_path / name)
    with pytest.raises(DataError, match="at least two"):
        read(tmp_path)


def test_two_folders_for_one_split(tmp_path: Path, picture: Picture) -> None:
    for name in ("train/cat/a.png", "val/cat/b.png", "validation/cat/c.png"):
        picture(tmp_path / name)
    with pytest.raises(DataError, match="two folders name one split"):
        read(tmp_path)
