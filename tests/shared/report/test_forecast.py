"""Tests that a report shows what was forecast beside what happened."""

from __future__ import annotations

from pathlib import Path

from jobs.report import report
from shared.config.forecast import RunForecast
from shared.report.forecast import beside_truth
from shared.report.lineage import StageCost
from tests.support.report_study import three_arms

FORECAST = RunForecast(
    made="2026-11-28T10:00:00+00:00",
    hours={"prepare": (0.001, 0.002, 0.003), "final": (0.5, 1.0, 2.0), "judge": (1.0, 1.0, 1.0)},
    run_hours=(0.5, 0.75, 1.0),
    busy_cores=3.5,
    slowdown=2.5,
    timed_busy_cores=0.5,
    processes=2,
)


def test_the_hours_of_each_stage_are_beside_its_forecast() -> None:
    cost = StageCost("final", 6, 9000.0, 3600.0, 0.0, 5400.0, 0.0, ["cpu"])
    found = beside_truth(FORECAST, [cost])
    assert found is not None
    assert found["rows"] == [{"stage": "final", "forecast": 1.0, "low": 0.5, "high": 2.0, "hours": 2.5}]
    assert beside_truth(None, [cost]) is None


def test_the_page_shows_it_if_the_run_had_a_forecast(tmp_path: Path) -> None:
    config, results = three_arms(tmp_path / "in")
    pages = []
    for name, forecast in (("with", FORECAST), ("without", None)):
        out = tmp_path / name
        out.mkdir()
        files = report(config.model_copy(update={"forecast": forecast}), results, out)
        pages.append(files["index.html"].read_text())
    assert "Forecast beside truth" in pages[0]
    assert "the machine needs 2.5 times as long" in pages[0]
    assert "The whole run was to take 45m00s with 2 processes at a time" in pages[0]
    assert "Forecast beside truth" not in pages[1]
