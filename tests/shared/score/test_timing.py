"""Tests that the parts of the search for near-duplicates are timed; that a forecast fits is measured by whole studies, not here."""

from __future__ import annotations

import pytest

from shared.data.schema import LabelGroup, LabelSchema
from shared.score.near_duplicates import HELD_OUT
from shared.score.timing import time_comparisons

SCHEMA = LabelSchema(groups=(LabelGroup(name="label", kind="one", classes=("a", "b")),))


def test_each_part_takes_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.benchmark.SECONDS", 0.1)
    found = time_comparisons(32, SCHEMA)
    for part in (found.look, found.parts, found.pair):
        low, middle, high = part.tolist()
        assert 0 < low <= middle <= high
    assert found.held_out == HELD_OUT
