"""Measures how fast images are drawn with a fine-tuned LoRA, by tailfill and by the pipeline of diffusers, which draw alternately.

python -m benchmarks.generation [--base tiny|sd15|FOLDER] [--images N] [--steps N] [--batches 1,2,4] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.base_options import BaseOptions, base_options, open_base
from benchmarks.comparison import run_comparison
from benchmarks.drawn_images import drawn_images
from benchmarks.machine import Machine, cpu_seconds, device_use
from benchmarks.plain_pipeline import PlainPipeline
from benchmarks.tables import markdown, spread, times
from shared import log
from shared.artifacts.checkpoints import NoCheckpoints
from shared.config.generation import Generate, StableDiffusionFinetune
from shared.device import pick_device, release_memory
from shared.diffusion.generator import BaseSource, Finetuning, SampleRequest
from shared.diffusion.load import load_generator
from shared.diffusion.text_to_image.generator import DTYPES
from shared.diffusion.text_to_image.model import LORA
from shared.diffusion.text_to_image.train import finetune_text_to_image
from shared.errors import ConfigError, InputError
from shared.settings import Settings
from shared.stop import StopSignal

SAMPLING = Generate()
SEEN = 4  # images of which both sides draw the same, to be compared
LEVELS = 1  # of 255, by which a byte may differ on a CPU: both round
Draw = Callable[[Sequence[int]], NDArray[np.uint8]]
"""Draws the images of seeds in one batch."""


@dataclass(frozen=True)
class Options:
    """Holds the settings of both sides."""

    images: int
    steps: int
    guidance: float
    resolution: int
    precision: str


@dataclass
class Side:
    """Holds the measurements of one side."""

    loading: float
    """Counts the seconds until the first image, of one step, is there."""
    tried: dict[int, float] = field(default_factory=dict)
    """Holds the images per second by the size of the batch."""
    speeds: list[float] = field(default_factory=list)
    """Holds the images per second of each round, with the fastest batch."""
    cpu_seconds: list[float] = field(default_factory=list)
    """Holds the seconds of CPU time per image of each round."""
    weights_bytes: int = 0
    """Counts the bytes of a GPU's memory that it takes when it draws nothing."""
    peak_bytes: list[int] = field(default_factory=list)
    """Holds the most that it took at once, without what the other side takes when it draws nothing."""
    busy: list[float] = field(default_factory=list)
    """Holds the shares of time in which the GPU computed."""

    @property
    def batch(self) -> int:
        """Returns the fastest batch."""
        return max(self.tried, key=lambda size: self.tried[size])


@dataclass(frozen=True)
class Comparison:
    """Holds all measurements, and the settings and the machine that they were made with."""

    base: str
    options: Options
    machine: Machine
    tailfill: Side
    pipeline: Side
    most: int
    """Gives the largest difference of a byte between images of both."""
    difference: float
    """Gives the mean difference."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@base_options
@click.option("--images", type=click.IntRange(min=1), default=16, show_default=True, help="Images of each round.")
@click.option("--steps", type=click.IntRange(min=1), default=SAMPLING.steps, show_default=True, help="Steps per image.")
@click.option("--guidance", type=click.FloatRange(min=1), default=SAMPLING.guidance, show_default=True, help="The scale of guidance.")  # fmt: skip
@click.option("--batches", default="1,4,16", show_default=True, help="Sizes of batches to try; the fastest of each side counts.")  # fmt: skip
def main(asked: BaseOptions, batches: str, **drawing: Any) -> None:
    """Draw the same images alternately by tailfill and by the pipeline of diffusers, and compare."""

    def compare(temporary: Path) -> Comparison:
        device = pick_device(asked.device)
        base, side = open_base(asked.base, asked.resolution, temporary / "base")
        options = Options(**drawing, resolution=side, precision=asked.precision_on(device))
        sizes = [size for size in _sizes(batches) if size <= options.images] or [options.images]
        return Pair(base, options, device, temporary).compare(asked.base, sizes, asked.rounds)

    run_comparison(compare, table, asked.json_file)


def _sizes(batches: str) -> list[int]:
    """Returns the sizes that a list names; raises ConfigError for anything else."""
    parts = batches.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--batches: must be whole numbers from 1 on, like 1,2,4; got {batches!r}")
    return sorted({int(part) for part in parts})


class Pair:
    """Draws either way with one fine-tuned LoRA."""

    def __init__(self, base: Path, options: Options, device: torch.device, folder: Path) -> None:
        """Fine-tunes for a step: its LoRA differs from the base's images, and costs what every LoRA does."""
        self.base, self.options, self.device = base, options, device
        self.source = BaseSource(Settings.from_environment({}), folder)
        self.files = self._trained(folder / "out")
        self.prompts: dict[int, str] = {}

    def _trained(self, out: Path) -> dict[str, Path]:
        config = StableDiffusionFinetune.model_validate(
            {
                "generator": "stable-diffusion", "base": str(self.base), "method": "lora", "steps": 1, "batch_size": 1, "warmup_steps": 0,
                "learning_rate": 0.01, "ema": 0.0, "resolution": self.options.resolution, "precision": self.options.precision,
            }
        )  # fmt: skip
        finetune_text_to_image(
            config,
            Finetuning(
                images=drawn_images(1, self.options.resolution),
                rare=np.array([0]),
                seed=1,
                device=self.device,
                out=out,
                checkpoints=NoCheckpoints(),
                stop=StopSignal(),
                base=self.source,
            ),
        )
        return {path.name: path for path in out.iterdir()}

    def compare(self, name: str, sizes: Sequence[int], rounds: int) -> Comparison:
        """Draws the same images both ways, tries the batches, and then draws alternately, each side with its fastest batch."""
        ours, tailfill = self._loaded(self._tailfill)
        theirs, pipeline = self._loaded(self._pipeline)
        seeds = range(min(SEEN, self.options.images))
        difference = np.abs(ours(seeds).astype(np.int16) - theirs(seeds))
        if self.device.type == "cpu" and difference.max() > LEVELS:
            raise InputError(f"both draw different images, by up to {difference.max()} of 255: the comparison would be of unequal work")  # fmt: skip
        progress = log.Log("benchmark")
        found = Comparison(
            name, self.options, Machine.of(self.device), tailfill, pipeline, int(difference.max()), float(difference.mean())
        )  # fmt: skip
        for size in sizes:
            for draw, side in ((ours, tailfill), (theirs, pipeline)):
                try:
                    side.tried[size] = self._speed(draw, size)
                except (torch.OutOfMemoryError, InputError):
                    progress.warning("the GPU's memory is too small for a batch", images=size)
                    release_memory()
            progress.info("batch", size=size, tailfill=tailfill.tried.get(size), pipeline=pipeline.tried.get(size))
        for _ in range(rounds):
            for draw, side, other in ((ours, tailfill, pipeline), (theirs, pipeline, tailfill)):
                with device_use(self.device) as use:
                    begun, cpu = time.monotonic(), cpu_seconds()
                    side.speeds.append(self._speed(draw, side.batch))
                    side.cpu_seconds.append((cpu_seconds() - cpu) / self.options.images)
                    busy = use.busy(begun, time.monotonic())
                if use.peak_bytes is not None:
                    side.peak_bytes.append(use.peak_bytes - other.weights_bytes)
                if busy is not None:
                    side.busy.append(busy)
            progress.info("round", tailfill=tailfill.speeds[-1], pipeline=pipeline.speeds[-1])
            found.machine.look()
        return found

    def _speed(self, draw: Draw, size: int) -> float:
        """Returns the images per second in batches of this size."""
        seeds = range(self.options.images)
        begun = time.monotonic()
        for first in range(0, len(seeds), size):
            draw(seeds[first : first + size])
        return len(seeds) / (time.monotonic() - begun)

    def _loaded(self, load: Callable[[], Callable[[Sequence[int], int], NDArray[np.uint8]]]) -> tuple[Draw, Side]:
        """Returns how one side draws, after it has drawn an image of one step."""
        before, begun = self._allocated(), time.monotonic()
        draw = load()
        draw([0], 1)
        side = Side(time.monotonic() - begun)
        side.weights_bytes = self._allocated() - before
        return lambda seeds: draw(seeds, self.options.steps), side

    def _allocated(self) -> int:
        """Returns the bytes of the GPU's memory that tensors take."""
        release_memory()
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0

    def _tailfill(self) -> Callable[[Sequence[int], int], NDArray[np.uint8]]:
        generator = load_generator(self.files, self.device, self.source)
        labels = drawn_images(self.options.images, self.options.resolution).labels
        self.prompts = {seed: generator.prompt(labels[seed]) for seed in range(len(labels))}
        generator.prepare([*self.prompts.values(), ""])

        def draw(seeds: Sequence[int], steps: int) -> NDArray[np.uint8]:
            return generator.sample([SampleRequest(labels[seed], seed) for seed in seeds], self.options.guidance, steps)

        return draw

    def _pipeline(self) -> Callable[[Sequence[int], int], NDArray[np.uint8]]:
        options = self.options
        dtype = DTYPES[options.precision]
        pipeline = PlainPipeline(self.base, self.files[LORA], dtype, self.device)

        def draw(seeds: Sequence[int], steps: int) -> NDArray[np.uint8]:
            return pipeline.draw([self.prompts[s] for s in seeds], seeds, options.resolution, options.guidance, steps)

        return draw


def table(found: Comparison) -> str:
    """Returns the comparison as a Markdown table."""
    ours, theirs, options = found.tailfill, found.pipeline, found.options
    cpu = [[1000 * seconds for seconds in side.cpu_seconds] for side in (ours, theirs)]
    rows = [
        ("", "tailfill", "pipeline", "ratio"),
        ("loading, up to the first image of one step (s)", f"{ours.loading:.1f}", f"{theirs.loading:.1f}", times(theirs.loading / ours.loading)),
        *(
            (f"images/s in batches of {size}", f"{ours.tried[size]:.2f}", f"{theirs.tried[size]:.2f}", times(ours.tried[size] / theirs.tried[size]))
            for size in sorted(ours.tried.keys() & theirs.tried.keys())
        ),
        (
            f"images/s in the fastest batches ({ours.batch} and {theirs.batch})",
            spread(ours.speeds), spread(theirs.speeds), times(mean(ours.speeds) / mean(theirs.speeds)),
        ),
        ("CPU time per image (ms)", *(spread(each, 0) for each in cpu), times(mean(cpu[1]) / mean(cpu[0]))),
    ]  # fmt: skip
    if ours.peak_bytes and theirs.peak_bytes:
        most = [max(side.peak_bytes) / 1e9 for side in (ours, theirs)]
        rows.append(("peak memory of the GPU (GB)", f"{most[0]:.2f}", f"{most[1]:.2f}", times(most[1] / most[0])))
    if ours.busy and theirs.busy:
        rows.append(
            ("the GPU computes, by NVML (%)", f"{100 * mean(ours.busy):.0f}", f"{100 * mean(theirs.busy):.0f}", "")
        )
    return "\n".join(
        [
            markdown(rows),
            "",
            f"Base {found.base} with LoRA, {options.resolution} px, {options.precision}, {options.steps} steps, guidance "
            f"{options.guidance:g}, {options.images} images per round, {len(ours.speeds)} rounds. The bytes of both sides' images "
            f"differ by at most {found.most}, by {found.difference:.4f} on average.",
            str(found.machine),
        ]
    )


if __name__ == "__main__":
    main()
