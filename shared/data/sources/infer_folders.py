"""Infers how class folders lie in a data set, and which lists beside them say the splits, for `tailfill init`."""

from __future__ import annotations

import difflib
import glob
import os
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.config.dataset import FolderSource
from shared.data.problems import Problems
from shared.data.source import InferredSource
from shared.data.sources.class_folders import (
    Skip,
    SplitFolders,
    check_detection,
    folder_split,
    holds_class_images,
    split_folders,
)
from shared.data.sources.folder_names import find_names
from shared.data.sources.infer_class_lists import class_paths, split_lists, split_tables
from shared.data.sources.infer_contents import (
    check_contents,
    check_parts_of_data,
    check_wrapped,
    copies,
    image_folders,
    is_masks,
    parts_without_labels,
)
from shared.data.sources.infer_file_names import infer_file_names
from shared.data.sources.members import (
    IMAGE_SUFFIXES,
    OF_MASK,
    holds_images,
    images_below,
    is_data,
    is_image_name,
    left_behind,
    member_names,
    subfolder_names,
)
from shared.data.sources.sheets import Sheet, read_sheets
from shared.data.sources.split_words import part_of, split_of, without_numbers
from shared.errors import DataError
from shared.names import is_text, shown
from shared.terminal import escaped

BESIDE = (".txt", ".xml", ".json", ".csv", ".tsv", ".mat", ".xlsx", ".yaml", ".yml", ".html", ".db", ".ini")
"""Lists the endings of files that lie beside images in class folders and are none."""
BOXES = frozenset({"annotation", "annotations"})
"""Names folders, in lower case, whose files describe parts of images."""
LEAST_TWICE = 0.9  # of the images in class folders, that must be there in two formats to be said


@dataclass(frozen=True)
class _Layout:
    """Holds how class folders lie in a data set."""

    top: Path
    """Gives the folder that holds class folders or split folders."""
    beside: Sequence[Path]
    """Lists the folders that are left out, as the folders beside them hold their images, or as nothing says the labels of theirs."""
    split: SplitFolders
    skip: tuple[str, ...]
    """Lists patterns of names in `top` that are no classes."""
    unlabelled: Sequence[str]
    """Lists those that hold no images of a class."""
    paths: dict[str, str]
    """Maps class folders that a file lists by paths of several folders to their names."""
    notes: Sequence[str]

    @property
    def classes(self) -> set[str]:
        """Returns the names of all class folders."""
        return {folder.name for _, top in self.split.tops for folder in Skip(self.skip).folders(top)}


def infer_folder(data: Path, sheets: Sequence[Sheet] | None = None) -> InferredSource | None:
    """Returns the source of a folder that holds class folders, or images that are named by their classes; None if it holds none.

    Raises DataError if its folders are no classes, but may be read in two ways.
    """
    if not data.is_dir():
        return None
    root = data.resolve()
    if not holds_class_images(data):
        return infer_file_names(root)
    layout = _layout(root)
    top, split, classes, skip, notes = layout.top, layout.split, layout.classes, Skip(layout.skip), list(layout.notes)
    sheets = sheets if sheets is not None else read_sheets(root)
    alone = len(classes) < 2 or all(split_of(without_numbers(name)) for name in classes)
    if alone and (named := infer_file_names(root)) is not None:
        return named
    if [name for name, _ in split.tops] == [None] and not layout.paths:
        check_parts_of_data(root, classes, [sheet.file for sheet in sheets if sheet.file.endswith(".csv")])
    _check_training(root, split, skip)
    notes += _only_tested(split, skip)
    fields: dict[str, Any] = {"folder": _below(root, top)} if top != root else {}
    paths = layout.paths if not split.unlabelled and len(split.tops) == 1 else {}
    found = None if paths else find_names(top, classes) or (find_names(root, classes) if top != root else None)
    if paths or found:
        fields["names"] = paths or (found[1] if found else {})
    lists = split_lists(root, top, sheets) if len(split.tops) == 1 else {}
    tables = split_tables(root, split, classes, sheets)
    passed_over = len(split.tops) == 1 and all(each.parent == top for each in layout.beside)
    if top != root and not (lists or tables or fields.get("names")) and passed_over:
        fields.pop("folder")  # whoever reads the folder passes over those around it, too
        if split_folders(root, Problems("skip"), skip).tops != split.tops:
            fields["folder"] = _below(root, top)
    fields |= {name: value for name, value in (("skip", layout.skip), ("lists", lists), ("tables", tables)) if value}
    dataset = FolderSource.model_validate({"source": "folder", "root": str(root), "group": "label", **fields})
    comments = {
        "group": "the question that the folders' names answer",
        "folder": "the folder of the class folders",
        "skip": "names of files and folders that are no images of a class",
        "lists": "the images of each split",
        "tables": "the classes of images that are in no class folder",
    }
    if layout.unlabelled:
        notes.append(f"left out, since they hold no images of a class: {', '.join(layout.unlabelled)}")
    if found is None:
        return InferredSource(dataset, root, comments, tuple(map(escaped, notes)))
    unnamed = sorted(classes - found[1].keys())
    if unnamed:
        notes.append(f"{shown(found[0])} has no name for {', '.join(unnamed[:8])}{' …' if len(unnamed) > 8 else ''}")
    return InferredSource(
        dataset, root, {**comments, "names": f"as {shown(found[0])} says"}, tuple(map(escaped, notes))
    )


def _layout(root: Path) -> _Layout:
    """Finds the class folders; raises DataError that names commands to run instead if the folders that look like them cannot be classes."""
    top, repeated, unknown = _top(root)
    notes = [f"left out, since the folders beside it hold its images: {_below(root, each)}/" for each in repeated]
    notes += [
        f"{_below(root, each)}/ is left out, since its images lie in no class folders, so that nothing says their labels; if it is a class, rename it and run "
        f"`tailfill init {shlex.quote(str(root))}` again"
        for each in unknown
    ]
    notes += [f"{_below(root, each)}/ describes parts of the images and is not read" for each in _boxes(root, top)]
    unlabelled, paths = _left_out(top), class_paths(root, top)
    others = _beside_splits(top, Skip([*unlabelled]))
    notes += [
        f"{_below(root, each)}/ is left out, since it lies beside the split folders; to read it, too, move its images into one of them"
        for each in others
    ]
    beside = {glob.escape(each.name) for each in others}
    left_out = Skip([*unlabelled, *beside])
    inside = [each for each in _kept(top, left_out) if each not in repeated]
    splits = {folder_split(each) for each in inside}
    if not paths and not ("train" in splits and len(splits - {None}) > 1):
        notes += check_contents(root, inside, left_out)
    beside |= _copied(root, top, repeated)
    left_out = Skip([*unlabelled, *beside])
    split = split_folders(top, Problems("skip"), left_out)
    if empty := _without_images(split, left_out):
        unlabelled |= empty
        left_out = Skip([*unlabelled, *beside])
        split = split_folders(top, Problems("skip"), left_out)
    if (train := dict(split.tops).get("train")) is not None:
        check_wrapped(root, [each for _, each in split.tops], left_out)
        notes += check_contents(root, _kept(train, left_out), left_out)
    folders = [folder for _, each in split.tops for folder in _kept(each, left_out)]
    notes += _other_files(folders, root, left_out) + _twice(folders, root)
    return _Layout(
        top, [*repeated, *unknown], split, tuple(sorted(unlabelled | beside)), sorted(unlabelled), paths, notes
    )


def _below(root: Path, folder: Path) -> str:
    return folder.relative_to(root).as_posix()


def _kept(top: Path, skip: Skip) -> list[Path]:
    return [folder for folder in image_folders(top) if not skip.matches(folder.name)]


def _top(root: Path) -> tuple[Path, list[Path], list[Path]]:
    """Returns the folder that holds class folders or split folders, copies of folders in it and around it, and parts of the data without labels around it.

    Folders around all other images are passed over.
    """
    folder, repeated, unknown = root, list[Path](), list[Path]()
    while True:
        inside = image_folders(folder)
        twice = copies(inside)
        repeated += twice
        inside = [each for each in inside if each not in twice]
        parts = parts_without_labels(inside)
        inside = [each for each in inside if each not in parts]
        if len(inside) != 1 or inside[0].is_symlink() or not image_folders(inside[0]):
            return folder, repeated, unknown
        if split_of(inside[0].name) is not None and any(is_image_name(name) for name in member_names(folder)):
            return folder, repeated, unknown
        unknown += parts
        check_detection(folder, Skip().folders(folder))
        folder = inside[0]


def _boxes(root: Path, top: Path) -> list[Path]:
    """Returns the folders around the class folders that describe parts of their images."""
    around = [folder for folder in top.parents if folder.is_relative_to(root)]
    return [folder / name for folder in around for name in subfolder_names(folder) if name.lower() in BOXES]


def _copied(root: Path, top: Path, repeated: Sequence[Path]) -> set[str]:
    """Returns the names of copies beside class folders; raises DataError if a folder that is no copy has such a name, too."""
    copied = {each.name.lower(): each for each in repeated if each.parent == top}
    images = (
        path for path in images_below(top) if path.relative_to(top).parts[0] not in {c.name for c in copied.values()}
    )
    if copied and (same := next((p for p in images if _folders_of(p, top) & copied.keys()), None)) is not None:
        name = next(iter(_folders_of(same, top) & copied.keys()))
        raise DataError(
            f"{root.name}/: {_below(root, copied[name])}/ repeats images of the folders beside it, and {_below(root, same)} lies in a folder of the same "
            f"name; remove the copy, then run `tailfill init {shlex.quote(str(root))}` again"
        )
    return {glob.escape(each.name) for each in copied.values()}


def _folders_of(path: Path, top: Path) -> set[str]:
    """Returns the names of the folders between a file and the folder `top`, in lower case."""
    return {part.lower() for part in path.relative_to(top).parts[:-1]}


def _without_images(split: SplitFolders, skip: Skip) -> set[str]:
    """Returns the names of folders beside class folders that hold no images in any split."""
    names = {folder.name for _, top in split.tops for folder in skip.folders(top)}
    empty = {name for name in names if not any(holds_images(top / name) for _, top in split.tops)}
    if not empty:
        return empty
    deeper = {name for _, top in split.tops for path in images_below(top) for name in _folders_of(path, top)}
    return {glob.escape(name) for name in empty if name.lower() not in deeper and is_text(name)}


def _other_files(folders: Sequence[Path], root: Path, skip: Skip) -> list[str]:
    """Returns a note on files in class folders whose names do not end as images do: they count as images, too."""
    found, endings = [], tuple(IMAGE_SUFFIXES)
    for folder in folders:
        for parent, inside, names in os.walk(folder):
            inside[:] = [name for name in inside if not left_behind(name) and not skip.matches(name)]
            others = [name for name in names if not name.lower().endswith(endings)]
            found += [Path(parent, name) for name in others if is_data(name) and not skip.matches(name)]
    if not found:
        return []
    suffixes = sorted({path.suffix.lower() for path in found} - {""})
    pattern = f"*{suffixes[0]}" if suffixes else found[0].name
    return [
        f"{len(found):,} files in class folders are not named as images are, such as {shown(_below(root, min(found)))}, and `prepare` stops at those that are "
        f"none; add them to dataset.skip, e.g. {pattern!r}"
    ]


def _twice(folders: Sequence[Path], root: Path) -> list[str]:
    """Returns a note if nearly all images in class folders are there in two formats: one may be the mask of the other."""
    endings: dict[str, set[str]] = {}
    for folder in folders:
        for path in images_below(folder):
            endings.setdefault(str(path.with_suffix("")), set()).add(path.suffix)
    (pair, number), *_ = Counter(frozenset(each) for each in endings.values()).most_common(1) or [(frozenset(), 0)]
    if len(pair) != 2 or number < LEAST_TWICE * len(endings):
        return []
    first, second = sorted(pair)
    name = shown(f"{Path(next(iter(endings))).relative_to(root).as_posix()}{first}")
    return [
        f"most images are there twice, as {first} and {second}, such as {name}; if one is the mask of the other, or a copy, add it to dataset.skip, e.g. "
        f"'*{second}'"
    ]


def _only_tested(split: SplitFolders, skip: Skip) -> list[str]:
    """Returns a note on classes without training images, each with the training class whose name is like its own."""
    classes = {
        name: {unicodedata.normalize("NFC", folder.name) for folder in _kept(top, skip)} for name, top in split.tops
    }
    train = classes.get("train", set())
    notes = []
    for name, top in split.tops:
        if alone := sorted(classes[name] - train) if name is not None and train else []:
            like = {near: each for each in alone if (near := _near(each, sorted(train - classes[name]))) is not None}
            names = ", ".join(f"{near!r}: {each!r}" for near, each in like.items())
            remedy = f"; if they are named in two ways, set dataset.names: {{{names}}}" if like else ""
            listed = ", ".join(f"{each}/" for each in alone[:8]) + (" …" if alone[8:] else "")
            notes.append(f"{top.name}/ has classes without training images, at which `prepare` stops: {listed}{remedy}")
    return notes


def _near(name: str, others: Sequence[str]) -> str | None:
    """Returns the name among others that begins with a name, or is the beginning of it, or is similar; None if there is none."""
    folded = name.casefold()
    found = [each for each in others if each.casefold().startswith(folded) or folded.startswith(each.casefold())]
    return next(iter(found or difflib.get_close_matches(name, others, n=1)), None)


def _left_out(top: Path) -> set[str]:
    """Returns the names of what lies among class folders and is no image of a class: masks, lists, folders that repeat all others, unlabelled images."""
    skip = set[str]()
    endings = Counter[str]()
    for parent, folders, names in os.walk(top):
        skip |= {name for name in folders if len(folders) > 1 and is_masks(Path(parent, name), folders)}
        if Path(parent) != top:
            endings.update(Path(name).suffix.lower() for name in names if Path(name).suffix.lower() in BESIDE)
            stems = {Path(name).stem for name in names}
            paired = {
                match[0].lower() for stem in stems if (match := OF_MASK.search(stem)) and stem[: match.start()] in stems
            }
            skip |= {f"*{end}*" if end[-1].isdigit() else f"*{end}.*" for end in paired}
    skip |= {f"*{ending}" for ending in endings}
    skip = {re.sub(r"_?[0-9]+\*$", "*", name) for name in skip}
    inside = image_folders(top)
    splits = {split_of(each.name) for each in inside} - {None}
    if "train" in splits and len(splits) > 1:
        for each in inside:
            if split_of(each.name) is None and (_repeats(each, inside) or not _holds_classes(each)):
                skip.add(each.name)
    return skip


def _beside_splits(top: Path, skip: Skip) -> list[Path]:
    """Returns the folders beside split folders that are none themselves, but are named like parts of the data set: `test_simple/`."""
    splits = {each: folder_split(each) for each in _kept(top, skip)}
    if "train" not in splits.values() or len(set(splits.values()) - {None}) < 2:
        return []
    return [each for each, split in splits.items() if split is None and part_of(each.name) is not None]


def _repeats(folder: Path, others: Sequence[Path]) -> bool:
    """Returns whether a folder holds the split folders once more, as an archive that was packed twice does."""
    names = {other.name for other in others if split_of(other.name) is not None}
    return names <= {each.name for each in image_folders(folder)}


def _holds_classes(folder: Path) -> bool:
    inside = image_folders(folder)
    return len(inside) > 1 or (len(inside) == 1 and inside[0].name != folder.name)


def _check_training(root: Path, split: SplitFolders, skip: Skip) -> None:
    """Raises DataError if the training images are of one class and others are not, as in data for finding anomalies."""
    classes = {name: [folder.name for folder in skip.folders(top)] for name, top in split.tops}
    tops = dict(split.tops)
    if len(classes.get("train", ["", ""])) == 1 and any(len(each) > 1 for each in classes.values()):
        other = next(name for name, each in classes.items() if len(each) > 1)
        raise DataError(
            f"{root.name}/: {tops['train'].name}/ holds images of one class only, {classes['train'][0]!r}, and {tops[other].name}/ of {len(classes[other])}; "
            f"to divide those of {tops[other].name}/ anew, run `tailfill init {shlex.quote(str(tops[other]))}`, or move some images of each class into "
            f"{tops['train'].name}/ and run `tailfill init {shlex.quote(str(root))}` again"
        )
    for top in tops.values() if len(tops) == 1 else ():
        folders = [folder.name for folder in skip.folders(top)]
        if any("label" in pattern or "mask" in pattern for pattern in skip.patterns) and len(
            {re.sub(r"[0-9]+", "", name) for name in folders}
        ) == 1 < len(folders):
            raise DataError(
                f"{root.name}/: the images' labels are masks beside them, and the folders {folders[0]}/ to {folders[-1]}/ are numbered, not named by "
                "classes; move the images into a folder per class, or name the classes in a CSV with a row per image"
            )
