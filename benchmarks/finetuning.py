"""Measures what a fine-tuning costs in tailfill, and in a loop like that of diffusers' examples, which run alternately on the same base and images.

python -m benchmarks.finetuning [--base tiny|sd15|FOLDER] [--method lora|full] [--steps N] [--images N] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import click
import numpy as np
import torch

from benchmarks.base_options import BaseOptions, base_options, open_base
from benchmarks.comparison import run_comparison
from benchmarks.drawn_images import drawn_images
from benchmarks.finetuning_run import Options, Run
from benchmarks.machine import Machine, cpu_seconds, device_use
from benchmarks.plain_finetuning import plain_finetuning
from benchmarks.tables import markdown, spread, times
from shared import log
from shared.artifacts.checkpoints import NoCheckpoints
from shared.config.generation import StableDiffusionFinetune
from shared.data.imageset import ImageSet
from shared.device import pick_device
from shared.diffusion.generator import BaseSource, Finetuning
from shared.diffusion.text_to_image.caption import Captioner
from shared.diffusion.text_to_image.train import finetune_text_to_image
from shared.errors import ConfigError
from shared.settings import Settings
from shared.stop import StopSignal

STUDY_STEPS = StableDiffusionFinetune.model_fields["steps"].default


@dataclass(frozen=True)
class Comparison:
    """Holds all measurements, and the settings and the machine that they were made with."""

    base: str
    images: int
    options: Options
    machine: Machine
    tailfill: list[Run]
    plain: list[Run]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@base_options
@click.option(
    "--method", type=click.Choice(["lora", "full"]), default="lora", show_default=True, help="What is trained."
)
@click.option("--steps", type=click.IntRange(min=2), default=60, show_default=True, help="Steps of each fine-tuning.")
@click.option("--batch-size", type=click.IntRange(min=1), default=4, show_default=True, help="Images per step.")
@click.option("--images", type=click.IntRange(min=1), default=64, show_default=True, help="Training images.")
@click.option("--rank", type=click.IntRange(min=1), default=16, show_default=True, help="The rank of LoRA.")
@click.option("--gradient-checkpointing", is_flag=True, help="Recompute activations, on both sides.")
@click.option("--workers", type=click.IntRange(min=0), help="The plain loop's loader processes [one per core].")
def main(asked: BaseOptions, images: int, workers: int | None, **training: Any) -> None:
    """Fine-tune alternately by tailfill and by a plain loop, and compare."""

    def compare(temporary: Path) -> Comparison:
        device = pick_device(asked.device)
        base, side = open_base(asked.base, asked.resolution, temporary / "base")
        options = Options(
            **training,
            workers=os.cpu_count() or 1 if workers is None else workers,
            resolution=side,
            precision=asked.precision_on(device),
        )
        if images < options.batch_size:
            raise ConfigError(f"--images: {images} do not fill a batch; use {options.batch_size} or more, or lower --batch-size")  # fmt: skip
        return Pair(base, drawn_images(images, side), options, device, temporary).compare(asked.base, asked.rounds)

    run_comparison(compare, table, asked.json_file)


@dataclass(frozen=True)
class Pair:
    """Trains either way on the same base and images."""

    base: Path
    images: ImageSet
    options: Options
    device: torch.device
    folder: Path

    def compare(self, name: str, rounds: int) -> Comparison:
        """Trains both ways alternately, after two steps of each that do not count: what is loaded at its first use would count for one side."""
        short = replace(self, options=replace(self.options, steps=2))
        short.tailfill()
        short.plain()
        found = Comparison(name, len(self.images), self.options, Machine.of(self.device), [], [])
        progress = log.Log("benchmark")
        for _ in range(rounds):
            found.tailfill.append(self.tailfill())
            progress.info("tailfill", **asdict(found.tailfill[-1]))
            found.plain.append(self.plain())
            progress.info("plain loop", **asdict(found.plain[-1]))
            found.machine.look()
        return found

    def tailfill(self) -> Run:
        """Trains as the stage `finetune` does, without checkpoints."""
        options, looked = self.options, StepClock()
        config = self.config()
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch, device_use(self.device) as use:
            finetuning = Finetuning(
                images=self.images,
                rare=np.array([0]),
                seed=options.seed,
                device=self.device,
                out=Path(scratch) / "out",
                checkpoints=NoCheckpoints(),
                stop=looked,
                base=BaseSource(Settings.from_environment({}), Path(scratch)),
            )
            begun, cpu = time.monotonic(), cpu_seconds()
            curve = finetune_text_to_image(config, finetuning)
            seconds, cpu = time.monotonic() - begun, cpu_seconds() - cpu
        # several steps end at one look at the device, and only the last of them is known to have ended then
        marks = {point["seconds"]: int(point["step"]) for point in curve}
        losses = [point["loss"] for point in curve]
        return Run.of(seconds, cpu, [(step, at) for at, step in marks.items()], losses, use, looked.last)

    def plain(self) -> Run:
        """Trains as diffusers' examples do."""
        captioner = Captioner(self.images.schema, self.config().caption, {})
        captions = [captioner(labels) for labels in self.images.labels]
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            return plain_finetuning(
                self.base, self.images.encoded, captions, self.options, self.device, Path(scratch) / "out"
            )

    def config(self) -> StableDiffusionFinetune:
        """Returns the section `finetune` that is the same training as the examples': each image as likely, each caption used, no average kept."""
        options = self.options
        return StableDiffusionFinetune.model_validate(
            {
                "generator": "stable-diffusion",
                "base": str(self.base),
                "method": options.method,
                "rank": options.rank,
                "resolution": options.resolution,
                "precision": options.precision,
                "steps": options.steps,
                "batch_size": options.batch_size,
                "learning_rate": options.learning_rate,
                "gradient_checkpointing": options.gradient_checkpointing,
                "checkpoint_every": options.steps,
                "warmup_steps": 0,
                "ema": 0.0,
                "min_snr": None,
                "class_power": 0.0,
                "condition_dropout": 0.0,
            }
        )


class StepClock(StopSignal):
    """Knows when a training last looked whether it must stop, which it does until its last step."""

    last = 0.0

    def __bool__(self) -> bool:
        self.last = time.monotonic()
        return False


def table(found: Comparison) -> str:
    """Returns the comparison as a Markdown table."""
    ours, plain, options = found.tailfill, found.plain, found.options

    def row(name: str, of: str, digits: int, scale: float = 1.0) -> tuple[str, ...]:
        mine, theirs = ([getattr(run, of) * scale for run in runs] for runs in (ours, plain))
        return name, spread(mine, digits), spread(theirs, digits), times(mean(theirs) / mean(mine))

    whole = [mean(run.once + STUDY_STEPS * run.per_step for run in runs) for runs in (ours, plain)]
    rows = [
        ("", "tailfill", "plain loop", "ratio"),
        row("loading, caching and writing, once (s)", "once", 2),
        row("a step (ms)", "per_step", 1, 1000),
        row(f"{options.steps} steps, all included (s)", "seconds", 2),
        row(f"{options.steps} steps, all included (s of CPU time)", "cpu_seconds", 2),
        (f"{STUDY_STEPS:,} steps, computed from these (s)", *(f"{s:.1f}" for s in whole), times(whole[1] / whole[0])),
        (*row("mean loss", "loss", 3)[:3], ""),
    ]
    if all(run.peak_bytes is not None for run in ours + plain):
        rows.append(row("peak memory of the GPU (GB)", "peak_bytes", 2, 1e-9))
        speeds = [mean(options.batch_size / run.per_step for run in runs) for runs in (ours, plain)]
        rows.append(("images/s", *(f"{speed:.1f}" for speed in speeds), times(speeds[0] / speeds[1])))
    if all(run.busy is not None for run in ours + plain):
        rows.append((*row("the GPU computes, by NVML (%)", "busy", 0, 100)[:3], ""))
    return "\n".join(
        [
            markdown(rows),
            "",
            f"Base {found.base}, {options.method}{f' of rank {options.rank}' if options.method == 'lora' else ''}, {options.resolution} px, batches of "
            f"{options.batch_size}, {found.images} images, {len(ours)} rounds; {options.workers} loader processes for the plain loop.",
            str(found.machine),
        ]
    )


if __name__ == "__main__":
    main()
