"""A look at a source without decoding its images: how many there are of what, in which split, as far as their files' heads tell."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.config.dataset import Dataset, Rare
from shared.data.canonical import look
from shared.data.dataset import describe, rare_classes
from shared.data.problems import BadImage, Problems
from shared.data.schema import Labels, LabelSchema
from shared.data.sources.open import open_source
from shared.data.split import assign_splits, join_units
from shared.errors import DataError

LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class Survey:
    """Labels and splits as `prepare` would assign them, but for images that it finds damaged within, or alike."""

    source: str
    schema: LabelSchema
    labels: Labels
    split: NDArray[np.str_]
    files: int
    """Images that are files of their own."""
    opened: int
    """Of these, those whose head was read in the time there was; what it tells to be unusable is left out."""

    def sizes(self) -> dict[str, int]:
        """Split → images."""
        return {name: int((self.split == name).sum()) for name in ("train", "val", "test")}

    def rare(self, rare: Rare) -> NDArray[np.int64]:
        """Columns of the rare classes."""
        return rare_classes(rare, describe(self.source, self.schema, 0, self.labels, self.split))

    def bytes_an_image(self, resolution: int) -> float:
        """About: half a byte a channel value as PNG up to 128 px, a tenth as JPEG above (as `prepare` encodes)."""
        return 3 * resolution**2 * (0.5 if resolution <= 128 else 0.1)


def survey(dataset: Dataset, root: Path | None, seed: int) -> Survey:
    """Lists a source; raises what `open_source` raises, and DataError for wrong labels and files where `on_bad` is fail."""
    problems = Problems(dataset.on_bad)
    source = open_source(dataset, root, seed, problems)
    listed = list(source.images)
    files, opened, images = sum(isinstance(i.content, Path) for i in listed), 0, []
    deadline = time.monotonic() + LOOK_SECONDS
    for image in listed:
        if isinstance(image.content, Path) and time.monotonic() < deadline:
            opened += 1
            try:
                look(image.content)
            except BadImage as error:
                problems.add(error.reason, image.where, f"{image.path}: {error}")
                continue
        images.append(image)
    problems.raise_if_failing()
    if not images:
        raise DataError("dataset: has no usable image; see the lines above, or look at dataset.root")
    labels = np.stack([image.labels for image in images])
    units = join_units([image.group for image in images], np.arange(len(images)))
    given = np.array([image.split or "" for image in images], dtype="<U5")
    split, _ = assign_splits(given, labels, units, dataset.split, seed)
    return Survey(dataset.source, source.schema, labels, split, files, opened)
