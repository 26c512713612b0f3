"""A look at a source without decoding its images: how many there are of what, in which split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.config.dataset import Dataset, Rare
from shared.data.dataset import describe, rare_classes
from shared.data.problems import Problems
from shared.data.schema import Labels, LabelSchema
from shared.data.sources.open import open_source
from shared.data.split import assign_splits, join_units


@dataclass(frozen=True)
class Survey:
    """Labels and splits as `prepare` would assign them, but for images that it finds unreadable or alike."""

    source: str
    schema: LabelSchema
    labels: Labels
    split: NDArray[np.str_]

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
    """Lists a source; raises what `open_source` raises, and DataError for wrong labels where `on_bad` is fail."""
    problems = Problems(dataset.on_bad)
    source = open_source(dataset, root, seed, problems)
    images = list(source.images)
    problems.raise_if_failing()
    labels = np.stack([image.labels for image in images])
    units = join_units([image.group for image in images], np.arange(len(images)))
    given = np.array([image.split or "" for image in images], dtype="<U5")
    split, _ = assign_splits(given, labels, units, dataset.split, seed)
    return Survey(dataset.source, source.schema, labels, split)
