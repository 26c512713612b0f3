from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.config.dataset import FolderSource
from shared.data.infer_source import infer_source
from shared.data.problems import Problems
from shared.data.source import InferredSource
from shared.data.sources.infer_folders import infer_folder
from shared.data.sources.table import open_source
from shared.errors import DataError

Picture = Callable[[Path], Path]


@pytest.fixture
def draw(tmp_path: Path, picture: Picture) -> Callable[..., Path]:
    """Writes two images into each folder, named by the folder's last two parts, and text into each name with a dot."""

    def write(*names: str) -> Path:
        for name in names:
            path = tmp_path / "data" / name
            if "." in path.name:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("text")
            else:
                for number in range(2):
                    picture(path / f"{path.parent.name}_{path.name}_{number}.png")
        return tmp_path / "data"

    return write


def read(source: InferredSource) -> tuple[tuple[str, ...], int]:
    """Returns the classes and the number of images that `prepare` would read."""
    problems = Problems("fail")
    listing = open_source(source.dataset, source.root, 0, problems)
    images = list(listing.images)
    problems.raise_if_failing()
    return tuple(name.partition("/")[2] for name in listing.schema.class_names), len(images)


def refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        infer_source(root)
    return str(caught.value)


def command_of(message: str) -> str:
    """Returns the first command in an error, without the call of tailfill at its end."""
    found = re.search(r"`(.+?) && tailfill init [^`]+`", message)
    assert found is not None, message
    return found[1]


def test_a_second_copy_is_left_out_and_said(draw: Callable[..., Path]) -> None:
    root = draw("set/cat", "set/dog")
    for name in ("cat", "dog"):
        subprocess.run(["cp", "-r", root / "set" / name, root / "set" / f"{name}2"], check=True)
        (root / "set" / "again").mkdir(exist_ok=True)
        (root / "set" / f"{name}2").rename(root / "set" / "again" / name)
    source = infer_source(root)
    assert read(source) == (("cat", "dog"), 4)
    assert source.notes == ("left out, since the folders beside it hold its images: set/again/",)


def test_a_folder_of_the_same_folders_with_other_images_is_no_copy(draw: Callable[..., Path], picture: Picture) -> None:
    root = draw("cat", "dog")
    for name in ("cat", "dog"):
        picture(root / "more" / name / "other.png")
    assert "more/ holds folders of the names of those beside it, cat/, dog/, with other images" in refused(root)


def test_a_copy_whose_name_is_also_elsewhere_is_refused(draw: Callable[..., Path], picture: Picture) -> None:
    root = draw("cat", "dog")
    for name in ("cat", "dog"):
        for image in list((root / name).iterdir()):
            picture(root / "again" / name / image.name)
    picture(root / "cat" / "Again" / "one.png")
    assert "remove the copy" in refused(root)


def test_splits_in_class_folders_are_refused(draw: Callable[..., Path]) -> None:
    root = draw("cat/train", "cat/test", "dog/train", "dog/test")
    assert "the splits must be the outer folders: move cat/test/ to test/cat/" in refused(root)


def test_parts_in_folders_of_their_own_names_can_be_moved_as_the_error_says(draw: Callable[..., Path]) -> None:
    root = draw(*(f"my_{part}/my_{part}/{name}" for part in ("train", "test") for name in ("cat", "dog")))
    subprocess.run(["sh", "-c", command_of(refused(root))], check=True)
    source = infer_source(root)
    assert read(source) == (("cat", "dog"), 8)
    assert {image.split for image in open_source(source.dataset, root, 0, Problems("fail")).images} == {"train", "test"}


def test_folders_in_splits_can_be_moved_as_the_error_says(draw: Callable[..., Path]) -> None:
    root = draw(*(f"{part}/my_{part}/{name}" for part in ("train", "test") for name in ("cat", "dog")))
    subprocess.run(["sh", "-c", command_of(refused(root))], check=True)
    assert read(infer_source(root)) == (("cat", "dog"), 8)


def test_letters_around_classes_can_be_listed_as_the_error_says(draw: Callable[..., Path]) -> None:
    root = draw("set/a/abbey", "set/a/alley", "set/b/bakery/shop", "set/z/zoo")
    subprocess.run(["sh", "-c", command_of(refused(root))], check=True)
    assert read(infer_source(root)) == (("abbey", "alley", "bakery/shop", "zoo"), 8)


def test_patients_are_refused_and_a_table_reads_them(draw: Callable[..., Path]) -> None:
    root = draw(*(f"{patient}/{label}" for patient in (10253, 10254, 10255) for label in (0, 1)))
    assert "patient" in refused(root)
    rows = [
        f"{path.relative_to(root)},{'sick' if path.parent.name == '1' else 'well'},{path.parent.parent.name}"
        for path in sorted(root.rglob("*.png"))
    ]
    (root / "labels.csv").write_text("\n".join(["path,label,patient", *rows]))
    source = infer_source(root)
    assert read(source) == (("sick", "well"), 12)
    images = open_source(source.dataset, source.root, 0, Problems("fail")).images
    assert {image.group for image in images} == {"10253", "10254", "10255"}


@pytest.mark.parametrize("inner", [("left", "right"), ("scan1", "scan2"), ("40X", "100X")])
def test_views_and_numbered_folders_are_no_classes(draw: Callable[..., Path], inner: tuple[str, str]) -> None:
    source = infer_source(draw(*(f"{name}/{each}" for name in ("cat", "dog") for each in inner)))
    assert read(source) == (("cat", "dog"), 8)
    assert [note for note in source.notes if "class folders hold folders" in note]


def test_folders_that_are_named_like_parts_are_no_classes(draw: Callable[..., Path]) -> None:
    assert "fold1/, fold2/ are named like parts of a data set" in refused(draw("fold1", "fold2"))


def test_a_class_mask_beside_no_mask_is_a_class(draw: Callable[..., Path]) -> None:
    assert read(infer_source(draw("mask", "no_mask", "incorrect"))) == (("incorrect", "mask", "no_mask"), 6)


def test_masks_are_known_by_a_word_and_by_the_images_beside_them(draw: Callable[..., Path], picture: Picture) -> None:
    root = draw("Mustang", "Mustang GT", "Golf")
    assert read(infer_source(root)) == (("Golf", "Mustang", "Mustang GT"), 6)
    for name in ("a", "b"):
        for folder in ("images", "lung masks"):
            picture(root / "Golf" / folder / f"{name}.png")
    source = infer_source(root)
    assert read(source) == (("Golf", "Mustang", "Mustang GT"), 8)
    assert source.notes == ("left out, since they hold no images of a class: lung masks",)


def test_a_folder_without_images_is_no_class(draw: Callable[..., Path]) -> None:
    source = infer_source(draw("cat", "dog", "scripts/run.py"))
    assert read(source) == (("cat", "dog"), 4)
    assert source.notes == ("left out, since they hold no images of a class: scripts",)


def test_a_class_without_images_in_one_split_stays(draw: Callable[..., Path]) -> None:
    root = draw("train/cat", "train/dog", "test/cat")
    (root / "test" / "dog").mkdir()
    source = infer_source(root)
    assert read(source) == (("cat", "dog"), 6)
    assert source.notes == ()


def test_classes_without_training_images_are_said_with_near_names(draw: Callable[..., Path]) -> None:
    source = infer_source(draw("train/normal", "train/adenocarcinoma_left", "test/normal", "test/adenocarcinoma"))
    (note,) = source.notes
    assert "test/ has classes without training images, at which `prepare` stops: adenocarcinoma/" in note
    remedy = re.search(r"dataset.names: \{'(.+)': '(.+)'\}", note)
    assert remedy is not None
    assert isinstance(source.dataset, FolderSource)
    named = source.dataset.model_copy(update={"names": {remedy[1]: remedy[2]}})
    assert open_source(named, source.root, 0, Problems("fail")).schema.class_names == (
        "label/adenocarcinoma",
        "label/normal",
    )


def test_files_that_are_not_named_as_images_are_said(draw: Callable[..., Path]) -> None:
    source = infer_source(draw("cat", "dog", "cat/run.py", "dog/old.zip"))
    assert source.notes == (
        "2 files in class folders are not named as images are, such as 'cat/run.py', and `prepare` stops at those that are none; add them to dataset.skip, "
        "e.g. '*.py'",
    )


def test_a_long_line_beside_class_folders_is_no_path(draw: Callable[..., Path]) -> None:
    root = draw("cat", "dog")
    (root / "description.txt").write_text("a" * 300 + " https://doi.org/x\n" + "b/" * 3000 + "\n\0/x\n")
    assert read(infer_source(root)) == (("cat", "dog"), 4)


@pytest.mark.parametrize("names", [("IMG", "DSC"), ("img", "mask"), ("train", "test"), ("IMG_2020", "cat")])
def test_what_cameras_and_programs_write_is_no_class(tmp_path: Path, picture: Picture, names: tuple[str, str]) -> None:
    for name in names:
        for number in range(4):
            picture(tmp_path / f"{name}_{number:04d}.jpg")
    assert infer_folder(tmp_path) is None


def test_images_and_boxes_in_numbered_folders_are_no_classes(draw: Callable[..., Path]) -> None:
    root = draw("images/seq1", "images/seq2")
    for image in list(root.rglob("*.png")):
        box = root / "annotations" / image.parent.name / f"{image.stem}.txt"
        box.parent.mkdir(parents=True, exist_ok=True)
        box.write_text("0 0.5 0.5 0.1 0.1")
    assert "hold images with boxes" in refused(root)


def test_parts_without_labels_beside_the_only_folder_of_classes_are_left_out_and_said(
    draw: Callable[..., Path],
) -> None:
    source = infer_source(draw("photos/cat", "photos/dog", "for test", "eval_2020"))
    assert read(source) == (("cat", "dog"), 4)
    said = [f"{name}/ is left out, since its images lie in no class folders" for name in ("eval_2020", "for test")]
    assert all(any(words in note for note in source.notes) for words in said), source.notes


@pytest.mark.parametrize("others", [("birds",), ("for test", "birds"), ("for test", "more/cow", "more/emu")])
def test_a_folder_that_may_be_a_class_is_not_left_out(draw: Callable[..., Path], others: tuple[str, ...]) -> None:
    root = draw("photos/cat", "photos/dog", *others)
    if "for test" in others:
        assert "for test/ is named like a part of a data set" in refused(root)
    else:
        assert read(infer_source(root)) == (("birds", "photos"), 6)


@pytest.mark.parametrize(
    ("cats", "dogs", "small", "classes"),
    [
        ("ab", "cd", "abcd", ("cat", "dog")),
        ("ab", "cd", "ab", ("images", "small")),  # too few
        ("ab", "ab", "ab", ("images", "small")),  # a name says no image
        ("12", "34", "1234", ("images", "small")),  # numbers
    ],
)
def test_other_versions_of_the_images_are_left_out(
    cats: str, dogs: str, small: str, classes: tuple[str, str], tmp_path: Path, picture: Picture
) -> None:
    for folder, names in (("images/cat", cats), ("images/dog", dogs), ("small", small)):
        for name in names:
            picture(tmp_path / "data" / folder / f"{name}.png")
    assert read(infer_source(tmp_path / "data"))[0] == classes


def test_images_that_are_there_in_two_formats_are_said(tmp_path: Path, picture: Picture) -> None:
    for name in ("cat/1.png", "cat/1.jpg", "cat/2.png", "cat/2.jpg", "dog/3.png", "dog/3.jpg"):
        picture(tmp_path / "data" / name)
    (note,) = infer_source(tmp_path / "data").notes
    assert "there twice, as .jpg and .png, such as 'cat/1.jpg'" in note
    assert "dataset.skip, e.g. '*.png'" in note


def test_unlabelled_images_beside_labelled_ones_are_left_out(draw: Callable[..., Path]) -> None:
    source = infer_source(draw("labeled/crack", "labeled/no crack", "unlabeled"))
    assert read(source) == (("crack", "no crack"), 4)


def test_parts_of_the_data_beside_split_folders_are_left_out_and_said(draw: Callable[..., Path]) -> None:
    source = infer_source(draw("train/cat", "train/dog", "test/cat", "test/dog", "test_simple/cat", "test_simple/dog"))
    assert read(source) == (("cat", "dog"), 8)
    assert any("test_simple/ is left out, since it lies beside the split folders" in note for note in source.notes)


def test_data_sets_beside_each_other_are_refused_with_their_commands(draw: Callable[..., Path]) -> None:
    root = draw("colour_dataset/cat", "colour_dataset/dog", "grey_dataset/ape", "grey_dataset/emu")
    message = refused(root)
    assert f"`tailfill init {root}/colour_dataset` or `tailfill init {root}/grey_dataset`" in message


def test_folders_for_different_splits_are_no_classes(draw: Callable[..., Path]) -> None:
    assert "are named like parts of a data set" in refused(draw("my_train", "my_test", "query"))


def test_a_few_classes_may_have_words_of_splits_in_their_names(draw: Callable[..., Path]) -> None:
    assert read(infer_source(draw("train station", "test tube", "cup", "pan", "pot")))[0][0] == "cup"
