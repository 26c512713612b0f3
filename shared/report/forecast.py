"""Puts the forecast that a run was begun with beside the hours that its results took."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from shared.config.forecast import RunForecast
from shared.report.lineage import StageCost


def beside_truth(forecast: RunForecast | None, costs: Sequence[StageCost]) -> dict[str, Any] | None:
    """Returns the forecast with a row per stage that was forecast and has results, for the page and for `results.json`; None without one."""
    if forecast is None:
        return None
    spent = {cost.stage: (cost.gpu_seconds + cost.cpu_seconds) / 3600 for cost in costs}
    passed = datetime.now(UTC) - datetime.fromisoformat(forecast.made)
    return {
        "made": forecast.made,
        "run_hours": forecast.run_hours[1],
        "passed_hours": passed.total_seconds() / 3600,
        "processes": forecast.processes,
        "not_timed": list(forecast.not_timed),
        "busy_cores": forecast.busy_cores,
        "slowdown": forecast.slowdown,
        "timed_busy_cores": forecast.timed_busy_cores,
        "rows": [
            {"stage": stage, "forecast": middle, "low": low, "high": high, "hours": spent[stage]}
            for stage, (low, middle, high) in forecast.hours.items()
            if stage in spent
        ],
    }


def hours_text(hours: float) -> str:
    """Returns hours as text with two digits."""
    return "<0.01" if 0 < hours < 0.005 else f"{hours:.2f}"
