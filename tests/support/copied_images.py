"""Drawn garments, and images made of them as a generator with a good memory would make them."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageOps

from shared.config.dataset import GarmentsSource
from shared.data.garments import read_garments
from shared.data.imageset import ImageSet
from shared.data.source import SourceImage


def garments(side: int, train: int, val: int, test: int, seed: int = 11) -> dict[str, ImageSet]:
    """Returns the splits of a drawn data set, as PNG."""
    source = GarmentsSource(source="garments", resolution=side, train=train, val=val, test=test, rare_eval=0)
    listing = read_garments(source, seed)
    drawn = list(listing.images)
    sets = {}
    for split in ("train", "val", "test"):
        chosen = [image for image in drawn if image.split == split]
        encoded = [png(Image.fromarray(drawn_pixels(image))) for image in chosen]
        labels = np.stack([image.labels for image in chosen])
        sets[split] = ImageSet(listing.schema, encoded, [i.path for i in chosen], np.full(len(chosen), split), labels)
    return sets


def drawn_pixels(image: SourceImage) -> NDArray[np.uint8]:
    """Returns the pixels of an image that was drawn, and is no file."""
    assert isinstance(image.content, np.ndarray)
    return image.content


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Image.open(io.BytesIO(out.getvalue())).convert("RGB")


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Cuts a share off each side, a pixel at least, and enlarges the rest."""
    cut = max(1, round(image.width * share))
    return image.crop((cut, cut, image.width - cut, image.width - cut)).resize(image.size, Image.Resampling.BICUBIC)


def resized(image: Image.Image) -> Image.Image:
    small = image.resize((image.width * 3 // 4, image.width * 3 // 4), Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "exact": lambda image: image,
    "jpeg 90": lambda image: jpeg(image, 90),
    "jpeg 50": lambda image: jpeg(image, 50),
    "resized": resized,
    "mirrored": ImageOps.mirror,
    "mirrored and jpeg 75": lambda image: jpeg(ImageOps.mirror(image), 75),
    "cut by 3 %": lambda image: cropped(image, 0.03),
    "cut by 6 %": lambda image: cropped(image, 0.06),
    "mirrored and cut by 10 %": lambda image: cropped(ImageOps.mirror(image), 0.1),
}
"""Ways to copy an image."""


def copied(images: ImageSet, rows: range, how: str) -> list[bytes]:
    """Returns copies of the images at these positions, as PNG."""
    opened = [Image.open(io.BytesIO(images.encoded[i])).convert("RGB") for i in rows]
    return [png(COPIES[how](image)) for image in opened]


def generated_set(like: ImageSet, encoded: list[bytes], start: list[int | None] | None = None) -> ImageSet:
    """Returns a set of generated images with their provenance; labels are those of the first images of `like`, in turn."""
    n = len(encoded)
    labels = like.labels[np.arange(n) % len(like)]
    filled = [like.schema.class_names[int(row.argmax())] for row in labels]
    extra = pa.table(
        {
            "index": pa.array(range(n), pa.int64()),
            "pool": pa.array([0] * n, pa.int32()),
            "filled": pa.array(filled),
            "start": pa.array(start or [None] * n, pa.int64()),
        }
    )
    paths = [f"generated/{i}.png" for i in range(n)]
    return ImageSet(like.schema, encoded, paths, np.full(n, "generated"), labels, extra)
