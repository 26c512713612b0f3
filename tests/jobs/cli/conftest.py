from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """Restores the handlers of the signals that the command handles."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def stage_surroundings(signal_handlers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names a store and a cache, as a stage needs."""
    monkeypatch.setenv("TAILFILL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("TAILFILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def empty_folder(signal_handlers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes to a new folder, and names services so that none is started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAILFILL_STORE", str(tmp_path / "store"))
    # `status` connects to none for a committed search
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.delenv("TAILFILL_CACHE", raising=False)
