from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.config.dataset import CocoSource
from shared.data.infer_source import infer_source
from shared.data.problems import Problems
from shared.data.source import ImageListing, SourceImage
from shared.data.sources.boxes import is_cut_out
from shared.data.sources.coco import read_coco
from shared.errors import ConfigError, DataError

Picture = Callable[[Path], Path]
CATEGORIES = [
    {"id": 0, "name": "animals", "supercategory": "none"},
    {"id": 3, "name": "cat"},
    {"id": 1, "name": "dog"},
]


def document(names: list[str], **more: Any) -> dict[str, Any]:
    """Returns a document with two boxes in each image, a cat and a dog."""
    images = [{"id": number, "file_name": name, "width": 200, "height": 100} for number, name in enumerate(names)]
    annotations = [
        {"id": 2 * number + of, "image_id": number, "category_id": (3, 1)[of], "bbox": [10 + 50 * of, 20, 40, 30]}
        for number in range(len(names))
        for of in range(2)
    ]
    return {"info": {}, "images": images, "annotations": annotations, "categories": CATEGORIES, **more}


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def official(root: Path, picture: Picture) -> None:
    """Writes the layout of COCO, whose names are the same in both splits here."""
    for split in ("train2017", "val2017"):
        picture(root / split / "000001.jpg")
        for kind in ("instances", "person_keypoints", "captions"):
            write(root / "annotations" / f"{kind}_{split}.json", document(["000001.jpg"]))


def roboflow(root: Path, picture: Picture) -> None:
    for split in ("train", "valid"):
        picture(root / split / "a.jpg")
        write(root / split / "_annotations.coco.json", document(["a.jpg"]))


def in_images(root: Path, picture: Picture) -> None:
    for split in ("train", "val"):
        picture(root / "images" / split / f"{split}.jpg")
        write(root / "annotations" / f"{split}.json", document([f"/home/somebody/set/{split}.jpg"]))


def inferred(data: Path) -> tuple[CocoSource, ImageListing, list[SourceImage], Problems]:
    source = infer_source(data)
    assert isinstance(source.dataset, CocoSource)
    problems = Problems("skip")
    listing = read_coco(source.dataset, source.root, problems)
    return source.dataset, listing, list(listing.images), problems


@pytest.mark.parametrize("layout", [official, roboflow, in_images])
def test_the_layouts_of_tools_are_read(
    tmp_path: Path, picture: Picture, layout: Callable[[Path, Picture], None]
) -> None:
    layout(tmp_path, picture)
    _, listing, images, problems = inferred(tmp_path)
    assert not problems.lines
    assert listing.schema.class_names == ("label/dog", "label/cat")
    assert [image.split for image in images] == ["train", "train", "val", "val"]
    assert [image.labels.tolist() for image in images[:2]] == [[0, 1], [1, 0]]
    assert len({image.path for image in images}) == 4
    for image in images:
        assert isinstance(image.content, Path)
        assert image.content.is_file()
        assert str(image.split)[:3] in str(image.content.relative_to(tmp_path))
        assert image.group == image.content.relative_to(tmp_path).as_posix()
    assert listing.notes == ("These classes have no box, and were left out: animals.",)


def test_a_box_is_padded_and_may_not_be_too_small(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "a.jpg")
    content = document(["a.jpg"])
    content["annotations"].append({"id": 9, "image_id": 0, "category_id": 1, "bbox": [1, 1, 40, 15.9]})
    content["annotations"].append({"id": 10, "image_id": 0, "category_id": 1, "bbox": [1, 1, 40, 30], "iscrowd": 1})
    write(tmp_path / "boxes.json", content)
    _, listing, images, _ = inferred(tmp_path / "boxes.json")
    assert [image.box for image in images] == [(6, 16, 54, 54), (56, 16, 104, 54)]
    assert all(is_cut_out(image.path) for image in images)
    assert [image.split for image in images] == [None, None]
    assert listing.notes[0] == "1 of 3 boxes were left out: their shorter side is under 16 pixels."
    assert listing.notes[-1] == "1 boxes of crowds were left out."
    config = CocoSource(source="coco", root=str(tmp_path), padding=0, least_size=1)
    assert [image.box for image in read_coco(config, tmp_path, Problems("fail")).images] == [
        (10, 20, 50, 50),
        (60, 20, 100, 50),
        (1, 1, 41, 17),
    ]


def test_annotations_without_boxes_label_whole_images_by_place(tmp_path: Path, picture: Picture) -> None:
    images = [{"id": f"i{n}", "file_name": f"set/{n}.jpg", "location": n // 2} for n in range(4)]
    labels = [{"id": f"a{n}", "image_id": f"i{n}", "category_id": (1, 3)[n % 2]} for n in range(4)]
    labels.append({"id": "again", "image_id": "i0", "category_id": 1})
    labels.append({"id": "other", "image_id": "i1", "category_id": 1})
    for image in images:
        picture(tmp_path / str(image["file_name"]))
    write(tmp_path / "train.json", {"images": images, "annotations": labels, "categories": CATEGORIES})
    config, _, found, problems = inferred(tmp_path)
    assert config.group_by == "location"
    assert [image.path for image in found] == [f"set/{n}.jpg" for n in range(4)]
    assert [image.box for image in found] == [None] * 4
    assert not any(is_cut_out(image.path) for image in found)
    assert [image.group for image in found] == ["0", "0", "1", "1"]
    assert problems.counts == {"several classes": 1}
    with pytest.raises(ConfigError, match="no image has the key 'camera'"):
        read_coco(config.model_copy(update={"group_by": "camera"}), tmp_path, Problems("skip"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [1, 2, 3]}, "unusable box"),
        ({"bbox": [1, 2, 0, 4]}, "unusable box"),
        ({"bbox": [1, 2, float("inf"), 4]}, "unusable box"),
        ({"bbox": [1, 2, 1e300, 4]}, "unusable box"),
        ({"bbox": [1, 2, 10**400, 4]}, "unusable box"),
        ({"bbox": [True, "2", 3, 4]}, "unusable box"),
        ({"bbox": {"left": 1}}, "unusable box"),
        ({"category_id": 7}, "unknown id"),
        ({"category_id": [1]}, "unknown id"),
        ({"image_id": None}, "unknown id"),
    ],
)
def test_a_bad_annotation_is_reported(tmp_path: Path, picture: Picture, change: dict[str, Any], reason: str) -> None:
    picture(tmp_path / "a.jpg")
    content = document(["a.jpg"])
    content["annotations"].append({"id": 77, "image_id": 0, "category_id": 1, "bbox": [10, 10, 50, 50]} | change)
    write(tmp_path / "boxes.json", content)
    _, _, images, problems = inferred(tmp_path)
    assert len(images) == 2
    assert problems.counts == {reason: 1}
    assert "boxes.json annotation '77'" in problems.lines[0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("../../b.jpg", "missing file"), ("", "no path"), (None, "no path"), (7, "no path"), ("c.jpg", "ambiguous name")],
)
def test_a_name_that_leads_nowhere_is_reported_once(
    tmp_path: Path, picture: Picture, name: object, reason: str
) -> None:
    for path in ("a.jpg", "x/c.jpg", "y/c.jpg"):
        picture(tmp_path / "set" / path)
    picture(tmp_path / "b.jpg")
    content = document(["a.jpg", "b.jpg"])
    content["images"][1]["file_name"] = name
    write(tmp_path / "set" / "boxes.json", content)
    _, _, images, problems = inferred(tmp_path / "set")
    assert len(images) == 2
    assert problems.counts == {reason: 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": {}, "annotations": [], "categories": []}, "images must be a list of objects"),
        ({"images": [], "annotations": [3], "categories": []}, "annotations must be a list of objects"),
        (["images", "annotations", "categories"], "images must be a list of objects"),
        (document(["a.jpg"], categories=[{"id": 1, "name": ""}]), "the name of the category '1' must be text"),
        (document(["a.jpg"], categories=CATEGORIES[:1]), "there must be two classes with boxes"),
        (document(["a.jpg"], annotations=[]), "there must be two classes with boxes"),
    ],
)
def test_a_document_of_another_form_is_one_error(
    tmp_path: Path, picture: Picture, content: object, message: str
) -> None:
    picture(tmp_path / "a.jpg")
    write(tmp_path / "boxes.json", content)
    with pytest.raises(DataError, match=message):
        inferred(tmp_path)


def test_without_the_images_the_first_fault_is_said(tmp_path: Path, picture: Picture) -> None:
    official(tmp_path, picture)
    source = infer_source(tmp_path / "annotations")
    with pytest.raises(
        DataError, match=r"images below annotations/.*no image below the data set's folder has the name '000001"
    ):
        read_coco(source.dataset, source.root, Problems("skip"))


def test_a_document_that_is_no_json_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text('{"images": [], "annotations": [], "categories": ')
    with pytest.raises(DataError, match=r"boxes\.json: must be JSON"):
        infer_source(tmp_path)
    (tmp_path / "boxes.json").write_text('"images" "annotations" "categories"' + "[" * 100_000)
    with pytest.raises(DataError, match=r"boxes\.json: must be JSON"):
        infer_source(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train.json", "train_2.json"], "another file has boxes of the train split"),
        (["train.json", "more.json"], "more.json: its name says no split"),
        (["val.json", "test.json"], "there is no file of the train split"),
    ],
)
def test_files_that_may_be_read_in_two_ways_are_an_error(
    tmp_path: Path, picture: Picture, names: list[str], message: str
) -> None:
    picture(tmp_path / "a.jpg")
    for name in names:
        write(tmp_path / name, document(["a.jpg"]))
    with pytest.raises(DataError, match=message):
        infer_source(tmp_path)
    assert isinstance(infer_source(tmp_path / names[0]).dataset, CocoSource)
