"""Reads lists beside class folders: which images are in a split, and the classes of images that are in no class folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from shared.data.problems import Problems
from shared.data.schema import Labels
from shared.data.source import SourceImage, SplitName
from shared.data.sources.members import images_below, is_image_name
from shared.data.sources.paths import PathCheck
from shared.data.sources.text_file import read_text_file
from shared.errors import DataError
from shared.names import path_below, shown

MOST_BYTES = 1 << 28  # of one list


def divided(
    images: list[SourceImage], root: Path, lists: Mapping[SplitName, str]
) -> tuple[list[SourceImage], tuple[str, ...]]:
    """Returns the images that lists name, with their splits, and a note on the others.

    A line names an image by its path, or by the end of it, with or without its ending. Raises DataError if two lists name one image, or if they name none.
    """
    splits = read_lists(root, lists, listed_name)
    said = [(image, _split(image.path, splits)) for image in images]
    found = [replace(image, split=part) for image, part in said if part is not None]
    if not found:
        raise DataError(f"{', '.join(lists.values())}: name no image below {root.name}/; correct the paths")
    left = len(images) - len(found)
    return found, (f"{left:,} images are in no list of a split, and were left out.",) if left else ()


def read_lists(root: Path, lists: Mapping[SplitName, str], name_of: Callable[[str], str]) -> dict[str, SplitName]:
    """Returns the split of each name in lists of images; `name_of` gives that in a line, blank for none. Raises DataError if two lists have one name."""
    splits: dict[str, SplitName] = {}
    for split, file in lists.items():
        text = read_text_file(path_below(root, file, "dataset.lists", DataError), file, MOST_BYTES)
        for number, line in enumerate(text.split("\n"), 1):
            name = name_of(line)
            if name and splits.setdefault(name, split) != split:
                raise DataError(
                    f"{file} line {number}: {shown(name)} is listed for {splits[name]}, too; keep it in one list"
                )
    return splits


def listed_name(line: str) -> str:
    """Returns the path in a line of a list, without its ending and what it begins with; what follows a blank is not part of it if it follows an ending."""
    name = line.strip().replace("\\", "/")
    first = name.split(None, 1)[0] if name else ""
    name = first if is_image_name(first) else name
    name = name.removeprefix("./").strip("/")
    return str(PurePosixPath(name).with_suffix("")) if is_image_name(name) else name


def _split(path: str, splits: Mapping[str, SplitName]) -> SplitName | None:
    parts = PurePosixPath(path).with_suffix("").parts
    return next((split for at in range(len(parts)) if (split := splits.get("/".join(parts[at:]))) is not None), None)


def table_images(
    root: Path,
    folder: Path | None,
    file: str,
    split: SplitName,
    labels: Mapping[str, Labels],
    paths: PathCheck,
    problems: Problems,
) -> list[SourceImage]:
    """Returns the images that a text file labels, whose lines begin with the name of an image and the name of a class folder.

    The images lie in a folder, or near the file if that is None. The first line may be a header.
    """
    path = path_below(root, file, "dataset.tables", DataError)
    near = NearImages(folder or path.parent)
    images = []
    for number, line in enumerate(read_text_file(path, file, MOST_BYTES).split("\n"), 1):
        cells, where = table_cells(line), f"{file} line {number}"
        if not cells:
            continue
        image = near.find(cells[0])
        label = labels.get(cells[1]) if len(cells) > 1 else None
        if number == 1 and image is None and label is None:
            continue
        if image is None or label is None:
            message = f"must name an image below {(folder or path.parent).name}/ and a class folder, got {shown(line.strip())}"
            problems.add("label outside its group" if image else "missing file", where, message)
        elif (checked := paths.check(image.relative_to(root).as_posix(), where)) is not None:
            images.append(SourceImage(checked[0], where, checked[1], label, split))
    return images


class NearImages:
    """Finds the images below a folder by their names, with or without the ending and the folders before it."""

    def __init__(self, folder: Path) -> None:
        self._found: dict[str, Path | None] = {}
        for path in images_below(folder):
            for name in (path.name, path.stem):  # of a name that two images have, neither is meant
                self._found[name] = None if name in self._found else path

    def find(self, cell: str) -> Path | None:
        """Returns the image that a cell names; None if there is none, or if there are several."""
        name = PurePosixPath(cell.replace("\\", "/"))
        return self._found.get(name.name) or self._found.get(name.stem)


def table_cells(line: str) -> list[str]:
    """Returns the words of a line, between blanks and commas."""
    return line.replace(",", " ").split()
