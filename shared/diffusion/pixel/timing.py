"""Measures on a few random images how long the pixel generator takes on this machine, for a forecast."""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from shared.artifacts.checkpoints import NoCheckpoints
from shared.benchmark import LEAST, MOST, SECONDS, Enough, Range, Repeats, spread
from shared.config.generation import Generate, PixelFinetune
from shared.config.search import Resources
from shared.data.encode import encode_image
from shared.data.imageset import ImageSet
from shared.data.schema import LabelSchema
from shared.device import pick_device
from shared.diffusion.generator import BaseSource, Finetuning, SampleRequest, guided_share, sampling
from shared.diffusion.pixel.generator import PixelGenerator
from shared.diffusion.pixel.train import finetune_pixel
from shared.settings import Settings
from shared.stop import StopSignal

FIRST = 2  # training steps that are run first; their pace decides how many are timed
SAMPLER_STEPS = 2  # timed steps of the sampler, which takes equally long for each


def time_pixel(
    config: PixelFinetune, generate: Generate, schema: LabelSchema, resources: Resources
) -> tuple[Range, Range]:
    """Returns the seconds per training step and per generated image, each as a range."""
    device = pick_device(resources.device)
    rng = np.random.default_rng(0)
    n = config.batch_size
    pixels = rng.integers(0, 256, (n, config.resolution, config.resolution, 3), np.uint8)
    labels = np.zeros((n, schema.width), np.int8)
    for columns in schema.slices().values():
        labels[np.arange(n), rng.integers(columns.start, columns.stop, n)] = 1
    images = ImageSet(
        schema,
        [encode_image(Image.fromarray(p)) for p in pixels],
        [str(i) for i in range(n)],
        np.array(["train"] * n),
        labels,
    )
    with tempfile.TemporaryDirectory(prefix="tailfill-") as scratch:
        out = Path(scratch)
        pace = _steps(config, images, out, device, FIRST)[-1]
        steps = _steps(config, images, out, device, int(np.clip(SECONDS / pace, LEAST, MOST)) + 1)
        files = {path.name: path for path in out.iterdir()}
        generator = PixelGenerator.load(files, device, _no_base(out))
    guidance, all_steps = sampling(generate, generator)
    sampler_steps = min(SAMPLER_STEPS, all_steps)
    requests = [SampleRequest(labels[i % n], i) for i in range(generate.batch_size)]
    drawn = Repeats()
    with suppress(Enough):
        while True:
            start = time.monotonic()
            generator.sample(requests, guidance, sampler_steps)
            drawn.add(time.monotonic() - start)
    share = 1.0 if guidance == 1 else guided_share(all_steps, generate.guidance_interval)
    return spread(steps[1:]), spread(drawn.times) * (share * all_steps / sampler_steps) / generate.batch_size


def _steps(config: PixelFinetune, images: ImageSet, out: Path, device: torch.device, count: int) -> list[float]:
    """Returns the seconds of each of `count` training steps; the first includes what is set up once."""
    short = config.model_copy(update={"steps": count})
    finetuning = Finetuning(
        images, np.array([], np.int64), 0, device, out, NoCheckpoints(), StopSignal(), _no_base(out)
    )
    points = finetune_pixel(short, finetuning)
    seconds: list[float] = np.diff([0.0, *(point["seconds"] for point in points)]).tolist()
    return [max(second, 1e-4) for second in seconds]  # they are rounded in the curve, and so may be 0


def _no_base(scratch: Path) -> BaseSource:
    return BaseSource(Settings.from_environment({}), scratch)
