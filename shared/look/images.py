"""Reads labelled images one after the other: their sizes, hashes, thumbnails and features, and what is wrong with single ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shared.config.dataset import Source
from shared.data.canonical import Canonical, Reading, canonical, check_header
from shared.data.imageset import ImageSet, decode
from shared.data.problems import BadImage
from shared.data.schema import Labels, LabelSchema, class_counts
from shared.data.source import SourceImage
from shared.log import Log
from shared.report.pictures import thumbnail

MEASURED = 200  # images that are read to learn how large images are
CHUNK = 256  # images that are decoded before they go through the backbone: bounds the memory
PLAIN = 2.0  # of 255: an image whose pixels deviate less from each other shows nothing
SMALL = 4
"""Says by how many times the shorter side of an image must be below the median to stand out."""
LONG = 4.0
"""Says how many times as long as wide an image must be to stand out; twice the median of the set, if that is more."""
SAMPLE_SEED = 0

Features = Callable[[ImageSet], NDArray[np.float32]]
"""Returns features `[n, F]` for n encoded images."""

log = Log("look")


@dataclass(frozen=True)
class Unreadable:
    """Says why an image cannot be used."""

    path: str
    where: str
    reason: str
    message: str


@dataclass(frozen=True)
class SeenImages:
    """Holds what is known of n images that could be read."""

    images: list[SourceImage]
    """Lists the images, without pixels."""
    labels: Labels
    """Holds their labels, `[n, C]`."""
    sizes: NDArray[np.int64]
    """Holds widths and heights in pixels, before they are made square, `[n, 2]`."""
    hashes: list[Canonical]
    """Holds the values by which copies are found, without the encoded images."""
    thumbnails: list[str]
    """Holds a small picture of each as a data URI."""
    plain: NDArray[np.bool_]
    """Says which images show one colour alone, `[n]`."""
    features: NDArray[np.float32]
    """Holds the features by which labels are judged, `[n, F]`."""
    unreadable: list[Unreadable]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def split(self) -> NDArray[np.str_]:
        """Returns the split that the source names for each image, `[n]`, blank if it names none."""
        return np.array([image.split or "" for image in self.images], dtype="<U5")


def sample(labels: Labels, most: int) -> NDArray[np.int64]:
    """Returns the positions of at most `most` images with `labels` `[n, C]`, in order.

    Each class has equally many, as far as it has so many: rare classes are whole. The same labels give the same sample.
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    counts = class_counts(labels)
    rarest = np.where(labels == 1, counts, len(labels) + 1).argmin(
        axis=1
    )  # an image without a class counts to the first
    order = np.random.default_rng(SAMPLE_SEED).permutation(len(labels))
    seen = np.zeros(len(counts), np.int64)
    place = np.empty(len(labels), np.int64)
    for image in order.tolist():
        place[image] = seen[rarest[image]]
        seen[rarest[image]] += 1
    return np.sort(order[np.argsort(place[order], kind="stable")[:most]])


def read_images(
    images: Sequence[SourceImage], schema: LabelSchema, dataset: Source, side: int, picture: int, features: Features
) -> SeenImages:
    """Reads the images at `side` pixels, in chunks, with progress in the log; thumbnails have at most `picture` pixels per side."""
    usable, unreadable = list[_Read](), list[Unreadable]()
    found: list[NDArray[np.float32]] = []

    def results() -> Iterator[_Read | Unreadable]:
        reading, left = Reading.of(dataset), iter(images)
        with reading.limiting(), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            try:
                while chunk := list(islice(left, CHUNK)):
                    good = list[_Read]()
                    for each in pool.map(lambda image: _read(image, dataset, side, picture, reading), chunk):
                        if isinstance(each, _Read):
                            good.append(each)
                        yield each
                    if good:
                        found.append(features(_image_set(good, schema)))
            finally:
                pool.shutdown(cancel_futures=True)

    for each in log.progress(results(), "images read", len(images), "images"):
        if isinstance(each, _Read):
            usable.append(replace(each, hashes=replace(each.hashes, data=b"")))
        else:
            unreadable.append(each)
    return SeenImages(
        [each.image for each in usable],
        np.stack([each.image.labels for each in usable]) if usable else np.empty((0, schema.width), np.int8),
        np.array([each.size for each in usable], np.int64).reshape(-1, 2),
        [each.hashes for each in usable],
        [each.thumbnail for each in usable],
        np.array([each.plain for each in usable], np.bool_),
        np.concatenate(found) if found else np.empty((0, 0), np.float32),
        unreadable,
    )


@dataclass(frozen=True)
class _Read:
    image: SourceImage
    size: tuple[int, int]
    hashes: Canonical
    thumbnail: str
    plain: bool


def _read(image: SourceImage, dataset: Source, side: int, picture: int, reading: Reading) -> _Read | Unreadable:
    try:
        size = original_size(image, reading)
        square = canonical(image.content, side, dataset.fit, image.box, reading)
    except BadImage as error:
        return Unreadable(image.path, image.where, error.reason, str(error))
    pixels = decode(square.data, side, image.path)
    small = pixels if side == picture else decode(square.data, picture, image.path)
    plain = bool(pixels.reshape(-1, 3).std(axis=0).max() < PLAIN)
    return _Read(replace(image, content=Path()), size, square, thumbnail(small), plain)


def original_size(image: SourceImage, reading: Reading) -> tuple[int, int]:
    """Returns width and height in pixels of an image as it is stored, or of its box; raises BadImage if its header cannot be read."""
    if image.box is not None:
        left, top, right, bottom = image.box
        return right - left, bottom - top
    if isinstance(image.content, np.ndarray):
        return image.content.shape[1], image.content.shape[0]
    return check_header(image.content, reading)


def shorter_sides(
    images: Sequence[SourceImage], reading: Reading, report: Callable[[SourceImage, BadImage], None] | None = None
) -> list[int]:
    """Returns the shorter sides in pixels of MEASURED of the images, or of all; those whose headers cannot be read go to `report`."""
    sides = []
    with reading.limiting():
        for image in images[:: max(1, len(images) // MEASURED)]:
            try:
                sides.append(min(original_size(image, reading)))
            except BadImage as error:
                if report is not None:
                    report(image, error)
    return sides


def _image_set(read: Sequence[_Read], schema: LabelSchema) -> ImageSet:
    return ImageSet(
        schema,
        [each.hashes.data for each in read],
        [each.image.path for each in read],
        np.full(len(read), "", dtype="<U5"),
        np.stack([each.image.labels for each in read]),
    )


Oddity = Literal["one colour", "tiny", "long and thin"]


def odd_images(sizes: NDArray[np.int64], plain: NDArray[np.bool_]) -> Iterator[tuple[int, Oddity]]:
    """Yields the positions of images that stand out, with the reason: by their sizes `[n, 2]` in pixels, or as they are `plain`, `[n]`."""
    if not len(sizes):
        return
    shorter, longer = sizes.min(axis=1), sizes.max(axis=1)
    ratio = longer / np.maximum(shorter, 1)
    most = max(LONG, 2 * float(np.median(ratio)))
    reasons: tuple[tuple[Oddity, NDArray[np.bool_]], ...] = (
        ("one colour", plain),
        ("tiny", SMALL * shorter < np.median(shorter)),
        ("long and thin", ratio > most),
    )
    for reason, which in reasons:
        for position in np.flatnonzero(which).tolist():
            yield position, reason
