"""The simulation behind docs/statistics.md, in small."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import verdict_simulation
from benchmarks.verdict_simulation import AFTER, BEFORE, SEARCH, World, candidates_spread, differences, judge, main


@pytest.mark.parametrize("interaction", [0.0, 0.5])
def test_false_calls_stay_near_what_is_said(interaction: float) -> None:
    world = World(0.0, 200, interaction, candidates_spread())
    calls = {design.name: sum(judge(np.random.default_rng(0), design, world, 1000)) for design in (BEFORE, AFTER)}
    assert calls[AFTER.name] <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5
    assert calls[BEFORE.name] > 0.3


def test_searches_differ_as_measured() -> None:
    world = World(0.0, 1000, 0.0, candidates_spread())
    quiet = np.random.default_rng(3)
    means = differences(quiet, BEFORE, world, 4000).mean(axis=1)
    others = (2 * 0.6**2 + 0.3**2 * 10 / 2) / 10 + 0.3**2  # seeds and two pools of five, and the generator
    assert means.std() ** 2 == pytest.approx(SEARCH**2 + others, rel=0.06)


def test_an_effect_is_found_and_the_table_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(3.0, 1000, 0.0, candidates_spread())
    better, worse = judge(np.random.default_rng(0), AFTER, world, 100)
    assert better > 0.95
    assert worse == 0
    monkeypatch.setattr(verdict_simulation, "DESIGNS", (AFTER,))
    lines = CliRunner().invoke(main, ["--studies", "20"]).output.splitlines()
    assert sum(line.startswith(f"| {AFTER.name} |") for line in lines) == 3
    assert lines[-1].startswith("A repetition's difference has a standard deviation of 1.")
