"""The one place that knows which reader belongs to which `dataset.source`."""

from __future__ import annotations

from pathlib import Path

from shared.config.dataset import (
    CsvSource,
    Dataset,
    DeepFashionSource,
    FashionMnistSource,
    FolderSource,
    GarmentsSource,
)
from shared.data.problems import Problems
from shared.data.source import Source
from shared.data.sources.class_folders import read_folder
from shared.data.sources.csv_table import read_csv
from shared.data.sources.deepfashion import read_deepfashion
from shared.data.sources.fashion_mnist import read_fashion_mnist


def open_source(dataset: Dataset, root: Path | None, seed: int, problems: Problems) -> Source:
    """Lists a source's images. `root` is its folder on local disk (None for `garments`, which are drawn from `seed`).

    Raises DataError or ConfigError where the source as a whole cannot be read; single bad images go to `problems`.
    """
    if isinstance(dataset, GarmentsSource):
        from shared.data.garments import read_garments

        return read_garments(dataset, seed)
    assert root is not None
    match dataset:
        case DeepFashionSource():
            return read_deepfashion(dataset, root, problems)
        case FolderSource():
            return read_folder(dataset, root, problems)
        case CsvSource():
            return read_csv(dataset, root, problems)
        case FashionMnistSource():
            return read_fashion_mnist(dataset, root, problems)
