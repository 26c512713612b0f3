from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.generation import main
from benchmarks.plain_pipeline import PlainPipeline


def run(*arguments: str) -> tuple[int, str]:
    small = ["--device", "cpu", "--images", "3", "--steps", "2", "--rounds", "1", "--batches", "1,2"]
    result = CliRunner().invoke(main, [*small, *arguments])
    return result.exit_code, result.output


def test_it_measures_both_on_the_same_images(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    code, output = run("--json", str(figures))
    assert code == 0, output
    assert re.search(r"\| images/s in the fastest batches \([12] and [12]\) \| [\d.]+ \| [\d.]+ \| [\d.]+ × \|", output)
    found = json.loads(figures.read_text())
    assert found["most"] <= 1
    for side in ("tailfill", "pipeline"):
        assert set(found[side]["tried"]) == {"1", "2"}
        assert len(found[side]["speeds"]) == 1


def test_different_images_are_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = PlainPipeline.draw
    monkeypatch.setattr(PlainPipeline, "draw", lambda *arguments: np.flip(draw(*arguments), axis=2))
    code, output = run()
    assert code == 1
    assert "both draw different images" in output


@pytest.mark.parametrize("batches", ["", "0", "1,x", "-1"])
def test_batches_are_whole_numbers(batches: str) -> None:
    code, output = run("--batches", batches)
    assert code == 1
    assert "--batches: must be whole numbers from 1 on" in output
