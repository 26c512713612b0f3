"""Ends a process by the usual line if Ctrl-C or SIGTERM comes while modules are still imported.

Else Ctrl-C would show a traceback, and SIGTERM would end nothing in a container, whose first process ignores what it does not handle: Kubernetes
would wait for the grace period, kill it, and count a failure.

It imports only what Python has loaded or built in, and so what takes no time and what a module of the current folder cannot replace.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` wraps
import os
import sys
import time

from shared.errors import STOPPED

CONTINUE = ("run", "stage", "control", "upload")
"""Names the commands that continue from what an earlier call has done."""


def end_at_signals() -> None:
    """Lets Ctrl-C and SIGTERM end this process at once, until `jobs.__main__.main` or the command handles them; if one is ignored, it stays so."""
    for number, before in ((_signal.SIGINT, _signal.default_int_handler), (_signal.SIGTERM, _signal.SIG_DFL)):
        if _signal.getsignal(number) == before:
            _signal.signal(number, end_now)


def end_now(*_: object) -> None:
    """Writes the line in the form of `shared.log`, and ends without cleaning up, as nothing was begun."""
    words = sys.argv[1:]
    event = stopped_line(words)
    line = f"{time.strftime('%H:%M:%S')} tailfill: error: {event}"
    if "--log=json" in words or "--log json" in " ".join(words):
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000+00:00", time.gmtime())
        line = f'{{"time": "{now}", "level": "error", "name": "tailfill", "event": "{event}"}}'
    os.write(2, f"{line}\n".encode())
    os._exit(STOPPED)


def command_of(words: list[str]) -> str:
    """Returns the name of the command among the arguments of a process, or an empty text."""
    commands = (
        word for word, before in zip(words, ["", *words], strict=False) if before != "--log" and word[:1] != "-"
    )
    return next(commands, "")


def stopped_line(words: list[str]) -> str:
    """Returns what the command with these arguments says if a signal ends it."""
    continues = "; the same command continues from what was committed" if command_of(words) in CONTINUE else ""
    return f"stopped{continues}"
