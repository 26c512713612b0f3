"""Tests that the work of other programs is seen, on the cores that this process may use."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shared.forecast.busy import busy_cores


def test_a_program_that_computes_is_seen() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            assert busy_cores() > 0.3  # of 1, as a machine may have more to do than cores
        finally:
            other.kill()


def test_cores_that_this_process_may_not_use_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.cpu_percent", lambda interval, percpu: [100.0, 50.0, 25.0, 100.0])
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {1, 2})
    assert busy_cores() == 0.75
