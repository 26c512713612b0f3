"""Writes the page and the tables into a folder, and never over a file that somebody else wrote or changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from shared.artifacts.disk import disk_errors, whole_file
from shared.digests import file_digest
from shared.errors import ConfigError

WRITTEN = "written.json"
"""Names the file with the digests of what was written, by which files that were changed since are known."""


def check_folder(folder: Path) -> None:
    """Raises ConfigError unless `folder` is new, empty, or holds only what an earlier look wrote and nobody changed."""
    with disk_errors(folder):
        if not folder.exists():
            return
        if not folder.is_dir():
            raise ConfigError(f"{folder}: is a file; name a folder with --out")
        found = sorted(path.name for path in folder.iterdir())
        known = _written(folder)
        foreign = [name for name in found if name != WRITTEN and not _is_ours(folder / name, known)]
    if foreign:
        why = "was changed since it was written" if foreign[0] in known else "is not of an earlier look"
        raise ConfigError(f"{folder}: holds {foreign[0]}, which {why}; move it away, or name another folder with --out")


def write_folder(folder: Path, files: Mapping[str, str]) -> None:
    """Writes text files by name, each whole or not at all, and removes those of an earlier look that are not among them."""
    old = _written(folder)
    digests = {name: [hashlib.sha256(text.encode()).hexdigest()] for name, text in files.items()}
    # the old digests and the new: whatever is there if this is interrupted is known as ours
    both = {name: [*old.get(name, []), *digests.get(name, [])] for name in {**old, **digests}}
    _write(folder / WRITTEN, json.dumps(both))
    for name, text in files.items():
        _write(folder / name, text)
    for name in old:
        if name not in files:
            (folder / name).unlink(missing_ok=True)
    _write(folder / WRITTEN, json.dumps(digests, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    with whole_file(path, private=False) as temporary:
        temporary.write_bytes(text.encode())


def _is_ours(path: Path, known: Mapping[str, list[str]]) -> bool:
    return path.name in known and path.is_file() and not path.is_symlink() and file_digest(path) in known[path.name]


def _written(folder: Path) -> dict[str, list[str]]:
    """Returns the digests that each file may have by name; none if there is no record of them, or no valid one."""
    try:
        found = json.loads((folder / WRITTEN).read_text(encoding="utf-8"))
        return {str(name): [str(digest) for digest in digests] for name, digests in found.items() if "/" not in name}
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError, TypeError):
        return {}
