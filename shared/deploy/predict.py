"""Predicts labels of many images: threads decode the next ones while the network computes a batch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.data.canonical import BOMB_REMEDY
from shared.data.problems import BadImage
from shared.deploy.description import Description, Preprocessing
from shared.deploy.listing import ListedImage
from shared.deploy.preprocess import read_pixels, reading_of
from shared.log import Log
from shared.parallel import in_threads

log = Log("predict")
Predicted = tuple[ListedImage, NDArray[np.float32] | str]
"""Holds an image with its calibrated probabilities `[C]`, or with what is wrong with it."""
_Read = tuple[NDArray[np.uint8] | str, tuple[str, ...]]
"""Holds pixels, or what is wrong with the image, and what was left out or chosen to read it."""


class Model(Protocol):
    """Predicts calibrated probabilities of images."""

    @property
    def description(self) -> Description:
        """Says what it is shown and what it answers."""

    @property
    def batch(self) -> int:
        """Counts the images that it is given at a time."""

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns calibrated probabilities `[n, C]` of pixels `[n, 3, r, r]`, 0 to 255."""


def predict_images(model: Model, images: Sequence[ListedImage]) -> Iterator[Predicted]:
    """Yields every image in order; one that cannot be read with the reason, in words. Logs what was left out or chosen to read images."""
    special = Counter[str]()
    read = log.progress(_read(images, model, special), "images", len(images), unit="images")
    while batch := list(islice(read, model.batch)):
        pixels = [found for _, found in batch if not isinstance(found, str)]
        probabilities = iter(model.probabilities(np.stack(pixels)) if pixels else ())
        for image, found in batch:
            yield image, found if isinstance(found, str) else next(probabilities)
    for note, count in sorted(special.items()):
        log.info(f"{count:,} of {len(images):,} images: {note}")


def _read(
    images: Sequence[ListedImage], model: Model, special: Counter[str]
) -> Iterator[tuple[ListedImage, NDArray[np.uint8] | str]]:
    ahead = 2 * model.batch  # so that the next batch is read while this one is computed; bounds the memory
    how = model.description.preprocessing
    with reading_of(how).limiting():
        read = in_threads(lambda image: _attempt(image, how), images, len(os.sched_getaffinity(0)), ahead)
        with closing(read):
            for image, (found, notes) in read:
                special.update(notes)
                yield image, found


def _attempt(image: ListedImage, how: Preprocessing) -> _Read:
    try:
        return read_pixels(image, how)
    except BadImage as error:
        message = str(error).replace(
            BOMB_REMEDY, "make it smaller"
        )  # as the study's settings are those of its training
        return (message if image.fault is not None else f"{error.reason}: {message}"), ()
