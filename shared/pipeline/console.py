"""What a person sees while stages run: bars on a terminal, plain lines elsewhere, JSON where asked for."""

from __future__ import annotations

import json
import sys
from types import TracebackType
from typing import Any, Protocol

from shared.log import duration, progress_text


class Console(Protocol):
    """Shows log lines of several stages at once; a context manager."""

    def __enter__(self) -> Console: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def line(self, stage: str, line: dict[str, Any]) -> None:
        """A log line that a stage wrote."""

    def say(self, text: str) -> None:
        """A line of control's own."""

    def finished(self, stage: str) -> None:
        """The stage's process has ended."""


def open_console(style: str) -> Console:
    """Bars where stderr is a terminal and the style is text."""
    if style == "json":
        return JsonConsole()
    return BarConsole() if sys.stderr.isatty() else PlainConsole()


def _text(line: dict[str, Any]) -> str:
    values = {k: v for k, v in line.items() if k not in ("time", "level", "name", "event", "progress", "traceback")}
    level = "" if line["level"] == "info" else f"{line['level']}: "
    return f"{level}{line['event']}" + "".join(f" {k}={v}" for k, v in values.items())


class _Quiet:
    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def finished(self, stage: str) -> None:
        """Nothing to take down."""


class JsonConsole(_Quiet):
    """One JSON object a line."""

    def line(self, stage: str, line: dict[str, Any]) -> None:
        """The stage's line with the stage's name."""
        print(json.dumps({**line, "stage": stage}), file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """An event of control."""
        print(json.dumps({"level": "info", "name": "control", "event": text}), file=sys.stderr, flush=True)


class PlainConsole(_Quiet):
    """`[final real 3] 12/60 epochs, 1.2 epochs/s, 40s left`."""

    def line(self, stage: str, line: dict[str, Any]) -> None:
        """Progress lines come at the pace at which the stage writes them."""
        progress = line.get("progress")
        text = f"{line['event']} {progress_text(progress)}" if progress else _text(line)
        print(f"[{stage}] {text}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """As it is."""
        print(text, file=sys.stderr, flush=True)


class BarConsole(_Quiet):
    """One bar a running stage, log lines above them."""

    def __init__(self) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("[bold]{task.fields[stage]}"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            console=RichConsole(stderr=True),
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
        """Progress moves the stage's bar; anything else is printed above the bars."""
        progress = line.get("progress")
        if not progress:
            self._progress.console.print(f"[{stage}] {_text(line)}", markup=False, highlight=False)
            return
        if stage not in self._bars:
            self._bars[stage] = self._progress.add_task(line["event"], stage=stage, text="", total=progress["total"])
        self._progress.update(
            self._bars[stage],
            description=line["event"],
            completed=progress["done"],
            total=progress["total"],
            text=progress_text(progress),
        )

    def say(self, text: str) -> None:
        """Above the bars."""
        self._progress.console.print(text, markup=False, highlight=False)

    def finished(self, stage: str) -> None:
        """Takes the bar down."""
        if stage in self._bars:
            self._progress.remove_task(self._bars.pop(stage))


def summary(done: int, reused: int, seconds: float) -> str:
    """What a run came to."""
    return f"{done} stages run, {reused} found committed, in {duration(seconds)}"
