"""Compiles a denoiser by torch.compile, and says after how much work that pays.

If diffusers names the blocks that a network repeats, these alone are compiled, each kind once: that takes a part of the time that the whole
network would.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from shared.errors import ConfigError
from shared.log import Log

TIMED_RUNS = 3
SHAPES = 32  # prompts and blocks differ in size; torch compiles this many shapes, and computes others plainly


@dataclass(frozen=True)
class Gain:
    """Holds what compiling takes, and what one unit of work takes before and after, in seconds."""

    compiling: float
    before: float
    after: float

    @property
    def break_even(self) -> float:
        """Returns after how many units the time of compiling is regained; infinity if they have become no faster."""
        gained = self.before - self.after
        return self.compiling / gained if gained > 0 else float("inf")

    def per(self, share: float) -> Gain:
        """Returns the gain of a unit that is this share of the present one."""
        return Gain(self.compiling, self.before * share, self.after * share)

    def tell(self, log: Log, unit: str, left: int | None = None) -> None:
        """Logs it, with a warning if compiling does not pay; `left` counts the units that are to come, if that is known."""
        figures: dict[str, Any] = {
            "compiling_seconds": round(self.compiling, 1),
            f"seconds_per_{unit}": float(f"{self.after:.3g}"),
            "before": float(f"{self.before:.3g}"),
        }
        if left is not None:
            figures[f"{unit}s_left"] = left
        if self.break_even == float("inf"):
            log.warning("the compiled network is no faster; set resources.compile to false", **figures)
        elif left is not None and self.break_even > left:
            log.warning(
                "compiling takes longer than it saves; set resources.compile to false",
                **figures,
                pays_after=round(self.break_even),
            )
        else:
            log.info(f"compiling pays after so many {unit}s", **figures, pays_after=round(self.break_even))


def compile_denoiser(
    model: Any, run: Callable[[], object], folder: Path, refit: Callable[[], object] = lambda: None
) -> Gain:
    """Compiles a denoiser in place, and returns what that takes and gains, by running `run` before and after.

    `run` computes with the denoiser as the work that follows does. `folder` keeps what is compiled for the next process, and `refit` adapts
    `run` to the memory that the compiled network needs. Raises ConfigError if torch cannot compile here.
    """
    from torch._dynamo.exc import TorchDynamoException

    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_private(folder)))
    torch._dynamo.config.recompile_limit = SHAPES
    device = next(model.parameters()).device
    before = _seconds(run, device)
    begun = time.monotonic()
    if getattr(model, "_repeated_blocks", None):
        model.compile_repeated_blocks()
    else:
        model.compile()
    try:
        refit()
        run()
        compiling = time.monotonic() - begun
        compiled = _seconds(run, device)
    except TorchDynamoException as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"resources.compile: torch cannot compile the network here ({lines[0]}); install a C++ compiler (g++; images have one "
            "if PYTHON_IMAGE, on which they are built, has one), or set it to false"
        ) from error
    return Gain(max(compiling - compiled, 0.0), before, compiled)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Returns the median time of a run; the first is not timed, as it chooses kernels or compiles for shapes that the run before had not."""
    run()
    times = []
    for _ in range(TIMED_RUNS):
        begun = time.monotonic()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.monotonic() - begun)
    return median(times)


def _private(folder: Path) -> Path:
    """Makes a folder to which nobody else can write, as what it holds is executed; raises ConfigError if it is another user's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat(follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise ConfigError(
            f"resources.compile: {folder} is not a folder of this user, and what it holds would be executed; remove it, or set "
            "TAILFILL_CACHE to another folder"
        )
    folder.chmod(0o700)
    return folder
