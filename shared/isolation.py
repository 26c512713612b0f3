"""Keeps modules of the user's folder out of our processes.

Python looks for modules in the current folder first when it is started by `-m` or `-c`, and wherever an empty or relative entry of PYTHONPATH
leads. A study is run in a folder that is the user's own, so a `random.py` or `torch.py` of theirs would be imported in place of the real one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COMMAND = "tailfill"


def leave_current_folder() -> None:
    """Removes from this process's search path what is there only because of the folder in which it was started.

    These are the current folder, the folder of the installed command, and the relative entries of PYTHONPATH. The folder of our own
    code stays: a checkout that is not installed is run by `python -m jobs` in it.
    """
    try:
        current = os.getcwd()
    except FileNotFoundError:  # it was removed, so nothing is imported from it
        return
    absolute, relative = _python_path(os.environ)
    unwanted = {os.path.abspath(entry) for entry in relative} - {*absolute, ROOT}
    sys.path[:] = [entry for entry in sys.path if entry not in unwanted]
    started_in = {"", current} - {ROOT}
    if os.path.basename(sys.argv[0]) == COMMAND:
        started_in.add(os.path.dirname(os.path.realpath(sys.argv[0])))
    if not sys.flags.safe_path and sys.path[0] in started_in:
        del sys.path[0]


def isolated(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment in which Python processes do not look for modules in the current folder."""
    absolute, _ = _python_path(environment)
    return {**environment, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(absolute)}


@contextmanager
def isolated_children() -> Iterator[None]:
    """Gives an isolated environment to the processes that multiprocessing starts within the `with` statement."""
    before = {name: os.environ.get(name) for name in ("PYTHONSAFEPATH", "PYTHONPATH")}
    os.environ.update(isolated(os.environ))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _python_path(environment: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Returns the absolute entries of PYTHONPATH, and the relative ones; an empty one is relative and means the current folder."""
    value = environment.get("PYTHONPATH")
    entries = value.split(os.pathsep) if value else []
    absolute = [entry for entry in entries if os.path.isabs(entry)]
    return absolute, [entry for entry in entries if entry not in absolute]
