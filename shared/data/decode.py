"""Decodes the images that a source lists into canonical form, in the order of the list, with several threads."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from shared.data.canonical import USUAL, Canonical, Reading, canonical
from shared.data.encoded import EncodedImages, EncodedWriter
from shared.data.problems import BadImage, Problems
from shared.data.schema import LabelGroup, Labels, LabelSchema
from shared.data.source import ImageListing, SourceImage
from shared.errors import DataError
from shared.log import Log
from shared.parallel import in_threads
from shared.stop import StopSignal

NO_PIXELS = np.empty(0, np.uint8)
AHEAD = 8  # images per thread that are listed (or drawn) before the first of them is done: bounds the memory


@dataclass(frozen=True)
class DecodedImages:
    """Holds the usable images of a source."""

    schema: LabelSchema
    """Lists the classes that have images."""
    labels: Labels
    """Holds the labels `[n, C]`."""
    images: list[SourceImage]
    """Lists the images as the source did, without their pixels."""
    encoded: EncodedImages
    """Holds the images in canonical form."""
    canonical: list[Canonical]
    """Holds the values by which duplicates are found; without the encoded images."""
    notes: tuple[str, ...] = ()
    """Tells readers of the report how many images were read in a special way."""


def decode_images(
    listing: ImageListing,
    resolution: int,
    fit: Literal["squash", "crop", "pad"],
    problems: Problems,
    stop: StopSignal,
    reading: Reading = USUAL,
) -> DecodedImages:
    """Decodes every image to `resolution` pixels per side.

    Unusable images are reported to `problems`, and so are classes left without any image, which are taken out of the schema.
    Raises DataError if problems are not to be skipped or no usable image is left, and Stopped if the signal arrives.
    """
    images: list[SourceImage] = []
    done: list[Canonical] = []
    with reading.limiting(), EncodedWriter() as writer:
        for image, result in Log("prepare").progress(
            _decoded(listing, resolution, fit, reading), "images", listing.total, unit="images"
        ):
            stop.raise_if_set()
            if isinstance(result, BadImage):
                problems.add(result.reason, image.where, f"{image.path}: {result}")
            else:
                images.append(_without_pixels(image))
                writer.add(result.data)
                done.append(replace(result, data=b""))
        encoded = writer.finish()
    labels = np.stack([image.labels for image in images]) if images else np.empty((0, listing.schema.width), np.int8)
    empty = _empty_classes(listing, labels, problems)
    problems.raise_if_failing()
    if not images:
        raise DataError("dataset: has no usable image; see the lines above, or check dataset.root")
    schema, columns = _without(listing.schema, empty)
    special = Counter(note for each in done for note in each.notes)
    notes = tuple(f"{count:,} images: {note}" for note, count in sorted(special.items()))
    return DecodedImages(schema, labels[:, columns], images, encoded, done, notes)


def _decoded(
    listing: ImageListing, resolution: int, fit: Literal["squash", "crop", "pad"], reading: Reading
) -> Iterator[tuple[SourceImage, Canonical | BadImage]]:
    # Pillow releases the interpreter's lock while it decodes, resizes and encodes
    return in_threads(
        lambda image: _attempt(image, resolution, fit, reading), listing.images, len(os.sched_getaffinity(0))
    )


def _attempt(
    image: SourceImage, resolution: int, fit: Literal["squash", "crop", "pad"], reading: Reading
) -> Canonical | BadImage:
    try:
        return canonical(image.content, resolution, fit, image.box, reading)
    except BadImage as error:
        return error


def _without_pixels(image: SourceImage) -> SourceImage:
    return SourceImage(image.path, image.where, NO_PIXELS, image.labels, image.split, image.group)


def _empty_classes(listing: ImageListing, labels: Labels, problems: Problems) -> set[str]:
    counts = (labels == 1).sum(axis=0)
    empty = {name for name, count in zip(listing.schema.class_names, counts.tolist(), strict=True) if not count}
    for name in listing.schema.class_names:
        if name in empty:
            where = listing.class_where.get(name, "the source")
            problems.add("empty class", where, f"the class {name} has no usable image; add some, or take the class out")
    return empty


def _without(schema: LabelSchema, empty: set[str]) -> tuple[LabelSchema, list[int]]:
    """Returns the schema without these classes, and the remaining columns; raises DataError if a group keeps too few classes."""
    groups = []
    for group in schema.groups:
        classes = tuple(name for name in group.classes if f"{group.name}/{name}" not in empty)
        if len(classes) < (2 if group.kind == "one" else 1):
            raise DataError(
                f"dataset: in the group {group.name} only {list(classes)} has usable images; a group needs two classes"
            )
        groups.append(LabelGroup(name=group.name, kind=group.kind, classes=classes))
    columns = [i for i, name in enumerate(schema.class_names) if name not in empty]
    return LabelSchema(groups=tuple(groups)), columns
