from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shared.config.dataset import CsvSource
from shared.data.infer_source import infer_source
from shared.data.problems import Problems
from shared.data.source import ImageListing
from shared.data.sources.csv_table import read_csv
from shared.data.sources.sheets import read_sheets
from shared.errors import DataError

Picture = Callable[[Path], Path]


@pytest.mark.parametrize(
    ("lines", "header"),
    [
        (["image_id class_id super_class_id path", "1 1 1 bicycle/1.jpg", "2 1 1 bicycle/2.jpg"], True),
        (["id label", "img001 cat", "img002 dog"], True),
        (["file\tspecies", "a/1.jpg\tgreat dane", "a/2.jpg\tpug"], True),
        (["image label", "1.jpg great dane", "2.jpg pug"], True),
        (["photo kind", "1.jpg pug", "2.jpg cat"], True),
        (["img001 cat", "img002 dog"], False),
        (["1.jpg cat", "2.jpg dog"], False),
        (["cat 0", "dog 1"], False),
        (["great dane", "pug dog"], False),
    ],
)
def test_the_first_line_of_a_list_may_name_its_columns(tmp_path: Path, lines: list[str], header: bool) -> None:
    (tmp_path / "list.txt").write_text("\n".join(lines))
    (sheet,) = read_sheets(tmp_path)
    assert len(sheet.table.rows) == len(lines) - header
    assert sheet.unnamed is not header
    if header:
        assert sheet.header == tuple(lines[0].split())


def drawn(root: Path, picture: Picture, *names: str) -> Path:
    for name in names:
        picture(root / name)
    return root


def read(root: Path) -> tuple[ImageListing, CsvSource, tuple[str, ...]]:
    found = infer_source(root)
    assert isinstance(found.dataset, CsvSource)
    problems = Problems("fail")
    listing = read_csv(found.dataset, found.root, problems)
    problems.raise_if_failing()
    return listing, found.dataset, found.notes


def test_a_header_in_a_list_is_no_class(tmp_path: Path, picture: Picture) -> None:
    drawn(tmp_path, picture, *(f"photos/img{n:03d}.png" for n in range(12)))
    lines = ["id label", *(f"img{n:03d} {'cat' if n % 3 else 'dog'}" for n in range(12))]
    (tmp_path / "labels.txt").write_text("\n".join(lines))
    listing, _, _ = read(tmp_path)
    assert tuple(listing.schema.class_names) == ("label/cat", "label/dog")
    assert listing.total == 12


def test_a_short_list_has_its_labels_where_the_longer_ones_have_theirs(tmp_path: Path, picture: Picture) -> None:
    """Of the 24 classes, the validation list has two images each, of which nothing could be told alone."""
    for split, count in (("train", 96), ("val", 24)):
        drawn(tmp_path, picture, *(f"images/{split}{n}.png" for n in range(count)))
        (tmp_path / f"{split}.txt").write_text("".join(f"{split}{n}.png {n % 24}\n" for n in range(count)))
    listing, dataset, notes = read(tmp_path)
    assert len(listing.schema.class_names) == 24
    assert {image.split for image in listing.images} == {"train", "val"}
    assert listing.total == 120
    assert dataset.header == ("path", "label")
    assert any("the 24 different numbers of" in note for note in notes)


def test_the_numbers_of_persons_are_no_classes(tmp_path: Path, picture: Picture) -> None:
    drawn(tmp_path, picture, *(f"images/{n}.png" for n in range(96)))
    (tmp_path / "labels.txt").write_text("".join(f"{n}.png {'cat' if n % 3 else 'dog'}\n" for n in range(96)))
    (tmp_path / "identity.txt").write_text("".join(f"{n}.png {n % 24}\n" for n in range(96)))
    _, dataset, _ = read(tmp_path)
    assert list(dataset.groups) == ["label"]
    assert dataset.group_by == "identity"


def test_0_and_1_in_several_columns_without_names_are_classes(tmp_path: Path, picture: Picture) -> None:
    drawn(tmp_path, picture, *(f"images/{n}.png" for n in range(12)))
    for split, numbers in (("train", range(9)), ("test", range(9, 12))):
        (tmp_path / f"{split}_list.txt").write_text(
            "".join(f"{n}.png {n % 2} {n // 2 % 2} {n % 3 % 2}\n" for n in numbers)
        )
    listing, _, _ = read(tmp_path)
    (group,) = listing.schema.groups
    assert (group.kind, group.classes) == ("any", ("column_2", "column_3", "column_4"))


def test_lists_of_other_folders_whose_numbers_differ_are_not_joined(tmp_path: Path, picture: Picture) -> None:
    for domain, shift in (("art", 0), ("photo", 1)):
        for split, count in (("train", 96), ("test", 48)):
            numbers = range({"train": 0, "test": 500}[split], {"train": 0, "test": 500}[split] + count)
            names = [f"{domain}/class{n % 24}/{domain}{n}.png" for n in numbers]
            drawn(tmp_path, picture, *names)
            lines = [f"{name} {(n + shift) % 24}\n" for name, n in zip(names, numbers, strict=True)]
            (tmp_path / f"{domain}_{split}.txt").write_text("".join(lines))
    listing, _, notes = read(tmp_path)
    assert listing.total == 144
    assert not any("one data set" in note for note in notes)


def test_numbers_that_leave_some_out_are_no_classes_unless_the_column_is_named(
    tmp_path: Path, picture: Picture
) -> None:
    drawn(tmp_path, picture, *(f"images/{n}.png" for n in range(96)))
    lines = [f"{n}.png {n % 24 * 40}" for n in range(96)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    with pytest.raises(
        DataError, match=r"'train\.txt' names images, but its numbers are taken for no classes.*`path label`"
    ):
        infer_source(tmp_path)
    (tmp_path / "train.txt").write_text("\n".join(["path label", *lines]))
    listing, _, _ = read(tmp_path)
    assert len(listing.schema.class_names) == 24
