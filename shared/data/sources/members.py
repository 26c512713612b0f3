"""Defines which files belong to a data set, for the fingerprint of its files and for everyone who lists them.

What systems, editors and notebooks leave behind is never data, and neither is what is written about a data set: a study whose images
have not changed must not begin anew because somebody looked at their folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from shared.errors import DataError

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k",
    ".jpx", ".sgi", ".pcx", ".qoi", ".ico",
})  # fmt: skip
"""Lists the usual endings of the formats that `canonical.py` reads."""
LEFT_BEHIND = frozenset({
    "thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__macosx", "$recycle.bin",
    "system volume information", "network trash folder", "temporary items", "lost+found", "picasa.ini", "photothumb.db",
    "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb", "__pycache__", "cvs", "zbthumbnail.info", "_ds_store",
    "ds_store",
})  # fmt: skip
"""Names files and folders of Windows, macOS, Linux, NAS systems, photo programs, Python and CVS, in lower case. Names that begin with a dot are
left out as well, which are those of most others: `.DS_Store`, `._photo.jpg`, `.git`, `.ipynb_checkpoints`, `.@__thumb`."""
LEFT_BEHIND_ENDINGS = (
    "~", ".swp", ".swo", ".lnk", ".url", ".icloud", ".crdownload", "zone.identifier", "zone.identifier:$data",
)  # fmt: skip
"""Lists endings of such names, in lower case. Windows notes in `photo.jpg:Zone.Identifier` that a file is from the web."""
OF_MASK = re.compile(r"[-_. ](masks?|labels?|gt|seg|segmentation)(_?[0-9]+)?$", re.IGNORECASE)
"""Matches what the name of an image that says which pixels of another one belong to something has behind the name of that, before the ending."""
DOCUMENT_SUFFIXES = frozenset({".md", ".rst", ".ipynb", ".pdf", ".doc", ".docx", ".rtf", ".odt", ".bib", ".cff"})
DOCUMENT_NAMES = frozenset({
    "readme", "license", "licence", "copying", "copyright", "notice", "citation", "changelog", "contributing", "authors", "acknowledgements",
})  # fmt: skip
"""Names documents beside a data set, without their ending, in lower case."""


def left_behind(path: str) -> bool:
    """Returns whether a file, by its path below the data set's root, is what a system, an editor or a notebook left behind."""
    parts = [part.lower() for part in path.split("/") if part not in (".", "..")]
    return any(_is_left_behind(part) for part in parts)


def is_data(path: str) -> bool:
    """Returns whether a file, by its path below the data set's root, belongs to the data set: nobody left it behind, and it is no document."""
    return not left_behind(path) and not _is_document(PurePosixPath(path).name.lower())


def is_image_name(path: str) -> bool:
    """Returns whether a path, with slashes of any kind, has the ending of an image and belongs to a data set."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES and is_data(path.replace("\\", "/"))


def member_names(folder: Path) -> list[str]:
    """Returns the names of the files and folders in a folder that belong to a data set, sorted; raises DataError if it cannot be listed."""
    names = sorted(entry.name for entry in _entries(folder))
    return [
        name
        for name in names
        if not left_behind(name) and not (_is_document(name.lower()) and (folder / name).is_file())
    ]


def subfolder_names(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder that belong to a data set, sorted; raises DataError if it cannot be listed."""
    folders = (
        entry.name
        for entry in _entries(folder)
        if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))
    )
    return [name for name in sorted(folders) if not left_behind(name)]


def holds_images(folder: Path) -> bool:
    """Returns whether there is a file with the name of an image below a folder, of which it lists no more than it must."""
    folders = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif is_image_name(entry.name) and not os.path.isdir(entry.path):
                return True
    return any(holds_images(folder / name) for name in folders if not left_behind(name))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); make it readable") from error


def images_below(folder: Path, fail: Callable[[OSError], object] | None = None) -> Iterator[Path]:
    """Yields the files below a folder that have the name of an image, in no order; links to folders are not followed.

    `fail` is given the error of a folder that cannot be listed, which is left out without it.
    """
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not left_behind(name)]
        yield from (Path(parent, name) for name in names if is_image_name(name))


def _is_left_behind(name: str) -> bool:
    if name.startswith((".", "~$")) or name in LEFT_BEHIND or name.endswith(LEFT_BEHIND_ENDINGS):
        return True
    return len(name) > 2 and name.startswith("#") and name.endswith("#")


def _is_document(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix in DOCUMENT_SUFFIXES or (path.stem in DOCUMENT_NAMES and path.suffix not in IMAGE_SUFFIXES)
