"""Warm starts: the best trials of an earlier search, as points that another one tries first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from shared.config.search import Range
from shared.search.space import Parameters, inside

WARM_TRIALS = 5


def warm_points(trials: pa.Table, best: Mapping[str, Any], space: Mapping[str, Range]) -> list[Parameters]:
    """Of an earlier search's `trials.parquet` and `best.json`: its best completed trials, at most five, each once, the best first.

    What counts as best is that search's own objective, of several the front and then the first one. Of each trial only the values that lie
    in `space` are taken; a trial that has none is passed over.
    """
    towards: Mapping[str, str] = best.get("directions") or {"": best["direction"]}
    first, direction = next(iter(towards.items()))
    value = f"value.{first}" if first else "value"
    sign = 1 if direction == "minimize" else -1
    complete = [row for row in trials.to_pylist() if row["state"] == "complete"]
    complete.sort(key=lambda row: (not row.get("front", True), sign * row[value], row["number"]))
    points: list[Parameters] = []
    for row in complete:
        point = {path: row[path] for path in space if path in row and inside(space[path], row[path])}
        if point and point not in points:
            points.append(point)
    return points[:WARM_TRIALS]
