"""Declares what a case of the corpus is, and tries one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.errors import COMMITTED, TailfillError

PLANTED = "pl4nted-s3cret"
"""Is put into every password, key and token of the corpus; no message may hold it."""
LONGEST = 900  # characters of a message


@dataclass(frozen=True)
class Case:
    """Holds an input, and what becomes of it."""

    name: str
    attempt: Callable[[Path], object]
    """Makes the input in an empty folder, hands it to the code, and returns what was read as text, or anything."""
    exit_code: int
    """Gives the exit code of shared/errors.py: 0 if the input is accepted."""
    says: tuple[str, ...] = ()
    """Lists words of the message, or of the text that an accepted input returns."""
    never: tuple[str, ...] = (PLANTED,)
    """Lists words that neither may hold."""


@dataclass(frozen=True)
class Outcome:
    """Holds what became of an input."""

    exit_code: int
    text: str
    causes: str = ""
    """Holds the words of the errors from which ours was raised, and of how Python shows them, which a debugger or a traceback would show."""


def outcome(case: Case, folder: Path) -> Outcome:
    """Tries the case in a folder; an exception that is not ours is a fault of the code and is raised."""
    with _current(folder):
        try:
            return Outcome(COMMITTED, str(case.attempt(folder)))
        except TailfillError as error:
            return Outcome(error.exit_code, str(error), _causes(error))


def _causes(error: BaseException) -> str:
    cause, words = error.__cause__, [repr(error)]
    while cause is not None:
        words += [str(cause), repr(cause)]
        cause = cause.__cause__
    return "\n".join(words)


@contextmanager
def _current(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
