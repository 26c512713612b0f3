"""Says which files of a data set are of a kind that is not read, and what to do about them, for `tailfill init`."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from shared.data.sources.members import holds_images, left_behind
from shared.errors import DataError

ARCHIVE = re.compile(r"\.(zip|tar|tgz|tar\.(?:gz|bz2|xz)|7z|rar)$", re.IGNORECASE)
MOST_FILES = 10_000  # that are looked at for their kind
MOST_TEXTS = 50  # of them, that are opened
START = 1 << 16  # bytes of a file of text that say its form
ARRAYS = (
    "save images and labels as one NumPy archive with the arrays train_images, train_labels and so on (`numpy.savez`)"
)
TABLE = "write a CSV with a row per image (columns `path` and `label`)"
KINDS = {
    r"\.(dcm|dicom)": ("DICOM", "convert them to PNG, and keep their names"),
    r"\.nii(\.gz)?": ("NIfTI", "convert them to PNG, and keep their names"),
    r"\.(svs|ndpi|mrxs)": ("whole slides", "cut them into tiles, and save these as PNG"),
    r"\.(h5|hdf5)": ("HDF5", ARRAYS),
    r"\.mat": ("MATLAB data", ARRAYS),
    r"\.npy": ("NumPy arrays without names", ARRAYS),
    r"\.(pkl|pickle)": ("pickled objects", ARRAYS),
    r"\.bin": ("binary data", ARRAYS),
    r"\.(lmdb|mdb)": ("LMDB", "save the images as PNG, in a folder per class"),
    r"\.(tfrecords?|tfrec)(-\d+-of-\d+)?": ("TFRecord", "save the images as PNG, in a folder per class"),
}
"""Maps the ends of names to formats of images that are not read, with what to do."""
OTHER_ARRAYS = {r"\.npz": ("NumPy archives whose arrays have no names that say what they are", ARRAYS)}
"""Maps the end of the names of archives that are read if their arrays are called so."""
LABELS = {
    r"\.mat": ("MATLAB data", TABLE),
    r"\.xlsx?": ("an Excel file", "save it as CSV (Excel: `CSV UTF-8`)"),
    r"\.ods": ("an OpenDocument file", "save it as CSV in UTF-8"),
    r"\.(pkl|pickle)": ("pickled objects", TABLE),
    r"\.npy": ("NumPy arrays", TABLE),
}
"""Maps the ends of names to formats of labels that are not read, with what to do."""
TEXTS = (
    (".xml", rb"<annotations>.*<image\b", "CVAT's XML", "export them from CVAT as COCO, YOLO or Pascal VOC"),
    (".json", rb'"shapes"\s*:\s*\[', "LabelMe's JSON", "convert them to COCO or Pascal VOC"),
    (".json", rb'"from_name"\s*:', "Label Studio's JSON", "export them as CSV, or as COCO if they are boxes"),
)
"""Lists endings, what the files of text hold, what they are, and what to do."""


def check_file(data: Path) -> None:
    """Raises DataError if a file is an archive or of a format that is not read."""
    if ARCHIVE.search(data.name):
        raise DataError(f"{data}: is an archive; {_unpack(data)}")
    if (found := _kind(data.name, KINDS) or _kind(data.name, LABELS)) is not None:
        raise DataError(f"{data}: holds {found[0]}, which is not read; {found[1]}, and run `tailfill init` with that")


def check_images(root: Path) -> None:
    """Raises DataError if a folder holds no images, but archives or files of another kind that may hold them."""
    if holds_images(root):
        return
    files = list(islice(_files(root), MOST_FILES))
    for path in files:
        if (found := _kind(path.name, KINDS | OTHER_ARRAYS)) is not None:
            raise DataError(
                f"{root.name}/: holds no images but {found[0]} ({path.relative_to(root)}), which is not read; {found[1]}"
            )
    for path in files:
        if ARCHIVE.search(path.name):
            raise DataError(
                f"{root.name}/: holds no images but an archive ({path.relative_to(root)}); {_unpack(path, root)}"
            )


def unread_labels(root: Path) -> str | None:
    """Returns what to do about the file that may hold the labels of images in a folder, of a format that is not read; None if there is none."""
    opened = 0
    for path in islice(_files(root), MOST_FILES):
        found = _kind(path.name, LABELS)
        if found is None and path.suffix.lower() in (".xml", ".json") and opened < MOST_TEXTS:
            opened += 1
            found = _text_kind(path)
        if found is not None:
            return (
                f"{root.name}/: holds images, but no labels that are read; {path.relative_to(root)} is {found[0]}, which is not; {found[1]}, and run "
                f"`tailfill init {shlex.quote(str(root))}` again"
            )
    return None


def _kind(name: str, kinds: Mapping[str, tuple[str, str]]) -> tuple[str, str] | None:
    return next((kind for end, kind in kinds.items() if re.search(f"{end}$", name, re.IGNORECASE)), None)


def _text_kind(path: Path) -> tuple[str, str] | None:
    """Returns what a file of text with labels is and what to do, if it is of a form that is not read."""
    try:
        with path.open("rb") as file:
            start = file.read(START)
    except OSError:
        return None
    forms = [(form, what, remedy) for ending, form, what, remedy in TEXTS if ending == path.suffix.lower()]
    return next(((what, remedy) for form, what, remedy in forms if re.search(form, start, re.DOTALL)), None)


def _files(root: Path) -> Iterator[Path]:
    """Yields the files below a folder, those in it first."""
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not left_behind(name))
        yield from (Path(parent, name) for name in sorted(names) if not left_behind(name))


def _unpack(archive: Path, root: Path | None = None) -> str:
    """Returns the commands that unpack an archive, into a folder beside it, and try again with the folder `root`, or with that."""
    folder = archive.with_name(ARCHIVE.sub("", archive.name))
    name, to = shlex.quote(str(archive)), shlex.quote(str(folder))
    kind = archive.suffix.lower()
    if kind == ".zip":
        command = f"unzip {name} -d {to}"
    elif kind in (".7z", ".rar"):
        command = f"7z x {name} -o{to}"
    else:
        command = f"mkdir -p {to} && tar -xf {name} -C {to}"
    return f"unpack it by `{command}`, then run `tailfill init {shlex.quote(str(root or folder))}`"
