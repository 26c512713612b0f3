"""Names that somebody else chose: in a bucket, a database, on a hub, in a label file, in a study.

Whoever can write such a name must not choose where we write. So every path, key and archive member that is made of one goes through
`path_below` or `checked_name`, which hold one rule: a name is relative and normal, like `a/b/c`.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from shared.errors import ArtifactError, InputError

LONGEST_PART = 255  # bytes, which is what file systems take
LONGEST_NAME = 1024  # bytes, which is what S3 takes
SHOWN = 80  # characters of a refused value in a message


def name_fault(name: str) -> str | None:
    """What makes a name unfit as a path below a folder, as the end of a sentence; None if nothing does."""
    try:
        parts = name.encode().split(b"/")
    except UnicodeEncodeError:
        return "is no text in UTF-8"
    if not name:
        return "is empty"
    if name.startswith("/"):
        return "is absolute"
    if b".." in parts:
        return "has a part '..'"
    if b"" in parts or b"." in parts:
        return "is not normal, as it has an empty part or a '.'"
    if "\\" in name or any(unicodedata.category(character) == "Cc" for character in name):
        return "has a backslash or a control character"
    if name[1:2] == ":" and name[0].isascii() and name[0].isalpha():
        return "begins with a drive letter"
    if max(map(len, parts)) > LONGEST_PART or len(name.encode()) > LONGEST_NAME:
        return f"is too long (a part has at most {LONGEST_PART} bytes, the whole {LONGEST_NAME})"
    return None


def part_fault(name: str) -> str | None:
    """The same for a name that must be one part of a path."""
    return name_fault(name) or ("has more than one part" if "/" in name else None)


def checked_name(name: str, what: str, error: type[InputError] = ArtifactError) -> str:
    """The name itself; raises `error` if it is unfit as a path below a folder. `what` is the thing that holds it."""
    _refuse(name_fault(name), name, what, error)
    return name


def checked_part(name: str, what: str, error: type[InputError] = ArtifactError) -> str:
    """The name itself; raises `error` if it is unfit as one part of a path."""
    _refuse(part_fault(name), name, what, error)
    return name


def path_below(
    folder: Path, name: str, what: str, error: type[InputError] = ArtifactError, replaces: bool = False
) -> Path:
    """The path of that name in a folder; raises `error` if the name is unfit, or if a link that lies there leads out of the folder.

    The folder itself may be a link. With `replaces` the caller replaces what lies at the path, so that a link at the very end of it is
    followed by nobody.
    """
    path = folder / checked_name(name, what, error)
    try:
        inside = (path.parent if replaces else path).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a circle of links
        inside = False
    if not inside:
        raise error(
            f"{what}: {shown(name)} is, or lies behind, a link that leaves the folder {folder}; remove that link, or put there what it leads to"
        )
    return path


def shown(value: object) -> str:
    """A refused value for a message: on one line, escaped and shortened."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")


def _refuse(fault: str | None, name: str, what: str, error: type[InputError]) -> None:
    if fault is not None:
        raise error(
            f"{what}: the name {shown(name)} {fault}; names are relative and normal, like a/b/c: rename or remove it"
        )


def _valid_name(name: str) -> str:
    if (fault := name_fault(name)) is not None:
        raise ValueError(f"the name {fault}")
    return name


def _valid_part(name: str) -> str:
    if (fault := part_fault(name)) is not None:
        raise ValueError(f"the name {fault}")
    return name


FileName = Annotated[str, AfterValidator(_valid_name)]
"""A field that is a path below some folder."""
PartName = Annotated[str, AfterValidator(_valid_part)]
"""A field that is one part of such a path."""
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A field with a SHA-256 in hexadecimal digits."""
