"""Checks image paths that a list or table names: each must lie inside the root and be listed once."""

from __future__ import annotations

import os
import unicodedata
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath

from shared.data.problems import BadImage, Problems
from shared.data.sources.members import is_image_name, left_behind
from shared.errors import DataError
from shared.log import Log
from shared.names import name_fault, path_below, shown

log = Log("data")


def existing_root(root: Path) -> Path:
    """Returns the root with links resolved; raises DataError if it is not a folder."""
    if not root.is_dir():
        found = "a file" if root.exists() else "which does not exist"
        raise DataError(f"dataset.root: must be a folder, got {str(root)!r} ({found}); name the folder of the images")
    return root.resolve()


class StoredNames:
    """Finds files whose names are stored in another Unicode form than a table has: a Mac writes é as two characters, others mostly as one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: dict[Path, dict[str, list[str]]] = {}

    def of(self, path: str) -> str:
        """Returns the path in the form in which its file is stored; as it is if that does not differ, or if there is no such file."""
        listed = PurePosixPath(path)
        if path.isascii() or name_fault(str(listed)) is not None or is_file(self._folder / listed):
            return path
        stored = PurePosixPath()
        for part in listed.parts:
            entries = self._composed_entries(self._folder / stored).get(composed(part), [])
            same = [part] if part in entries else entries
            if len(same) != 1:
                return path
            stored /= same[0]
        return str(stored)

    def _composed_entries(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._entries:
            entries: dict[str, list[str]] = {}
            with suppress(OSError):  # the path stays as it is, and `prepare` says what is wrong with it
                for name in os.listdir(folder):
                    entries.setdefault(composed(name), []).append(name)
            self._entries[folder] = entries
        return self._entries[folder]


def is_file(path: Path) -> bool:
    """Returns whether a path is an existing file; False if its folder may not be read."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_there(path: Path) -> bool:
    """Returns whether there is such a file; True if its folder may not be entered, which reading the file reports."""
    try:
        return path.exists()
    except OSError:
        return True


def _is_link(path: Path) -> bool:
    """Returns whether a path is a link; False if its folder may not be entered, which reading the file reports."""
    try:
        return path.is_symlink()
    except OSError:
        return False


def composed(name: str) -> str:
    """Returns a name in the Unicode form in which é is one character."""
    return unicodedata.normalize("NFC", name)


def what_exists(path: Path) -> str:
    """Returns `; there is 'a.jpg'` if the folder of a missing file holds one whose name has other letters' case or another ending, else nothing."""
    for missing in (path, *path.parents):
        names = _names_in(missing.parent)
        if names:
            break
    else:
        return ""
    wanted, stem = missing.name.casefold(), missing.stem.casefold()
    near = [name for name in names if name.casefold() == wanted]
    if missing == path and not near:
        near = [name for name in names if is_image_name(name) and PurePosixPath(name).stem.casefold() == stem]
    return f"; there is {shown(near[0])}" if near else ""


@lru_cache(maxsize=16)
def _names_in(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(os.listdir(folder)))
    except (OSError, ValueError):  # there is no such folder, it may not be read, or that is no name of a folder
        return ()


class PathCheck:
    """Turns listed paths into files; those that leave the root or are listed twice are reported to `problems`."""

    def __init__(self, root: Path, problems: Problems) -> None:
        self._root = root
        self._problems = problems
        self._seen: dict[str, str] = {}
        self._stored = StoredNames(root)
        self._count = log.counter("files listed", "files")
        self._folders: dict[PurePosixPath, Path] = {PurePosixPath(): root.resolve()}

    def check(self, text: str, where: str) -> tuple[str, Path] | None:
        """Returns the path in its normal spelling and the file it names, which may be missing; None if the path was reported."""
        found = self.find(text, where)
        if found is not None and (message := self.repeated(found[0], text, where)) is not None:
            self._problems.add("duplicate path", where, message)
            return None
        return found

    def find(self, text: str, where: str) -> tuple[str, Path] | None:
        """Does as `check`, for a path that may be listed several times."""
        self._count()
        try:
            return self._resolve(text)
        except BadImage as error:
            self._problems.add(error.reason, where, str(error))
            return None

    def repeated(self, name: str, text: str, where: str) -> str | None:
        """Notes that the path `name` is listed at `where`; returns what to report if it is listed already."""
        if name in self._seen:
            return f"the path {text!r} is already listed at {self._seen[name]}"
        self._seen[name] = where
        return None

    def _resolve(self, text: str) -> tuple[str, Path]:
        listed = PurePosixPath(text)
        if not text or not listed.parts:
            raise BadImage("no path", "the path is blank")
        if listed.is_absolute() or ".." in listed.parts:
            raise BadImage("leaves the folder", f"the path {text!r} leaves the folder {self._root.name}/")
        if (fault := name_fault(str(listed))) is not None:
            raise BadImage("unusable path", f"the path {shown(text)} cannot be used: it {fault}")
        if left_behind(str(listed)):
            raise BadImage(
                "no data",
                f"the path {shown(text)} is hidden, or what a system left behind; rename the file if it is an image",
            )
        try:
            return str(listed), self._file(PurePosixPath(self._stored.of(str(listed))))
        except DataError as error:
            raise BadImage(
                "leaves the folder", f"the path {shown(text)} is a link that leaves {self._root.name}/"
            ) from error

    def _file(self, path: PurePosixPath) -> Path:
        """Returns the file with links resolved, those of a folder once; raises DataError if a link leaves the root."""
        if path.parent not in self._folders:
            self._folders[path.parent] = self._resolved(path.parent)
        file = self._folders[path.parent] / path.name
        return self._resolved(path) if _is_link(file) else file

    def _resolved(self, path: PurePosixPath) -> Path:
        return path_below(self._root, str(path), "the path", DataError).resolve()
