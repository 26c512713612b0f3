"""Reads images with a text file of boxes each, as YOLO's tools, Roboflow, CVAT and Label Studio write them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from shared.config.dataset import YoloSource
from shared.config.plain_yaml import parse_value, read_text
from shared.data.problems import BadImage, Problems
from shared.data.source import ImageListing, InferredSource, SplitName
from shared.data.sources.boxes import BOX_COMMENTS, BOX_SETTINGS, Box, Corners, box_listing
from shared.data.sources.members import images_below, is_image_name, member_names
from shared.data.sources.paths import PathCheck, existing_root
from shared.data.sources.split_words import split_of
from shared.data.sources.text_file import read_text_file
from shared.errors import ConfigError, DataError
from shared.names import name_fault, path_below, shown

NAMES = ("classes.txt", "obj.names", "labels/classes.txt")
"""Lists the files that name a class per line, if no YAML file does."""
KEYS: dict[str, SplitName] = {"train": "train", "val": "val", "valid": "val", "test": "test"}
MOST_BYTES = 1 << 24  # of one file of boxes, names or paths
OUTSIDE = 0.05  # how far a box may leave its image, as a share: tools round
BOX, POLYGON = 4, 6
"""Count the numbers behind a class: of a box, and of the smallest polygon."""


@dataclass(frozen=True)
class _Layout:
    """Says what the file of names says."""

    classes: list[str]
    images: list[tuple[SplitName | None, str]]
    """Lists the images' paths below the root, with their splits."""
    poses: bool = False
    """Says whether the numbers behind a box are the points of a pose."""


def infer_yolo(data: Path) -> InferredSource | None:
    """Returns the source of a YAML file with `names` and `train`, or of a folder that holds one or a list of classes beside boxes; None if neither.

    Raises DataError if a folder holds several such YAML files.
    """
    if data.is_file():
        root, found = data.parent.resolve(), [data.name] if _is_layout(data) else []
    elif data.is_dir():
        root = data.resolve()
        found = [name for name in member_names(root) if _is_layout(root / name)]
        found = found or [name for name in NAMES if (root / name).is_file() and _has_boxes(root)][:1]
    else:
        return None
    if not found:
        return None
    if len(found) > 1:
        raise DataError(
            f"{data}: holds {len(found)} YAML files with names of classes; name one of them, e.g. {data / found[0]}"
        )
    dataset = YoloSource(source="yolo", root=str(root), file=found[0], group="label", **BOX_SETTINGS)
    return InferredSource(dataset, root, {"group": "the question that the classes answer", **BOX_COMMENTS})


def read_yolo(config: YoloSource, root: Path, problems: Problems) -> ImageListing:
    """Lists an image per box of all images; an image without a file of boxes, or with an empty one, has none.

    Lines that are no box are reported to `problems`. Raises DataError if the file of names cannot be read, or names images that are not there.
    """
    root = existing_root(root)
    layout = _layout(root, config.file)
    paths = PathCheck(root, problems)
    boxes = [
        box
        for split, image in layout.images
        if (checked := paths.check(image, image)) is not None
        for box in _boxes(root, layout, checked, split, problems)
    ]
    return box_listing(config, root, layout.classes, boxes, config.file, problems)


def _boxes(
    root: Path, layout: _Layout, image: tuple[str, Path], split: SplitName | None, problems: Problems
) -> Iterator[Box]:
    name, file = image
    labels = next((path for path in _label_paths(name) if (root / path).is_file()), None)
    if labels is None:
        return
    lines = _lines(root, labels)
    try:
        size = _size(file) if lines else (0, 0)
    except BadImage as error:
        problems.add(error.reason, name, str(error))
        return
    for number, line in lines:
        where = f"{labels} line {number}"
        try:
            position, corners = _parsed(line, layout.poses)
            if not position < len(layout.classes):
                raise BadImage(
                    "label outside its group",
                    f"the class must be 0 to {len(layout.classes) - 1}, got {shown(position)}",
                )
        except BadImage as error:
            problems.add(error.reason, where, str(error))
            continue
        left, top, width, height = corners
        pixels = (left * size[0], top * size[1], width * size[0], height * size[1])
        yield Box(name, file, where, layout.classes[position], pixels, split, name)


def _size(file: Path) -> tuple[int, int]:
    from shared.data.canonical import check_header

    return check_header(file)


def _parsed(line: str, poses: bool) -> tuple[int, Corners]:
    """Returns the class and the box of a line, as shares of the image; raises BadImage if it is none."""
    words = line.split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) <= BOX or not all(map(math.isfinite, numbers)) or numbers[0] != int(numbers[0]) or numbers[0] < 0:
        raise BadImage("unusable box", f"a line must be a class number and a box, got {shown(line)}")
    values = numbers[1:]
    if len(values) >= POLYGON and len(values) % 2 == 0 and not poses:
        left, right, top, bottom = min(values[::2]), max(values[::2]), min(values[1::2]), max(values[1::2])
    else:  # what follows a box is its confidence, or the points of a pose
        x, y, width, height = values[:BOX]
        left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
    if not (-OUTSIDE <= left < right <= 1 + OUTSIDE and -OUTSIDE <= top < bottom <= 1 + OUTSIDE):
        raise BadImage("unusable box", f"a box must be given in shares of the image from 0 to 1, got {shown(line)}")
    return int(numbers[0]), (left, top, right - left, bottom - top)


def _label_paths(image: str) -> Iterator[str]:
    """Yields where the boxes of an image may be: with `labels` in place of its last folder `images`, and beside it."""
    parts = list(PurePosixPath(image).with_suffix(".txt").parts)
    places = [position for position, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        yield "/".join([*parts[: places[-1]], "labels", *parts[places[-1] + 1 :]])
    yield "/".join(parts)


def _is_layout(path: Path) -> bool:
    if path.suffix.lower() not in (".yaml", ".yml") or not path.is_file():
        return False
    try:
        content = _yaml(path, path.name)
    except DataError:  # whoever reads it says so
        return False
    return "names" in content and any(key in content for key in KEYS)


def _has_boxes(root: Path) -> bool:
    """Returns whether an image below a folder has a file of boxes."""
    return any((root / path).is_file() for image in _images(root, root) for path in _label_paths(image))


def _images(root: Path, folder: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in images_below(folder))


def _layout(root: Path, file: str) -> _Layout:
    path = path_below(root, file, "dataset.file", DataError)
    if not path.is_file():
        raise DataError(f"{path}: not found; dataset.file names the file of the classes inside dataset.root")
    if path.suffix.lower() not in (".yaml", ".yml"):
        classes = [line for _, line in _lines(root, file)]
        return _Layout(classes, _divided([(_split(image), image) for image in _images(root, root)]))
    content = _yaml(path, file)
    base = PurePosixPath(file).parent.as_posix()
    listed = [
        (split, image)
        for key, split in KEYS.items()
        for place in _places(content.get(key), key, file)
        for image in _listed(root, base, content.get("path"), place, key, file)
    ]
    if not listed:
        raise DataError(f"{file}: names no images; `train` must be a folder of images, or a text file that lists them")
    return _Layout(_classes(content.get("names"), file), _divided(listed), content.get("kpt_shape") is not None)


def _divided(images: Sequence[tuple[SplitName | None, str]]) -> list[tuple[SplitName | None, str]]:
    """Returns each image once, without splits if there is one split, or images are in several: a small set often names one folder for all."""
    splits: dict[str, set[SplitName | None]] = {}
    for split, image in images:
        splits.setdefault(image, set()).add(split)
    several = len({split for split, _ in images}) > 1 and all(len(found) == 1 for found in splits.values())
    divided = several and None not in {split for split, _ in images}
    return [(found.pop() if divided else None, image) for image, found in splits.items()]


def _split(image: str) -> SplitName | None:
    return next((split for part in image.split("/")[:-1] if (split := split_of(part)) is not None), None)


def _places(value: object, key: str, file: str) -> list[str]:
    places = value if isinstance(value, list) else [] if value is None else [value]
    for place in places:
        if not isinstance(place, str) or not place.strip():
            raise DataError(
                f"{file}: {key} must name folders of images or text files that list them, got {shown(place)}"
            )
    return [place for place in places if isinstance(place, str)]


def _listed(root: Path, base: str, start: object, place: str, key: str, file: str) -> list[str]:
    """Returns the images that a place names: those below a folder, those that a text file lists, or itself."""
    tops = [base] if not isinstance(start, str) else [f"{base}/{start}", base]
    found = next((there for top in tops if (there := _inside(root, f"{top}/{place}")) is not None), None)
    if found is None:
        raise DataError(
            f"{file}: {key} names {shown(place)}, which is not below the folder {root.name}/; write the path from there, or remove the line"
        )
    if (root / found).is_dir():
        return _images(root, root / found)
    if not found.lower().endswith(".txt"):
        return [found] if is_image_name(found) else []
    images = []
    for number, line in _lines(root, found):
        image = _inside(root, f"{PurePosixPath(found).parent}/{line}")
        if image is None:
            raise DataError(
                f"{found} line {number}: no image below {root.name}/ is {shown(line)}; correct or remove the line"
            )
        images.append(image)
    return images


def _inside(root: Path, path: str) -> str | None:
    """Returns the longest end of a path that exists below the root; tools write `../train/images`, and paths of the machine where they ran."""
    parts: list[str] = []
    for part in PurePosixPath(path.replace("\\", "/")).parts:
        parts = parts[:-1] if part == ".." else parts if part == "/" else [*parts, part]
    for start in range(len(parts)):
        end = "/".join(parts[start:])
        if name_fault(end) is None and (root / end).exists():
            return end
    return "." if not parts and path.strip() else None


def _classes(names: object, file: str) -> list[str]:
    if isinstance(names, dict):
        keys = [key for key in names if key.isdecimal()]
        if sorted(map(int, keys)) != list(range(len(names))):
            raise DataError(
                f"{file}: names must give a name for each class number from 0 on, got the numbers {list(names)[:20]}"
            )
        names = [names[key] for key in sorted(keys, key=int)]
    if not isinstance(names, list) or not all(
        isinstance(name, str | int | float) and str(name).strip() for name in names
    ):
        raise DataError(f"{file}: names must list the names of the classes, got {shown(names)}")
    return [str(name).strip() for name in names]


def _yaml(path: Path, name: str) -> dict[str, Any]:
    try:
        content, _ = parse_value(read_text(path, name, "name the file of the classes"), name)
    except ConfigError as error:
        raise DataError(str(error)) from error
    return content if isinstance(content, dict) else {}


def _lines(root: Path, name: str) -> list[tuple[int, str]]:
    """Returns the lines of a file that are not blank, each with its number."""
    text = read_text_file(path_below(root, name, "the file", DataError), name, MOST_BYTES)
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
