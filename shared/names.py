"""Checks names that somebody else chose: in a bucket, a database, on a hub, in a label file, in a study.

Whoever chooses such a name must not choose where we write. So every path, key and archive member that contains one goes through
`path_below` or `checked_name`, which enforce one rule: a name is relative and normal, like `a/b/c`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from shared.errors import ArtifactError, InputError

LONGEST_PART = 255  # bytes, which is what file systems take
LONGEST_NAME = 1024  # bytes, which is what S3 takes
SHOWN = 80  # characters of a refused value in a message
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # the characters of the Unicode category Cc


def is_text(name: str) -> bool:
    """Returns whether a name can be written as UTF-8: a file's name, or an argument of a command, that was no UTF-8 cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def has_control_character(text: str) -> bool:
    """Returns whether text has a line break, a NUL or another character that is an order to a device."""
    return CONTROL.search(text) is not None


def name_fault(name: str) -> str | None:
    """Returns why a name is invalid as a path below a folder, as the end of a sentence, or None if it is valid."""
    if not is_text(name):
        return "is no text in UTF-8; `convmv` converts such names"
    parts = name.encode().split(b"/")
    if not name:
        return "is empty"
    if name.startswith("/"):
        return "is absolute"
    if b".." in parts:
        return "has a part '..'"
    if b"" in parts or b"." in parts:
        return "is not normal, as it has an empty part or a '.'"
    if "\\" in name or has_control_character(name):
        return "has a backslash or a control character"
    if name[1:2] == ":" and name[0].isascii() and name[0].isalpha():
        return "begins with a drive letter"
    if max(map(len, parts)) > LONGEST_PART or len(name.encode()) > LONGEST_NAME:
        return f"is too long (a part has at most {LONGEST_PART} bytes, the whole {LONGEST_NAME})"
    return None


def part_fault(name: str) -> str | None:
    """Returns why a name is invalid as one part of a path, as the end of a sentence, or None if it is valid."""
    return name_fault(name) or ("has more than one part" if "/" in name else None)


def checked_name(name: str, what: str, error: type[InputError] = ArtifactError) -> str:
    """Returns the name; raises `error` if it is invalid as a path below a folder. `what` is what holds the name, for the message."""
    _refuse(name_fault(name), name, what, error)
    return name


def checked_part(name: str, what: str, error: type[InputError] = ArtifactError) -> str:
    """Returns the name; raises `error` if it is invalid as one part of a path."""
    _refuse(part_fault(name), name, what, error)
    return name


def path_below(
    folder: Path, name: str, what: str, error: type[InputError] = ArtifactError, replaces: bool = False
) -> Path:
    """Returns the path of that name in a folder; raises `error` if the name is invalid, or if a link leads out of the folder.

    The folder itself may be a link. With `replaces` the caller replaces what is at the path, so a link at the end of the path is not
    followed.
    """
    path = folder / checked_name(name, what, error)
    try:
        inside = (path.parent if replaces else path).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a circle of links
        inside = False
    if not inside:
        raise error(
            f"{what}: {shown(name)} is, or is behind, a link that leaves the folder {folder}; remove that link, or replace it by what it leads to"
        )
    return path


def shown(value: object) -> str:
    """Returns a refused value for a message: on one line, escaped and shortened."""
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
"""Declares a field that is a path below some folder."""
PartName = Annotated[str, AfterValidator(_valid_part)]
"""Declares a field that is one part of such a path."""
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""Declares a field that is a SHA-256 in hexadecimal digits."""
