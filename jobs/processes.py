"""Stage processes on one machine: started so that they cannot outlive this one, and their stderr read line by line."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)


def _die_with_parent() -> None:
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True)
class Launch:
    """How a stage process is started, and started again after it was lost."""

    name: str
    """For people: `tune real worker 1`."""
    arguments: tuple[str, ...]
    """Of the command `tailfill`."""
    environment: Mapping[str, str]
    takes_slot: bool = True
    """False for a coordinator, which waits more than it computes."""


@dataclass
class StageProcess:
    """A running `tailfill stage`, and what it said last."""

    launch: Launch
    process: subprocess.Popen[str]
    last_error: str | None = None
    tail: list[str] = field(default_factory=list)
    """The last lines that were no log lines: a traceback, a library's complaint."""

    def signal(self, number: int) -> None:
        """Sends a signal where it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)


Lines = queue.Queue[tuple[StageProcess, dict[str, Any]]]


def start(launch: Launch, environment: Mapping[str, str], lines: Lines) -> StageProcess:
    """Starts `tailfill --log json <arguments>`; its log lines arrive in `lines`. Call from the main thread only:
    the kernel's death signal goes by the thread that forked."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "--log", "json", *launch.arguments],
        env={**os.environ, **environment, **launch.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches control alone, which then stops its stages in order
        preexec_fn=_die_with_parent,
    )
    started = StageProcess(launch, process)
    threading.Thread(target=_read, args=(started, lines), daemon=True).start()
    return started


def _read(stage: StageProcess, lines: Lines) -> None:
    assert stage.process.stderr is not None
    for text in stage.process.stderr:
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict) or "event" not in line:
            stage.tail = [*stage.tail, text.rstrip()][-40:]
            continue
        if line.get("level") == "error":
            stage.last_error = str(line["event"])
        lines.put((stage, line))
