"""Finds the files that the cells of a table name: as paths from a folder, with or without a prefix, or as names of files below the folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

from shared.data.problems import Problems
from shared.data.sources.members import images_below, is_image_name
from shared.data.sources.paths import StoredNames, composed, is_file
from shared.names import name_fault, shown


class TablePaths:
    """Turns the cells of a path column into paths below a folder, which may be missing.

    A backslash separates folders, as Windows writes it. A file whose name is stored in another Unicode form than the table has is found.
    """

    def __init__(
        self, folder: Path, prefix: str = "", lookup: Literal["path", "name"] = "path", suffix: str = ""
    ) -> None:
        self._folder, self._prefix, self._lookup, self._suffix = folder, _slashed(prefix), lookup, suffix
        self._stored = StoredNames(folder)

    def listed(self, cell: str, where: str, problems: Problems, beside: str = "", within: str = "") -> str | None:
        """Returns the path that a cell names; None if it was reported to `problems`, since it names none or several.

        A path that is not there starts from the folder `beside`, that of the table, if it is there then; of several files of a name, one in it counts. If
        the images are `within` a folder, paths start from that, and names are those of its files.
        """
        if is_url(cell):
            problems.add(
                "missing file", where, f"{shown(cell)} is a URL; save the image, and write its path into the table"
            )
            return None
        path = _slashed(cell).removeprefix(self._prefix)
        if self._lookup == "path" and is_absolute(path):
            message = f"the path {shown(cell)} is absolute; set dataset.path_prefix to the part before the folder {self._folder.name}/'s own files"
            problems.add("leaves the folder" if path.startswith("/") else "unusable path", where, message)
            return None
        if self._lookup == "path":
            if within and path:
                return self._stored.of(f"{within}/{path}")
            return self._stored.of(f"{beside}/{path}" if beside and self._only_beside(path, beside) else path)
        found = self.named(path)
        if within:
            found = [name for name in found if name.startswith(f"{within}/")]
        elif len(found) > 1 and beside:
            found = [name for name in found if name.startswith(f"{beside}/")] or found
        if len(found) > 1:
            problems.add(
                "ambiguous name",
                where,
                f"{shown(cell)} names {len(found)} files, {found[0]!r} and {found[1]!r}; write the paths",
            )
            return None
        if not found and cell:
            folder = f"{self._folder.name}/{within}/" if within else f"{self._folder.name}/"
            problems.add(
                "missing file",
                where,
                f"no image below {folder} has the name {shown(cell)}, with or without an ending",
            )
            return None
        return found[0] if found else ""

    def _only_beside(self, path: str, beside: str) -> bool:
        return not self.exists(path) and self.exists(f"{self._prefix}{beside}/{path}")

    def exists(self, cell: str) -> bool:
        """Returns whether a cell names one existing file that lies in the folder."""
        path = _slashed(cell).removeprefix(self._prefix)
        if self._lookup == "name":
            return len(self.named(path)) == 1
        if is_url(cell) or not path or name_fault(str(PurePosixPath(path))) is not None:
            return False
        return is_file(self._folder / self._stored.of(path))

    def named(self, name: str) -> list[str]:
        """Returns the paths of the images with this name, with or without its ending; the suffix stands before it."""
        if self._suffix:
            name = f"{PurePosixPath(name).stem if is_image_name(name) else name}{self._suffix}"
        return self._by_name.get(composed(name), [])

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for path in image_paths(self._folder):
            name = composed(PurePosixPath(path).name)
            for key in {name, PurePosixPath(name).stem}:
                names.setdefault(key, []).append(path)
        return names


def image_paths(folder: Path) -> Iterator[str]:
    """Yields the paths of all images below a folder, in order; what is no data and what is behind linked folders is left out."""
    yield from sorted(path.relative_to(folder).as_posix() for path in images_below(folder))


def is_absolute(path: str) -> bool:
    """Returns whether a path with forward slashes begins at the root of a file system, or with a drive letter of Windows."""
    return path.startswith("/") or re.match(r"[A-Za-z]:/", path) is not None


def is_url(cell: str) -> bool:
    """Returns whether a cell holds a URL."""
    return "://" in cell[:20]


def _slashed(path: str) -> str:
    return path.replace("\\", "/")
