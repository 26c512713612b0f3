"""Chooses the device that a stage computes on."""

from __future__ import annotations

import gc
import warnings

import torch

from shared.errors import ConfigError
from shared.log import Log

log = Log("device")


def pick_device(wanted: str) -> torch.device:
    """Returns the device for `auto`, `cpu` or `cuda`; raises ConfigError for `cuda` if torch can use no GPU."""
    if wanted == "cpu":
        return torch.device("cpu")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = torch.cuda.is_available()  # warns of a GPU whose driver is too old
    words = "; ".join(" ".join(str(warning.message).split()) for warning in said)
    if wanted == "cuda" and not found:
        raise ConfigError(
            f"resources.device: cuda is asked for, but torch finds no GPU that it can use{words and f' ({words})'}; its driver must "
            f"know CUDA {torch.version.cuda}, as `nvidia-smi` says; or compute on `cpu`"
        )
    if words:
        log.warning("torch warns of CUDA", said=words, device="cuda" if found else "cpu")
    return torch.device("cuda" if found else "cpu")


def allow_fast_kernels(device: torch.device) -> None:
    """Lets float32 products on a GPU use TF32, and cuDNN try its convolutions, for a training whose result may differ by rounding."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True


def device_name(device: torch.device) -> str:
    """Returns `cpu`, or the GPU's name as the driver gives it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def gpu_count(device: torch.device) -> int:
    """Returns the number of GPUs that this process holds; 0 on a CPU."""
    return torch.cuda.device_count() if device.type == "cuda" else 0


def release_memory() -> None:
    """Returns the memory of work that has ended, for the next work of this process."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
