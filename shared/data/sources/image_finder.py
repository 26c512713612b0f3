"""Finds the images that files of boxes name, in whatever folder they lie."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from shared.data.problems import Problems
from shared.data.source import SplitName
from shared.data.sources.paths import PathCheck, composed
from shared.data.sources.split_words import split_within
from shared.data.sources.table_paths import TablePaths
from shared.names import shown


class ImageFinder:
    """Finds the files that the entries of images name; each that is not found is reported once."""

    def __init__(self, root: Path, problems: Problems) -> None:
        self._names = TablePaths(root, lookup="name")
        self._paths = PathCheck(root, problems)
        self._problems = problems
        self._found: dict[tuple[str, str], tuple[str, Path] | None] = {}

    def find(self, text: object, file: str, entry: str, split: SplitName | None) -> tuple[str, Path] | None:
        """Returns the path of an image and its file; None if it was reported. `entry` of the `file` names it by `text`."""
        key = (file, str(text))
        if key not in self._found:
            where = f"{file} {entry}"
            path = self._path(text, file, split, where)
            self._found[key] = None if path is None else self._paths.find(path, where)
        return self._found[key]

    def _path(self, text: object, file: str, split: SplitName | None, where: str) -> str | None:
        """Returns the path below the root: the file's folder, the split and the end of the name decide between images of equal names."""
        if not isinstance(text, str) or not text.strip():
            self._problems.add("no path", where, f"its file_name must name an image, got {shown(text)}")
            return None
        name = composed(text.strip().replace("\\", "/"))
        found = self._names.named(PurePosixPath(name).name)
        beside = (PurePosixPath(file).parent / name).as_posix()
        for chosen in (
            [path for path in found if composed(path) == beside],
            [path for path in found if composed(path) == name],
            [path for path in found if f"/{composed(path)}".endswith(f"/{name}") and said_split(path) == split],
            [path for path in found if f"/{composed(path)}".endswith(f"/{name}")],
            [path for path in found if said_split(path) == split],
            found,
        ):
            if len(chosen) == 1:
                return chosen[0]
        if found:
            message = f"{shown(text)} names {len(found)} files, {found[0]!r} and {found[1]!r}; write their paths from the data set's folder"
            self._problems.add("ambiguous name", where, message)
        else:
            self._problems.add(
                "missing file", where, f"no image below the data set's folder has the name {shown(text)}"
            )
        return None


def said_split(path: str) -> SplitName | None:
    """Returns the split that the innermost folder of a path names, of those that name one."""
    return next((split for part in reversed(path.split("/")[:-1]) if (split := split_within(part)) is not None), None)
