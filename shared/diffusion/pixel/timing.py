"""Measures on a few random images how long the pixel generator takes on this machine, for a forecast."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from shared.artifacts.checkpoints import NoCheckpoints
from shared.benchmark import LEAST, MOST, SECONDS, Range, repeated, spread, work_clock
from shared.config.generation import Generate, PixelFinetune
from shared.config.search import Resources
from shared.data.imageset import ImageSet
from shared.data.random_images import random_images
from shared.data.schema import LabelSchema
from shared.device import pick_device
from shared.diffusion.generator import BaseSource, Finetuning, SampleRequest, guided_share, sampling
from shared.diffusion.pixel.generator import PixelGenerator
from shared.diffusion.pixel.train import finetune_pixel
from shared.settings import Settings
from shared.stop import StopSignal

SAMPLER_STEPS = 2  # timed steps of the sampler, which takes equally long for each
FEW_DRAWN = 8  # images that are drawn at once if a batch would take longer than SECONDS


def time_pixel(
    config: PixelFinetune, generate: Generate, schema: LabelSchema, resources: Resources, settings: Settings
) -> tuple[Range, Range]:
    """Returns the seconds per training step and per generated image, each as a range. It has no base, and reads no settings."""
    device = pick_device(resources.device)
    images = random_images(schema, config.resolution, config.batch_size)
    labels, n = images.labels, len(images)
    with tempfile.TemporaryDirectory(prefix="tailfill-") as scratch:
        out = Path(scratch)
        steps = _steps(config, images, out, device, LEAST + 1)
        if (more := int(min(SECONDS / np.median(steps[1:]), MOST))) > LEAST:
            steps = _steps(config, images, out, device, more + 1)
        files = {path.name: path for path in out.iterdir()}
        generator = PixelGenerator.load(files, device, _no_base(out))
    guidance, all_steps = sampling(generate, generator)
    sampler_steps = min(SAMPLER_STEPS, all_steps)
    batch = generate.batch_size
    requests = [SampleRequest(labels[i % n], i) for i in range(batch)]
    clock = work_clock(device.type == "cuda", torch.get_num_threads())

    def seconds(count: int) -> float:
        start = clock()
        generator.sample(requests[:count], guidance, sampler_steps)
        return clock() - start

    at_once = batch
    if device.type != "cuda" and batch > FEW_DRAWN:
        seconds(FEW_DRAWN)  # the first time includes what is set up once
        if seconds(FEW_DRAWN) * batch / FEW_DRAWN > SECONDS:
            at_once = FEW_DRAWN
    drawn = repeated(lambda: seconds(at_once))
    share = 1.0 if guidance == 1 else guided_share(all_steps, generate.guidance_interval)
    return spread(steps[1:]), spread(drawn) * (share * all_steps / sampler_steps) / at_once


def _steps(config: PixelFinetune, images: ImageSet, out: Path, device: torch.device, count: int) -> list[float]:
    """Returns the seconds of each of `count` training steps; the first includes what is set up once."""
    short = config.model_copy(update={"steps": count})
    finetuning = Finetuning(
        images, np.array([], np.int64), 0, device, out, NoCheckpoints(), StopSignal(), _no_base(out)
    )
    clock = work_clock(device.type == "cuda", torch.get_num_threads())
    began, worked = time.monotonic(), clock()
    points = finetune_pixel(short, finetuning)
    worked, passed = clock() - worked, time.monotonic() - began
    seconds: list[float] = np.diff([0.0, *(point["seconds"] for point in points)]).tolist()
    # they are rounded in the curve, and so may be 0; of the time in it, this share was spent on the work
    return [max(second, 1e-4) * worked / passed for second in seconds]


def _no_base(scratch: Path) -> BaseSource:
    return BaseSource(Settings.from_environment({}), scratch)
