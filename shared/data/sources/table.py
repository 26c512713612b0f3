"""Declares every image source once: the table `SOURCES`, by the value of `dataset.source`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.config.dataset import (
    ArraysSource,
    CocoSource,
    CsvSource,
    Dataset,
    DeepFashionSource,
    FashionMnistSource,
    FolderSource,
    GarmentsSource,
    ImagefolderSource,
    ParquetSource,
    Source,
    VocSource,
    YoloSource,
)
from shared.config.near import near
from shared.data.garments.source import read_garments
from shared.data.problems import Problems
from shared.data.source import ImageListing, InferredSource
from shared.data.sources.arrays import infer_arrays, read_arrays
from shared.data.sources.class_folders import read_folder
from shared.data.sources.coco import infer_coco, read_coco
from shared.data.sources.csv_table import read_csv
from shared.data.sources.deepfashion import infer_deepfashion, read_deepfashion
from shared.data.sources.fashion_mnist import infer_fashion_mnist, read_fashion_mnist
from shared.data.sources.imagefolder import infer_imagefolder, read_imagefolder
from shared.data.sources.infer_folders import infer_folder
from shared.data.sources.infer_layout import infer_layout
from shared.data.sources.parquet import infer_parquet, read_parquet
from shared.data.sources.voc import infer_voc, read_voc
from shared.data.sources.yolo import infer_yolo, read_yolo
from shared.errors import ConfigError


@dataclass(frozen=True)
class StoredSource:
    """Declares a source of images that are stored under the `root` of its config, a folder or a bucket's prefix."""

    config: type[Source]
    """Declares the source's section of a study file, a member of `Dataset`."""
    read: Callable[[Any, Path, Problems], ImageListing]
    """Lists the images under a root on local disk, given the config.

    Single bad images go to the problems. Raises DataError or ConfigError if the source as a whole cannot be read.
    """
    infer: Callable[[Path], InferredSource | None] | None = None
    """Returns the source of a folder or a file that `tailfill init` was given, None if that is not of this kind.

    Raises DataError if it is, but lacks something or has a study of its own. None if `init` does not find this source.
    """


@dataclass(frozen=True)
class DrawnSource:
    """Declares a source of images that are drawn, and stored nowhere: its config has no `root`."""

    config: type[Source]
    """Declares the source's section of a study file, a member of `Dataset`."""
    read: Callable[[Any, int], ImageListing]
    """Lists the images, given the config and the study's seed."""


SOURCES: dict[str, StoredSource | DrawnSource] = {
    "garments": DrawnSource(GarmentsSource, read_garments),
    "deepfashion": StoredSource(DeepFashionSource, read_deepfashion, infer_deepfashion),
    "fashion-mnist": StoredSource(FashionMnistSource, read_fashion_mnist, infer_fashion_mnist),
    "arrays": StoredSource(ArraysSource, read_arrays, infer_arrays),
    "parquet": StoredSource(ParquetSource, read_parquet, infer_parquet),
    "imagefolder": StoredSource(ImagefolderSource, read_imagefolder, infer_imagefolder),
    "coco": StoredSource(CocoSource, read_coco, infer_coco),
    "yolo": StoredSource(YoloSource, read_yolo, infer_yolo),
    "voc": StoredSource(VocSource, read_voc, infer_voc),
    "csv": StoredSource(CsvSource, read_csv, infer_layout),
    "folder": StoredSource(FolderSource, read_folder, infer_folder),
}
"""Holds an entry per source. `init` tries them in this order: `csv` takes any file, so sources with files of their own come before it."""


def source_entry(name: str) -> StoredSource | DrawnSource:
    """Returns the entry of a source; raises ConfigError that lists what there is, or the near names, if there is none."""
    if name not in SOURCES:
        raise ConfigError(f"dataset.source: {name!r} is not an image source{near(name, list(SOURCES))}")
    return SOURCES[name]


def open_source(dataset: Dataset, root: Path | None, seed: int, problems: Problems) -> ImageListing:
    """Lists a source's images. `root` is its folder on local disk, None for drawn images, which depend on `seed`.

    Raises DataError or ConfigError if the source as a whole cannot be read; single bad images go to `problems`.
    """
    entry = source_entry(dataset.source)
    if isinstance(entry, DrawnSource):
        return entry.read(dataset, seed)
    assert root is not None
    return entry.read(dataset, root, problems)
