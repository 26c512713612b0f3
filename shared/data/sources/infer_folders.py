"""Infers how class folders lie in a data set, and which lists beside them say the splits, for `tailfill init`."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from shared.config.dataset import FolderSource, SplitName
from shared.data.problems import Problems
from shared.data.source import InferredSource
from shared.data.sources.class_folders import Skip, SplitFolders, check_detection, holds_class_images, split_folders
from shared.data.sources.class_lists import listed_name
from shared.data.sources.file_names import name_of
from shared.data.sources.folder_names import find_names
from shared.data.sources.members import images_below, is_image_name, member_names
from shared.data.sources.sheets import Sheet, read_sheets
from shared.data.sources.split_words import split_of, split_of_file, without_numbers
from shared.errors import DataError
from shared.names import shown

MASKS = frozenset({
    "mask", "masks", "ground_truth", "groundtruth", "gt", "trimaps", "segmentation", "segmentations", "segmentationclass", "segmentationobject",
})  # fmt: skip
"""Names folders, in lower case, whose images say which pixels of other images belong to something."""
PAIRED = re.compile(r"[-_ ](mask|masks|label|gt|seg|segmentation)(_?[0-9]+)?$", re.IGNORECASE)
"""Matches what the name of such an image has behind that of its image."""
VERSIONS = frozenset({
    "color", "colour", "colored", "rgb", "gray", "grey", "grayscale", "greyscale", "bw", "segmented", "original", "originals", "augmented", "augmentation",
    "resized", "raw", "processed", "preprocessed", "cropped", "aligned", "normalized", "denoised", "enhanced", "small", "large", "thumbnails",
})  # fmt: skip
"""Lists words in the names of folders that hold the same images in another form."""
BESIDE = (".txt", ".xml", ".json", ".csv", ".tsv", ".mat", ".xlsx", ".yaml", ".yml", ".html", ".db", ".ini")
"""Lists the endings of files that lie beside images in class folders and are none."""
LEAST_LISTED = 0.5  # of the images, that lists of splits must name
MOST_NAMES = 500  # files of a folder that are compared


def infer_folder(data: Path, sheets: Sequence[Sheet] | None = None) -> InferredSource | None:
    """Returns the source of a folder that holds class folders, or images that are named by their classes; None if it holds none.

    Raises DataError if its folders are no classes, but may be read in two ways.
    """
    if not data.is_dir():
        return None
    root = data.resolve()
    if not holds_class_images(data):
        return _infer_names(root)
    top, skip = _top(root), set[str]()
    _check_versions(root, top)
    skip |= _left_out(top)
    split = split_folders(top, Problems("skip"), Skip(sorted(skip)))
    classes = {name for _, each in split.tops for name in Skip(sorted(skip)).members(each) if (each / name).is_dir()}
    alone = len(classes) < 2 or all(split_of(without_numbers(name)) for name in classes)
    if alone and (named := _infer_names(root)) is not None:
        return named
    _check_training(root, split, Skip(sorted(skip)))
    fields: dict[str, Any] = {"folder": top.relative_to(root).as_posix()} if top != root else {}
    notes: list[str] = []
    paths = _class_paths(root, top, classes) if not split.unlabelled and len(split.tops) == 1 else {}
    found = None if paths else find_names(top, classes) or (find_names(root, classes) if top != root else None)
    if paths or found:
        fields["names"] = paths or (found[1] if found else {})
    lists = _lists(root, top, sheets if sheets is not None else read_sheets(root)) if len(split.tops) == 1 else {}
    tables = _tables(root, split, classes)
    if top != root and not (lists or tables or fields.get("names")) and len(split.tops) == 1:
        fields.pop("folder")  # whoever reads the folder passes over those around it, too
        if split_folders(root, Problems("skip"), Skip(sorted(skip))).tops != split.tops:
            fields["folder"] = top.relative_to(root).as_posix()
    fields |= {
        name: value for name, value in (("skip", tuple(sorted(skip))), ("lists", lists), ("tables", tables)) if value
    }
    dataset = FolderSource.model_validate({"source": "folder", "root": str(root), "group": "label", **fields})
    comments = {
        "group": "the question that the folders' names answer",
        "folder": "the folder of the class folders",
        "skip": "names of files and folders that are no images of a class",
        "lists": "the images of each split",
        "tables": "the classes of images that are in no class folder",
    }
    if skip:
        notes.append(f"left out, since they hold no images of a class: {', '.join(sorted(skip))}")
    if found is None:
        return InferredSource(dataset, root, comments, tuple(notes))
    unnamed = sorted(classes - found[1].keys())
    if unnamed:
        notes.append(f"{shown(found[0])} has no name for {', '.join(unnamed[:8])}{' …' if len(unnamed) > 8 else ''}")
    return InferredSource(dataset, root, {**comments, "names": f"as {shown(found[0])} says"}, tuple(notes))


def _folders(folder: Path) -> list[Path]:
    """Returns the folders in a folder that hold images at any depth, without those of masks."""
    inside = [folder / name for name in member_names(folder) if (folder / name).is_dir()]
    return [each for each in inside if each.name.lower() not in MASKS and any(images_below(each))]


def _top(root: Path) -> Path:
    """Returns the folder that holds class folders or split folders: folders around all images are passed over."""
    folder = root
    while len(inside := _folders(folder)) == 1 and not inside[0].is_symlink() and len(_folders(inside[0])) > 0:
        if split_of(inside[0].name) is not None and _beside(folder, inside[0]):
            break
        check_detection(folder, [folder / name for name in member_names(folder) if (folder / name).is_dir()])
        folder = inside[0]
    return folder


def _beside(folder: Path, inside: Path) -> bool:
    return any(is_image_name(name) for name in member_names(folder)) and inside.is_dir()


def _left_out(top: Path) -> set[str]:
    """Returns the names of what lies among class folders and is no image of a class: masks, lists, folders that repeat all others, unlabelled images."""
    skip = set[str]()
    endings = Counter[str]()
    for parent, folders, names in os.walk(top):
        skip |= {name for name in folders if name.lower() in MASKS and len(folders) > 1}
        if Path(parent) != top:
            endings.update(Path(name).suffix.lower() for name in names if Path(name).suffix.lower() in BESIDE)
            stems = {Path(name).stem for name in names}
            paired = {
                match[0].lower() for stem in stems if (match := PAIRED.search(stem)) and stem[: match.start()] in stems
            }
            skip |= {f"*{end}*" if end[-1].isdigit() else f"*{end}.*" for end in paired}
    skip |= {f"*{ending}" for ending in endings}
    skip = {re.sub(r"_?[0-9]+\*$", "*", name) for name in skip}
    inside = _folders(top)
    splits = {split_of(each.name) for each in inside} - {None}
    if "train" in splits and len(splits) > 1:
        for each in inside:
            if split_of(each.name) is None and (_repeats(each, inside) or not _holds_classes(each)):
                skip.add(each.name)
    return skip


def _repeats(folder: Path, others: Sequence[Path]) -> bool:
    """Returns whether a folder holds the split folders once more, as an archive that was packed twice does."""
    names = {other.name for other in others if split_of(other.name) is not None}
    return names <= {each.name for each in _folders(folder)}


def _holds_classes(folder: Path) -> bool:
    inside = _folders(folder)
    return len(inside) > 1 or (len(inside) == 1 and inside[0].name != folder.name)


def _check_versions(root: Path, top: Path) -> None:
    """Raises DataError if folders hold the same images in several versions, such as in colour and in grey."""
    inside = [folder for folder in _folders(top) if split_of(folder.name) is None]
    for first, second in pairwise(inside):
        common = [name for name in member_names(first) if (first / name).is_dir() and (second / name).is_dir()]
        same = [name for name in common if _stems(first / name) and _stems(first / name) == _stems(second / name)]
        words = set(re.split(r"[\W_]+", f"{first.name} {second.name}".lower()))
        if len(same) > 1 and words & VERSIONS and len(inside) == len(_folders(top)):
            raise DataError(
                f"{root.name}/: {first.relative_to(root)}/ and {second.relative_to(root)}/ hold images of the same names in folders of the same names; if they "
                f"are versions of one data set, run `tailfill init {shlex.quote(str(first))}` or `tailfill init {shlex.quote(str(second))}`"
            )


def _stems(folder: Path) -> set[str]:
    return {Path(name).stem for name in member_names(folder)[:MOST_NAMES] if is_image_name(name)}


def _check_training(root: Path, split: SplitFolders, skip: Skip) -> None:
    """Raises DataError if the training images are of one class and others are not, as in data for finding anomalies."""
    classes = {name: [each for each in skip.members(top) if (top / each).is_dir()] for name, top in split.tops}
    tops = dict(split.tops)
    if len(classes.get("train", ["", ""])) == 1 and any(len(each) > 1 for each in classes.values()):
        other = next(name for name, each in classes.items() if len(each) > 1)
        raise DataError(
            f"{root.name}/: {tops['train'].name}/ holds images of one class only, {classes['train'][0]!r}, and {tops[other].name}/ of {len(classes[other])}; "
            f"to divide those of {tops[other].name}/ anew, run `tailfill init {shlex.quote(str(tops[other]))}`, or move some images of each class into "
            f"{tops['train'].name}/ and run `tailfill init {shlex.quote(str(root))}` again"
        )
    for top in tops.values() if len(tops) == 1 else ():
        folders = [name for name in skip.members(top) if (top / name).is_dir()]
        if any("label" in pattern or "mask" in pattern for pattern in skip.patterns) and len(
            {re.sub(r"[0-9]+", "", name) for name in folders}
        ) == 1 < len(folders):
            raise DataError(
                f"{root.name}/: the images' labels are masks beside them, and the folders {folders[0]}/ to {folders[-1]}/ are numbered, not named by "
                "classes; move the images into a folder per class, or name the classes in a CSV with a row per image"
            )


def _class_paths(root: Path, top: Path, folders: set[str]) -> dict[str, str]:
    """Returns the class folders that a file lists by paths of several folders, with their names; nothing if there is no such file."""
    for place in dict.fromkeys([top, root]):
        for name in member_names(place):
            path = place / name
            if path.suffix.lower() != ".txt" or not path.is_file() or path.stat().st_size > 1 << 23:
                continue
            lines = [
                line.strip().strip("/") for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
            ]
            keys = [line for line in lines if "/" in line and ".." not in line.split("/") and (top / line).is_dir()]
            if len(keys) > 1 and len(keys) == len([line for line in lines if line]):
                names = {key: key.split("/", 1)[1] for key in keys}
                return names if len(set(names.values())) == len(keys) else {key: key for key in keys}
    return {}


def _lists(root: Path, top: Path, sheets: Sequence[Sheet]) -> dict[SplitName, str]:
    """Returns the files that list the images of each split; of numbered ones the first. Nothing if they do not name most images."""
    known = {end for path in images_below(top) for end in _ends(path.relative_to(root).as_posix())}
    found: dict[SplitName, str] = {}
    named = 0
    for sheet in sorted(sheets, key=lambda sheet: (sheet.fold, len(sheet.table.rows))):
        split = split_of_file(sheet.stem)
        if len(sheet.table.columns) != 1 or sheet.header is None or split is None or split in found:
            continue
        lines = [row.cells[sheet.header[0]] for row in sheet.table.rows]
        listed = sum(listed_name(line) in known for line in lines)
        if listed > LEAST_LISTED * len(lines):
            found[split] = sheet.file
            named += listed
    images = sum(1 for _ in images_below(top))
    return found if "train" in found and len(found) > 1 and named >= LEAST_LISTED * images else {}


def _ends(path: str) -> Iterator[str]:
    parts = PurePosixPath(path).with_suffix("").parts
    yield from ("/".join(parts[at:]) for at in range(len(parts)))


def _tables(root: Path, split: SplitFolders, classes: set[str]) -> dict[SplitName, str]:
    """Returns the text files in split folders without class folders that label their images by the names of class folders."""
    found: dict[SplitName, str] = {}
    for folder in split.unlabelled:
        name = split_of(folder.name)
        for path in sorted(folder.glob("*.txt")):
            with path.open(encoding="utf-8", errors="replace") as file:
                cells = [line.replace(",", " ").split() for line in file.readlines(1 << 16)]
            if name is not None and cells and all(len(line) > 1 and line[1] in classes for line in cells):
                found[name] = path.relative_to(root).as_posix()
    return found


def _infer_names(root: Path) -> InferredSource | None:
    """Returns the source of images whose names begin with few words that repeat, in one folder or in split folders; None if they do not."""
    for folder in (root, *(each for each in _folders(root) if split_of(each.name) in ("train", None))):
        names = [name_of(name) for name in member_names(folder) if is_image_name(name)]
        classes = Counter(name for name in names if name is not None)
        if None in names or not 2 <= len(classes) <= len(names) // 3:
            continue
        fields = {"folder": folder.relative_to(root).as_posix()} if folder != root else {}
        dataset = FolderSource.model_validate(
            {"source": "folder", "root": str(root), "group": "label", "by": "name", **fields}
        )
        comments = {"by": "the files' names begin with their class", "group": "the question that the names answer"}
        return InferredSource(dataset, root, comments)
    return None
