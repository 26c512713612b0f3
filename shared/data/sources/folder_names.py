"""Finds the file that names the classes of folders whose own names are codes, such as WordNet's synsets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from shared.data.sources.members import is_image_name, member_names
from shared.data.sources.text_file import parse_json, read_text_file
from shared.errors import DataError

MOST_BYTES = 1 << 23  # the file of all of WordNet's names has 3 MB
CODE = re.compile(r"n?\d+|/m/\w+")
HEADER_LINES = 2  # of a table that names classes; one with more lines lists images
LETTER = re.compile(r"[^\W\d_]")
LINE = re.compile(r"^(?P<code>\S+?)[\s,;:]+(?P<name>\S.*)$")


def find_names(data: Path, folders: Collection[str]) -> tuple[str, dict[str, str]] | None:
    """Returns the name of a file and the names that it gives to folders, if all folders are codes, and a file beside or above them names most.

    The file that names the most folders counts, of several the smallest. Names that several codes have are followed by the code, as WordNet's
    two cranes are.
    """
    if not folders or not all(CODE.fullmatch(folder) for folder in folders):
        return None
    found: tuple[str, dict[str, str]] | None = None
    for path in sorted(
        (path for place in (data, data.parent) for path in _files(place)), key=lambda path: path.stat().st_size
    ):
        pairs = list(_pairs(path))
        said = dict(pairs)
        names = {folder: said[folder] for folder in sorted(folders) if folder in said}
        most = len(found[1]) if found is not None else len(folders) // 2
        listed = path.suffix.lower() == ".csv" and len(said) > len(folders) + HEADER_LINES
        if len(said) == len(pairs) and len(names) > most and not listed:
            count = Counter(names.values())
            found = path.name, {code: name if count[name] == 1 else f"{name} ({code})" for code, name in names.items()}
    return found


def _files(folder: Path) -> list[Path]:
    try:
        paths = [folder / name for name in member_names(folder) if name.lower().endswith((".json", ".txt", ".csv"))]
        return [path for path in paths if path.is_file() and path.stat().st_size <= MOST_BYTES]
    except (DataError, OSError):  # the folder above may be closed to us
        return []


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    """Yields codes and names; nothing if the file is of another kind."""
    try:
        text = read_text_file(path, path.name, MOST_BYTES)
        content = parse_json(text) if path.suffix.lower() == ".json" else None
    except (DataError, ValueError):
        return
    if isinstance(content, dict):
        for code, name in content.items():
            yield from _named(*((str(name), code) if isinstance(name, int) else (code, name)))
    elif content is None:
        for line in text.splitlines():
            if (match := LINE.match(line.strip())) is not None:
                yield from _named(match["code"], match["name"])


def _named(code: str, name: Any) -> Iterator[tuple[str, str]]:
    """Yields the code with its name: a text, or a list of the code and the name, whose key is a number then."""
    if isinstance(name, list) and len(name) == 2 and all(isinstance(text, str) for text in name):
        code, name = name
    if (
        isinstance(name, str)
        and LETTER.search(name)
        and not is_image_name(name)
        and (first := name.split(",")[0].strip().strip("'\""))
    ):
        yield code, first
