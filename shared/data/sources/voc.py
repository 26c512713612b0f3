"""Reads images with an XML file of boxes each, as Pascal VOC has them, and Roboflow, CVAT and LabelImg write them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from shared.config.dataset import SplitName, VocSource
from shared.data.problems import BadImage, Problems
from shared.data.source import ImageListing, InferredSource
from shared.data.sources.boxes import BOX_COMMENTS, BOX_SETTINGS, Box, Corners, box_listing
from shared.data.sources.class_lists import read_lists
from shared.data.sources.image_finder import ImageFinder, said_split
from shared.data.sources.infer_contents import MASKS
from shared.data.sources.members import images_below, left_behind
from shared.data.sources.paths import existing_root
from shared.data.sources.split_words import split_of_file
from shared.data.sources.text_file import read_text_file
from shared.errors import DataError
from shared.names import shown

MOST_BYTES = 1 << 22  # of one file: a thousand boxes have 0.3 MB
LEAST_SHARE = 0.6  # of the images, that have a file of boxes


def infer_voc(data: Path) -> InferredSource | None:
    """Returns the source of a folder in which most images have an XML file of boxes with their name; None if they have none."""
    if not data.is_dir():
        return None
    root = data.resolve()
    files = list(_files(root))
    stems = {PurePosixPath(file).stem for file in files}
    if not files or not any(_has_boxes(root / file) for file in files[:20]):
        return None
    images = [
        p.stem for p in images_below(root) if not any(part.lower() in MASKS for part in p.relative_to(root).parts[:-1])
    ]
    if sum(stem in stems for stem in images) < LEAST_SHARE * len(images):
        return None
    lists = _lists(root)
    fields = {"lists": lists} if lists else {}
    listed = read_lists(root, lists, _listed)
    left = sum(stem not in listed for stem in stems) if lists else 0
    notes = (
        (f"{left:,} of {len(stems):,} images with boxes are in no list of a split, and are left out",) if left else ()
    )
    dataset = VocSource.model_validate({"source": "voc", "root": str(root), **fields, **BOX_SETTINGS, "group": "label"})
    comments = {
        "group": "the question that the boxes' names answer",
        "lists": "the images of each split",
        **BOX_COMMENTS,
    }
    return InferredSource(dataset, root, comments, notes)


def read_voc(config: VocSource, root: Path, problems: Problems) -> ImageListing:
    """Lists an image per box. A file that is no XML of this form is reported to `problems`, and so is a box that is none.

    Raises DataError if there is no such file, or if two lists name one image.
    """
    root = existing_root(root)
    files = list(_files(root))
    if not files:
        raise DataError(f"{root.name}/: holds no XML files of boxes; dataset.root must hold one per image")
    lists = read_lists(root, config.lists, _listed)
    said = {file: lists.get(PurePosixPath(file).stem) if config.lists else said_split(file) for file in files}
    splits = set(said.values())
    divided = "train" in splits and len(splits - {None}) > 1
    if divided and None in splits and not config.lists:
        alone = next(file for file, split in said.items() if split is None)
        raise DataError(f"{alone}: is in no split's folder, other files are; move it into one")
    finder = ImageFinder(root, problems)
    boxes = [
        box
        for file, split in said.items()
        if split is not None or not divided
        for box in _boxes(root, file, split if divided else None, finder, problems)
    ]
    names = sorted({box.name for box in boxes})
    return box_listing(config, root, names, boxes, files[0], problems)


def _boxes(root: Path, file: str, split: SplitName | None, finder: ImageFinder, problems: Problems) -> Iterator[Box]:
    try:
        tree = _tree(root / file, file)
    except BadImage as error:
        problems.add(error.reason, file, str(error))
        return
    named = tree.findtext("filename", "").strip() or f"{PurePosixPath(file).stem}.jpg"
    image = finder.find(named if PurePosixPath(named).suffix else PurePosixPath(file).stem, file, "filename", split)
    for number, found in enumerate(tree.iter("object"), 1):
        where, name = f"{file} object {number}", found.findtext("name", "").strip()
        try:
            if not name:
                raise BadImage("label outside its group", "it must have a name")
            corners = _corners(found)
        except BadImage as error:
            problems.add(error.reason, where, str(error))
            continue
        if image is not None:
            yield Box(image[0], image[1], where, name, corners, split, image[0])


def _corners(found: ElementTree.Element) -> Corners:
    """Returns the box of an object; raises BadImage if it is none."""
    box = found.find("bndbox")
    texts = [box.findtext(key, "") for key in ("xmin", "ymin", "xmax", "ymax")] if box is not None else []
    try:
        left, top, right, bottom = map(float, texts)
    except ValueError:
        left = top = right = bottom = float("nan")
    if not (-1e9 < left < right < 1e9 and -1e9 < top < bottom < 1e9):
        raise BadImage(
            "unusable box", f"its bndbox must have xmin < xmax and ymin < ymax in pixels, got {shown(texts)}"
        )
    return left, top, right - left, bottom - top


def _tree(path: Path, name: str) -> ElementTree.Element:
    """Returns the element `annotation` of a file; raises BadImage if it is no such file. Entities are refused, as they may unpack to any size."""
    try:
        text = read_text_file(path, name, MOST_BYTES)
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise BadImage("unreadable XML", "declares a document type or entities, which are not read; remove them")
        tree = ElementTree.fromstring(text)  # noqa: S314 (without a document type there are no entities to unpack)
    except DataError as error:
        raise BadImage("unreadable XML", str(error).removeprefix(f"{name}: ")) from error
    except (ElementTree.ParseError, ValueError) as error:
        raise BadImage("unreadable XML", f"must be XML ({str(error)[:80]}); export it again") from error
    if tree.tag != "annotation":
        raise BadImage("unreadable XML", f"must hold an `annotation` with objects, got {shown(tree.tag)}")
    return tree


def _has_boxes(path: Path) -> bool:
    try:
        return _tree(path, path.name).find("object") is not None
    except BadImage:
        return False


def _files(root: Path) -> Iterator[str]:
    """Yields the XML files below a folder, in order."""
    found = []
    for parent, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not left_behind(name)]
        paths = (Path(parent, name) for name in names if name.lower().endswith(".xml") and not left_behind(name))
        found += [path.relative_to(root).as_posix() for path in paths]
    yield from sorted(found)


def _lists(root: Path) -> dict[SplitName, str]:
    """Returns the lists of the images of each split below `ImageSets/Main`; nothing without one of training images and another.

    Raises DataError if several folders have such lists, as those of two years do.
    """
    found: dict[Path, dict[SplitName, str]] = {}
    for path in sorted(root.rglob("ImageSets/Main/*.txt")):
        if path.stem.lower() in ("train", "val", "test") and (split := split_of_file(path.stem)) is not None:
            found.setdefault(path.parents[2], {}).setdefault(split, path.relative_to(root).as_posix())
    usable = {folder: lists for folder, lists in found.items() if "train" in lists and len(lists) > 1}
    if len(usable) > 1:
        commands = " or ".join(f"`tailfill init {shlex.quote(str(folder))}`" for folder in usable)
        raise DataError(
            f"{root.name}/: {', '.join(f'{folder.relative_to(root)}/' for folder in usable)} have lists of splits each, and one study reads those "
            f"of one folder; run {commands}"
        )
    return next(iter(usable.values()), {})


def _listed(line: str) -> str:
    """Returns the name of the image in a line of a list, which lists of one class follow by a number."""
    return PurePosixPath(line.split()[0]).stem if line.split() else ""
