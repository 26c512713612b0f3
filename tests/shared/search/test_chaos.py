"""Tests that a search ends with exactly its trials if workers, coordinator and database are killed or restarted at any moment.

`make test` runs a small form; `make chaos` runs the full one `ROUNDS` times (20 by default, in at most half an hour).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.config.search import FloatRange, Search
from tests.support.search.drill import Drill
from tests.support.search.fleet import check_end, run_chaos
from tests.support.search.ledger import Ledger
from tests.support.search.own_server import OwnServer

ROUNDS = int(os.environ.get("ROUNDS", "0"))
SPACE: dict[str, Any] = {"x": FloatRange(low=0, high=1), "y": FloatRange(low=0, high=1)}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnServer]:
    """Yields a PostgreSQL that this test may restart."""
    started = OwnServer(tmp_path / "postgres")
    yield started
    started.stop()


def strike(drill: Drill, server: OwnServer, workers: int, seconds: float, seed: int, **events: int) -> None:
    """Runs the chaos, and checks its result."""
    with Ledger(drill.url) as ledger:
        outcome = run_chaos(drill, workers, seconds, seed, restart=server.restart, **events)
        assert outcome["ended"] == "complete"
        check_end(ledger.database, drill)
        ledger.check_told_once(len(drill.search.objectives))
        assert ledger.check_resumed(drill)


def make_drill(server: OwnServer, folder: Path, seed: int, epoch_seconds: float, **search: Any) -> Drill:
    """Makes a drill that saves a checkpoint in half an epoch, while the next one is running."""
    (folder / "drill").mkdir()
    settings = Search(**{"pruner": "none", "space": SPACE, "first_defaults": False, **search})
    return Drill(
        server.url, f"chaos-{uuid.uuid4().hex[:8]}", settings, folder / "drill", epoch_seconds, seed, epoch_seconds / 2
    )


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("objective", "trials", "strikes", "restarts"),
    [("val_loss", 20, 15, 1), (("val_loss", "val_macro_f1"), 10, 7, 0)],
)
def test_small_chaos(
    tmp_path: Path, server: OwnServer, objective: Any, trials: int, strikes: int, restarts: int
) -> None:
    drill = make_drill(
        server, tmp_path, 0, 0.15, strategy="random", objective=objective, trials=trials, epochs=6, max_retries=20, lease_seconds=2.0,
    )  # fmt: skip
    strike(drill, server, workers=4, seconds=110, seed=0, strikes=strikes, restarts=restarts, coordinator_kills=1)


@pytest.mark.skipif(ROUNDS == 0, reason="the full form: `make chaos`, or ROUNDS=20")
@pytest.mark.timeout(88)  # 20 of them in half an hour
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_full_chaos(tmp_path: Path, server: OwnServer, seed: int) -> None:
    drill = make_drill(
        server, tmp_path, seed, 0.25, trials=60, epochs=8, objective="val_loss", sampler="tpe", max_retries=50, lease_seconds=3,
    )  # fmt: skip
    strike(drill, server, workers=8, seconds=68, seed=seed, strikes=45, restarts=2, coordinator_kills=2)
