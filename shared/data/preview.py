"""Previews a source without decoding its images: how many each class has in each split, as far as the headers of the files tell."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.config.dataset import Dataset, Fold, Rare
from shared.data.canonical import Reading, check_header
from shared.data.dataset import describe, rare_classes, usual_counts
from shared.data.encode import image_format
from shared.data.problems import BadImage, Problems
from shared.data.schema import Labels, LabelSchema
from shared.data.source import SourceImage
from shared.data.sources.table import open_source
from shared.data.split import assign_splits, join_units
from shared.errors import DataError

OPEN_SECONDS = 5.0
"""Limits the time in which files are opened."""
SAMPLE = 16
"""Limits the images of the sample."""


@dataclass(frozen=True)
class Preview:
    """Holds labels and splits as `prepare` would assign them if it found no image damaged inside, and no similar images."""

    source: str
    schema: LabelSchema
    labels: Labels
    split: NDArray[np.str_]
    files: int
    """Counts the images that are files of their own."""
    opened: int
    """Counts the files whose header was read within OPEN_SECONDS; the unusable ones of these are left out."""
    sample: tuple[SourceImage, ...] = ()
    """Holds a few of the images, from all of the list."""
    usual_counts: dict[str, int] | None = None
    """Holds the mean number of training images of each class over all folds, if the test split is one of them, as `DatasetInfo` does."""

    def sizes(self) -> dict[str, int]:
        """Maps each split to its number of images."""
        return {name: int((self.split == name).sum()) for name in ("train", "val", "test")}

    def rare(self, rare: Rare) -> NDArray[np.int64]:
        """Returns the columns of the rare classes."""
        usual = self.usual_counts
        return rare_classes(rare, describe(self.source, self.schema, 0, self.labels, self.split, usual_counts=usual))

    def bytes_per_image(self, resolution: int) -> float:
        """Estimates the size of an encoded image: half a byte per channel value as PNG, a tenth as JPEG."""
        return 3 * resolution**2 * (0.5 if image_format(resolution) == "PNG" else 0.1)


def preview(dataset: Dataset, root: Path | None, seed: int, fold: Fold | None = None) -> Preview:
    """Lists a source and reads the headers of its files, as many as it can in OPEN_SECONDS; with a `fold`, that is the test split.

    Raises what `open_source` raises, and DataError for wrong labels and files if `on_bad` is fail, or if no usable image is left.
    """
    problems = Problems(dataset.on_bad)
    listing = open_source(dataset, root, seed, problems)
    listed, reading = list(listing.images), Reading.of(dataset)
    files, opened, images = sum(isinstance(i.content, Path) for i in listed), 0, []
    deadline = time.monotonic() + OPEN_SECONDS
    with reading.limiting():
        for image in listed:
            if isinstance(image.content, Path) and time.monotonic() < deadline:
                opened += 1
                try:
                    check_header(image.content, reading)
                except BadImage as error:
                    problems.add(error.reason, image.where, f"{image.path}: {error}")
                    continue
            images.append(image)
    problems.raise_if_failing()
    if not images:
        raise DataError("dataset: has no usable image; see the lines above, or check dataset.root")
    labels = np.stack([image.labels for image in images])
    units = join_units([image.group for image in images], np.arange(len(images)))
    given = np.array([image.split or "" for image in images], dtype="<U5")
    split, _ = assign_splits(given, labels, units, dataset.split, seed, fold)
    return Preview(
        dataset.source,
        listing.schema,
        labels,
        split,
        files,
        opened,
        tuple(images[:: -(-len(images) // SAMPLE)]),
        usual_counts(listing.schema, labels, dataset.split, fold),
    )
