"""Mixed precision and memory layout by device."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def low_precision(device: torch.device) -> torch.dtype | None:
    """The type that convolutions run in: bfloat16 on a GPU that has it, else float16; None (float32) on a CPU."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def autocast(device: torch.device) -> torch.autocast:
    """Mixed precision where the device gains by it; does nothing on a CPU."""
    dtype = low_precision(device)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def grad_scaler(device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling, which only float16 needs; passes through otherwise."""
    return torch.amp.GradScaler(device.type, enabled=low_precision(device) is torch.float16)


def move_to(module: nn.Module, device: torch.device) -> None:
    """Moves a network in place, channels last on a GPU, where tensor cores want them so."""
    module.to(device)
    if device.type == "cuda":
        module.to(memory_format=torch.channels_last)


def to_float_images(images: Tensor, device: torch.device) -> Tensor:
    """Images uint8 `[n, 3, r, r]` on the device as floats in 0 to 1; the copy to a GPU overlaps with work there."""
    if device.type == "cuda" and images.device.type == "cpu":
        images = images.pin_memory().to(device, non_blocking=True)
    floats = images.to(torch.float32).div_(255)
    return floats.contiguous(memory_format=torch.channels_last) if device.type == "cuda" else floats
