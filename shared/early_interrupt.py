"""Ends a process by the usual line if Ctrl-C comes while modules are still imported, which would else show a traceback.

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
    """Lets Ctrl-C end this process at once, until `jobs.__main__.main` handles it; if it is ignored, it stays so."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, end_now)


def end_now(*_: object) -> None:
    """Writes the line in the form of `shared.log`, and ends without cleaning up, as nothing was begun."""
    line = f"{time.strftime('%H:%M:%S')} tailfill: error: {LINE}"
    if "--log=json" in sys.argv or "--log json" in " ".join(sys.argv):
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000+00:00", time.gmtime())
        line = f'{{"time": "{now}", "level": "error", "name": "tailfill", "event": "{LINE}"}}'
    os.write(2, f"{line}\n".encode())
    os._exit(STOPPED)
