"""Provides searches on a real PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.config.search import FloatRange, Range, Search
from shared.search import coordinator, worker
from shared.search.storage import Database, quiet_optuna
from tests.support.search.drill import Drill

SPACE: dict[str, Range] = {"x": FloatRange(low=0, high=1), "y": FloatRange(low=0, high=1)}


@pytest.fixture(autouse=True)
def _quiet_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet_optuna()
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(coordinator, "TICK_SECONDS", 0.1)


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    """Yields a database with all tables."""
    opened = Database(postgres_url, patience=10)
    opened.create_tables()
    yield opened
    opened.close()


@pytest.fixture
def make_drill(postgres_url: str, tmp_path: Path) -> Callable[..., Drill]:
    """Returns a function that makes searches with a trivial objective, each with its own name."""
    name = f"test-{uuid.uuid4().hex[:12]}"

    def make(epoch_seconds: float = 0.0, **search: Any) -> Drill:
        defaults: dict[str, Any] = {
            "strategy": "random", "trials": 6, "epochs": 3, "objective": "val_loss", "pruner": "none", "space": SPACE,
            "lease_seconds": 4.0,
        }  # fmt: skip
        return Drill(postgres_url, name, Search(**{**defaults, **search}), tmp_path, epoch_seconds)

    return make
