"""Describes the prepared data set: `dataset.json`, which is stored beside the Parquet shards `images-*.parquet`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from shared.config.base import Section
from shared.config.dataset import Fold, Rare, Split
from shared.data.schema import LabelSchema, class_counts, class_weights
from shared.errors import ConfigError, DataError


class DatasetInfo(Section):
    """Holds the content of `dataset.json`."""

    source: str
    schema_: LabelSchema = Field(alias="schema")
    resolution: int
    sizes: dict[str, int]
    """Maps each split to its number of images."""
    counts: dict[str, dict[str, int]]
    """Maps each split and `group/class` to the number of images."""
    weights: dict[str, float]
    """Maps each `group/class` to 250 / (11 N), N its images in the training split (paper, equation 1)."""
    skipped: dict[str, int] = Field(default_factory=dict)
    """Maps each reason to the number of images left out under `on_bad: skip`."""
    leaks: dict[str, int] = Field(default_factory=dict)
    """Maps each pair of splits, such as `train/test`, to the number of images found (nearly) equal in both."""
    notes: tuple[str, ...] = ()
    """Tells readers of the report about the source (e.g. its counts beside the paper's)."""
    usual_counts: dict[str, int] | None = Field(default=None, exclude_if=lambda counts: counts is None)
    """Maps each `group/class` to the mean number of training images over all folds, if the test split is one of them: by it a class is rare in
    all of them or in none."""

    def train_counts(self) -> NDArray[np.int64]:
        """Returns the number of training images per class, `[C]`."""
        return np.array([self.counts["train"][name] for name in self.schema_.class_names], np.int64)


def describe(
    source: str, schema: LabelSchema, resolution: int, labels: NDArray[np.int8], split: NDArray[np.str_], **rest: Any
) -> DatasetInfo:
    """Counts an image set with labels `[n, C]` and splits `[n]`; `rest` are the remaining fields of DatasetInfo."""
    counts = {s: class_counts(labels[split == s]) for s in ("train", "val", "test")}
    weights = class_weights(counts["train"])
    return DatasetInfo(
        source=source,
        schema=schema,
        resolution=resolution,
        sizes={s: int((split == s).sum()) for s in ("train", "val", "test")},
        counts={s: dict(zip(schema.class_names, map(int, c), strict=True)) for s, c in counts.items()},
        weights=dict(zip(schema.class_names, map(float, weights), strict=True)),
        **rest,
    )


def usual_counts(
    schema: LabelSchema, labels: NDArray[np.int8], config: Split, fold: Fold | None
) -> dict[str, int] | None:
    """Returns the training images of each class that are to be expected with this fold or any other; None without folds."""
    if fold is None:
        return None
    share = (1 - 1 / fold.count) * (1 - config.val)
    return {
        name: round(share * count)
        for name, count in zip(schema.class_names, class_counts(labels).tolist(), strict=True)
    }


def read_info(path: Path) -> DatasetInfo:
    """Reads `dataset.json`; raises DataError if it is missing or damaged."""
    try:
        return DatasetInfo.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise DataError(f"dataset.json: cannot be read ({str(error).splitlines()[0]}); run `prepare` again") from error


def rare_classes(rare: Rare, info: DatasetInfo) -> NDArray[np.int64]:
    """Returns the columns of the rare classes, in order; raises ConfigError if `rare` names an unknown class."""
    names, counts = info.schema_.class_names, info.train_counts()
    if info.usual_counts is not None:
        counts = np.array([info.usual_counts[name] for name in names], np.int64)
    for name in rare.classes:
        if name not in names:
            raise ConfigError(f"rare.classes: must name a class as group/class, got {name!r}; there are {list(names)}")
    below = rare.below or 0
    return np.array([i for i, name in enumerate(names) if name in rare.classes or 0 < counts[i] < below], np.int64)
