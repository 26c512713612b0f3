"""Defines the arguments that the benchmarks of text-to-image models have, and opens the base that they name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.random_base import SHAPES, write_base
from shared.errors import ConfigError

SIDE = 512

_OPTIONS = (
    click.option("--base", default="tiny", show_default=True, metavar="|".join((*SHAPES, "FOLDER")), help="The base, of Stable Diffusion 1.x or 2.x."),
    click.option("--resolution", type=click.IntRange(min=32), help=f"The side of images in pixels [a random base's own; else {SIDE}]."),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."),
    click.option("--precision", type=click.Choice(["bf16", "fp16", "fp32"]), help="The precision [bf16 on a GPU]; a CPU has fp32."),
    click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="How often each side runs."),
    click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also writes every figure here."),
)  # fmt: skip


@dataclass(frozen=True)
class BaseOptions:
    """Holds the values of these arguments."""

    base: str
    resolution: int | None
    device: str
    precision: str | None
    rounds: int
    json_file: Path | None

    def precision_on(self, device: torch.device) -> str:
        """Returns the precision that a computation has on a device."""
        return "fp32" if device.type == "cpu" else self.precision or "bf16"


def base_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command these arguments; it gets them as its first, a BaseOptions."""

    @wraps(command)
    def gathered(**values: Any) -> Any:
        return command(BaseOptions(**{each.name: values.pop(each.name) for each in fields(BaseOptions)}), **values)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered


def open_base(name: str, resolution: int | None, folder: Path) -> tuple[Path, int]:
    """Returns the folder of a base, which is written into `folder` if it is one of random weights, and the side of its images.

    Raises ConfigError if there is no such folder.
    """
    if name in SHAPES:
        shapes = SHAPES[name]
        return write_base(shapes, folder), resolution or shapes.side
    if not Path(name).is_dir():
        raise ConfigError(f"--base: there is no folder {name}; name one, or {' or '.join(SHAPES)} for random weights")
    return Path(name), resolution or SIDE
