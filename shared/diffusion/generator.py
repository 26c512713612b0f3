"""Defines the interface of all generators, so that `finetune` and `generate` need not know which one they use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from shared.artifacts.checkpoints import Checkpoints
from shared.benchmark import Range
from shared.config.generation import Generate
from shared.config.search import Resources
from shared.data.imageset import ImageSet
from shared.data.schema import Labels, LabelSchema
from shared.settings import Settings
from shared.stop import StopSignal
from shared.weights.inputs import FetchedBase, FewStepAdapter


@dataclass(frozen=True)
class SampleRequest:
    """Describes one image to draw."""

    labels: Labels
    """Holds the labels of the image, `[C]`."""
    seed: int
    """Seeds the image's own random generator, so that an image depends on the size of its batch, but not on the other images in it."""
    start: NDArray[np.uint8] | None = None
    """Holds a real image `[r, r, 3]` to start from (image-to-image)."""
    strength: float | None = None
    """Gives the share of noise that is put on `start`."""
    prompt: str | None = None
    """Gives the prompt, if it is not that of the labels alone; a generator without prompts ignores it."""
    negative: str = ""
    """Gives the prompt from which guidance leads away."""


class Generator(Protocol):
    """Draws images with a trained, conditional generator on one device."""

    resolution: int
    """Gives the side of its images in pixels."""
    guidance: float
    """Gives the scale of classifier-free guidance that suits it."""
    steps: int
    """Gives the number of evaluations of the network per image that suits it."""

    def prompt(self, labels: Labels, template: str | None = None) -> str:
        """Returns the prompt for an image with these labels `[C]`: a caption, by the template if one is given, or the class names.

        Raises ConfigError for a template with a field that is no label group.
        """

    def prepare(self, prompts: Sequence[str]) -> None:
        """Makes ready to draw images with these prompts; `sample` does so too, but needs more memory if it begins with few of them."""

    def noise_share(self, strength: float, steps: int) -> float:
        """Returns the share of noise with which images of this strength begin: 1 is noise alone, 0 the real image alone."""

    def sample(
        self,
        requests: Sequence[SampleRequest],
        guidance: float,
        steps: int,
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> NDArray[np.uint8]:
        """Draws one image per request, RGB `[n, resolution, resolution, 3]`; guidance is used in an `interval` of the steps, 0 … 1.

        The same requests in the same order give the same bytes on one device type.
        """


@dataclass(frozen=True)
class BaseSource:
    """Says where a generator finds its pretrained base, and what is put on it; one that is trained from scratch has none."""

    settings: Settings
    """Holds the settings, with the credentials of a bucket."""
    scratch: Path
    """Points to a folder for the files of a base in a bucket."""
    location: str | None = None
    """Gives the location of the base, if it has moved since the fine-tuning."""
    fetched: FetchedBase | None = None
    """Holds a base from the hub, as the stage `weights` committed it."""
    few_step: FewStepAdapter | None = None
    """Describes the LoRA with which images are drawn in a few steps, if there is one."""
    compiled: Path | None = None
    """Points to the folder that keeps compiled networks; None if networks are not compiled."""


@dataclass(frozen=True)
class Finetuning:
    """Holds the inputs of a generator's training beside its section of the study."""

    images: ImageSet
    """Holds the training split."""
    rare: NDArray[np.int64]
    """Holds the columns of the rare classes among the labels."""
    seed: int
    """Seeds all random choices."""
    device: torch.device
    out: Path
    """Points to the folder for the files that are committed, which the training makes; scratch files go beside it."""
    checkpoints: Checkpoints
    stop: StopSignal
    base: BaseSource
    processes: int = 1
    """Counts the processes that share the work, one per GPU; this process is the first of them."""


def sampling(generate: Generate, generator: Generator) -> tuple[float, int]:
    """Returns guidance and steps: those of the study, or those that suit the generator if the study leaves them to it."""
    guidance = generator.guidance if generate.guidance is None else generate.guidance
    return guidance, generator.steps if generate.steps is None else generate.steps


def by_strength(requests: Sequence[SampleRequest]) -> dict[float | None, list[int]]:
    """Returns the positions of the requests of each strength, under None of those from noise alone; a group runs the same part of the schedule.

    Raises ValueError for a request that has a start without a strength, or a strength without a start.
    """
    groups: dict[float | None, list[int]] = {}
    for position, request in enumerate(requests):
        if (request.start is None) != (request.strength is None):
            raise ValueError("a request has both a start and a strength, or neither")
        groups.setdefault(request.strength, []).append(position)
    return groups


def noise_generators(requests: Sequence[SampleRequest]) -> list[torch.Generator]:
    """Returns the random generator of each image, on the CPU: a seed's noise is then the same on every device."""
    return [torch.Generator().manual_seed(request.seed) for request in requests]


def draw_noise(generators: Sequence[torch.Generator], shape: Sequence[int]) -> torch.Tensor:
    """Returns the noise `[n, *shape]` from which images begin."""
    return torch.stack([torch.randn(*shape, generator=generator) for generator in generators])


def start_pixels(requests: Sequence[SampleRequest], side: int, device: torch.device) -> torch.Tensor:
    """Returns the start images `[n, 3, side, side]`, scaled to -1 … 1; raises ValueError for another size."""
    starts = np.stack([r.start for r in requests if r.start is not None])
    if starts.shape[1:] != (side, side, 3):
        raise ValueError(f"start images must be {(side, side, 3)}, got {starts.shape[1:]}")
    return torch.from_numpy(starts).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def guided_share(steps: int, interval: tuple[float, float] | None) -> float:
    """Returns the cost of `steps` steps, of which those in the interval have guidance, as a share of the cost of as many with guidance.

    A step with guidance is two evaluations of the network, one without it is one.
    """
    inside = sum(guided(index, steps, interval or (0.0, 1.0)) for index in range(steps))
    return (steps + inside) / (2 * steps)


def guided(index: float, steps: int, interval: tuple[float, float]) -> bool:
    """Returns whether the step `index` of `steps`, counted from 0, is in the interval in which guidance is used."""
    return interval[0] <= index / steps < interval[1]


Train = Callable[[Any, Finetuning], list[dict[str, float]]]
"""Trains a generator as its section `finetune` says and writes `generator.json`, `curve.json` and the weights into `out`.

`generator.json` has the generator's name as `generator`; all else in it is for its Load. Weights are safetensors (`tensors.py` beside this
file). `curve.json` is the curve, which is also returned: points of `step`, `loss` and `seconds`, one per step if there are few, and at least one.

It continues from a checkpoint if there is one, and then ends with the same weights (bit for bit on a CPU). Raises ConfigError, DataError (a
base or checkpoint that does not fit), UnavailableError (the base's bucket does not answer), InputError (the loss is no finite number, the
GPU's memory is too small), and Stopped after a checkpoint if the grace period suffices.
"""
Load = Callable[[Mapping[str, Path], torch.device, BaseSource], Generator]
"""Loads the generator from the files that a Train wrote, by name, on a device.

Raises DataError if one is missing, damaged or does not fit, UnavailableError if the base's bucket does not answer.
"""
Time = Callable[[Any, Generate, LabelSchema, Resources, Settings], tuple[Range, Range]]
"""Measures the seconds per training step and per drawn image on this machine, for a section `finetune`. Raises NotTimed if it cannot."""
