from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.dataset import FolderSource
from shared.data.problems import Problems
from shared.data.sources.file_names import name_of, read_named
from shared.errors import DataError

Picture = Callable[[Path], Path]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("train/cat.0.jpg", "cat"),
        ("great_pyrenees_12.png", "great_pyrenees"),
        ("cat (3).png", "cat"),
        ("b2-spirit_7.jpg", "b2-spirit"),
        ("0001.jpg", None),
        ("_-12.jpg", None),
        ("cat.jpg", None),
    ],
)
def test_a_class_is_what_stands_before_the_number(path: str, name: str | None) -> None:
    assert name_of(path) == name


@given(st.from_regex(r"[a-z][a-z_]{0,8}[a-z]", fullmatch=True), st.integers(0, 10**6), st.sampled_from("._- "))
def test_any_class_before_any_number_is_found(name: str, number: int, sign: str) -> None:
    assert name_of(f"{name}{sign}{number}.png") == name


def test_images_are_listed_by_class_and_split(tmp_path: Path, picture: Picture) -> None:
    for split in ("train", "test"):
        for name in ("cat.1", "cat.2", "dog.3"):
            picture(tmp_path / split / f"{name}.png")
    picture(tmp_path / "train" / "odd.png")
    problems = Problems("skip")
    config = FolderSource(source="folder", root=str(tmp_path), by="name", names={"dog": "hound"})
    listing = read_named(config, tmp_path, problems)
    assert [group.classes for group in listing.schema.groups] == [("cat", "hound")]
    assert [(image.path, image.split) for image in listing.images[:2]] == [
        ("test/cat.1.png", "test"),
        ("test/cat.2.png", "test"),
    ]
    assert problems.counts == {"no class": 1}


def test_one_class_is_an_error(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "cat.1.png")
    with pytest.raises(DataError, match=r"begin with \['cat'\]; there must be two classes"):
        read_named(FolderSource(source="folder", root=str(tmp_path), by="name"), tmp_path, Problems("fail"))
