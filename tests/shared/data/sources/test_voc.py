from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shared.config.dataset import VocSource
from shared.data.infer_source import infer_source
from shared.data.problems import Problems
from shared.data.source import ImageListing
from shared.data.sources.voc import read_voc
from shared.errors import DataError

Picture = Callable[[Path], Path]


def boxes(*found: tuple[str, int, int, int, int], file: str = "003.png", before: str = "") -> str:
    """Returns a file of boxes, given as name, xmin, ymin, xmax and ymax."""
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in found
    )
    return f"{before}<annotation><filename>{file}</filename>{objects}</annotation>"


def set_of(root: Path, picture: Picture, count: int = 4) -> Path:
    """Writes images with a cat and a dog each, as Pascal VOC lays them out."""
    for number in range(count):
        picture(root / "JPEGImages" / f"{number:03d}.png")
        text = boxes(("cat", 0, 0, 5, 5), ("dog", 2, 2, 9, 11), file=f"{number:03d}.png")
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{number:03d}.xml").write_text(text)
    return root


def read(root: Path, problems: Problems | None = None) -> ImageListing:
    dataset = infer_source(root).dataset
    assert isinstance(dataset, VocSource)
    return read_voc(dataset.model_copy(update={"least_size": 1}), root, problems or Problems("fail"))


def test_each_box_is_an_image_of_its_class(tmp_path: Path, picture: Picture) -> None:
    listing = read(set_of(tmp_path, picture))
    assert tuple(listing.schema.class_names) == ("label/cat", "label/dog")
    assert len(listing.images) == 8
    assert [image.labels.tolist() for image in listing.images[:2]] == [[1, 0], [0, 1]]
    assert len({image.group for image in listing.images}) == 4  # boxes of one image stay together
    assert {image.split for image in listing.images} == {None}


def test_lists_say_the_split_and_what_none_lists_is_left_out(tmp_path: Path, picture: Picture) -> None:
    lists = set_of(tmp_path, picture) / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("000\n001  1\n")
    (lists / "val.txt").write_text("002\n")
    splits = [(Path(image.group or "").stem, image.split) for image in read(tmp_path).images]
    assert sorted(set(splits)) == [("000", "train"), ("001", "train"), ("002", "val")]
    (lists / "val.txt").write_text("001\n")
    with pytest.raises(DataError, match=r"val.txt line 1: '001' is listed for train, too"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (boxes(("cat", 5, 5, 5, 9)), "unusable box"),
        (boxes(("cat", 0, 0, 10**12, 9)), "unusable box"),
        (boxes(("", 0, 0, 5, 5)), "label outside its group"),
        ("<annotation><object>", "unreadable XML"),
        ("<html/>", "unreadable XML"),
        (boxes(before='<!DOCTYPE x [<!ENTITY a "aaaa">]>'), "unreadable XML"),
    ],
)
def test_what_is_no_box_is_reported(tmp_path: Path, picture: Picture, text: str, reason: str) -> None:
    set_of(tmp_path, picture)
    (tmp_path / "Annotations" / "003.xml").write_text(text)
    problems = Problems("skip")
    assert len(read(tmp_path, problems).images) == 6
    assert problems.counts == {reason: 1}


def test_a_folder_without_files_of_boxes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no XML files of boxes"):
        read_voc(VocSource(source="voc", root=str(tmp_path)), tmp_path, Problems("fail"))


def test_images_that_no_list_names_are_said(tmp_path: Path, picture: Picture) -> None:
    lists = set_of(tmp_path, picture) / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("000\n001\n")
    (lists / "val.txt").write_text("002\n")
    assert infer_source(tmp_path).notes == ("1 of 4 images with boxes are in no list of a split, and are left out",)


def test_lists_of_two_years_name_both_commands(tmp_path: Path, picture: Picture) -> None:
    for year in ("VOC2007", "VOC2012"):
        lists = set_of(tmp_path / "VOCdevkit" / year, picture) / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("000\n001\n")
        (lists / "val.txt").write_text("002\n003\n")
    with pytest.raises(DataError) as caught:
        infer_source(tmp_path)
    for year in ("VOC2007", "VOC2012"):
        assert f"`tailfill init {tmp_path / 'VOCdevkit' / year}`" in str(caught.value)
        assert isinstance(infer_source(tmp_path / "VOCdevkit" / year).dataset, VocSource)
