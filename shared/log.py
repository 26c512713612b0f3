"""Writes log lines and progress to stderr, as text or as JSON; results go to stdout and not through this module.

Every line has an event in a few words and named values: `log.info("checkpoint kept", step=400)`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

from shared.terminal import escaped, escaped_lines

T = TypeVar("T")

PROGRESS_SECONDS = 5.0  # between two progress lines: readable in `kubectl logs`, and not too many


class Log:
    """Logs events with named values on the standard library's logger `tailfill.<name>`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"tailfill.{name}")

    def info(self, event: str, **values: object) -> None:
        """Logs what a person following the work wants to read."""
        self._logger.info(event, extra={"values": values})

    def warning(self, event: str, **values: object) -> None:
        """Logs what may explain a surprise later: a retry, a skipped image, a fallback."""
        self._logger.warning(event, extra={"values": values})

    def error(self, event: str, **values: object) -> None:
        """Logs what ended the work."""
        self._logger.error(event, extra={"values": values})

    def progress(self, items: Iterable[T], what: str, total: int, unit: str = "steps", done: int = 0) -> Iterator[T]:
        """Yields `items`, logging `what`, how many of `total` are done, the rate and the seconds left.

        `done` is how many an earlier, interrupted run had finished; the rate counts this run only.
        """
        start = last = time.monotonic()
        count = done
        self._progress(what, count, total, unit, None)
        for item in items:
            yield item
            count += 1
            now = time.monotonic()
            if now - last >= PROGRESS_SECONDS or count == total:
                last = now
                self._progress(what, count, total, unit, (count - done) / max(now - start, 1e-9))

    def counter(self, what: str, unit: str) -> Callable[[], None]:
        """Returns what counts one of `unit` whenever it is called, and logs `what`, how many there are and the rate.

        It is for work whose extent is not known before; if that takes less than PROGRESS_SECONDS, nothing is logged.
        """
        start = last = time.monotonic()
        count = 0

        def add() -> None:
            nonlocal count, last
            count += 1
            now = time.monotonic()
            if now - last >= PROGRESS_SECONDS:
                last = now
                self._progress(what, count, None, unit, count / (now - start))

        return add

    def _progress(self, what: str, done: int, total: int | None, unit: str, rate: float | None) -> None:
        left = (total - done) / rate if rate and total is not None else None
        values = {"done": done, "total": total, "unit": unit, "rate": rate, "seconds_left": left}
        self._logger.info(what, extra={"progress": values, "values": {}})


def duration(seconds: float) -> str:
    """Formats seconds: `75.4` → `1m15s`, `7300` → `2h01m`."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def progress_text(progress: dict[str, Any]) -> str:
    """Formats the values of a progress line: `400/1200 steps, 6.1 steps/s, 2m11s left`, or `400 steps, 6.1 steps/s` if nobody knows how many there are."""
    of_total = "" if progress["total"] is None else f"/{progress['total']}"
    text = f"{progress['done']}{of_total} {progress['unit']}"
    if progress["rate"]:
        text += f", {progress['rate']:.3g} {progress['unit']}/s"
    if progress["seconds_left"]:
        text += f", {duration(progress['seconds_left'])} left"
    return text


class TextFormatter(logging.Formatter):
    """Formats a record as `14:02:11 finetune: checkpoint kept step=400`, on one line that changes nothing of the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        name = record.name.removeprefix("tailfill.")
        text = f"{clock} {name}: {record.getMessage()}"
        if progress := getattr(record, "progress", None):
            return escaped(f"{text} {progress_text(progress)}")
        values = "".join(f" {key}={value}" for key, value in getattr(record, "values", {}).items())
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        text = escaped(f"{clock} {name}: {level}{record.getMessage()}{values}")
        return f"{text}\n{escaped_lines(self.formatException(record.exc_info))}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object on a line: time, level, name, event and the named values."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "name": record.name.removeprefix("tailfill."),
            "event": record.getMessage(),
            **getattr(record, "values", {}),
        }
        if progress := getattr(record, "progress", None):
            line["progress"] = progress
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(style: str, level: int = logging.INFO) -> None:
    """Sends log records to stderr in `style`, `text` or `json`: ours from `level` on, those of libraries from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("tailfill").setLevel(level)
    logging.captureWarnings(True)
