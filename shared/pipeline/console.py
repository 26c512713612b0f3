"""Shows the progress of stages: bars on a terminal, plain lines elsewhere, or JSON lines."""

from __future__ import annotations

import json
import sys
from types import TracebackType
from typing import Any, Protocol

from shared.log import duration, progress_text
from shared.terminal import escaped, escaped_lines


class Console(Protocol):
    """Shows the log lines of several stages at once. It is a context manager."""

    def __enter__(self) -> Console: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def line(self, stage: str, line: dict[str, Any]) -> None:
        """Shows a log line that the process named `stage` wrote."""

    def say(self, text: str) -> None:
        """Shows a line of the command itself."""

    def finished(self, stage: str) -> None:
        """Removes what is shown of a process that has ended."""


def open_console(style: str) -> Console:
    """Returns the console for the log style `text` or `json`; `text` shows bars if stderr is a terminal."""
    if style == "json":
        return JsonConsole()
    return BarConsole() if sys.stderr.isatty() else PlainConsole()


def _text(line: dict[str, Any]) -> str:
    values = {k: v for k, v in line.items() if k not in ("time", "level", "name", "event", "progress", "traceback")}
    level = "" if line["level"] == "info" else f"{line['level']}: "
    return escaped(f"{level}{line['event']}" + "".join(f" {k}={v}" for k, v in values.items()))


class _BaseConsole:
    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def finished(self, stage: str) -> None:
        """Does nothing, since only bars have to be removed."""


class JsonConsole(_BaseConsole):
    """Prints one JSON object per line."""

    def line(self, stage: str, line: dict[str, Any]) -> None:
        """Prints the stage's line with the stage's name."""
        print(json.dumps({**line, "stage": stage}), file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Prints the text as an event of `control`."""
        print(json.dumps({"level": "info", "name": "control", "event": text}), file=sys.stderr, flush=True)


class PlainConsole(_BaseConsole):
    """Prints plain lines, such as `[final real 3] 12/60 epochs, 1.2 epochs/s, 40s left`."""

    def line(self, stage: str, line: dict[str, Any]) -> None:
        """Prints the line, or its progress if it reports some, as often as the stage writes one."""
        progress = line.get("progress")
        text = escaped(f"{line['event']} {progress_text(progress)}") if progress else _text(line)
        print(f"[{stage}] {text}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Prints the text."""
        print(escaped_lines(text), file=sys.stderr, flush=True)


class BarConsole(_BaseConsole):
    """Shows one bar per running stage, and log lines above the bars."""

    def __init__(self) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.fields[stage]}", style="bold", markup=False),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}", markup=False),
            console=RichConsole(stderr=True, emoji=False),  # a name such as `:cat:` stays
            transient=True,
        )
        self._bars: dict[str, Any] = {}

    def __enter__(self) -> BarConsole:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def line(self, stage: str, line: dict[str, Any]) -> None:
        """Moves the stage's bar if the line reports progress, and else prints it above the bars."""
        progress = line.get("progress")
        if not progress:
            self._progress.console.print(f"[{stage}] {_text(line)}", markup=False, highlight=False)
            return
        event = escaped(line["event"])
        if stage not in self._bars:
            self._bars[stage] = self._progress.add_task(event, stage=stage, text="", total=progress["total"])
        self._progress.update(
            self._bars[stage],
            description=event,
            completed=progress["done"],
            total=progress["total"],
            text=escaped(progress_text(progress)),
        )

    def say(self, text: str) -> None:
        """Prints the text above the bars."""
        self._progress.console.print(escaped_lines(text), markup=False, highlight=False)

    def finished(self, stage: str) -> None:
        """Removes the stage's bar."""
        if stage in self._bars:
            self._progress.remove_task(self._bars.pop(stage))


def summary(done: int, reused: int, seconds: float) -> str:
    """Returns the last line of a run, which counts the stages that ran and those that were committed before."""
    return f"{done} stages run, {reused} found committed, in {duration(seconds)}"
