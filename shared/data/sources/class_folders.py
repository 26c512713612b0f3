"""Reads a folder per class, or `train/`, `val/`, `test/` with a folder per class in each."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

import numpy as np

from shared.config.dataset import FolderSource
from shared.data.problems import Problems
from shared.data.schema import LabelGroup, Labels, LabelSchema
from shared.data.source import ImageListing, SourceImage, SplitName
from shared.data.sources.class_lists import divided, table_images
from shared.data.sources.file_names import read_named
from shared.data.sources.members import images_below, member_names, subfolder_names
from shared.data.sources.paths import PathCheck, existing_root
from shared.data.sources.split_words import part_of, split_of, without_numbers
from shared.errors import ConfigError, DataError
from shared.names import name_fault, part_fault, path_below, shown

PHOTOGRAPHS = frozenset({".jpg", ".jpeg", ".png", ".webp"})
"""Lists the endings of files beside class folders that are reported, as images that were forgotten there; others may be icons and drawings."""
MOST_COMPARED = 500  # files of a folder that are compared with those of another one
CLASSES_OR_BOXES = {"images", "annotations"}
OF_DETECTION = ({"images", "labels"}, CLASSES_OR_BOXES, {"jpegimages", "annotations"})
"""Lists names of folders, in lower case, that together hold images with boxes: COCO's, YOLO's and Pascal VOC's, not classes."""


@dataclass(frozen=True)
class SplitFolders:
    """Holds the folders that hold class folders."""

    tops: Sequence[tuple[SplitName | None, Path]]
    """Lists them, each with its split; one without a split if there are no split folders."""
    unlabelled: Sequence[Path]
    """Lists split folders that hold images, but no class folders: their images have no labels."""


def holds_class_images(data: Path) -> bool:
    """Returns whether there are images in folders of `data`, at any depth."""
    return data.is_dir() and any(path.parent != data for path in images_below(data))


def read_folder(config: FolderSource, root: Path, problems: Problems) -> ImageListing:
    """Lists the images of all class folders, at any depth; the classes are the folders' names, sorted.

    Every file of the data set in a class folder counts as an image. Raises DataError if there are fewer than two class folders, or if the
    folders may be read in two ways.
    """
    root = existing_root(root)
    if config.by == "name":
        return read_named(config, root, problems)
    inside_root = path_below(root, config.folder, "dataset.folder", ConfigError) if config.folder != "." else root
    skip = Skip(config.skip)
    split = split_folders(inside_root, problems, skip)
    if config.tables:
        split = replace(split, tops=[(name, top) for name, top in split.tops if name not in config.tables])
    folders = [(name, folder) for name, top in split.tops for folder in _chosen(config, root, top, problems, skip)]
    keys = {
        folder: folder.relative_to(top).as_posix()
        for _, top in split.tops
        for _, folder in folders
        if folder.is_relative_to(top)
    }
    names = _class_names(config, list(keys.values()))
    classes = tuple(sorted(set(names.values())))
    if len(classes) < 2:
        raise DataError(
            f"{root.name}/: holds {len(classes)} class folders{''.join(f' ({shown(name)})' for name in classes)}; there must be a folder per class (or train/, "
            "val/, test/ with a folder per class in each), at least two, or a CSV with a row per image that names its class (columns `path` and `label`)"
        )
    schema = LabelSchema(groups=(LabelGroup(name=config.group, classes=classes),))
    paths = PathCheck(root, problems)
    images = [
        image
        for name, folder in folders
        for image in _class_images(root, name, folder, _one_hot(classes, names[keys[folder]]), paths, problems, skip)
    ]
    class_where = {f"{config.group}/{names[keys[folder]]}": f"{folder.relative_to(root)}/" for _, folder in folders}
    without = {folder_split(folder): folder for folder in split.unlabelled}
    listed: tuple[str, ...] = ()
    for name, table in config.tables.items():
        classes_of = {key: _one_hot(classes, label) for key, label in names.items()}
        labelled = table_images(root, without.get(name), table, name, classes_of, paths, problems)
        images += labelled
        beside = sum(1 for _ in images_below(without[name])) - len(labelled) if name in without else 0
        if beside > 0:
            listed += (
                f"{beside:,} images in {without[name].relative_to(root)}/ are on no line of {table}, and were left out.",
            )
    if config.lists:
        images, left_out = divided(images, root, config.lists)
        listed += left_out
    notes = listed + tuple(
        f"The images in {folder.relative_to(root)}/ are in no class folder, so they have no labels and were left out."
        for name, folder in without.items()
        if name not in config.tables
    )
    return ImageListing(schema, images, len(images), notes=notes, class_where=class_where)


def check_folders(config: FolderSource, root: Path, why: str) -> None:
    """Raises DataError that says `why` if class folders cannot be read."""
    try:
        read_folder(config, root, Problems("skip"))
    except DataError as error:
        raise DataError(why) from error


class Skip:
    """Says which names of files and folders are left out, by patterns."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self.patterns = [pattern.lower() for pattern in patterns]

    def members(self, folder: Path) -> list[str]:
        """Returns the names of the members of a folder that are not left out."""
        return [name for name in member_names(folder) if not self.matches(name)]

    def folders(self, folder: Path) -> list[Path]:
        """Returns the folders in a folder that are not left out."""
        return [folder / name for name in subfolder_names(folder) if not self.matches(name)]

    def matches(self, name: str) -> bool:
        """Returns whether a name is left out."""
        return any(fnmatchcase(name.lower(), pattern) for pattern in self.patterns)


def split_folders(root: Path, problems: Problems, skip: Skip | None = None) -> SplitFolders:
    """Returns the folders that hold class folders. What looks like a split is a split or an error, never a class.

    The words are those of `split_words.py`. A folder around all others is passed over, and so is one in a split folder that has the same name, or says
    the same split. Raises DataError if folders may be splits or classes.
    """
    skip = skip or Skip()
    root = _unwrapped(root)
    folders = skip.folders(root)
    check_detection(root, folders)
    found = {folder: split for folder in folders if (split := folder_split(folder)) is not None}
    if not found or _is_class_train(found, folders):
        _check_parts(root, folders)
        return SplitFolders([(None, root)], [])
    splits = list(found.values())
    if len(set(splits)) < len(splits):
        raise DataError(
            f"{root.name}/: two folders name one split, got {[f.name for f in found]}; keep one, or join them"
        )
    if "train" not in splits or len(splits) < 2:
        (folder, split), *_ = found.items()
        raise DataError(
            f"{root.name}/: the folder {folder.name}/ is named like the {split} split, but there is no {'train' if 'train' not in splits else 'val or test'} "
            "folder beside it; if it is a class, rename it, e.g. to the plural; if it is a split, add the other, or name the folder itself, to have it split"
        )
    for folder in folders:
        if folder not in found and any(images_below(folder)):
            where = f"{_named(root, folder)}/"
            problems.add("no split", where, "is a folder beside the split folders; move its images into one of them")
    tops, unlabelled = [], []
    for folder, split in found.items():
        top = _unwrapped_split(folder, split)
        check_detection(top, Skip().folders(top))
        if skip.folders(top) and not _holds_only_images_folder(top):
            tops.append((split, top))
        else:
            unlabelled.append(folder)
    if "train" not in [split for split, _ in tops]:
        raise DataError(
            f"{root.name}/: {unlabelled[0].name}/ holds no class folders; put its images into a folder per class, or name a CSV with their labels"
        )
    return SplitFolders(tops, unlabelled)


def _holds_only_images_folder(top: Path) -> bool:
    """Returns whether the only folder in a split folder is called `images`, so that it is no class."""
    folders = subfolder_names(top)
    return [name.lower() for name in folders] == ["images"] and not _holds_folders(top / folders[0])


def folder_split(folder: Path) -> SplitName | None:
    """Returns the split that a folder's name says. A number may follow it if the folder holds folders, as COCO's `val2017`; else it may be a class."""
    split = split_of(folder.name)
    if split is None and _holds_folders(folder):
        split = split_of(without_numbers(folder.name))
    return split


def _check_parts(root: Path, folders: Sequence[Path]) -> None:
    """Raises DataError if folders that hold folders are named like parts of a data set: `my_train` and `my_test`, or `fold1` and `fold2`."""
    parts = {
        folder: part for folder in folders if (part := part_of(folder.name)) is not None and _holds_folders(folder)
    }
    if len(set(parts.values())) > 1:
        first, second, *_ = (folder.name for folder in parts)
        raise DataError(
            f"{root.name}/: {first}/ and {second}/ are named like parts of a data set and hold folders; name them train/, val/ or test/ if they are "
            "splits, join them if they are folds, and if they are classes, rename them"
        )


def _holds_folders(folder: Path) -> bool:
    return bool(subfolder_names(folder))


def _is_class_train(found: dict[Path, SplitName], folders: Sequence[Path]) -> bool:
    """Returns whether the only folder with a split's name is a class: a data set of vehicles may have a class `train`.

    It holds images and no folders, as the others do.
    """
    (folder, *others) = found
    return not others and folder.name.lower() == "train" and len(folders) > 1 and not _holds_folders(folder)


def _unwrapped(folder: Path) -> Path:
    """Returns the folder in which there is more than one folder, or images: archives often have another folder around all others."""
    while (
        len(inside := member_names(folder)) == 1
        and (folder / inside[0]).is_dir()
        and not (folder / inside[0]).is_symlink()
    ):
        within = folder / inside[0]
        if not subfolder_names(within):
            break
        folder = within
    return folder


def _unwrapped_split(folder: Path, split: SplitName) -> Path:
    inside = member_names(folder)
    if (
        len(inside) == 1
        and (folder / inside[0]).is_dir()
        and (inside[0] == folder.name or split_of(inside[0]) == split)
    ):
        return folder / inside[0]
    return folder


def check_detection(root: Path, folders: Sequence[Path]) -> None:
    """Raises DataError if the folders in `root` hold images with boxes or masks, not classes."""
    names = {folder.name.lower(): folder for folder in folders}
    for kind in OF_DETECTION:
        if not kind <= names.keys() or (kind == CLASSES_OR_BOXES and _are_classes(names)):
            continue
        if _name_the_same(*(names[name] for name in sorted(kind))):
            raise DataError(
                f"{root.name}/: the folders {sorted(kind)} hold images with boxes or masks, not classes; there must be a folder per class, a CSV with "
                "a row per image, or boxes with the names of their classes, as YOLO's data.yaml or COCO's JSON has them"
            )


def _are_classes(names: Mapping[str, Path]) -> bool:
    """Returns whether folders of images lie in class folders, and their boxes in `annotations/` in folders of the same names, most of them."""
    images, boxes = (set(subfolder_names(_unwrapped(names[name]))) for name in ("images", "annotations"))
    numbered = len({without_numbers(name) for name in images}) == 1
    return len(images) > 1 and 2 * len(images & boxes) > len(images) and not numbered and not any(map(part_of, images))


def _name_the_same(*folders: Path) -> bool:
    """Returns whether a file in each of the folders is named alike, but for its ending; of an empty folder nothing is known."""
    stems = [{path.stem for path in islice(folder.rglob("*"), MOST_COMPARED) if path.is_file()} for folder in folders]
    return not all(stems) or bool(set.intersection(*stems)) or not any(_holds_folders(folder) for folder in folders)


def _chosen(config: FolderSource, root: Path, top: Path, problems: Problems, skip: Skip) -> Iterator[Path]:
    """Yields the class folders: those that the study names by paths of several folders, if it names any, else those in `top`."""
    if any("/" in key for key in config.names):
        yield from (top / key for key in config.names if name_fault(key) is None and (top / key).is_dir())
    else:
        yield from _class_folders(root, top, problems, skip)


def _class_folders(root: Path, top: Path, problems: Problems, skip: Skip) -> Iterator[Path]:
    for name in skip.members(top):
        if (top / name).is_dir():
            if (fault := part_fault(name)) is None:
                yield top / name
            else:
                problems.add(
                    "unusable path",
                    f"{_named(root, top)}/",
                    f"the name of the class folder {shown(name)} {fault}; rename it",
                )
        elif Path(name).suffix.lower() in PHOTOGRAPHS:
            problems.add("no class", f"{top.name}/{name}", "is an image outside the class folders; move it into one")


def _class_names(config: FolderSource, folders: Sequence[str]) -> dict[str, str]:
    """Maps folder names to class names: those that the study says, else themselves, but for names that differ in their Unicode form alone, which are one class.

    Such a set was unpacked on a Mac in part, which writes é as two characters.
    """
    forms: dict[str, set[str]] = {}
    for name in folders:
        forms.setdefault(unicodedata.normalize("NFC", name), set()).add(name)
    found = {name: composed if len(names) > 1 else name for composed, names in forms.items() for name in names}
    return {folder: config.names.get(folder, name) for folder, name in found.items()}


def _one_hot(classes: Sequence[str], name: str) -> Labels:
    labels = np.zeros(len(classes), np.int8)
    labels[classes.index(name)] = 1
    return labels


def _class_images(
    root: Path,
    split: SplitName | None,
    folder: Path,
    labels: Labels,
    paths: PathCheck,
    problems: Problems,
    skip: Skip,
) -> Iterator[SourceImage]:
    for file in _files(root, folder, problems, skip):
        relative = file.relative_to(root).as_posix()
        if (checked := paths.check(relative, relative)) is not None:
            yield SourceImage(checked[0], relative, checked[1], labels, split)


def _files(root: Path, folder: Path, problems: Problems, skip: Skip) -> Iterator[Path]:
    """Yields all files below a class folder, in order; linked folders are reported, not followed (they may leave the root, or form a loop)."""
    if folder.is_symlink():
        problems.add("linked folder", _named(root, folder), "is a link to a folder; copy it here")
        return
    for name in skip.members(folder):
        if (folder / name).is_dir():
            yield from _files(root, folder / name, problems, skip)
        else:
            yield folder / name


def _named(root: Path, folder: Path) -> str:
    return folder.relative_to(root).as_posix() if folder != root and folder.is_relative_to(root) else folder.name
