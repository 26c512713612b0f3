from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from benchmarks.machine import DeviceUse, Machine, _sampling, device_use


def test_it_says_what_it_is() -> None:
    machine = Machine.of(torch.device("cpu"))
    machine.look()
    assert str(machine).startswith(f"cpu, {os.cpu_count()} cores (")
    assert len(machine.load) == 2


def test_a_cpu_has_no_figures_of_a_gpu() -> None:
    with device_use(torch.device("cpu")) as use:
        pass
    assert use == DeviceUse()
    assert use.busy(0.0, time.monotonic()) is None


def test_the_driver_is_asked_while_the_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program answers as nvidia-smi does on a machine with a GPU, and [N/A] for a part of one."""
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "$@" >&2\necho 40\necho "[N/A]"\nexec cat "$0".line -\n')
    program.chmod(0o700)
    (tmp_path / "nvidia-smi.line").write_text("100\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    samples: list[tuple[float, float]] = []
    with _sampling("GPU-1", samples):
        end = time.monotonic() + 20
        while len(samples) < 2 and time.monotonic() < end:
            time.sleep(0.01)
    assert [share for _, share in samples] == [0.4, 1.0]
    assert DeviceUse(samples=samples).busy(0.0, time.monotonic()) == pytest.approx(0.7)


def test_without_the_driver_nothing_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    samples: list[tuple[float, float]] = []
    with _sampling("GPU-1", samples):
        pass
    assert samples == []
