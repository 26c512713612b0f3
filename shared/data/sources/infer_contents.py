"""Looks at what class folders hold, for `tailfill init`: masks, a second copy of the folders beside them, splits, or the classes themselves."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.data.source import SPLITS
from shared.data.sources.class_folders import Skip
from shared.data.sources.members import holds_images, images_below, is_image_name, member_names, subfolder_names
from shared.data.sources.split_words import part_of, split_of, without_numbers
from shared.errors import DataError

MASKS = frozenset({
    "mask", "masks", "ground_truth", "groundtruth", "gt", "trimaps", "segmentation", "segmentations", "segmentationclass", "segmentationobject",
})  # fmt: skip
"""Names folders, in lower case, whose images say which pixels of other images belong to something."""
MASK_WORDS = frozenset({"masks", "gt", "groundtruth", "trimaps", "segmentations"})
"""Lists the last words of longer names of such folders: `lung masks` beside `images`."""
WORN = re.compile(r"(?<![a-z])(no|not|non|with|without|incorrect\w*)[\W_]*(\w+[\W_]+)?masks?(?![a-z])", re.IGNORECASE)
"""Matches the names of classes of people who wear a mask, or none."""
IMAGES = frozenset({"image", "images", "img", "imgs", "photo", "photos", "rgb", "original", "originals"})
"""Names folders, in lower case, that hold the images of such masks."""
VIEWS = frozenset({
    "left", "right", "front", "back", "rear", "side", "top", "bottom", "up", "down", "upper", "lower", "frontal", "lateral", "near", "far", "inside",
    "outside", "day", "night", "light", "dark", "view",
})  # fmt: skip
"""Lists words that say from where or when something was photographed, not what it is."""
SETS = frozenset({"dataset", "datasets"})
"""Lists words in the names of folders that are data sets, not classes."""
MOST_COMPARED = 500  # files of a folder whose names are compared with those of another one
LEAST_SAME = 0.9  # of the names in a folder of other versions of images, that these have
MOST_READ = 8  # files of a folder that may be a copy, whose content is compared
MOST_NAMED = 16  # folders in an error


def image_folders(folder: Path) -> list[Path]:
    """Returns the folders in a folder that hold images at any depth, without those of masks."""
    names = subfolder_names(folder)
    return [folder / name for name in names if not is_masks(folder / name, names) and holds_images(folder / name)]


def is_masks(folder: Path, beside: Collection[str]) -> bool:
    """Returns whether a folder, beside others, is named as one of masks; `mask` is a class beside `no_mask`."""
    name = folder.name.lower()
    if WORN.search(name):
        return False
    if name in MASKS:
        return name != "mask" or not any(map(WORN.search, beside))
    *words, last = re.split(r"[\W_]+", name)
    if last not in MASK_WORDS:
        return False
    images = [other for other in beside if other.lower() in IMAGES or re.split(r"[\W_]+", other.lower()) == words]
    return any(_stems(folder) & _stems(folder.parent / other) for other in images)


def _stems(folder: Path) -> set[str]:
    return {Path(name).stem for name in member_names(folder)[:MOST_COMPARED] if is_image_name(name)}


def copies(folders: Sequence[Path]) -> list[Path]:
    """Returns the folders that hold nothing but the images of those beside them once more, as an archive that was packed twice does."""
    named = {folder.name: folder for folder in folders}
    return [folder for folder in folders if part_of(folder.name) is None and _is_copy(folder, named)]


def _is_copy(folder: Path, named: dict[str, Path]) -> bool:
    """Returns whether all images in a folder are also in the folder beside it that is called as the one in it, in which they are."""
    inside = _within(folder)
    while not {each.name for each in inside} <= named.keys() - {folder.name}:
        if len(inside) != 1:
            return False
        inside = _within(inside[0])
    images, compared = set(images_below(folder)), 0
    for each in inside:
        here, there = _unwrapped(each), _unwrapped(named[each.name])
        for image in images_below(here):
            other = there / image.relative_to(here)
            if not (image.is_file() and other.is_file()) or image.stat().st_size != other.stat().st_size:
                return False
            if compared < MOST_READ and image.read_bytes() != other.read_bytes():
                return False
            compared += 1
            images.remove(image)
    return not images


def parts_without_labels(folders: Sequence[Path]) -> list[Path]:
    """Returns the folders that hold images in no class folders, beside one folder alone that holds folders: `test/` beside `photos/cat/` and `photos/dog/`.

    They must be named like parts of a data set, or hold other versions of images in class folders, which have the same names: `resized/` beside `images/`.
    Those beside a folder that is called as a split are split folders themselves.
    """
    held = [_look(folder, Skip()) for folder in folders]
    deep = [each for each in held if len(each.inside) > 1]
    if len(deep) != 1 or split_of(deep[0].folder.name) is not None:
        return []
    flat = [each.folder for each in held if each.is_flat]
    if len(flat) < len(held) - 1:
        return []
    if not all(part_of(each.name) is not None for each in flat):
        stems = [path.stem for path in images_below(deep[0].top)]
        flat = [each for each in flat if part_of(each.name) is not None or _are_versions(each, stems)]
    return flat if len(flat) == len(held) - 1 else []


def _are_versions(folder: Path, stems: Sequence[str]) -> bool:
    """Returns whether the images in a folder are about as many as others, given by their names without endings, and nearly all called as these.

    The names must tell the images apart: those that cameras and programs number in each folder do not.
    """
    names, others = [path.stem for path in images_below(folder)], set(stems)
    same = sum(name in others and not name.isdecimal() for name in names)
    return len(others) >= LEAST_SAME * len(stems) and same >= LEAST_SAME * max(len(names), len(others))


@dataclass(frozen=True)
class _Held:
    """Holds what is in a folder that looks like a class."""

    folder: Path
    top: Path
    """Gives the folder in it, or itself, that holds several folders, or images."""
    inside: Sequence[str]
    """Names the folders in `top` that hold images."""

    @property
    def is_flat(self) -> bool:
        """Returns whether it holds images, and no folders but one that is called as it is."""
        return not self.inside or (
            len(self.inside) == 1
            and (self.inside[0].lower() == self.folder.name.lower() or part_of(self.inside[0]) is not None)
        )

    @property
    def splits(self) -> list[str]:
        """Names its split folders, one for training and others; none if it lacks one of both."""
        found = {name: split_of(name) or split_of(without_numbers(name)) for name in self.inside}
        said = set(found.values()) - {None}
        return [name for name, split in found.items() if split] if "train" in said and len(said) > 1 else []


def check_contents(root: Path, folders: Sequence[Path], skip: Skip) -> list[str]:
    """Returns what a person should check about class folders that hold folders.

    Raises DataError, which names the folders to read instead, if they hold splits or seem to be parts, versions or patients of a data set, each of
    which holds the classes.
    """
    held = [_look(folder, skip) for folder in folders]
    _check_splits(root, held)
    _check_sets(root, held)
    _check_parts(root, held)
    parts = {part_of(folder.name) for folder in folders}
    if None in parts or len(parts) < 2:  # else whoever reads them says so
        _check_same(root, held)
    _check_letters(root, held, skip)
    deep = [each for each in held if len(each.inside) > 1]
    if not deep:
        return []
    listed = ", ".join(f"{each.folder.name}/ ({_names(each.inside, 3)})" for each in deep[:3])
    return [
        f"class folders hold folders, whose images all count as the outer folder's class: {listed}{' …' if deep[3:] else ''}; if the inner folders are "
        f"the classes, move them beside each other, or run {_commands([each.top for each in deep[:2]])}; if they are patients or the like, write a CSV "
        "with the columns path, label and patient, so that none is in two splits"
    ]


def check_wrapped(root: Path, tops: Sequence[Path], skip: Skip) -> None:
    """Raises DataError if a split folder holds one folder only, which holds the class folders under a name that does not say the split."""
    inside = {top: [each for each in _within(top) if not skip.matches(each.name)] for top in tops}
    moved = {top: each[0] for top, each in inside.items() if len(each) == 1 and len(_within(each[0], skip)) > 1}
    if not moved:
        return
    top, folder = next(iter(moved.items()))
    moves = " && ".join(f"mv {shlex.quote(str(within))}/* {shlex.quote(str(top))}" for top, within in moved.items())
    raise DataError(
        f"{root.name}/: {top.name}/ holds images in one folder only, {folder.name}/, which holds folders; if these are the classes, run "
        f"`{moves} && tailfill init {shlex.quote(str(root))}`"
    )


def check_parts_of_data(root: Path, names: Collection[str], tables: Sequence[str]) -> None:
    """Raises DataError if all class folders, or most and for different splits, are named like parts of a data set: their images have no labels then."""
    parts = [part for name in names if (part := part_of(name)) is not None]
    if len(names) < 2 or (len(parts) < len(names) and (2 * len(parts) < len(names) or len(set(parts)) < 2)):
        return
    table = f"; `tailfill init {shlex.quote(str(root / tables[0]))}` says what that table lacks" if tables else ""
    raise DataError(
        f"{root.name}/: {_names(sorted(names), 4)} are named like parts of a data set, not like classes, and nothing says the labels of their images; put "
        f"them into a folder per class, or name the classes in a CSV with a row per image{table}; if two folders hold the same images, keep one; if they are "
        "classes, rename them"
    )


def _look(folder: Path, skip: Skip) -> _Held:
    top = folder
    while len(inside := _within(top, skip)) == 1 and _within(inside[0], skip):
        top = inside[0]
    return _Held(folder, top, [each.name for each in inside])


def _within(folder: Path, skip: Skip | None = None) -> list[Path]:
    inside = [each for each in image_folders(folder) if not each.is_symlink()]
    return [each for each in inside if skip is None or not skip.matches(each.name)]


def _unwrapped(folder: Path) -> Path:
    """Returns the folder in a folder that holds several folders, or images."""
    while len(inside := _within(folder)) == 1 and not any(map(is_image_name, member_names(folder))):
        folder = inside[0]
    return folder


def _check_splits(root: Path, held: Sequence[_Held]) -> None:
    """Raises DataError if class folders hold split folders: each is a data set of its own, or the classes lie around the splits."""
    sets = [each for each in held if each.splits]
    if not sets:
        return
    first, flat = sets[0], [each.folder.name for each in held if each.is_flat and part_of(each.folder.name) is None]
    holds = f"{root.name}/: {first.top.relative_to(first.folder.parent)}/ holds {_names(first.splits, 3)}"
    if not any(_within(each.top / name) for each in sets for name in each.splits):
        train, name = first.splits[0], first.folder.name
        raise DataError(
            f"{holds}, which hold images and no folders; the splits must be the outer folders: move {name}/{train}/ to {train}/{name}/ and so on, then run "
            f"`tailfill init {shlex.quote(str(root))}` again"
        )
    others = [each.folder for each in held if not each.splits and len(each.inside) > 1]
    beside = f"; if {_names(flat, 3)} are the classes, move {first.folder.name}/ elsewhere" if len(flat) > 1 else ""
    raise DataError(
        f"{holds}, so it is a data set of its own, not a class; run {_commands([*(each.folder for each in sets), *others])}{beside}"
    )


def _check_sets(root: Path, held: Sequence[_Held]) -> None:
    """Raises DataError if all folders hold folders and are called data sets: `Grading_dataset` and `Classification_dataset`."""
    called = [each.folder for each in held if SETS & set(re.split(r"[\W_]+", each.folder.name.lower()))]
    if len(held) > 1 and len(called) == len(held) and all(len(each.inside) > 1 for each in held):
        raise DataError(
            f"{root.name}/: {_names([folder.name for folder in called], 4)} are called data sets and hold folders; to read one of them, run "
            f"{_commands(called)}; if they are classes, rename them"
        )


def _check_parts(root: Path, held: Sequence[_Held]) -> None:
    """Raises DataError if a folder that is named like a part of a data set holds images beside folders of classes, or if the parts lie in other folders."""
    parts = {
        each.folder: each
        for each in held
        if part_of(each.folder.name) is not None and split_of(each.folder.name) is None
    }
    flat = [each for each in parts.values() if each.is_flat]
    deep = [each.folder for each in held if len(each.inside) > 1]
    if flat and deep:
        name = flat[0].folder.name
        raise DataError(
            f"{root.name}/: {name}/ is named like a part of a data set and holds images in no class folders, while {_names([d.name for d in deep], 3)} hold "
            f"folders; to read these as the classes, run {_commands(deep)}; if {name}/ is a class, rename it"
        )
    said = [part_of(folder.name) for folder in parts]
    wrapped = any(each.top != each.folder for each in parts.values())
    if wrapped and not flat and len(parts) == len(held) == len(set(said)) > 1 and set(said) <= set(SPLITS):
        moves = " && ".join(
            f"mv {shlex.quote(str(each.top))} {shlex.quote(str(folder.parent / str(part)))}"
            for part, (folder, each) in zip(said, parts.items(), strict=True)
        )
        raise DataError(
            f"{root.name}/: {_names([folder.name for folder in parts], 3)} are named like parts of a data set and hold folders; if they are splits, run "
            f"`{moves} && tailfill init {shlex.quote(str(root))}`; if they are classes, rename them"
        )


def _check_same(root: Path, held: Sequence[_Held]) -> None:
    """Raises DataError if folders hold folders of the same names, which seem to be the classes then, or of the names of those beside them."""
    deep = [each for each in held if len(each.inside) > 1]
    names = {each.folder.name for each in held}
    again = next(
        (
            each
            for each in deep
            if split_of(each.folder.name) is None and set(each.inside) <= names - {each.folder.name}
        ),
        None,
    )
    if again is not None:
        raise DataError(
            f"{root.name}/: {again.folder.name}/ holds folders of the names of those beside it, {_names(again.inside, 3)}, with other images in them; if it "
            f"is another version, run {_commands([again.folder])}, or move it elsewhere; if it has more images of the same classes, move them into the "
            f"folders beside it; then run `tailfill init {shlex.quote(str(root))}` again"
        )
    count = Counter(name for each in deep for name in each.inside)
    same = [name for name, number in count.items() if 2 * number > len(deep)]
    words = {word for name in same for word in re.split(r"[\W_]+", name.lower())}
    if len(deep) < 2 or 2 * len(deep) < len(held) or len(same) < 2 or words <= VIEWS:
        return
    if _numbered(same) and not _numbered(names):
        return
    folders = [each.folder for each in deep]
    raise DataError(
        f"{root.name}/: {_names([each.name for each in folders], 3)} hold folders of the same names, {_names(same, 4)}, which seem to be the classes, in "
        f"several versions, domains or patients; to read one of them, run {_commands(folders)}; to read all, name the images in a CSV with the columns path "
        f"and label (and patient, if each is one); if {folders[0].name}/ is a class itself, move the images in its folders into it, and likewise the others"
    )


def _numbered(names: Collection[str]) -> bool:
    """Returns whether names differ in numbers alone, as `10253` and `10254`, or `scan1` and `scan2`, do."""
    return len({re.sub(r"[0-9]+", "", name) for name in names}) == 1


def _check_letters(root: Path, held: Sequence[_Held], skip: Skip) -> None:
    """Raises DataError if the folders are letters around class folders whose names begin with them."""
    letters = [each.folder for each in held]
    if len(letters) < 2 or not all(len(each.name) == 1 and each.name.isalpha() for each in letters):
        return
    inside = [(each.name.lower(), within.name.lower()) for each in letters for within in _within(each, skip)]
    if {letter for letter, _ in inside} == {each.name.lower() for each in letters} and all(
        name.startswith(letter) for letter, name in inside
    ):
        top = shlex.quote(str(letters[0].parent))
        raise DataError(
            f"{root.name}/: {letters[0].name}/ to {letters[-1].name}/ are letters around class folders, not classes; list these in a text file, then run "
            rf"init again: `(cd {top} && find . -mindepth 3 -type f | sed 's|^\./||; s|/[^/]*$||' | sort -u > classes.txt) && tailfill init {top}`"
        )


def _names(names: Sequence[str], most: int) -> str:
    """Returns the first names as those of folders, and that there are more."""
    return ", ".join(f"{name}/" for name in names[:most]) + (f" … ({len(names)} in all)" if names[most:] else "")


def _commands(folders: Sequence[Path]) -> str:
    """Returns the commands that read each of the folders."""
    most = len(folders) if len(folders) <= MOST_NAMED else 3
    more = f" or another of the {len(folders)}" if folders[most:] else ""
    return " or ".join(f"`tailfill init {shlex.quote(str(folder))}`" for folder in folders[:most]) + more
