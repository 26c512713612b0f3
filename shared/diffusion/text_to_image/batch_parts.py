"""Finds into how many parts a batch must be divided for the memory of a GPU, by trying before the first step of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import Accelerator

from shared.diffusion.text_to_image.state import TrainingState
from shared.log import Log

log = Log("finetune")


def parts_that_fit(
    share: int, accumulation: int, state: TrainingState, accelerator: Accelerator, backward: Callable[[slice], None]
) -> int:
    """Returns into how many parts a process's `share` of a batch must be divided for the memory of every process; 1 on a CPU.

    `accumulation` is `finetune.gradient_accumulation`, and `backward` computes the gradient for a slice of the share. Raises OutOfMemoryError if
    the memory is too small for one image.
    """
    parts = 1
    if not has_own_memory(accelerator.device):
        return parts
    while not _all(accelerator, _fits(share, parts, accumulation, state, accelerator.device, backward)):
        parts = min(2 * parts, share)
        log.warning(
            "the GPU's memory is too small for the batch; its gradient is averaged over smaller ones",
            images=-(-share // parts),
            accumulation=accumulation * parts,
        )
    return parts


def split(count: int, parts: int) -> list[slice]:
    """Returns slices that divide `count` images into parts as equal as possible, larger ones first."""
    ends = np.cumsum([len(part) for part in np.array_split(np.arange(count), parts)]).tolist()
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def has_own_memory(device: torch.device) -> bool:
    """Returns whether a device has memory of its own, which may be too small for a batch."""
    return device.type == "cuda"


def _fits(
    share: int,
    parts: int,
    accumulation: int,
    state: TrainingState,
    device: torch.device,
    backward: Callable[[slice], None],
) -> bool:
    """Returns whether the memory suffices for a share in so many parts, by the gradient of the largest part.

    Raises OutOfMemoryError if that is one image and does not fit.
    """
    largest, trained = split(share, parts)[0], state.trained.values()
    fits = True
    try:
        # Adam's two means of each gradient are in memory from the second step on
        reserved = [] if state.optimizer.state else [torch.empty_like(p) for p in trained for _ in range(2)]
        with without_effect(state, device):
            # the second of several parts finds the gradients of the first in memory
            for _ in range(2 if parts * accumulation > 1 else 1):
                backward(largest)
        del reserved
    except torch.OutOfMemoryError:
        if largest.stop == 1:
            raise
        fits = False
    if not fits and device.type == "cuda":
        torch.cuda.empty_cache()  # after the exception is gone, which holds tensors
    return fits


@contextmanager
def without_effect(state: TrainingState, device: torch.device) -> Iterator[None]:
    """Computes gradients in the block without any effect on the training: they are dropped, and random numbers are drawn anew after it."""
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        for parameter in state.trained.values():
            parameter.grad = None


def _all(accelerator: Accelerator, mine: bool) -> bool:
    """Returns whether it is true in every process."""
    share: torch.Tensor = accelerator.reduce(torch.tensor(float(mine), device=accelerator.device), "mean")
    return bool(share == 1)
