"""Tests costs and lineage: a result that several experiments share counts once."""

from __future__ import annotations

from typing import Any

import pytest

from shared.artifacts.manifest import Manifest, Run
from shared.config.stages import Stage
from shared.report.inputs import StageResult
from shared.report.lineage import gpu_budgets, hours, lineage_entries, stage_costs


def result(
    stage: Stage, key: str, seconds: float, gpu: float, config: dict[str, Any] | None = None, **run_values: float
) -> StageResult:
    run = Run(
        created="2026-11-24T08:00:00+00:00",
        seconds=seconds,
        device="cpu" if not gpu else "H100",
        device_seconds=gpu,
        code="c",
        libraries={},
        **run_values,
    )
    return StageResult(
        Manifest(
            study="s", stage=stage, key=key, version=1, config=config or {}, inputs={}, files=(), summary={}, run=run
        ),
        {},
    )


def test_shared_results_count_once_in_the_order_of_the_stages() -> None:
    tune = result("tune", "t", 100, 90)
    results = {
        "final/a/10": result("final", "c", 10, 8), "final/a/2": result("final", "b", 10, 8), "tune/a": tune, "tune/b": tune,
        "prepare": result("prepare", "p", 5, 0),
    }  # fmt: skip
    entries = lineage_entries(results)
    assert [(e.stage, e.roles) for e in entries] == [
        ("prepare", ["prepare"]), ("tune", ["tune/a", "tune/b"]), ("final", ["final/a/2"]), ("final", ["final/a/10"]),
    ]  # fmt: skip
    spent = {c.stage: c for c in stage_costs(entries)}
    assert spent["tune"].wall_seconds == 100
    assert spent["final"].gpu_seconds == pytest.approx(16)
    assert spent["prepare"].devices == ["cpu"]


def test_hours_used_and_lost_by_kind_of_device() -> None:
    tune = result("tune", "t", 100, 90, cpu_seconds=30, device_lost_seconds=9, cpu_lost_seconds=3)
    found = stage_costs(
        lineage_entries(
            {
                "tune/a": tune,
                "prepare": result("prepare", "p", 5, 0),
                "final/a/0": result("final", "f", 8, 11, device_lost_seconds=3),
            }
        )
    )
    spent = {c.stage: (c.gpu_seconds, c.gpu_lost_seconds, c.cpu_seconds, c.cpu_lost_seconds) for c in found}
    # results from before CPU seconds were recorded count the wall time
    assert spent == {"prepare": (0, 0, 5, 0), "tune": (90, 9, 30, 3), "final": (11, 3, 0, 0)}


@pytest.mark.parametrize(
    ("gpu", "cpu", "text"),
    [
        (4500, 0, "1.25 GPU"),
        (0, 1440, "0.40 CPU"),
        (4500, 1440, "1.25 GPU + 0.40 CPU"),
        (0, 17, "<0.01 CPU"),
        (0, 0, "0"),
    ],
)
def test_hours_are_called_by_their_device(gpu: float, cpu: float, text: str) -> None:
    assert hours(gpu, cpu) == text


def test_budgets_of_the_searches() -> None:
    def tune(key: str, **budget: float) -> StageResult:
        return result("tune", key, 1, 1, {"search": {"budget": budget}})

    assert gpu_budgets(
        {"tune/a": tune("a", gpu_hours=10.0), "tune/b": tune("b", gpu_hours=10.0), "tune/c": tune("c")}
    ) == [10.0]
    assert gpu_budgets({"tune/a": result("tune", "a", 1, 1)}) == []
