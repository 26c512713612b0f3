"""Reads JSON files with `images`, `annotations` and `categories`, as COCO, Roboflow, CVAT, Label Studio, LILA and iNaturalist write them."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from shared.config.dataset import CocoSource
from shared.data.problems import BadImage, Problems
from shared.data.source import ImageListing, InferredSource, SplitName
from shared.data.sources.boxes import BOX_COMMENTS, BOX_SETTINGS, Box, Corners, box_listing
from shared.data.sources.image_finder import ImageFinder, said_split
from shared.data.sources.infer_labels import unit_column
from shared.data.sources.members import is_data, left_behind
from shared.data.sources.paths import existing_root
from shared.data.sources.split_words import split_within
from shared.data.sources.text_file import parse_json, read_text_file
from shared.errors import ConfigError, DataError
from shared.names import path_below, shown

KEYS = ("images", "annotations", "categories")
CAMERA_TRAPS = ("location", "seq_id")
"""Lists the keys of images whose equal values must stay in one split: the place of a camera, and what passed it once."""
CHOOSE = "name one of them in dataset.file, or rename or remove the others"
MOST_PIXELS = 1 << 31  # of a coordinate
MOST_BYTES = 1 << 31  # of one file: COCO's own has 0.5 GB


@dataclass(frozen=True)
class _Coco:
    """Holds one JSON file."""

    name: str
    """Gives its path, relative to the root."""
    split: SplitName | None
    images: dict[Any, dict[str, Any]]
    """Maps the id of each image to its entry."""
    annotations: list[dict[str, Any]]
    classes: dict[Any, str]
    """Maps the id of each category to its name, in the order of the ids."""

    @property
    def whole(self) -> bool:
        """Returns whether the annotations label whole images: none of them has a box."""
        return not any("bbox" in annotation for annotation in self.annotations)


def infer_coco(data: Path) -> InferredSource | None:
    """Returns the source of a JSON file of this form, or of a folder that holds some at any depth; None if there is none.

    Raises DataError if files of one split say different things, and one must be chosen.
    """
    if data.is_file() and not (data.suffix.lower() == ".json" and _has_keys(data)):
        return None
    root = (data.parent if data.is_file() else data).resolve()
    paths = [root / data.name] if data.is_file() else _files(root)
    if not paths:
        return None
    files = [_read(root, path, Problems("skip")) for path in paths]
    _splits(files)
    entries = [entry for file in files for entry in file.images.values()]
    values = {
        key: [entry.get(key) for entry in entries] for key in dict.fromkeys(key for entry in entries for key in entry)
    }
    unit = _repeated(CAMERA_TRAPS, values) or unit_column(values, values.__getitem__)
    fields: dict[str, Any] = {"file": data.name} if data.is_file() else {}
    fields |= {"group_by": unit} if unit else {}
    fields |= {} if all(file.whole for file in files) else BOX_SETTINGS
    dataset = CocoSource.model_validate({"source": "coco", "root": str(root), **fields, "group": "label"})
    comments = {"group": "the question that the categories answer", "group_by": "images of one stay in one split"}
    return InferredSource(dataset, root, comments | BOX_COMMENTS)


def read_coco(config: CocoSource, root: Path, problems: Problems) -> ImageListing:
    """Lists an image per box, or per image if the annotations have no boxes.

    An image with labels of several classes and no boxes is reported to `problems`, and so is a box that is none. Raises DataError if there is no such
    file or one cannot be read, and ConfigError if no image has the key `group_by`.
    """
    root = existing_root(root)
    chosen = [path_below(root, config.file, "dataset.file", DataError)] if config.file is not None else _files(root)
    if not chosen:
        raise DataError(f"{root.name}/: holds no JSON file with {', '.join(KEYS)}; there must be one below it")
    files = [_read(root, path, problems) for path in chosen]
    splits = _splits(files)
    if config.group_by is not None and not any(
        config.group_by in image for file in files for image in file.images.values()
    ):
        keys = list(dict.fromkeys(key for file in files for image in file.images.values() for key in image))
        raise ConfigError(f"dataset.group_by: no image has the key {config.group_by!r}; they have {keys[:20]}")
    finder = ImageFinder(root, problems)
    boxes = [
        box for file, split in zip(files, splits, strict=True) for box in _boxes(config, file, split, finder, problems)
    ]
    names = [name for file in files for name in file.classes.values()]
    crowds = sum(bool(annotation.get("iscrowd")) for file in files for annotation in file.annotations)
    listing = box_listing(config, root, names, boxes, files[0].name, problems)
    notes = (f"{crowds} boxes of crowds were left out.",) if crowds else ()
    return replace(listing, notes=listing.notes + notes)


def _boxes(
    config: CocoSource, file: _Coco, split: SplitName | None, finder: ImageFinder, problems: Problems
) -> Iterator[Box]:
    whole, labelled = file.whole, dict[Any, str]()
    for position, annotation in enumerate(file.annotations):
        if annotation.get("iscrowd"):
            continue
        where = f"{file.name} annotation {shown(annotation.get('id', position))}"
        try:
            image, name = _entry(file.images, annotation, "image_id"), _entry(file.classes, annotation, "category_id")
            corners = None if whole else _corners(annotation.get("bbox"))
            if whole and labelled.get(annotation["image_id"], name) != name:
                raise BadImage(
                    "several classes",
                    f"the image is labelled {shown(labelled[annotation['image_id']])}, too; without boxes it must have one class",
                )
        except BadImage as error:
            problems.add(error.reason, where, str(error))
            continue
        repeated = annotation["image_id"] in labelled
        labelled[annotation["image_id"]] = name
        if (whole and repeated) or (
            found := finder.find(_file_name(image), file.name, f"image {shown(image.get('id'))}", split)
        ) is None:
            continue
        unit = image.get(config.group_by) if config.group_by is not None else None
        yield Box(found[0], found[1], where, name, corners, split, found[0] if unit is None else str(unit))


def _file_name(image: dict[str, Any]) -> object:
    """Returns what names the file of an image: its `file_name`, else the path in its `coco_url`, which is all that LVIS has."""
    name, url = image.get("file_name"), image.get("coco_url")
    return "/".join(url.split("/")[3:]) if name is None and isinstance(url, str) else name


def _entry(entries: dict[Any, Any], annotation: dict[str, Any], key: str) -> Any:
    """Returns what an annotation refers to; raises BadImage if there is no such entry."""
    number = annotation.get(key)
    if not isinstance(number, int | str) or number not in entries:
        raise BadImage(
            "unknown id", f"its {key} {shown(number)} is that of no entry; correct it or remove the annotation"
        )
    return entries[number]


def _corners(box: object) -> Corners:
    """Returns a box as numbers; raises BadImage if it is none, or outside of any image."""
    numbers = (
        [n for n in box if isinstance(n, int | float) and -MOST_PIXELS < n < MOST_PIXELS]
        if isinstance(box, list)
        else []
    )
    if not isinstance(box, list) or not len(box) == len(numbers) == 4 or min(numbers[2:]) <= 0:
        raise BadImage("unusable box", f"its bbox must be [left, top, width, height] in pixels, got {shown(box)}")
    left, top, width, height = map(float, numbers)
    return left, top, width, height


def _repeated(keys: Sequence[str], values: dict[str, list[Any]]) -> str | None:
    return next((key for key in keys if key in values and len(set(map(str, values[key]))) < len(values[key])), None)


def _splits(files: Sequence[_Coco]) -> list[SplitName | None]:
    """Returns the split of each file: None for a single one, and if no file says one.

    Raises DataError if some say one and others do not, or if two say the same.
    """
    said = [file.split for file in files]
    if len(files) == 1 or not any(said):
        return [None] * len(files)
    names: dict[SplitName | None, list[str]] = {}
    for file in files:
        names.setdefault(file.split, []).append(file.name)
    if None in names:
        raise DataError(f"{names[None][0]}: its name says no split, as that of other files does: {said}; {CHOOSE}")
    for split, same in names.items():
        if len(same) > 1:
            raise DataError(f"{same[0]}: another file has boxes of the {split} split, too: {same}; {CHOOSE}")
    if "train" not in said:
        raise DataError(f"{files[0].name}: there is no file of the train split, only of {said}; {CHOOSE}")
    return said


def _files(root: Path) -> list[Path]:
    """Returns the JSON files of this form below a folder, sorted; of those in one folder that say one split, those of `instances` count."""
    found = []
    for parent, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not left_behind(name)]
        paths = [Path(parent, name) for name in names if name.lower().endswith(".json")]
        kept = [path for path in paths if is_data(path.relative_to(root).as_posix()) and _has_keys(path)]
        instances = [path for path in kept if "instances" in path.name.lower()]
        found += instances or kept
    return sorted(found)


def _has_keys(path: Path) -> bool:
    """Returns whether the keys of this form stand anywhere in a file; one that cannot be read is none of this form."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(content.find(f'"{key}"'.encode()) >= 0 for key in KEYS)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False


def _read(root: Path, path: Path, problems: Problems) -> _Coco:
    """Returns a file's content; an entry without an id is reported to `problems`. Raises DataError if it has another form."""
    name = path.relative_to(root).as_posix()
    text = read_text_file(path, name, MOST_BYTES)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise DataError(f"{name}: must be JSON ({str(error)[:80]}); correct it or export it again") from error
    lists = [_objects(content, key, name) for key in KEYS]
    images = _by_id(lists[0], name, "image", problems)
    categories = _by_id(lists[2], name, "category", problems)
    classes = {
        number: _class_name(entry, number, name)
        for number, entry in sorted(categories.items(), key=lambda item: (str(type(item[0])), item[0]))
    }
    split = split_within(PurePosixPath(name).stem) or said_split(name)
    return _Coco(name, split, images, lists[1], classes)


def _objects(content: object, key: str, file: str) -> list[dict[str, Any]]:
    entries = content.get(key) if isinstance(content, dict) else content
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(
            f"{file}: {key} must be a list of objects, got {shown(entries)}; export it as COCO's `instances`"
        )
    return entries


def _by_id(entries: list[dict[str, Any]], file: str, what: str, problems: Problems) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for position, entry in enumerate(entries):
        number = entry.get("id")
        if isinstance(number, int | str) and number not in found:
            found[number] = entry
        else:
            problems.add(
                "unknown id",
                f"{file} {what} {position}",
                f"its id must be a number or text that no other has, got {shown(number)}",
            )
    return found


def _class_name(category: dict[str, Any], number: object, file: str) -> str:
    name = category.get("name")
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{file}: the name of the category {shown(number)} must be text, got {shown(name)}; name it")
    return name.strip()
