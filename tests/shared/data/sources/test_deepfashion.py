from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.config.dataset import DeepFashionSource
from shared.data.problems import Problems
from shared.data.source import ImageListing
from shared.data.sources.deepfashion import read_deepfashion
from shared.errors import DataError, TailfillError

TYPES = {
    1: "floral graphic striped embroidered pleated solid lattice",
    2: "long_sleeve short_sleeve sleeveless",
    3: "maxi_length mini_length no_dress",
    4: "crew_neckline v_neckline square_neckline no_neckline",
    5: "denim chiffon cotton leather faux knit",
    6: "tight loose conventional",
}
ATTRIBUTES = [f"{name}   {kind}" for kind, names in TYPES.items() for name in names.split()]


def write(folder: Path, name: str, lines: list[str], header: str | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    count = [str(len(lines))] if header is not None else []
    text = "\n".join([*count, *([header] if header else []), *lines]) + "\n"
    (folder / name).write_text(text)


def distribution(
    root: Path, under: str = "Anno_fine", header: bool = False, splits: tuple[str, ...] = ("train", "val", "test")
) -> Path:
    folder = root / under
    write(folder, "list_attr_cloth.txt", ATTRIBUTES, "attribute_name  attribute_type")
    for split in splits:
        write(folder, f"{split}.txt", [f"img/{split}_{i}.jpg" for i in range(3)], "image_name" if header else None)
        write(
            folder,
            f"{split}_attr.txt",
            ["0 1 2 3 4 2", "6 2 0 0 5 0", "5 0 1 2 3 1"],
            "a b c d e f" if header else None,
        )
        write(folder, f"{split}_bbox.txt", ["1 2 30 40"] * 3, "x_1 y_1 x_2 y_2" if header else None)
    return root


def read(root: Path, crop: bool = False, on_bad: str = "skip") -> tuple[ImageListing, Problems]:
    problems = Problems("skip")
    return read_deepfashion(DeepFashionSource(source="deepfashion", root="unused", crop=crop), root, problems), problems


@pytest.mark.parametrize("under", ["Anno_fine", "split"])
@pytest.mark.parametrize("header", [False, True])
def test_as_distributed_with_and_without_headers(tmp_path: Path, under: str, header: bool) -> None:
    source, problems = read(distribution(tmp_path, under, header))
    assert source.schema.width == 26
    assert [group.name for group in source.schema.groups] == [
        "pattern",
        "sleeve",
        "length",
        "neckline",
        "fabric",
        "fit",
    ]
    images = list(source.images)
    assert [image.split for image in images] == ["train"] * 3 + ["val"] * 3 + ["test"] * 3
    names = source.schema.class_names
    first = [names[i] for i in range(26) if images[0].labels[i] == 1]
    assert first == [
        "pattern/floral", "sleeve/short_sleeve", "length/no_dress", "neckline/no_neckline", "fabric/faux", "fit/conventional",
    ]  # fmt: skip
    assert images[0].where == f"{under}/train.txt line {3 if header else 1}"
    assert source.class_where["pattern/floral"] == f"{under}/list_attr_cloth.txt line 3"
    assert problems.counts == {}


def test_the_counts_stand_beside_the_papers_and_an_unlabelled_test_is_not_used(tmp_path: Path) -> None:
    distribution(tmp_path)
    (tmp_path / "Anno_fine" / "test_attr.txt").unlink()
    source, _ = read(tmp_path)
    assert {image.split for image in source.images} == {"train", "val"}
    assert source.notes == (
        "Listed images: train 3, val 3, test 3 (no labels, not used); the paper has train 14,000, val 2,000, test 4,000.",
    )


def test_the_folder_of_a_photograph_is_its_product(tmp_path: Path) -> None:
    distribution(tmp_path, splits=("train", "val"))
    paths = ["img/Sheer_Blouse/img_0001.jpg", "img/Sheer_Blouse/img_0002.jpg", "img/a.jpg"]
    write(tmp_path / "Anno_fine", "train.txt", paths)
    images = list(read(tmp_path)[0].images)
    assert [image.group for image in images] == ["img/Sheer_Blouse", "img/Sheer_Blouse", None, None, None, None]


def test_boxes(tmp_path: Path) -> None:
    distribution(tmp_path)
    write(tmp_path / "Anno_fine", "train_bbox.txt", ["1 2 30 40", "9 9 9 9", "a b c d"])
    source, problems = read(tmp_path, crop=True)
    assert [image.box for image in source.images][:2] == [(1, 2, 30, 40)] * 2
    assert problems.counts == {"unusable box": 2}
    assert read(tmp_path)[1].counts == {}


def test_images_may_lie_where_the_distribution_unpacks_them(tmp_path: Path) -> None:
    distribution(tmp_path)
    (tmp_path / "Img" / "img").mkdir(parents=True)
    assert next(iter(read(tmp_path)[0].images)).content == tmp_path.resolve() / "Img" / "img" / "train_0.jpg"


def test_bad_lines_are_reported_with_file_and_line(tmp_path: Path) -> None:
    distribution(tmp_path, header=True)
    folder = tmp_path / "Anno_fine"
    write(folder, "train.txt", ["img/a.jpg", "img/a.jpg", "../b.jpg", "img/c.jpg", "img/d.jpg"], "image_name")
    write(folder, "train_attr.txt", ["0 0 0 0 0 0"] * 3 + ["0 0 3 0 0 0", "0 0 0 0 x"], "a b c d e f")
    source, problems = read(tmp_path)
    assert sum(image.split == "train" for image in source.images) == 1
    assert problems.lines == [
        "Anno_fine/train.txt line 4: the path 'img/a.jpg' is already listed at Anno_fine/train.txt line 3",
        f"Anno_fine/train.txt line 5: the path '../b.jpg' leaves the folder {tmp_path.name}/",
        "Anno_fine/train_attr.txt line 6: length must be 0 to 2, got 3",
        "Anno_fine/train_attr.txt line 7: must be 6 integers, got '0 0 0 0 x'",
    ]


def test_lists_of_different_length_and_missing_lists(tmp_path: Path) -> None:
    distribution(tmp_path)
    write(tmp_path / "Anno_fine", "val_attr.txt", ["0 0 0 0 0 0"])
    with pytest.raises(DataError, match=r"val_attr\.txt: has 1 lines, val\.txt 3 images"):
        read(tmp_path)
    (tmp_path / "Anno_fine" / "list_attr_cloth.txt").unlink()
    with pytest.raises(DataError, match=r"has no list_attr_cloth\.txt in Anno_fine/ or split/"):
        read(tmp_path)


def test_an_attribute_list_that_is_none(tmp_path: Path) -> None:
    distribution(tmp_path)
    write(tmp_path / "Anno_fine", "list_attr_cloth.txt", [*ATTRIBUTES, "wings 7"])
    with pytest.raises(DataError, match="line 27: must be a name and a type from 1 to 6, got 'wings 7'"):
        read(tmp_path)
    write(tmp_path / "Anno_fine", "list_attr_cloth.txt", ATTRIBUTES[:7])
    with pytest.raises(DataError, match=r"names 0 attributes of type 2 \(sleeve\)"):
        read(tmp_path)


LINE = st.text(max_size=20) | st.sampled_from(
    ["0 0 0 0 0 0", "6 2 2 3 5 2", "img/a.jpg", "9" * 5000, "26", "x 1", "-1 0 0 0 0 0"]
)


@settings(max_examples=150, deadline=None)
@given(
    attributes=st.none() | st.lists(LINE, max_size=4),
    paths=st.lists(LINE, max_size=5),
    labels=st.lists(LINE, max_size=5),
    boxes=st.lists(LINE, max_size=5),
    crop=st.booleans(),
)
def test_any_lines_are_read_or_refused(
    attributes: list[str] | None, paths: list[str], labels: list[str], boxes: list[str], crop: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "split"
        folder.mkdir()
        files = {
            "list_attr_cloth": ATTRIBUTES if attributes is None else attributes,
            "train": paths,
            "train_attr": labels,
            "train_bbox": boxes,
        }
        for stem, lines in files.items():
            (folder / f"{stem}.txt").write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
        try:
            source, _ = read(Path(name), crop=crop)
        except TailfillError as error:
            assert str(error)
            return
        for image in source.images:
            assert (image.labels == 1).sum() == 6
