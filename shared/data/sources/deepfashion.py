"""Reads DeepFashion's *Category and Attribute Prediction*, fine annotations, as distributed or as a copy in the same form.

The files are `list_attr_cloth.txt` (a count, a header, then `name type` lines), `{train,val,test}.txt` (image paths),
`{train,val,test}_attr.txt` (six integers per line: the position of the class among those of its type), and optionally `*_bbox.txt`; each has
header lines or none, under `Anno_fine/` or `split/`. Images are at `img/...` under the root, or under `Img/`, into which the distribution unpacks
them. The distribution has a folder per product below `img/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from shared.config.dataset import DeepFashionSource
from shared.data.problems import Problems
from shared.data.schema import LabelGroup, Labels, LabelSchema
from shared.data.source import SPLITS, ImageListing, SourceImage, SplitName
from shared.data.sources.paths import PathCheck, existing_root
from shared.data.sources.text_file import read_text_file
from shared.errors import DataError

FOLDERS = ("Anno_fine", "split")
ATTRIBUTES = "list_attr_cloth.txt"
GROUPS = ("pattern", "sleeve", "length", "neckline", "fabric", "fit")  # attribute types 1 to 6
PAPER_SIZES = {"train": 14_000, "val": 2_000, "test": 4_000}
MOST_BYTES = 1 << 28  # of one file of lines
HEADER_LINES = 2  # at most: a count and the names of the columns

Line = tuple[int, str]
"""Holds the number of a line in its file, from 1, and its text."""


@dataclass(frozen=True)
class _Split:
    name: SplitName
    file: Path
    paths: list[Line]
    labels: list[Line] | None
    labels_file: Path | None
    boxes: list[Line] | None


def infer_deepfashion(data: Path) -> None:
    """Raises DataError that names the ready study to run if the folder is DeepFashion."""
    if any((data / folder / ATTRIBUTES).is_file() for folder in FOLDERS):
        raise DataError(f"{data}: is DeepFashion; run studies/deepfashion.yaml with --set dataset.root={data}")


def read_deepfashion(config: DeepFashionSource, root: Path, problems: Problems) -> ImageListing:
    """Lists the labelled images of all splits; a split without labels is not used, and the notes say so.

    Raises DataError if a list is missing, if two lists that belong together differ in length, or if the attribute list cannot be used.
    """
    root = existing_root(root)
    attributes_file = _find(root, ATTRIBUTES)
    schema, class_where = _read_schema(attributes_file, root)
    splits = [split for name in SPLITS if (split := _read_split(root, name, config.crop)) is not None]
    labelled = [split for split in splits if split.labels is not None]
    if not any(split.name == "train" for split in labelled):
        raise DataError(f"{root.name}/: has no train.txt with train_attr.txt in {' or '.join(FOLDERS)}; add them")
    image_root = root / "Img" if not (root / "img").is_dir() and (root / "Img" / "img").is_dir() else root
    paths = PathCheck(image_root, problems)
    images = [image for split in labelled for image in _images(split, root, schema, paths, problems)]
    return ImageListing(schema, images, len(images), _notes(splits), class_where)


def _notes(splits: list[_Split]) -> tuple[str, ...]:
    found = ", ".join(
        f"{split.name} {len(split.paths):,}" + ("" if split.labels is not None else " (no labels, not used)")
        for split in splits
    )
    paper = ", ".join(f"{name} {size:,}" for name, size in PAPER_SIZES.items())
    return (f"Listed images: {found}; the paper has {paper}.",)


def _read_schema(path: Path, root: Path) -> tuple[LabelSchema, dict[str, str]]:
    where = path.relative_to(root)
    classes: list[list[str]] = [[] for _ in GROUPS]
    class_where = {}
    for number, text in _lines(path, lambda fields: len(fields) >= 2 and fields[-1].isdecimal()):
        *words, kind = text.split()
        if not words or not kind.isdecimal() or not 1 <= int(kind) <= len(GROUPS):
            raise DataError(
                f"{where} line {number}: must be a name and a type from 1 to {len(GROUPS)}, got {text[:60]!r}"
            )
        name = "_".join(words)
        if name in classes[int(kind) - 1]:
            raise DataError(f"{where} line {number}: the attribute {name!r} is listed twice; remove one")
        classes[int(kind) - 1].append(name)
        class_where[f"{GROUPS[int(kind) - 1]}/{name}"] = f"{where} line {number}"
    for group, names in zip(GROUPS, classes, strict=True):
        if len(names) < 2:
            raise DataError(
                f"{where}: names {len(names)} attributes of type {GROUPS.index(group) + 1} ({group}), needs two or more; "
                "use the list of the fine annotations (26 attributes)"
            )
    groups = tuple(LabelGroup(name=g, classes=tuple(names)) for g, names in zip(GROUPS, classes, strict=True))
    return LabelSchema(groups=groups), class_where


def _read_split(root: Path, name: SplitName, crop: bool) -> _Split | None:
    file = _look(root, f"{name}.txt")
    if file is None:
        return None
    paths = _lines(file, lambda fields: "/" in fields[0] or "." in fields[0])
    labels_file = _look(root, f"{name}_attr.txt")
    labels = _lines(labels_file, _all_integers(len(GROUPS))) if labels_file is not None else None
    if labels_file is not None and labels is not None:
        _same_length(file, paths, labels_file, labels)
    boxes = None
    if crop:
        boxes_file = _find(root, f"{name}_bbox.txt")
        boxes = _lines(boxes_file, _all_integers(4))
        _same_length(file, paths, boxes_file, boxes)
    return _Split(name, file, paths, labels, labels_file, boxes)


def _same_length(file: Path, paths: list[Line], other: Path, lines: list[Line]) -> None:
    if len(paths) != len(lines):
        raise DataError(
            f"{file.parent.name}/{other.name}: has {len(lines)} lines, {file.name} {len(paths)} images; they must match line by line"
        )


def _images(split: _Split, root: Path, schema: LabelSchema, check: PathCheck, problems: Problems) -> list[SourceImage]:
    assert split.labels is not None
    assert split.labels_file is not None
    images = []
    boxes: Sequence[Line | None] = split.boxes or [None] * len(split.paths)
    for (number, text), (label_number, label_text), box in zip(split.paths, split.labels, boxes, strict=True):
        where = f"{split.file.relative_to(root)} line {number}"
        # an image counts once, by the first thing that is wrong with it
        if (checked := check.check(text, where)) is None:
            continue
        labels_where = f"{split.labels_file.relative_to(root)} line {label_number}"
        if (labels := _labels(label_text, schema, labels_where, problems)) is None:
            continue
        corners = _box(box, where, problems) if box is not None else None
        if box is not None and corners is None:
            continue
        images.append(SourceImage(checked[0], where, checked[1], labels, split.name, _product(checked[0]), corners))
    return images


def _product(path: str) -> str | None:
    """Returns the product that a path such as `img/Sheer_Blouse/img_0001.jpg` names; None if the images lie in `img/` itself."""
    folder = PurePosixPath(path).parent
    return str(folder) if len(folder.parts) > 1 else None


def _labels(text: str, schema: LabelSchema, where: str, problems: Problems) -> Labels | None:
    fields = text.split()
    if len(fields) != len(schema.groups) or not all(field.lstrip("-").isdecimal() for field in fields):
        problems.add("unreadable label", where, f"must be {len(schema.groups)} integers, got {text[:60]!r}")
        return None
    labels = np.zeros(schema.width, np.int8)
    for field, group in zip(fields, schema.groups, strict=True):
        # a long run of digits is out of range, and need not be converted to a number
        if not field.isdecimal() or len(field) > 9 or int(field) >= len(group.classes):
            problems.add(
                "label outside its group",
                where,
                f"{group.name} must be 0 to {len(group.classes) - 1}, got {field[:20]}",
            )
            return None
        labels[schema.slices()[group.name].start + int(field)] = 1
    return labels


def _box(line: Line, where: str, problems: Problems) -> tuple[int, int, int, int] | None:
    fields = line[1].split()
    if len(fields) == 4 and all(field.isdecimal() and len(field) <= 9 for field in fields):
        left, top, right, bottom = map(int, fields)
        if left < right and top < bottom:
            return left, top, right, bottom
    problems.add(
        "unusable box", where, f"its box (line {line[0]}) must be x1 y1 x2 y2, x1 < x2, y1 < y2, got {line[1][:60]!r}"
    )
    return None


def _all_integers(count: int) -> Callable[[list[str]], bool]:
    return lambda fields: len(fields) == count and all(field.lstrip("-").isdecimal() for field in fields)


def _lines(path: Path, is_data: Callable[[list[str]], bool]) -> list[Line]:
    """Returns numbered lines without blank ones and without the header lines, which do not look like data."""
    text = read_text_file(path, f"{path.parent.name}/{path.name}", MOST_BYTES)
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for _ in range(HEADER_LINES):
        if lines and not is_data(lines[0][1].split()):
            lines = lines[1:]
    return lines


def _look(root: Path, name: str) -> Path | None:
    for folder in FOLDERS:
        if (root / folder / name).is_file():
            return root / folder / name
    return None


def _find(root: Path, name: str) -> Path:
    found = _look(root, name)
    if found is None:
        raise DataError(
            f"{root.name}/: has no {name} in {' or '.join(f'{f}/' for f in FOLDERS)}; dataset.root must hold it"
        )
    return found
