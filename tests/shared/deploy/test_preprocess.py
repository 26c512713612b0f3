"""Tests that an image is read for prediction as `prepare` and training read it, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from shared.classifier.frozen_features import decoded
from shared.classifier.precision import to_float_images
from shared.data.canonical import MOST_PIXELS, Reading, canonical
from shared.data.imageset import ImageSet
from shared.data.problems import BadImage
from shared.data.schema import LabelGroup, LabelSchema
from shared.deploy.description import Preprocessing
from shared.deploy.listing import ListedImage
from shared.deploy.preprocess import normalised, read_pixels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCHEMA = LabelSchema(groups=(LabelGroup(name="g", classes=("a", "b")),))
RNG = np.random.default_rng(0)


def photo(width: int = 90, height: int = 61) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 255, (height, width, 3), np.uint8)).resize((width, height))


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo().save(path, "JPEG", exif=exif)


def deep(path: Path) -> None:
    Image.fromarray(RNG.integers(0, 5000, (50, 40)).astype(np.uint16)).save(path)


def animated(path: Path) -> None:
    photo().save(path, save_all=True, append_images=[photo(), photo()])


ODD: dict[str, Callable[[Path], None]] = {
    "rotated by EXIF.jpg": rotated,
    "grey.png": lambda path: photo().convert("L").save(path),
    "grey with alpha.png": lambda path: photo().convert("LA").save(path),
    "CMYK.jpg": lambda path: photo().convert("CMYK").save(path),
    "transparent.png": lambda path: Image.fromarray(RNG.integers(0, 255, (40, 50, 4), np.uint8)).save(path),
    "palette.gif": lambda path: photo().convert("P").save(path),
    "one bit.png": lambda path: photo().convert("1").save(path),
    "one pixel.png": lambda path: photo(1, 1).save(path),
    "long.webp": lambda path: photo(700, 9).save(path),
    "large.jpg": lambda path: photo(1500, 1100).save(path, quality=80),
    "deep grey.png": deep,
    "floats.tif": lambda path: Image.fromarray(RNG.random((30, 30), np.float32)).save(path),
    "animated.gif": animated,
    "animated.webp": animated,
    "already small.png": lambda path: photo(32, 32).save(path),
    "already large.jpg": lambda path: photo(160, 160).save(path, quality=60),
}


def preprocessing(stored: int = 32, side: int = 32, fit: Any = "squash", **more: Any) -> Preprocessing:
    return Preprocessing(
        **{"stored_resolution": stored, "fit": fit, "resolution": side, "mean": MEAN, "std": STD, "most_pixels": MOST_PIXELS, **more}
    )  # fmt: skip


@pytest.fixture(scope="module")
def odd_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    for name, write in ODD.items():
        write(folder / name)
    return folder


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(("stored", "side"), [(32, 32), (160, 160), (160, 64)])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("window", [None, (100.0, 4000.0)])
def test_the_network_sees_what_it_saw_in_training(
    odd_files: Path, name: str, stored: int, side: int, fit: Any, window: tuple[float, float] | None
) -> None:
    if window is not None and name not in ("deep grey.png", "grey.png"):
        return  # a window is for grey images of more than 8 bits
    how = preprocessing(stored, side, fit, window=window)
    prepared = canonical(odd_files / name, stored, fit, reading=Reading(window))
    images = ImageSet(SCHEMA, [prepared.data], [name], np.array(["train"]), np.zeros((1, 2), np.int8))
    trained_on = decoded(images, side)
    found, notes = read_pixels(ListedImage(name, odd_files / name), how)
    assert np.array_equal(found[None], trained_on)
    assert notes == prepared.notes
    floats = to_float_images(torch.from_numpy(trained_on), torch.device("cpu"))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    assert np.array_equal(normalised(found[None], how), ((floats - mean) / std).numpy())


def test_odd_images_look_as_they_should(odd_files: Path) -> None:
    """Compares with Pillow alone, so that not only both ways of ours agree."""

    def pixels(name: str, **more: Any) -> NDArray[np.uint8]:
        return read_pixels(ListedImage(name, odd_files / name), preprocessing(**more))[0].transpose(1, 2, 0)

    with Image.open(odd_files / "rotated by EXIF.jpg") as image:
        upright = np.asarray(image.rotate(-90, expand=True).resize((32, 32), Image.Resampling.BICUBIC, reducing_gap=3))
    assert np.array_equal(pixels("rotated by EXIF.jpg"), upright)
    grey = pixels("grey.png")
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 1] == grey[..., 2]).all()
    with Image.open(odd_files / "animated.gif") as image:
        first = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC, reducing_gap=3))
    assert np.array_equal(pixels("animated.gif"), first)
    narrow = pixels("deep grey.png", window=(0.0, 2500.0)).mean()
    assert narrow > pixels("deep grey.png", window=(0.0, 5000.0)).mean() > 100


def test_a_huge_image_is_read_and_one_beyond_the_limit_of_training_is_refused(tmp_path: Path) -> None:
    huge = ListedImage("huge.png", tmp_path / "huge.png")
    Image.new("L", (9000, 7000), 200).save(huge.path, compress_level=1)
    assert (read_pixels(huge, preprocessing())[0] == 200).all()
    with pytest.raises(BadImage, match="9000 x 7000") as error:
        read_pixels(huge, preprocessing(most_pixels=62_999_999))
    assert error.value.reason == "image bomb"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty file"), (b"no image", "not an image"), (b"\x89PNG\r\n\x1a\nrest", "not an image"), (None, "missing file")],
)  # fmt: skip
def test_an_unusable_image_is_said_to_be(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    how = preprocessing()
    with pytest.raises(BadImage) as error:
        read_pixels(ListedImage("a.png", path), how)
    assert error.value.reason == reason
    with pytest.raises(BadImage, match="it leaves"):
        read_pixels(ListedImage("a.png", path, "it leaves"), how)
