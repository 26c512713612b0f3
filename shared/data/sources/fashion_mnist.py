"""Reads Fashion-MNIST's IDX files: 28 x 28 grey images of ten garments, and two label groups that follow from the garment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.config.dataset import FashionMnistSource
from shared.data.problems import Problems
from shared.data.schema import LabelGroup, Labels, LabelSchema
from shared.data.source import ImageListing, SourceImage, SplitName
from shared.data.sources.idx import read_idx
from shared.data.sources.paths import existing_root
from shared.errors import ConfigError, DataError

# by label number: garment, sleeve, place where it is worn; sleeves of dresses and shirts vary, so that theirs are unknown (None) and masked
GARMENTS: tuple[tuple[str, str | None, str], ...] = (
    ("t_shirt", "short", "torso"),
    ("trouser", "no_sleeve", "legs"),
    ("pullover", "long", "torso"),
    ("dress", None, "whole_body"),
    ("coat", "long", "torso"),
    ("sandal", "no_sleeve", "feet"),
    ("shirt", None, "torso"),
    ("sneaker", "no_sleeve", "feet"),
    ("bag", "no_sleeve", "hand"),
    ("ankle_boot", "no_sleeve", "feet"),
)
SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="garment", classes=tuple(garment for garment, _, _ in GARMENTS)),
        LabelGroup(name="sleeve", classes=("long", "short", "no_sleeve")),
        LabelGroup(name="worn_on", classes=("torso", "whole_body", "legs", "feet", "hand")),
    )
)
FIRST_LABELS = (9, 0, 0, 3, 0, 2, 7, 2, 5, 5)
"""Holds the first labels of the training file, which MNIST and its other relatives do not have."""


def infer_fashion_mnist(data: Path) -> None:
    """Raises DataError that names the ready study to run if the folder holds Fashion-MNIST's files, which are named like MNIST's."""
    if not data.is_dir() or not any(data.glob("train-labels?idx1-ubyte*")):
        return
    try:
        labels = read_idx(_find(data, "train-labels-idx1-ubyte"), 1)
    except DataError:  # whoever reads the folder says what is wrong with it
        return
    if tuple(labels[: len(FIRST_LABELS)].tolist()) == FIRST_LABELS:
        raise DataError(f"{data}: is Fashion-MNIST's; run studies/fashion-mnist.yaml with --set dataset.root={data}")


def read_fashion_mnist(config: FashionMnistSource, root: Path, problems: Problems) -> ImageListing:
    """Lists the images. The first ones of each class are for training, the last ones of the training file for validation.

    All images of the test file are for testing. Raises DataError if a file is missing, cut short or not an IDX file, ConfigError if a garment
    in `keep` is unknown or a class has fewer images than are asked for.
    """
    root = existing_root(root)
    names = SCHEMA.groups[0].classes
    for name in config.keep:
        if name not in names:
            raise ConfigError(f"dataset.keep: must name garments, got {name!r}; there are {list(names)}")
    train_images, train_labels = _read_pair(root, "train")
    test_images, test_labels = _read_pair(root, "t10k")
    train_known = _known(train_labels, "train", problems)
    split = _split_train(config, np.where(train_known, train_labels, -1))
    chosen = np.flatnonzero(split != "")
    tested = np.flatnonzero(_known(test_labels, "t10k", problems))
    rows = _label_rows()

    def images() -> Iterator[SourceImage]:
        for position in chosen:
            labels, part = rows[train_labels[position]], split[position]
            yield _image("train", int(position), train_images[position], labels, _name(part))
        for position in tested:
            yield _image("t10k", int(position), test_images[position], rows[test_labels[position]], "test")

    class_where = dict.fromkeys(SCHEMA.class_names, f"the labels in {root.name}/")
    return ImageListing(SCHEMA, images(), len(chosen) + len(tested), class_where=class_where)


def _split_train(config: FashionMnistSource, labels: NDArray[np.int64]) -> NDArray[np.str_]:
    """Returns `train`, `val` or nothing for each image of the training file; the validation images do not depend on what is kept."""
    split = np.full(len(labels), "", dtype="<U5")
    for number, (name, _, _) in enumerate(GARMENTS):
        of_class = np.flatnonzero(labels == number)
        left = len(of_class) - config.val_per_class
        wanted = config.keep.get(name, config.per_class)
        if left < (wanted or 1):
            raise ConfigError(
                f"dataset: the garment {name} has {len(of_class)} training images, too few for {wanted or 1} to train on and "
                f"val_per_class: {config.val_per_class}; lower one of them"
            )
        split[of_class[:left][:wanted]] = "train"
        split[of_class[left:]] = "val"
    return split


def _name(text: str) -> SplitName:
    return "train" if text == "train" else "val"


def _image(stem: str, position: int, pixels: NDArray[np.uint8], labels: Labels, split: SplitName) -> SourceImage:
    name = f"{stem}-images-idx3-ubyte"
    return SourceImage(f"{name}/{position:05d}", f"{name} item {position}", pixels, labels, split)


def _label_rows() -> NDArray[np.int8]:
    """Returns the labels of each garment, `[10, C]`."""
    rows = np.zeros((len(GARMENTS), SCHEMA.width), np.int8)
    for number, (garment, sleeve, worn_on) in enumerate(GARMENTS):
        rows[number, SCHEMA.column(f"garment/{garment}")] = 1
        rows[number, SCHEMA.column(f"worn_on/{worn_on}")] = 1
        if sleeve is None:
            rows[number, SCHEMA.slices()["sleeve"]] = -1
        else:
            rows[number, SCHEMA.column(f"sleeve/{sleeve}")] = 1
    return rows


def _known(labels: NDArray[np.uint8], stem: str, problems: Problems) -> NDArray[np.bool_]:
    known = labels < len(GARMENTS)
    for position in np.flatnonzero(~known):
        where = f"{stem}-labels-idx1-ubyte item {position}"
        problems.add("label outside its group", where, f"the label must be 0 to 9, got {labels[position]}")
    return known


def _read_pair(root: Path, stem: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images = read_idx(_find(root, f"{stem}-images-idx3-ubyte"), 3)
    labels = read_idx(_find(root, f"{stem}-labels-idx1-ubyte"), 1)
    if len(images) != len(labels):
        raise DataError(
            f"{root.name}/: {stem}-images has {len(images)} images, {stem}-labels {len(labels)} labels; they must match"
        )
    return images, labels


def _find(root: Path, name: str) -> Path:
    # some copies are named with .idx3 instead of -idx3
    for candidate in (f"{name}.gz", name, f"{name.replace('-idx', '.idx')}.gz", name.replace("-idx", ".idx")):
        if (root / candidate).is_file():
            return root / candidate
    raise DataError(f"{root}/{name}[.gz]: not found; Fashion-MNIST is four IDX files in one folder")
