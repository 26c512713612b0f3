"""Costs and lineage: a result that several experiments share counts once."""

from __future__ import annotations

import pytest

from shared.artifacts.manifest import Manifest, Run
from shared.config.task import Stage
from shared.report.inputs import StageResult
from shared.report.ledger import costs, ledger


def result(stage: Stage, key: str, seconds: float, gpu: float) -> StageResult:
    run = Run(
        created="2026-11-24T08:00:00+00:00",
        seconds=seconds,
        device="cpu" if not gpu else "H100",
        device_seconds=gpu,
        code="c",
        libraries={},
    )
    return StageResult(
        Manifest(study="s", stage=stage, key=key, version=1, config={}, inputs={}, files=(), summary={}, run=run), {}
    )


def test_shared_results_count_once_in_the_order_of_the_stages() -> None:
    tune = result("tune", "t", 100, 90)
    results = {
        "final/a/10": result("final", "c", 10, 8), "final/a/2": result("final", "b", 10, 8), "tune/a": tune, "tune/b": tune,
        "prepare": result("prepare", "p", 5, 0),
    }  # fmt: skip
    entries = ledger(results)
    assert [(e.stage, e.roles) for e in entries] == [
        ("prepare", ["prepare"]), ("tune", ["tune/a", "tune/b"]), ("final", ["final/a/2"]), ("final", ["final/a/10"]),
    ]  # fmt: skip
    spent = {c.stage: c for c in costs(entries)}
    assert spent["tune"].wall_seconds == 100
    assert spent["final"].gpu_seconds == pytest.approx(16)
    assert spent["prepare"].devices == ["cpu"]
