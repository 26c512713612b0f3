"""Tests which device a stage computes on, and the message if a GPU cannot be used."""

from __future__ import annotations

import warnings

import pytest
import torch

from shared.device import device_name, gpu_count, pick_device
from shared.errors import ConfigError

OLD_DRIVER = "CUDA initialization: The NVIDIA driver on your system is too old (found version 12040)."


def answers(found: bool, warning: str | None = None) -> bool:
    """Returns what torch says about CUDA."""
    if warning:
        warnings.warn(warning, stacklevel=1)
    return found


def test_a_cpu_is_a_cpu() -> None:
    device = pick_device("cpu")
    assert (device.type, device_name(device), gpu_count(device)) == ("cpu", "cpu", 0)


def test_auto_takes_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, kind in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=found: answers(found))
        assert pick_device("auto").type == kind
        assert pick_device("cpu").type == "cpu"


def test_a_driver_that_is_too_old_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: answers(False, OLD_DRIVER))
    with caplog.at_level("WARNING", "tailfill"):
        assert pick_device("auto").type == "cpu"
    assert [record.getMessage() for record in caplog.records] == ["torch warns of CUDA"]
    with pytest.raises(
        ConfigError, match=r"finds no GPU that it can use \(CUDA init.*too old.*\); its driver must know CUDA"
    ):
        pick_device("cuda")


def test_cuda_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: answers(False))
    with pytest.raises(ConfigError, match=r"resources\.device: cuda is asked for, but torch finds no GPU"):
        pick_device("cuda")
