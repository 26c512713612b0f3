"""Checks image paths that a list or table names: each must lie inside the root and be listed once."""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePosixPath

from shared.data.problems import BadImage, Problems
from shared.data.sources.members import left_behind
from shared.errors import DataError
from shared.names import name_fault, path_below, shown


def existing_root(root: Path) -> Path:
    """Returns the root with links resolved; raises DataError if it is not a folder."""
    if not root.is_dir():
        found = "a file" if root.exists() else "which does not exist"
        raise DataError(f"dataset.root: must be a folder, got {str(root)!r} ({found}); name the folder of the images")
    return root.resolve()


def on_disk(folder: Path, name: str) -> str:
    """Returns the name in the Unicode form in which the folder has it: a Mac writes é as two characters, a table mostly as one."""
    if name.isascii() or (folder / name).exists():
        return name
    forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    return next((form for form in forms if (folder / form).exists()), name)


class PathCheck:
    """Turns listed paths into files; those that leave the root or are listed twice are reported to `problems`."""

    def __init__(self, root: Path, problems: Problems) -> None:
        self._root = root
        self._problems = problems
        self._seen: dict[str, str] = {}

    def check(self, text: str, where: str) -> tuple[str, Path] | None:
        """Returns the path in its normal spelling and the file it names, which may be missing; None if the path was reported."""
        try:
            name, file = self._resolve(text)
            if name in self._seen:
                raise BadImage("duplicate path", f"the path {text!r} is already listed at {self._seen[name]}")
        except BadImage as error:
            self._problems.add(error.reason, where, str(error))
            return None
        self._seen[name] = where
        return name, file

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
            file = path_below(self._root, on_disk(self._root, str(listed)), "the path", DataError).resolve()
        except DataError as error:
            raise BadImage(
                "leaves the folder", f"the path {shown(text)} is a link that leaves {self._root.name}/"
            ) from error
        return str(listed), file
