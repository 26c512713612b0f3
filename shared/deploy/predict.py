"""Judges many images: threads decode the next ones while the network judges a batch."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.data.problems import BadImage
from shared.deploy.description import Description, Preprocessing
from shared.deploy.listing import ListedImage
from shared.deploy.preprocess import read_pixels
from shared.log import Log

Judged = tuple[ListedImage, NDArray[np.float32] | str]
"""Holds an image with its calibrated probabilities `[C]`, or with what is wrong with it."""


class Model(Protocol):
    """Judges images."""

    description: Description
    batch: int
    """Counts the images that it is given at a time."""

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns calibrated probabilities `[n, C]` of pixels `[n, 3, r, r]`, 0 to 255."""


def judge_images(model: Model, images: Sequence[ListedImage]) -> Iterator[Judged]:
    """Yields every image in order; one that cannot be read with the reason, in words."""
    read = Log("predict").progress(_read(images, model), "images", len(images), unit="images")
    while batch := list(islice(read, model.batch)):
        pixels = [found for _, found in batch if not isinstance(found, str)]
        probabilities = iter(model.probabilities(np.stack(pixels)) if pixels else ())
        for image, found in batch:
            yield image, found if isinstance(found, str) else next(probabilities)


def _read(images: Sequence[ListedImage], model: Model) -> Iterator[tuple[ListedImage, NDArray[np.uint8] | str]]:
    threads = len(os.sched_getaffinity(0))
    ahead = 2 * model.batch  # so that the next batch is read while this one is judged; bounds the memory
    waiting: deque[tuple[ListedImage, Future[NDArray[np.uint8] | str]]] = deque()
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        # Pillow warns of odd metadata and of large images; `canonical` has its own limits
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            for image in images:
                waiting.append((image, pool.submit(_attempt, image, model.description.preprocessing)))
                if len(waiting) > ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _attempt(image: ListedImage, how: Preprocessing) -> NDArray[np.uint8] | str:
    try:
        return read_pixels(image, how)
    except BadImage as error:
        return f"{error.reason}: {error}"
