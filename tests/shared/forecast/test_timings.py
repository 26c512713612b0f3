"""Tests that timings are kept for a machine and a kind of work, and that a damaged file does no harm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shared.forecast.timings import KeptTimings, Machine

WORK = ["classifier", {"model": "resnet18", "head": [128]}, 64]
SECONDS = {"step": np.array([1.0, 2.0, 3.0])}


def kept(folder: Path, **changes: object) -> KeptTimings:
    machine = Machine("a processor", 2, ())
    return replace(KeptTimings(folder, machine, "cpu", 1), **changes)  # type: ignore[arg-type]


def test_a_timing_is_found_again(tmp_path: Path) -> None:
    assert kept(tmp_path).find(WORK) is None
    kept(tmp_path).keep(WORK, SECONDS, {"views": 2}, busy=1.5)
    found = kept(tmp_path).find(WORK)
    assert found is not None
    assert found.range("step").tolist() == [1.0, 2.0, 3.0]
    assert (found.numbers, found.busy_cores) == ({"views": 2}, 1.5)


@pytest.mark.parametrize(
    "changes",
    [{"device": "NVIDIA H100"}, {"threads": 2}, {"machine": Machine("another", 2, ())}, {"machine": Machine("a processor", 4, ())}],
)  # fmt: skip
def test_another_machine_has_timings_of_its_own(tmp_path: Path, changes: dict[str, object]) -> None:
    kept(tmp_path).keep(WORK, SECONDS, {}, 0.0)
    assert kept(tmp_path, **changes).find(WORK) is None
    assert kept(tmp_path).find([*WORK, "more"]) is None


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff\xfe", b'{"machine": {}, "work": [], "seconds": {"step": [1e400, 1, 1]}}']
)
def test_a_damaged_timing_is_none(tmp_path: Path, content: bytes) -> None:
    kept(tmp_path).keep(WORK, SECONDS, {}, 0.0)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert kept(tmp_path).find(WORK) is None
    kept(tmp_path).keep(WORK, SECONDS, {}, 0.0)
    assert kept(tmp_path).find(WORK) is not None


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    timing = kept(tmp_path / "file" / "timings").keep(WORK, SECONDS, {}, 0.0)
    assert timing.range("step").tolist() == [1.0, 2.0, 3.0]
    assert "a timing cannot be kept" in caplog.text
