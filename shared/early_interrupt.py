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

LINE = "stopped; the same command continues from what was committed"


def end_at_interrupt() -> None:
    """Lets Ctrl-C and SIGTERM end this process at once, until `jobs.__main__.main` handles them; one that is ignored stays so."""
    for number, default in ((_signal.SIGINT, _signal.default_int_handler), (_signal.SIGTERM, _signal.SIG_DFL)):
        if _signal.getsignal(number) == default:
            _signal.signal(number, end_now)


def end_now(*_: object) -> None:
    """Writes the line in the form of `shared.log`, and ends without cleaning up, as nothing was begun."""
    line = f"{time.strftime('%H:%M:%S')} tailfill: error: {LINE}"
    if "--log=json" in sys.argv or "--log json" in " ".join(sys.argv):
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000+00:00", time.gmtime())
        line = f'{{"time": "{now}", "level": "error", "name": "tailfill", "event": "{LINE}"}}'
    os.write(2, f"{line}\n".encode())
    os._exit(STOPPED)
