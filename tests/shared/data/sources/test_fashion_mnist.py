from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.config.dataset import FashionMnistSource
from shared.data.problems import Problems
from shared.data.source import ImageListing
from shared.data.sources.fashion_mnist import read_fashion_mnist
from shared.errors import ConfigError, DataError


def idx(values: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write(root: Path, a_class: int = 12, packed: bool = True, labels: list[int] | None = None) -> Path:
    rng = np.random.default_rng(0)
    for stem in ("train", "t10k"):
        y = np.array(labels if labels is not None else list(range(10)) * a_class, np.uint8)
        x = rng.integers(0, 256, (len(y), 28, 28), np.uint8)
        for name, values in ((f"{stem}-images-idx3-ubyte", x), (f"{stem}-labels-idx1-ubyte", y)):
            data = idx(values)
            (root / f"{name}{'.gz' if packed else ''}").write_bytes(gzip.compress(data, 1) if packed else data)
    return root


def read(root: Path, **values: Any) -> tuple[ImageListing, Problems]:
    problems = Problems("skip")
    config = FashionMnistSource(source="fashion-mnist", root="unused", **{"val_per_class": 4, **values})
    return read_fashion_mnist(config, root, problems), problems


@pytest.mark.parametrize("packed", [True, False])
def test_first_images_train_and_last_ones_validate(tmp_path: Path, packed: bool) -> None:
    source, problems = read(write(tmp_path, packed=packed), per_class=5, keep={"shirt": 2})
    images = list(source.images)
    assert len(images) == source.total == 9 * 5 + 2 + 10 * 4 + 120
    shirt = source.schema.column("garment/shirt")
    paths = [image.path for image in images if image.labels[shirt] == 1 and image.split != "test"]
    # the shirts are items 6, 16, 26 ...; of the twelve, the first two are for training and the last four for validation
    assert [path.removeprefix("train-images-idx3-ubyte/") for path in paths] == [
        "00006",
        "00016",
        "00086",
        "00096",
        "00106",
        "00116",
    ]
    assert problems.counts == {}


def test_groups_that_follow_from_the_garment(tmp_path: Path) -> None:
    source, _ = read(write(tmp_path))
    names = source.schema.class_names
    by_garment = {image.labels[:10].argmax(): image.labels for image in source.images}
    has = {
        int(g): {n for n, v in zip(names[10:], labels[10:], strict=True) if v == 1} for g, labels in by_garment.items()
    }
    assert has[0] == {"sleeve/short", "worn_on/torso"}
    assert has[3] == {"worn_on/whole_body"}  # dresses: their sleeves vary
    assert (by_garment[3][source.schema.slices()["sleeve"]] == -1).all()
    assert has[4] == {"sleeve/long", "worn_on/torso"}
    assert has[6] == {"worn_on/torso"}
    assert has[9] == {"sleeve/no_sleeve", "worn_on/feet"}


def test_a_label_beyond_nine_is_reported_with_its_item(tmp_path: Path) -> None:
    _, problems = read(write(tmp_path, labels=[*list(range(10)) * 6, 10]))
    assert problems.counts == {"label outside its group": 2}
    assert problems.lines[0] == "train-labels-idx1-ubyte item 60: the label must be 0 to 9, got 10"


def test_wishes_that_cannot_be_met(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ConfigError, match=r"dataset\.keep: must name garments, got 'hat'"):
        read(tmp_path, keep={"hat": 3})
    with pytest.raises(ConfigError, match="t_shirt has 12 training images, too few for 9 to train on"):
        read(tmp_path, per_class=9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "IDX magic 00000803, got nothing"),
        (lambda data: b"PNG." + data[4:], "IDX magic"),
        (lambda data: data[:-1], "it was cut short"),
        (lambda data: data + b"x", "has more"),
        (lambda data: data[:4] + b"\xff" * 12 + data[16:], "its header says"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, change: Any, message: str) -> None:
    path = write(tmp_path, packed=False) / "train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=f"train-images-idx3-ubyte: .*{message}"):
        read(tmp_path)


def test_missing_and_mismatched_files(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(3, np.uint8))))
    with pytest.raises(DataError, match="t10k-images has 120 images, t10k-labels 3 labels"):
        read(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match="not found; Fashion-MNIST is four IDX files"):
        read(tmp_path)
