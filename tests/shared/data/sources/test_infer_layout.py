from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from shared.config.dataset import CsvSource, FolderSource
from shared.data.infer_source import infer_source
from shared.data.problems import Problems
from shared.data.source import InferredSource, SourceImage
from shared.data.sources.table import open_source
from shared.errors import DataError
from tests.support.public_layouts.layout import Drawing

Picture = Callable[[Path], Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def draw(root: Path) -> Drawing:
    return Drawing(root)


def listed(source: InferredSource) -> list[SourceImage]:
    """Lists what a study would read, and fails if anything is wrong with it."""
    problems = Problems("fail")
    dataset = type(source.dataset).model_validate_json(source.dataset.model_dump_json())
    images = list(open_source(dataset, source.root, 0, problems).images)
    problems.raise_if_failing()
    assert all(isinstance(image.content, Path) and image.content.is_file() for image in images)
    return images


def refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        infer_source(root)
    return str(caught.value)


@pytest.mark.parametrize("ending", [".jpg", ""])
@pytest.mark.parametrize("first", [1, 101])
@pytest.mark.parametrize(
    "folders",
    [
        {"train": "train", "val": "val", "test": "test"},
        {"train": "photos/train", "val": "photos/val", "test": "photos/test"},
        {"train": "Set_Training/Training", "val": "Set_Evaluation/Validation", "test": "Set_Test/Test"},
        {"train": "a/b/c/my_train_set", "val": "a/b/d/my_val_set", "test": "a/b/e/my_test_set"},
        {"train": ".", "val": "validation", "test": "test"},
    ],
)
def test_each_table_is_about_the_folder_of_its_split(
    folders: Mapping[str, str], first: int, ending: str, root: Path, draw: Drawing
) -> None:
    """The images of each split are numbered from 1, or go on."""
    wanted = set()
    for at, (split, folder) in enumerate(folders.items()):
        numbers = range(1 + at * (first - 1), 13 + at * (first - 1))
        draw.images(f"{folder}/{number}.jpg" for number in numbers)
        rows = [f"{number}{ending},{('cat', 'dog')[number % 2]}" for number in numbers]
        draw.text(f"{split}.csv", "image,label", *rows)
        wanted |= {(root / folder / f"{number}.jpg", split, number % 2) for number in numbers}
    if "." in folders.values() and first == 1 and not ending:  # a name is that of files in all folders, too
        assert "train.csv: none of its images is found below data/" in refused(root)
        return
    source = infer_source(root)
    assert {(image.content, image.split, int(image.labels[1])) for image in listed(source)} == wanted
    assert not source.notes


def test_a_folder_of_a_file_does_not_lead_out(root: Path, draw: Drawing) -> None:
    draw.images(["../secret/1.jpg", "train/1.jpg"])
    draw.text("train.csv", "image,label", "1.jpg,cat")
    config = {
        "source": "csv",
        "root": str(root),
        "file": "train.csv",
        "path_column": "image",
        "file_folder": "../secret",
    }
    problems = Problems("skip")
    dataset = CsvSource.model_validate({**config, "groups": {"label": {"column": "label", "classes": ("cat", "dog")}}})
    assert not list(open_source(dataset, root, 0, problems).images)
    assert problems.counts == {"leaves the folder": 1}


def test_folders_do_not_take_the_place_of_a_table_whose_images_are_missing(root: Path, draw: Drawing) -> None:
    draw.images(f"{('left', 'right')[number % 2]}/{number:04d}.jpg" for number in range(30))
    draw.text("labels.csv", "image,label", *(f"{number:04d},{('cat', 'dog')[number % 2]}" for number in range(40)))
    said = refused(root)
    assert "labels.csv: of 40 images that it names" in said
    assert "30 are found below data/" in said
    assert "'0030'" in said


def test_a_table_of_class_names_names_the_folders(root: Path, draw: Drawing) -> None:
    draw.images(f"{code}/{code}_{number}.png" for code in range(4) for number in range(5))
    draw.text("labels.csv", "ClassId,Name", "0,stop", "1,yield", "2,turn left", "3,turn right")
    source = infer_source(root)
    assert isinstance(source.dataset, FolderSource)
    assert source.dataset.names == {"0": "stop", "1": "yield", "2": "turn left", "3": "turn right"}
    assert len(listed(source)) == 20
    assert any("labels.csv has a row per class" in note for note in source.notes)


@pytest.mark.parametrize("rows", [["0001,cat", "0002,dog"] * 6, [f"{n:04d},{'x' * n}" for n in range(30)]])
def test_a_table_of_other_images_is_not_passed_over(rows: list[str], root: Path, draw: Drawing) -> None:
    draw.images(f"{('left', 'right')[number % 2]}/{number}.jpg" for number in range(12))
    draw.text("labels.csv", "image,label", *rows)
    said = refused(root)
    assert "labels.csv: no column names image files" in said
    assert said.endswith("if the folders are the classes, move labels.csv elsewhere")


def test_a_table_with_noise_is_left_out_with_a_command_that_reads_it(root: Path, draw: Drawing) -> None:
    rows = []
    for split in ("train", "val"):
        for number in range(12):
            path = f"{split}/{('n01', 'n02')[number % 2]}/{number}.jpg"
            draw.images([path])
            rows.append(f"{path},{('n01', 'n02')[number % 2]},{('n01', 'n02')[number % 3 == 0]},{split == 'val'}")
    draw.text("noisy.csv", "path,labels_0,labels_25,is_valid", *rows)
    source = infer_source(root)
    assert isinstance(source.dataset, FolderSource)
    (note,) = source.notes
    command = re.search("`tailfill init (.*)`", note)
    assert command is not None
    table = infer_source(Path(command[1]))
    assert isinstance(table.dataset, CsvSource)
    assert list(table.dataset.groups) == ["labels_0", "labels_25"]
    assert {image.split for image in listed(table)} == {"train", "val"}


def test_a_further_question_of_a_table_is_kept(root: Path, draw: Drawing) -> None:
    rows = []
    for number in range(24):
        kind, colour = ("cat", "dog")[number % 2], ("red", "blue")[number % 3 == 0]
        draw.images([f"train/{kind}/{number:03d}.jpg"])
        rows.append(f"{number:03d}.jpg,{kind},{colour},{number // 4}")
    draw.images(f"test/{number:03d}.jpg" for number in range(100, 110))
    draw.text("train.csv", "file,kind,colour,patient_id", *rows)
    source = infer_source(root)
    assert isinstance(source.dataset, CsvSource)
    assert (list(source.dataset.groups), source.dataset.group_by) == (["kind", "colour"], "patient_id")


@pytest.mark.parametrize(
    "columns", ["xmin,ymin,xmax,ymax", "x_min,y_min,x_max,y_max", "X1,Y1,X2,Y2", "Bbox,a,b,c", "XMin,XMax,YMin,YMax"]
)
def test_boxes_in_a_table_are_refused(columns: str, root: Path, draw: Drawing) -> None:
    draw.images(f"train/{number:04d}.png" for number in range(12))
    rows = [
        f"{number:04d},{('cat', 'dog')[number % 2]},R{number % 3},1,2,{10 + number},{12 + number}"
        for number in range(12)
    ]
    draw.text("train.csv", f"image_id,class_name,rad_id,{columns}", *rows, *rows)
    draw.images(f"test/{number:04d}.png" for number in range(100, 104))
    draw.text("test.csv", "image_id,width,height", *(f"{number:04d},20,20" for number in range(100, 104)))
    assert "train.csv: holds boxes in a table" in refused(root)


def test_absolute_paths_of_which_the_last_parts_are_there(root: Path, draw: Drawing) -> None:
    """The form is Label Studio's, which puts a word of its own before the name of each file."""
    names = [f"{number:08x}-photo.jpg" for number in range(12)]
    draw.images(f"images/{name}" for name in names)
    rows = [f"{n},1,{('cat', 'dog')[n % 2]},/data/upload/1/{name}" for n, name in enumerate(names)]
    draw.text("project-1.csv", "annotation_id,annotator,choice,image", *rows)
    source = infer_source(root)
    assert isinstance(source.dataset, CsvSource)
    assert (source.dataset.path_prefix, source.dataset.lookup) == ("/data/upload/1/", "name")
    assert len(listed(source)) == 12


def test_absolute_paths_of_several_folders_have_a_remedy(root: Path, draw: Drawing) -> None:
    names = [f"{number:08x}-photo.jpg" for number in range(12)]
    draw.images(f"images/{name}" for name in names)
    rows = [f"/data/upload/{n % 3}/{name},{('cat', 'dog')[n % 2]}" for n, name in enumerate(names)]
    draw.text("labels.csv", "image,choice", *rows)
    assert "write the names without folders" in refused(root)
    draw.text("labels.csv", "image,choice", *(row.rpartition("/")[2] for row in rows))
    assert len(listed(infer_source(root))) == 12


def test_names_with_several_suffixes(root: Path, draw: Drawing) -> None:
    draw.images(f"train/img{number:03d}_{kind}.png" for number in range(12) for kind in ("left", "mask"))
    draw.text("labels.csv", "id,label", *(f"img{number:03d},{('cat', 'dog')[number % 2]}" for number in range(12)))
    source = infer_source(root)
    assert isinstance(source.dataset, CsvSource)
    assert source.dataset.name_suffix == "_left"
    draw.images(f"train/img{number:03d}_right.png" for number in range(12))
    assert "end in '_left' and of others in '_right'" in refused(root)


def test_many_groups_are_said(root: Path, draw: Drawing) -> None:
    draw.images(f"img/{number:03d}.png" for number in range(24))
    rows = [f"img/{n:03d}.png,{'ab'[n % 2]},{'cd'[n % 2]},{'ef'[n % 3 == 0]}" for n in range(24)]
    draw.text("labels.csv", "path,one,two,three", *rows)
    assert not infer_source(root).notes
    draw.text("labels.csv", "path,category_id,two,three", *rows)
    assert infer_source(root).notes == (
        "3 label groups were found; take out of `groups` what is no label: ['two', 'three']",
    )
    draw.text("labels.csv", "path,one,two,three,four", *(f"{row},{'gh'[n % 2]}" for n, row in enumerate(rows)))
    assert infer_source(root).notes[0].startswith("4 label groups were found")


def test_a_table_of_few_images_names_the_folder_of_the_others(root: Path, draw: Drawing) -> None:
    """The command that it names reads them."""
    draw.images(f"Final_Training/Images/{code:05d}/{number}.ppm" for code in range(4) for number in range(6))
    draw.images(f"Final_Test/Images/{number:05d}.ppm" for number in range(12))
    draw.text("GT-test.csv", "Filename;ClassId", *(f"{number:05d}.ppm;{number % 4}" for number in range(12)))
    said = refused(root)
    command = re.search("`tailfill init (.*?)`", said)
    assert command is not None
    assert len(listed(infer_source(Path(command[1])))) == 24


def test_a_table_of_another_split_without_images_is_not_lost(root: Path, draw: Drawing) -> None:
    draw.images(f"train/{number}.jpg" for number in range(12))
    for split, first in (("train", 0), ("test", 100)):
        rows = [f"{number}.jpg,{('cat', 'dog')[number % 2]}" for number in range(first, first + 12)]
        draw.text(f"{split}.csv", "image,label", *rows)
    said = refused(root)
    assert said.startswith("test.csv: no column names image files")
    assert said.endswith("test.csv has the form of train.csv: move it elsewhere if its images are not to be read")


def test_a_table_of_few_rows_per_class_has_the_columns_of_the_others(root: Path, draw: Drawing) -> None:
    kinds = [f"kind {number}" for number in range(30)]
    for split, each in (("train", 4), ("val", 1)):
        names = [f"{split}_{number}_{kind[5:]}.jpg" for kind in kinds for number in range(each)]
        draw.images(f"images/{name}" for name in names)
        draw.text(f"{split}.csv", "file,kind", *(f"{name},kind {name[:-4].split('_')[2]}" for name in names))
    images = listed(infer_source(root))
    assert [sum(image.split == split for image in images) for split in ("train", "val")] == [120, 30]


@pytest.mark.parametrize("ending", [".jpg", ""])
def test_a_folder_that_is_called_as_the_split_alone_is_meant(ending: str, root: Path, draw: Drawing) -> None:
    draw.images(f"{folder}/{number}.jpg" for folder in ("train_resized", "train", "test") for number in range(12))
    draw.text("train.csv", "image,label", *(f"{number}{ending},{('cat', 'dog')[number % 2]}" for number in range(12)))
    assert {image.content for image in listed(infer_source(root))} == {root / f"train/{n}.jpg" for n in range(12)}


def test_the_number_of_a_version_does_not_part_tables(root: Path, draw: Drawing) -> None:
    """So are those of ISIC 2017 called."""
    for first, word in ((0, "Training"), (1000, "Validation"), (2000, "Test_v2")):
        stems = [f"ISIC_{number:07d}" for number in range(first, first + 12)]
        draw.images(f"ISIC-2017_{word}_Data/{stem}.jpg" for stem in stems)
        rows = [f"{stem},{float(n % 3 == 0)},{float(n % 3 == 1)}" for n, stem in enumerate(stems)]
        draw.text(f"ISIC-2017_{word}_Part3_GroundTruth.csv", "image_id,melanoma,seborrheic_keratosis", *rows)
    images = listed(infer_source(root))
    assert [sum(image.split == split for image in images) for split in ("train", "val", "test")] == [12, 12, 12]


def test_a_table_of_other_images_is_said(root: Path, draw: Drawing) -> None:
    for name, count in (("birds", 30), ("insects", 24)):
        draw.images(f"{name}/{name}_{number}.jpg" for number in range(count))
        rows = [f"{name}_{number}.jpg,{('small', 'large')[number % 2]}" for number in range(count)]
        draw.text(f"{name}_labels.csv", "file,size_of_it", *rows)
    assert infer_source(root).notes == ("insects_labels.csv is left out: it labels 24 other images",)


def test_a_table_of_many_things_does_not_make_classes_of_outer_folders(root: Path, draw: Drawing) -> None:
    names = [f"Artist {number}" for number in range(8)]
    draw.images(f"{top}/{top}/{name}/{n}.jpg" for top in ("images", "resized") for name in names for n in range(3))
    draw.text("artists.csv", "id,name,years", *(f"{n},{name},18{n}0" for n, name in enumerate(names)))
    assert "artists.csv: no column names image files" in refused(root)


@pytest.mark.parametrize("path", ["{}.png", "val/{}.png", "{}"])
def test_a_table_labels_the_images_of_a_split_without_class_folders(path: str, root: Path, draw: Drawing) -> None:
    draw.images(f"train/{code}/{number}.png" for code in ("n01", "n02") for number in range(6))
    draw.images(f"val/v{number}.png" for number in range(9))
    rows = (f"{path.format(f'v{number}')},{('n01', 'n02')[number % 2]}" for number in range(8))
    draw.text("val.csv", "image,label", *rows)
    source = infer_source(root)
    assert isinstance(source.dataset, FolderSource)
    assert source.dataset.tables == {"val": "val.csv"}
    assert [image.split for image in listed(source)] == ["train"] * 12 + ["val"] * 8
    assert not source.notes
    listing = open_source(source.dataset, root, 0, Problems("fail"))
    assert listing.notes == ("1 images in val/ are on no line of val.csv, and were left out.",)


def test_a_table_of_other_images_does_not_take_the_place_of_class_folders(root: Path, draw: Drawing) -> None:
    draw.images(f"train/{code}/{number}.png" for code in ("cat", "dog") for number in range(6))
    draw.images(f"val/v{number}.png" for number in range(12))
    draw.text("val.csv", "image;label", *(f"v{number};{('cat', 'dog')[number % 2]}" for number in range(12)))
    source = infer_source(root)
    assert len(listed(source)) == 12
    assert any("'val.csv' is left out: it names none of the images in class folders" in note for note in source.notes)


def test_ids_that_each_split_numbers_for_itself_are_no_units(root: Path, draw: Drawing) -> None:
    draw.images(f"images/{number}.png" for number in range(20))
    rows = (f"{number % 10},{number}.png,{'ab'[number % 2]},{('train', 'test')[number // 10]}" for number in range(20))
    draw.text("labels.csv", "id,image,label,split", *rows)
    source = infer_source(root)
    assert isinstance(source.dataset, CsvSource)
    assert source.dataset.group_by is None
    assert len(listed(source)) == 20


def test_an_id_that_repeats_on_few_rows_is_a_unit(root: Path, draw: Drawing) -> None:
    draw.images(f"images/{number}.png" for number in range(20))
    draw.text("labels.csv", "ID,image,label", *(f"{n // 2},{n}.png,{'ab'[n % 4 // 2]}" for n in range(20)))
    source = infer_source(root)
    assert isinstance(source.dataset, CsvSource)
    assert source.dataset.group_by == "ID"


def test_images_of_equal_names_in_different_folders_count_each(root: Path, draw: Drawing) -> None:
    names = [f"{folder}/{number:03d}.jpg" for folder in ("one", "two", "three") for number in range(8)]
    draw.images([*names, *(f"test/{number:03d}.jpg" for number in range(8))])
    draw.text("index.csv", "path,class_id", *(f"{name},{n % 3}" for n, name in enumerate(names)))
    draw.text("test.csv", "path,class_id", *(f"test/{number:03d}.jpg,{number % 3}" for number in range(8)))
    source = infer_source(root)
    assert isinstance(source.dataset, CsvSource)
    assert source.dataset.file == "index.csv"
    assert {image.path for image in listed(source)} >= set(names)


def test_names_of_images_with_commas_before_a_blank(root: Path, draw: Drawing) -> None:
    draw.images(f"images/{number},{number + 1}.jpg" for number in range(12))
    draw.text("labels.txt", *(f"images/{number},{number + 1}.jpg {number % 2}" for number in range(12)))
    assert len(listed(infer_source(root))) == 12


def test_a_column_that_is_called_as_labels_are_is_a_question_of_its_own(root: Path, draw: Drawing) -> None:
    draw.images(f"images/{number}.png" for number in range(24))
    draw.text("metadata_1.csv", "img,y,place", *(f"{n}.png,{n % 2},{n // 2 % 2}" for n in range(24)))
    source = infer_source(root)
    assert isinstance(source.dataset, CsvSource)
    assert {name: group.column for name, group in source.dataset.groups.items()} == {"y": "y", "place": "place"}
    assert any("2 label groups were found" in note for note in source.notes)


def test_a_file_of_labels_that_names_no_image_is_said(root: Path, draw: Drawing) -> None:
    draw.images(f"{name}/{name}{number}.png" for name in ("ann", "bob") for number in range(6))
    for fold in range(2):
        draw.text(f"fold_{fold}_data.csv", "user,face,gender", *(f"u{n},{n}x,{'fm'[n % 2]}" for n in range(12)))
    assert any(
        "'fold_0_data.csv' is not read, since no column names the images" in note for note in infer_source(root).notes
    )


def test_tables_of_ids_without_a_header(root: Path, draw: Drawing) -> None:
    for split, first in (("Training", 0), ("Test", 100)):
        draw.images(f"Part3_{split}_Data/ISIC_{first + number:07d}.jpg" for number in range(12))
        rows = (f"ISIC_{first + number:07d},{('benign', 'malignant')[number % 3 == 0]}" for number in range(12))
        draw.text(f"Part3_{split}_GroundTruth.csv", *rows)
    images = listed(infer_source(root))
    assert [image.split for image in images] == ["train"] * 12 + ["test"] * 12
