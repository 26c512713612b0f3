from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.config.dataset import YoloSource
from shared.data.infer_source import infer_source
from shared.data.problems import Problems
from shared.data.source import ImageListing, SourceImage
from shared.data.sources.yolo import read_yolo
from shared.errors import DataError

BOXES = "0 0.25 0.5 0.3 0.4\n1 0.75 0.5 0.3 0.4\n"


def image(path: Path, width: int = 200, height: int = 100, orientation: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.full((height, width, 3), 99, np.uint8))
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    picture.save(path, exif=exif)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def ultralytics(root: Path) -> None:
    for split in ("train", "val"):
        image(root / "images" / split / f"{split}.jpg")
        image(root / "images" / split / "background.jpg")
        write(root / "labels" / split / f"{split}.txt", BOXES)
    write(
        root / "data.yaml", "path: ../datasets/pets\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"
    )


def roboflow(root: Path) -> None:
    for split in ("train", "valid"):
        image(root / split / "images" / f"{split}.jpg")
        write(root / split / "labels" / f"{split}.txt", BOXES)
    write(root / "README.roboflow.txt", "Exported")
    write(root / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n")


def lists(root: Path) -> None:
    for split in ("train", "val"):
        image(root / "images" / f"{split}.jpg")
        write(root / "labels" / f"{split}.txt", BOXES)
        write(root / f"{split}.txt", f"./images/{split}.jpg\n\n")
    write(root / "pets.yml", "path: /content/pets\ntrain: train.txt\nval: [val.txt]\nnames: [cat, dog]\n")


def darknet(root: Path) -> None:
    for split in ("train", "val"):
        image(root / split / f"{split}.jpg")
        write(root / split / f"{split}.txt", BOXES)
    write(root / "obj.names", "cat\ndog\n")


def inferred(data: Path) -> tuple[YoloSource, ImageListing, list[SourceImage], Problems]:
    source = infer_source(data)
    assert isinstance(source.dataset, YoloSource)
    problems = Problems("skip")
    listing = read_yolo(source.dataset, source.root, problems)
    return source.dataset, listing, list(listing.images), problems


@pytest.mark.parametrize("layout", [ultralytics, roboflow, lists, darknet])
def test_the_layouts_of_tools_are_read(tmp_path: Path, layout: Callable[[Path], None]) -> None:
    layout(tmp_path)
    _, listing, images, problems = inferred(tmp_path)
    assert not problems.lines
    assert listing.schema.class_names == ("label/cat", "label/dog")
    assert [image.split for image in images] == ["train", "train", "val", "val"]
    assert [image.labels.tolist() for image in images] == [[1, 0], [0, 1]] * 2
    assert [image.box for image in images[:2]] == [(14, 24, 86, 76), (114, 24, 186, 76)]
    assert len({image.path for image in images}) == 4
    assert len({image.group for image in images}) == 2


def test_one_folder_for_all_splits_is_no_split(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", BOXES)
    write(tmp_path / "data.yaml", "train: images\nval: images\nnames: [cat, dog]\n")
    _, _, images, _ = inferred(tmp_path / "data.yaml")
    assert [each.split for each in images] == [None, None]


def test_label_studio_names_its_classes_in_a_file(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", BOXES)
    write(tmp_path / "classes.txt", "cat\r\ndog\r\n")
    write(tmp_path / "notes.json", "{}")
    config, _, images, problems = inferred(tmp_path)
    assert (config.file, len(images), problems.lines) == ("classes.txt", 2, [])


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("0 0.5 0.5 0.2 0.4 0.93", (80, 30, 120, 70)),
        ("0 0.1 0.2 0.6 0.2 0.6 0.8", (20, 20, 120, 80)),
        ("0 0.1 0.2 0.6 0.2 0.6 0.8 0.1 0.8", (20, 20, 120, 80)),
        ("0.0 0.5 0.5 1.01 1.0", (0, 0, 201, 100)),
    ],
    ids=["confidence", "polygon", "oriented box", "rounded"],
)
def test_other_lines_count_as_the_box_around_them(tmp_path: Path, line: str, box: tuple[int, ...]) -> None:
    image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", f"{line}\n{BOXES}")
    write(tmp_path / "data.yaml", "train: images\nnames: [cat, dog]\n")
    config = YoloSource(source="yolo", root=str(tmp_path), file="data.yaml", padding=0)
    assert next(iter(read_yolo(config, tmp_path, Problems("fail")).images)).box == box


def test_the_points_of_a_pose_do_not_widen_its_box(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", f"0 0.5 0.5 0.2 0.4 0.0 0.0 0.9 0.9\n{BOXES}")
    write(tmp_path / "data.yaml", "train: images\nkpt_shape: [2, 2]\nnames: [cat, dog]\n")
    config = YoloSource(source="yolo", root=str(tmp_path), file="data.yaml", padding=0)
    assert next(iter(read_yolo(config, tmp_path, Problems("fail")).images)).box == (80, 30, 120, 70)


def test_a_box_is_a_share_of_the_upright_image(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg", orientation=6)
    write(tmp_path / "labels" / "a.txt", BOXES)
    write(tmp_path / "data.yaml", "train: images\nnames: [cat, dog]\n")
    config = YoloSource(source="yolo", root=str(tmp_path), file="data.yaml", padding=0)
    assert next(iter(read_yolo(config, tmp_path, Problems("fail")).images)).box == (10, 60, 40, 140)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.2", "unusable box"),
        ("cat 0.5 0.5 0.2 0.2", "unusable box"),
        ("0 0.5 0.5 0 0.2", "unusable box"),
        ("0 100 50 20 20", "unusable box"),
        ("0 nan 0.5 0.2 0.2", "unusable box"),
        ("0.5 0.5 0.5 0.2 0.2", "unusable box"),
        ("-1 0.5 0.5 0.2 0.2", "unusable box"),
        ("2 0.5 0.5 0.2 0.2", "label outside its group"),
        (f"{'9' * 30} 0.5 0.5 0.2 0.2", "label outside its group"),
    ],
)
def test_a_bad_line_is_reported(tmp_path: Path, line: str, reason: str) -> None:
    image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", f"{BOXES}{line}\n")
    write(tmp_path / "data.yaml", "train: images\nnames: [cat, dog]\n")
    _, _, images, problems = inferred(tmp_path)
    assert len(images) == 2
    assert problems.counts == {reason: 1}
    assert "labels/a.txt line 3" in problems.lines[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images\nnames: {0: cat, 2: dog}\n", "a name for each class number"),
        ("train: images\nnames: 3\n", "names must list the names of the classes"),
        ("train: photos\nnames: [cat, dog]\n", "train names 'photos', which is not below the folder"),
        ("train: [3]\nnames: [cat, dog]\n", "train must name folders of images"),
        ("train: labels\nnames: [cat, dog]\n", "names no images"),
        ("train: /etc/passwd\nnames: [cat, dog]\n", "which is not below the folder"),
        ("train: list.txt\nnames: [cat, dog]\n", r"list\.txt line 1: no image below"),
        ("train: images\nnames: [cat]\n", "there must be two classes with boxes"),
    ],
)
def test_a_file_of_names_that_is_wrong_is_one_error(tmp_path: Path, text: str, message: str) -> None:
    image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", BOXES)
    write(tmp_path / "list.txt", "images/b.jpg\n")
    write(tmp_path / "data.yaml", text)
    with pytest.raises(DataError, match=message):
        inferred(tmp_path)


def test_two_files_of_names_are_an_error_that_names_one(tmp_path: Path) -> None:
    ultralytics(tmp_path)
    write(tmp_path / "other.yaml", (tmp_path / "data.yaml").read_text())
    with pytest.raises(
        DataError, match=r"holds 2 YAML files with names of classes; name one of them, e\.g\. .*data\.yaml"
    ):
        infer_source(tmp_path)
    assert isinstance(infer_source(tmp_path / "other.yaml").dataset, YoloSource)


def test_boxes_without_names_of_their_classes_say_what_is_missing(tmp_path: Path) -> None:
    ultralytics(tmp_path)
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"YOLO's data\.yaml"):
        infer_source(tmp_path)
