"""Writes and reads weights as safetensors, the only form in which a stage commits them, so that no pickle is ever opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from shared.artifacts.disk import room_errors
from shared.errors import DataError


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes tensors as safetensors, on the CPU and contiguous (channels-last weights are not); raises UnavailableError if the disk is full."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with room_errors(path):
        save_file(plain, path, metadata)


def read_tensors(files: Mapping[str, Path], name: str, stage: str) -> dict[str, torch.Tensor]:
    """Returns the tensors of one of the `files` that a stage made, on the CPU; raises DataError if the file is missing or not safetensors."""
    if name not in files:
        raise DataError(f"{name}: missing beside {sorted(files)}; {_remedy(stage)}")
    try:
        tensors: dict[str, torch.Tensor] = load_file(files[name])
    except (SafetensorError, OSError) as error:
        raise DataError(f"{name}: is no readable safetensors file ({error}); {_remedy(stage)}") from error
    return tensors


def check_shapes(name: str, found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], stage: str) -> None:
    """Raises DataError, which names the first tensor of a stage's file `name` that is missing, has another shape or is not wanted."""
    for key in sorted({*found, *wanted}):
        has = tuple(found[key].shape) if key in found else "no such tensor"
        needs = tuple(wanted[key].shape) if key in wanted else "no such tensor"
        if has != needs:
            raise DataError(
                f"{name}: {key} should be {needs}, got {has}; they belong to another model or data set, {_remedy(stage)}"
            )


def _remedy(stage: str) -> str:
    return f"run {stage} again (--rerun {stage})"
