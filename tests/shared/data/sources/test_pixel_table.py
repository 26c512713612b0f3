from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shared.data.sources.pixel_table import pixel_columns, read_pixels
from shared.errors import DataError

COLUMNS = ",".join(f"pixel{number}" for number in range(64))


def row(label: int, value: int, pixels: int = 64) -> str:
    return ",".join([str(label), *[str(value)] * pixels])


def test_a_column_per_pixel(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(f"label,{COLUMNS}\n{row(3, 0)}\n{row(7, 255)}\n")
    assert pixel_columns(tmp_path / "train.csv") == ("label", COLUMNS.split(","))
    ((split, images, labels),) = read_pixels(tmp_path / "train.csv", "train.csv")
    assert (split, images.shape, labels.tolist()) == ("train", (2, 8, 8), [3, 7])
    assert images.reshape(2, -1)[:, 0].tolist() == [0, 255]


def test_all_pixels_in_one_cell_and_a_column_of_splits(tmp_path: Path) -> None:
    """FER2013's cells have 9,000 characters."""
    pixels = [" ".join([str(value)] * 48 * 48) for value in (1, 2, 3)]
    usage = ("Training", "PublicTest", "Training")
    rows = [f"{label},{cells},{said}" for label, cells, said in zip((0, 6, 2), pixels, usage, strict=True)]
    (tmp_path / "fer.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]))
    parts = {split: (images, labels) for split, images, labels in read_pixels(tmp_path / "fer.csv", "fer.csv")}
    assert parts["train"][0].shape == (2, 48, 48)
    assert parts["train"][1].tolist() == [0, 2]
    assert len(parts) == 2


def test_pixels_with_three_colours(tmp_path: Path) -> None:
    names = ",".join(f"pixel{number}" for number in range(300))
    (tmp_path / "a.csv").write_text(f"label,{names}\n{row(0, 9, 300)}\n")
    assert read_pixels(tmp_path / "a.csv", "a.csv")[0][1].shape == (1, 10, 10, 3)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([row(0, 256)], "line 2: its pixels must be 0 to 255"),
        ([row(-1, 5)], "its class at least 0"),
        ([row(0, 5), row(0, 5, 63)], "line 3: must have as many cells"),
        ([row(0, 5).replace("5", "x", 1)], "line 2: must hold a class number and pixels"),
        ([], "has no rows under its header"),
    ],
)
def test_what_is_no_pixel_is_named_with_its_line(tmp_path: Path, lines: list[str], message: str) -> None:
    (tmp_path / "a.csv").write_text("\n".join([f"label,{COLUMNS}", *lines]))
    with pytest.raises(DataError, match=message):
        read_pixels(tmp_path / "a.csv", "a.csv")


@pytest.mark.parametrize("header", ["image,label", "label,pixel0,pixel1", ""])
def test_other_tables_are_none_of_pixels(tmp_path: Path, header: str) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\n")
    assert pixel_columns(tmp_path / "a.csv") is None


def test_pixels_that_make_no_square(tmp_path: Path) -> None:
    names = ",".join(f"pixel{number}" for number in range(70))
    (tmp_path / "a.csv").write_text(f"label,{names}\n{row(0, 9, 70)}\n")
    with pytest.raises(DataError, match="70 pixels make no square image"):
        read_pixels(tmp_path / "a.csv", "a.csv")


def test_values_are_kept(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, 64)
    (tmp_path / "a.csv").write_text(f"label,{COLUMNS}\n1,{','.join(map(str, values))}\n")
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.csv", "a.csv")[0][1][0], values.reshape(8, 8))
