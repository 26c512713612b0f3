"""Tests that an image is read for prediction as `prepare` and training read it, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shared.classifier.frozen_features import decoded
from shared.classifier.precision import to_float_images
from shared.data.canonical import canonical
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
    "already small.png": lambda path: photo(32, 32).save(path),
    "already large.jpg": lambda path: photo(160, 160).save(path, quality=60),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(("stored", "side"), [(32, 32), (160, 160), (160, 64)])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_the_network_sees_what_it_saw_in_training(tmp_path: Path, name: str, stored: int, side: int, fit: str) -> None:
    path = tmp_path / name
    ODD[name](path)
    how = Preprocessing(stored_resolution=stored, fit=fit, resolution=side, mean=MEAN, std=STD)  # type: ignore[arg-type]
    prepared = canonical(path, stored, fit).data  # type: ignore[arg-type]
    images = ImageSet(SCHEMA, [prepared], [name], np.array(["train"]), np.zeros((1, 2), np.int8))
    trained_on = decoded(images, side)
    found = read_pixels(ListedImage(name, path), how)[None]
    assert np.array_equal(found, trained_on)
    floats = to_float_images(torch.from_numpy(trained_on), torch.device("cpu"))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    assert np.array_equal(normalised(found, how), ((floats - mean) / std).numpy())


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty file"), (b"no image", "not an image"), (b"\x89PNG\r\n\x1a\nrest", "not an image"), (None, "missing file")],
)  # fmt: skip
def test_an_unusable_image_is_said_to_be(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    how = Preprocessing(stored_resolution=32, fit="squash", resolution=32, mean=MEAN, std=STD)
    with pytest.raises(BadImage) as error:
        read_pixels(ListedImage("a.png", path), how)
    assert error.value.reason == reason
    with pytest.raises(BadImage, match="it leaves"):
        read_pixels(ListedImage("a.png", path, "it leaves"), how)
