"""Makes small images for the page, as data URIs, so that the page is one file and does not pass on the data set."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.data.encode import encode_image, image_format
from shared.data.imageset import ImageSet, decode
from shared.data.manual_images import contrast_and_sharpen
from shared.data.schema import Labels, LabelSchema

THUMBNAIL = 112  # pixels per side at most
THUMBNAIL_RESTRICTED = 96  # for data sets that may not be passed on
RESTRICTED_SOURCES = ("deepfashion",)
"""Lists the sources whose terms forbid passing images on: only small thumbnails are shown."""
LOSSLESS_UP_TO = 64  # pixels per side: JPEG's blocks would dominate smaller images
QUALITY = 85  # JPEG's


@dataclass(frozen=True)
class Picture:
    """Holds one image with its texts."""

    uri: str
    caption: str
    alt: str


@dataclass(frozen=True)
class ClassPictures:
    """Holds real and generated images of one rare class, as the right of the paper's Figure 4."""

    name: str
    real: list[Picture]
    generated: list[Picture]
    refused: bool = False
    """Says whether the generated images shown were refused, because none was accepted for the class."""


@dataclass(frozen=True)
class ManualPair:
    """Holds an image and its manual copy, as the left of the paper's Figure 4."""

    original: Picture
    copy: Picture


def thumbnail_side(source: str, resolution: int) -> int:
    """Returns the pixels per side of thumbnails of a data set from `source`."""
    return min(resolution, THUMBNAIL_RESTRICTED if source in RESTRICTED_SOURCES else THUMBNAIL)


def data_uri(data: bytes, kind: str) -> str:
    """Returns the bytes of an image as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def thumbnail(pixels: NDArray[np.uint8]) -> str:
    """Returns an image `[r, r, 3]` as a data URI: PNG if it is small, else JPEG."""
    data = encode_image(Image.fromarray(pixels), png_up_to=LOSSLESS_UP_TO, quality=QUALITY, optimize=True)
    return data_uri(data, image_format(len(pixels), LOSSLESS_UP_TO).lower())


def label_words(labels: Labels, schema: LabelSchema, without: int | None = None) -> str:
    """Returns the classes of one image `[C]` as text: `sleeveless, no dress, cotton`."""
    names = [n.split("/", 1)[1].replace("_", " ") for n in schema.class_names]
    return ", ".join(names[i] for i in np.flatnonzero(labels == 1) if i != without)


def pictures(images: ImageSet, rows: NDArray[np.int64], kind: str, column: int, side: int) -> list[Picture]:
    """Returns thumbnails of those rows, captioned with their labels other than the class that they are shown for."""
    found = []
    for row in rows:
        words = label_words(images.labels[row], images.schema, column)
        name = images.schema.class_names[column]
        uri = thumbnail(decode(images.encoded[row], side, images.paths[row]))
        found.append(Picture(uri, words, f"{kind} image of {name}" + (f": {words}" if words else "")))
    return found


def class_pictures(
    train: ImageSet,
    generated: ImageSet | None,
    accepted: NDArray[np.bool_] | None,
    rare: Sequence[int],
    side: int,
    most: int = 6,
) -> list[ClassPictures]:
    """Returns up to `most` real and accepted generated images of each rare class, or refused ones if none was accepted.

    `accepted` is `[n]` over the generated images; None says that all are.
    """
    shown = []
    for column in rare:
        name = train.schema.class_names[column]
        real = pictures(train, np.flatnonzero(train.labels[:, column] == 1)[:most], "real", column, side)
        made: list[Picture] = []
        refused = False
        if generated is not None and generated.extra is not None:
            filled = np.array(generated.extra["filled"].to_pylist()) == name
            usable = filled if accepted is None else filled & accepted
            refused = bool(filled.any() and not usable.any())
            rows = np.flatnonzero(filled if refused else usable)[:most]
            made = pictures(generated, rows, "refused generated" if refused else "generated", column, side)
        shown.append(ClassPictures(name, real, made, refused))
    return shown


def manual_pairs(train: ImageSet, rows: NDArray[np.int64], side: int, most: int = 6) -> list[ManualPair]:
    """Returns up to `most` of those rows, spread evenly over them, each with its copy."""
    pairs = []
    for row in rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)]:
        words = label_words(train.labels[row], train.schema)
        data, path = train.encoded[row], train.paths[row]
        original, copy = (thumbnail(decode(d, side, path)) for d in (data, contrast_and_sharpen(data)))
        pairs.append(
            ManualPair(
                Picture(original, words, f"training image: {words}"),
                Picture(copy, words, f"copy with more contrast and sharper edges: {words}"),
            )
        )
    return pairs


def sheet_uri(png: bytes, widest: int = 1200) -> str:
    """Returns a sheet of images as a data URI, at most `widest` pixels wide and three times as high."""
    with Image.open(io.BytesIO(png)) as image:
        sheet = image.convert("RGB").crop((0, 0, image.width, min(image.height, 3 * image.width)))
    sheet.thumbnail((widest, 3 * widest))
    return data_uri(encode_image(sheet, png_up_to=0, quality=QUALITY), "jpeg")
