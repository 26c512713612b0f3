"""Starts stage processes on one machine, and reads their stderr line by line.

They cannot outlive this process, and import nothing from the current folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from shared.isolation import isolated
from shared.parent_death import die_with_parent

COMMAND = Path(__file__).parents[2] / "jobs" / "isolated.py"


@dataclass(frozen=True)
class Launch:
    """Says how to start a stage process, or to start it again after it was lost."""

    name: str
    """Names the process in messages, e.g. `tune real worker 1`."""
    arguments: tuple[str, ...]
    """Holds the arguments of the command `tailfill`."""
    environment: Mapping[str, str]
    """Holds the environment variables that only this process gets."""
    takes_slot: bool = True
    """Says whether it needs a slot. A coordinator does not, since it waits more than it computes."""
    most_gpus: int = 1
    """Limits the number of GPUs that it uses; it gets more than one only if nothing else runs."""


@dataclass
class StageProcess:
    """Holds a running `tailfill stage`, and its last output."""

    launch: Launch
    process: subprocess.Popen[str]
    errors: list[str] = field(default_factory=list)
    """Lists the errors that it logged, in order."""
    tail: list[str] = field(default_factory=list)
    """Holds the last 40 lines of its stderr that were not log lines, such as a traceback or a library's warning."""

    reader: threading.Thread = field(default_factory=threading.Thread)
    """Reads its stderr until it ends."""

    def kill(self) -> None:
        """Kills it and all processes that it started; returns when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def signal(self, number: int) -> None:
        """Sends a signal if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)


Lines = queue.Queue[tuple[StageProcess, dict[str, Any]]]
"""Carries the log lines of several processes, each with the process that wrote it."""


def start(launch: Launch, environment: Mapping[str, str], lines: Lines) -> StageProcess:
    """Starts `tailfill --log json <arguments>`, and puts its log lines into `lines`.

    Call it from the main thread only, since the kernel sends the death signal when the thread that forked ends.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", str(COMMAND), "--log", "json", *launch.arguments],
        env=isolated({**os.environ, **environment, **launch.environment}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches only this process, which then stops its stages in order
        preexec_fn=partial(die_with_parent, os.getpid()),
    )
    started = StageProcess(launch, process)
    started.reader = threading.Thread(target=_read, args=(started, lines), daemon=True)
    started.reader.start()
    return started


def _read(stage: StageProcess, lines: Lines) -> None:
    assert stage.process.stderr is not None
    with stage.process.stderr as stderr:
        for text in stderr:
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if not isinstance(line, dict) or "event" not in line:
                stage.tail = [*stage.tail, text.rstrip()][-40:]
                continue
            if line.get("level") == "error":
                stage.errors.append(str(line["event"]))
            lines.put((stage, line))
