"""The device that a stage computes on, and how many threads it takes."""

from __future__ import annotations

import torch

from shared.errors import ConfigError


def pick_device(wanted: str) -> torch.device:
    """`auto`, `cpu` or `cuda` as a device; raises ConfigError where CUDA is wanted and there is none."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("resources.device: cuda is asked for, but torch finds no CUDA device; set it to auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """`cpu`, or the GPU's name as the driver gives it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def gpu_count(device: torch.device) -> int:
    """How many GPUs this process holds; 0 on a CPU."""
    return torch.cuda.device_count() if device.type == "cuda" else 0
