"""Reads arrays of images and of labels: NumPy archives as MedMNIST's, and IDX files as those of MNIST and its relatives."""

from __future__ import annotations

import re
import shlex
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.config.dataset import ArraysSource
from shared.data.problems import Problems
from shared.data.schema import LabelGroup, Labels, LabelSchema
from shared.data.source import ImageListing, InferredSource, SourceImage, SplitName
from shared.data.sources.class_folders import holds_class_images
from shared.data.sources.csv_file import listed
from shared.data.sources.idx import read_idx
from shared.data.sources.members import images_below, member_names
from shared.data.sources.paths import existing_root
from shared.data.sources.pixel_table import pixel_columns, read_pixels
from shared.data.sources.split_words import SPLIT_WORDS, split_of_file
from shared.errors import ConfigError, DataError
from shared.names import path_below, shown

FEW_IMAGES = 10  # beside a table of pixels, as examples
IMAGES = frozenset({"images", "image", "imgs", "img", "x", "data", "pixels"})
LABELS = frozenset({"labels", "label", "y", "targets", "target", "classes"})
"""Name arrays, beside the name of a split: `train_images`, `x_test`, `y`."""
MOST_CLASSES = 100_000
MOST_BYTES = 1 << 32
"""Limits the size of one array: an archive of a few bytes may claim any."""
CHANNELS = (1, 3)
IDX_SPLITS: dict[str, SplitName] = {**SPLIT_WORDS, "t10k": "test"}
IDX_NAME = re.compile(
    r"^(?P<name>.*?)(?P<what>images|labels)[-.]idx(?P<dimensions>[134])-ubyte(?:\.gz)?$", re.IGNORECASE
)


@dataclass(frozen=True)
class ArrayPair:
    """Holds the images and labels of one split."""

    name: str
    """Names the array of images, for errors and paths."""
    split: SplitName | None
    images: NDArray[np.uint8]
    """Holds the pixels, `[n, h, w]` or `[n, h, w, 3]`."""
    labels: NDArray[np.int64]
    """Holds class numbers `[n]`, or a 0 or 1 per class, `[n, C]`."""


def infer_arrays(data: Path) -> InferredSource | None:
    """Returns the source of an `.npz` archive, or of a folder that holds one, or pairs of IDX files; None if it is neither.

    An archive in a folder counts if the names of its arrays say what they are, and if there are no images in class folders. Raises DataError if
    there are several.
    """
    if data.is_file() and data.suffix.lower() == ".csv" and pixel_columns(data) is not None:
        return _pixel_source(data.parent.resolve(), (data.name,))
    if data.is_file() and data.suffix.lower() != ".npz":
        return None
    if data.is_dir() and (tables := _pixel_tables(data)):
        return _pixel_source(data.resolve(), tables)
    root, archives = (data.parent, [data]) if data.is_file() else (data, _archives(data))
    if len(archives) > 1:
        raise DataError(f"{data}: holds {len(archives)} NumPy archives; name one of them, e.g. {archives[0]}")
    if not archives and not _idx_files(root):
        return None
    file = archives[0].name if archives else None
    numbers, unused = _used_numbers(root.resolve(), file)
    fields = {"numbers": numbers} if unused else {}
    dataset = ArraysSource.model_validate(
        {"source": "arrays", "root": str(root.resolve()), "file": file, "group": "label", **fields}
    )
    comments = {
        "group": "the question that the labels answer",
        "numbers": "the labels of classes that have images",
        "classes": "classes: [name of 0, name of 1] # in order"
        if not unused
        else "classes: [name of the first number, name of the second] # in order",
    }
    notes = (f"no image has the label {listed([str(n) for n in unused])}, so it is no class",) if unused else ()
    return InferredSource(dataset, root.resolve(), comments, notes)


def _used_numbers(root: Path, file: str | None) -> tuple[tuple[int, ...], list[int]]:
    """Returns the class numbers of arrays that images have, and those up to the largest that none has; nothing if the labels cannot be read."""
    try:
        if file is None:
            arrays = [_numbers(array.read(), array.name, "") for array in _idx_arrays(root) if not array.images]
        else:
            with _archive(root, file) as (named, _):
                arrays = [_numbers(array.read(), array.name, "") for array in named if not array.images]
    except DataError:  # whoever reads the arrays says what is wrong with them
        return (), []
    if not arrays or len({array.shape[1:] for array in arrays}) > 1:
        return (), []
    if arrays[0].ndim == 2:
        used = np.flatnonzero(np.any([(array == 1).any(axis=0) for array in arrays], axis=0))
        count = arrays[0].shape[1]
    else:
        used = np.unique(np.concatenate(arrays))
        used, count = used[used >= 0], int(max(array.max() for array in arrays)) + 1
    if len(used) < (2 if arrays[0].ndim == 1 else 1) or count > MOST_CLASSES:
        return (), []
    return tuple(map(int, used)), sorted(set(range(count)) - set(used.tolist()))


def _pixel_source(root: Path, tables: tuple[str, ...]) -> InferredSource:
    dataset = ArraysSource(source="arrays", root=str(root), pixel_tables=tables, group="label")
    comments = {"group": "the question that the labels answer", "pixel_tables": "tables whose cells are pixels"}
    return InferredSource(dataset, root, comments)


def _archives(folder: Path) -> list[Path]:
    """Returns the archives of a folder whose arrays have names that say what they are; none if there are images in class folders."""
    found = [path for path in _files(folder) if path.suffix.lower() == ".npz"]
    if not found or holds_class_images(folder):
        return []
    return [path for path in found if any(_role(name.removesuffix(".npy")) for name in _array_names(path))]


def _files(folder: Path) -> list[Path]:
    return [folder / name for name in member_names(folder) if (folder / name).is_file()]


def _array_names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile):  # whoever reads it says so
        return []


def read_arrays(config: ArraysSource, root: Path, problems: Problems) -> ImageListing:
    """Lists the images of all pairs of arrays; labels that are no class are reported to `problems`.

    Raises DataError if an array cannot be read, has a form that is not known, or if images and labels do not match.
    """
    root = existing_root(root)
    if config.pixel_tables:
        pairs = [pair for file in config.pixel_tables for pair in _table_pairs(root, file)]
        config = config if config.classes is not None else _numbered(config, pairs)
    else:
        pairs = _archive_pairs(root, config.file) if config.file is not None else _idx_pairs(root)
    schema = _schema(config, pairs)
    numbers = config.numbers or tuple(range(schema.width))
    images = [image for pair in pairs for image in _images(pair, schema, numbers, problems)]
    where = dict.fromkeys(schema.class_names, f"the labels in {config.file or root.name}")
    return ImageListing(schema, images, len(images), class_where=where)


def _table_pairs(root: Path, file: str) -> list[ArrayPair]:
    parts = read_pixels(path_below(root, file, "dataset.pixel_tables", DataError), file)
    return [ArrayPair(f"{file}/{split or 'all'}", split, images, labels) for split, images, labels in parts]


def _numbered(config: ArraysSource, pairs: list[ArrayPair]) -> ArraysSource:
    """Returns the config with the class numbers that occur as names, and makes the labels their positions: tables often leave numbers out."""
    numbers = np.unique(np.concatenate([pair.labels for pair in pairs]))
    for position, pair in enumerate(pairs):
        pairs[position] = replace(pair, labels=np.searchsorted(numbers, pair.labels))
    return config.model_copy(update={"classes": tuple(map(str, numbers.tolist()))})


def _pixel_tables(root: Path) -> tuple[str, ...]:
    """Returns the tables of pixels in a folder that holds hardly any images, one or one per split; raises DataError if there are others."""
    found = [path for path in _files(root) if path.suffix.lower() == ".csv" and pixel_columns(path) is not None]
    if not found or sum(1 for _ in islice(images_below(root), FEW_IMAGES)) == FEW_IMAGES:
        return ()
    splits = [split_of_file(path.stem) for path in found]
    if len(found) > 1 and (None in splits or len(set(splits)) < len(splits) or "train" not in splits):
        raise DataError(
            f"{root.name}/: holds {len(found)} tables of pixels that name no splits; name one: `tailfill init {shlex.quote(str(found[0]))}` or "
            f"`tailfill init {shlex.quote(str(found[1]))}`"
        )
    return tuple(path.name for path in found)


def _schema(config: ArraysSource, pairs: list[ArrayPair]) -> LabelSchema:
    several = [pair for pair in pairs if pair.labels.ndim == 2]
    if several and len(several) < len(pairs):
        raise DataError(
            f"{several[0].name}: its labels are a row of 0 and 1 per image, those of another split are class numbers; they must agree"
        )
    if several:
        widths = {pair.labels.shape[1] for pair in pairs}
        if len(widths) > 1:
            raise DataError(
                f"{several[0].name}: the labels of its splits have {sorted(widths)} columns; they must have the same"
            )
        count = widths.pop()
    else:
        count = 1 + max(int(pair.labels.max(initial=0)) for pair in pairs)
    if config.numbers:
        if several and max(config.numbers) >= count:
            raise ConfigError(
                f"dataset.numbers: the labels have the columns 0 to {count - 1}, got {max(config.numbers)}; leave it out"
            )
        count = len(config.numbers)
    names = config.classes or tuple(map(str, config.numbers or range(count)))
    if len(names) < count or (several and len(names) > count):
        raise DataError(
            f"dataset.classes: names {len(names)} classes, the labels have {count}; name each once, in the order of their numbers"
        )
    if count < (1 if several else 2):
        raise DataError("dataset: all labels are 0; there must be at least two classes")
    return LabelSchema(groups=(LabelGroup(name=config.group, kind="any" if several else "one", classes=names),))


def _images(pair: ArrayPair, schema: LabelSchema, numbers: Sequence[int], problems: Problems) -> Iterator[SourceImage]:
    """Yields the images of a pair; `numbers` are those of the classes, in order."""
    positions = {number: position for position, number in enumerate(numbers)}
    for position, (pixels, label) in enumerate(zip(pair.images, pair.labels, strict=True)):
        where = f"{pair.name} item {position}"
        row = _labels(label, positions, schema.width)
        if row is None:
            one = (
                f"0 to {len(numbers) - 1}"
                if numbers[-1] == len(numbers) - 1
                else f"one of {listed(list(map(str, numbers)))}"
            )
            allowed = one if pair.labels.ndim == 1 else "0 or 1 for each class"
            problems.add("label outside its group", where, f"the label must be {allowed}, got {shown(label.tolist())}")
            continue
        yield SourceImage(f"{pair.name}/{position:06d}", where, pixels, row, pair.split)


def _labels(label: NDArray[np.int64], positions: dict[int, int], width: int) -> Labels | None:
    if label.ndim:
        return label[list(positions)].astype(np.int8) if np.isin(label, (0, 1)).all() else None
    if int(label) not in positions:
        return None
    row = np.zeros(width, np.int8)
    row[positions[int(label)]] = 1
    return row


@dataclass(frozen=True)
class _Named:
    """Holds an array that is known by its name, before it is read."""

    name: str
    split: SplitName | None
    images: bool
    """Says whether it holds images, otherwise labels."""
    read: Callable[[], NDArray[Any]]


def _archive_pairs(root: Path, file: str) -> list[ArrayPair]:
    with _archive(root, file) as (named, names):
        return _pairs(named, file, names)


@contextmanager
def _archive(root: Path, file: str) -> Iterator[tuple[list[_Named], list[str]]]:
    """Yields the arrays of an archive whose names say what they are, and the names of all; raises DataError if it cannot be read."""
    path = path_below(root, file, "dataset.file", DataError)
    try:
        with zipfile.ZipFile(path) as archive:
            big = next((member for member in archive.infolist() if member.file_size > MOST_BYTES), None)
        if big is not None:
            raise DataError(
                f"{file}: {shown(big.filename)} unpacks to {big.file_size:,} bytes, at most {MOST_BYTES:,} are read"
            )
        with np.load(path, allow_pickle=False) as arrays:
            roles = {name: role for name in arrays.files if (role := _role(name)) is not None}
            named = [_Named(name, *role, partial(_array, arrays, name, file)) for name, role in roles.items()]
            yield named, arrays.files
    except FileNotFoundError:
        raise DataError(f"{path}: not found; dataset.file names the archive inside dataset.root") from None
    except (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{file}: cannot be read as a NumPy archive ({str(error)[:120]}); fetch it again") from error


def _array(arrays: Any, name: str, file: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = arrays[name]
    except ValueError as error:
        raise DataError(
            f"{file}: the array {shown(name)} cannot be read ({str(error)[:80]}); arrays of Python objects are refused, as reading them may run "
            "code: save it as numbers"
        ) from error
    return array


def _role(name: str) -> tuple[SplitName | None, bool] | None:
    """Returns the split of an array of an archive and whether it holds images, otherwise labels; None if its name does not say what it is.

    It has a word for images or for labels, and at most one for a split.
    """
    words = _words(name)
    splits = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    roles = {word in IMAGES for word in words if word in IMAGES | LABELS}
    return (next(iter(splits), None), roles.pop()) if len(roles) == 1 and len(splits) < 2 else None


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", text.lower()) if word]


def _idx_arrays(root: Path) -> list[_Named]:
    named = []
    for path, match in _idx_files(root):
        splits = [IDX_SPLITS[word] for word in _words(match["name"]) if word in IDX_SPLITS]
        images = match["what"].lower() == "images"
        named.append(
            _Named(path.name, splits[0] if splits else None, images, partial(read_idx, path, int(match["dimensions"])))
        )
    return named


def _idx_pairs(root: Path) -> list[ArrayPair]:
    named = _idx_arrays(root)
    if not named:
        raise DataError(f"{root.name}/: holds no IDX files of images and labels; dataset.file names a NumPy archive")
    return _pairs(named, f"{root.name}/", [array.name for array in named])


def _idx_files(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    found = [(path, IDX_NAME.match(path.name)) for path in _files(folder)]
    return [(path, match) for path, match in found if match]


def _pairs(named: list[_Named], where: str, names: list[str]) -> list[ArrayPair]:
    """Returns images with their labels, by split; raises DataError if one of them is missing, or there are two."""
    pairs = []
    for split in dict.fromkeys(array.split for array in named):
        images, labels = ([a for a in named if a.split == split and a.images is wanted] for wanted in (True, False))
        if len(images) != 1 or len(labels) != 1:
            raise DataError(
                f"{where}: must hold one array of images and one of labels {f'for {split}' if split else 'without a split'}, got "
                f"{[a.name for a in images]} and {[a.name for a in labels]} among {names[:20]}; name them like train_images and train_labels"
            )
        pixels = _pixels(images[0].read(), images[0].name, where)
        numbers = _numbers(labels[0].read(), labels[0].name, where)
        if len(pixels) != len(numbers):
            raise DataError(
                f"{where}: {images[0].name} has {len(pixels)} images, {labels[0].name} {len(numbers)} labels; they must match"
            )
        pairs.append(ArrayPair(images[0].name, split, pixels, numbers))
    if not pairs:
        raise DataError(
            f"{where}: holds no arrays named like train_images and train_labels, got {names[:20]}; rename them"
        )
    if len(pairs) > 1 and any(pair.split is None for pair in pairs):
        raise DataError(
            f"{where}: some arrays name a split and some do not, got {names[:20]}; name it for all or for none"
        )
    return pairs


def _pixels(array: NDArray[Any], name: str, where: str) -> NDArray[np.uint8]:
    """Returns pixels `[n, h, w]` or `[n, h, w, 3]` of bytes; shares of 1 become bytes, channels that come first come last."""
    if array.ndim == 4 and array.shape[-1] not in CHANNELS and array.shape[1] in CHANNELS:
        array = np.moveaxis(array, 1, -1)
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if not (array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 3)) or not array.size:
        raise DataError(
            f"{where}: {name} must have the shape [images, height, width] with 1 or 3 channels after it, got {list(array.shape)}; reshape it"
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    low, high = array.min(), array.max()
    if array.dtype.kind in "iu" and low >= 0 and high <= 255:
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        shares: NDArray[np.uint8] = np.rint(array * 255).astype(np.uint8)
        return shares
    raise DataError(
        f"{where}: the pixels of {name} must be bytes, or shares from 0 to 1, got {array.dtype} from {low:g} to {high:g}; scale them to 0 to 255"
    )


def _numbers(array: NDArray[Any], name: str, where: str) -> NDArray[np.int64]:
    """Returns class numbers `[n]`, or a 0 or 1 per class `[n, C]`."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    whole = array.dtype.kind in "iub" or (array.dtype.kind == "f" and bool((array == np.rint(array)).all()))
    if array.ndim not in (1, 2) or not whole or not array.size:
        raise DataError(
            f"{where}: {name} must hold a class number per image, or a 0 or 1 per class, got {array.dtype} of the shape {list(array.shape)}; "
            "convert it"
        )
    return array.astype(np.int64)
