"""Stage processes on one machine: started so that they cannot outlive this one and import nothing from the current folder, and
their stderr read line by line."""

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
    """How a stage process is started, and started again after it was lost."""

    name: str
    """For people: `tune real worker 1`."""
    arguments: tuple[str, ...]
    """Of the command `tailfill`."""
    environment: Mapping[str, str]
    takes_slot: bool = True
    """False for a coordinator, which waits more than it computes."""
    most_gpus: int = 1
    """How many GPUs it can use; it gets more than one where nothing else runs."""


@dataclass
class StageProcess:
    """A running `tailfill stage`, and what it said last."""

    launch: Launch
    process: subprocess.Popen[str]
    errors: list[str] = field(default_factory=list)
    """What it logged as errors, in order."""
    tail: list[str] = field(default_factory=list)
    """The last lines that were no log lines: a traceback, a library's complaint."""

    reader: threading.Thread = field(default_factory=threading.Thread)
    """Reads its stderr until it ends."""

    def kill(self) -> None:
        """Ends it and whatever it started, at once; returns when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def signal(self, number: int) -> None:
        """Sends a signal where it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)


Lines = queue.Queue[tuple[StageProcess, dict[str, Any]]]


def start(launch: Launch, environment: Mapping[str, str], lines: Lines) -> StageProcess:
    """Starts `tailfill --log json <arguments>`; its log lines arrive in `lines`. Call from the main thread only:
    the kernel's death signal goes by the thread that forked."""
    process = subprocess.Popen(
        [sys.executable, "-P", str(COMMAND), "--log", "json", *launch.arguments],
        env=isolated({**os.environ, **environment, **launch.environment}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches control alone, which then stops its stages in order
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
