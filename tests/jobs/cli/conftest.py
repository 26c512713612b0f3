from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Changes to a new folder, names services so that none is started, and restores signal handlers afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAILFILL_STORE", str(tmp_path / "store"))
    # `status` connects to none for a committed search
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.delenv("TAILFILL_CACHE", raising=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
