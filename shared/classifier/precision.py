"""Chooses the precision and the memory layout by device."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def low_precision(device: torch.device) -> torch.dtype | None:
    """Returns the type that convolutions run in: bfloat16 on a GPU that has it, else float16; None (float32) on a CPU."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def autocast(device: torch.device) -> torch.autocast:
    """Returns the context of mixed precision on a GPU, which does nothing on a CPU."""
    dtype = low_precision(device)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def grad_scaler(device: torch.device) -> torch.amp.GradScaler:
    """Returns the loss scaler, which is disabled unless the device computes in float16."""
    return torch.amp.GradScaler(device.type, enabled=low_precision(device) is torch.float16)


def move_to(module: nn.Module, device: torch.device) -> None:
    """Moves a network in place, to the channels-last layout on a GPU, which is faster on tensor cores."""
    module.to(device)
    if device.type == "cuda":
        module.to(memory_format=torch.channels_last)


def to_float_images(images: Tensor, device: torch.device) -> Tensor:
    """Returns uint8 images `[n, 3, r, r]` on the device as floats in 0 to 1; the copy to a GPU overlaps with its work."""
    if device.type == "cuda" and images.device.type == "cpu":
        images = images.pin_memory().to(device, non_blocking=True)
    floats = images.to(torch.float32).div_(255)
    return floats.contiguous(memory_format=torch.channels_last) if device.type == "cuda" else floats
