"""How long the pixel generator takes here: for a forecast, measured on a few random images."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from shared.checkpoint import NoCheckpoints
from shared.config.generation import Generate, PixelFinetune
from shared.config.search import Resources
from shared.context import StopSignal
from shared.data.canonical import encode
from shared.data.imageset import ImageSet
from shared.data.schema import LabelSchema
from shared.device import pick_device
from shared.diffusion.generator import SampleRequest
from shared.diffusion.pixel import PixelGenerator
from shared.diffusion.pixel_train import finetune_pixel

STEPS = 3


def time_pixel(
    config: PixelFinetune, generate: Generate, schema: LabelSchema, resources: Resources
) -> tuple[float, float]:
    """Seconds a training step, and seconds an image drawn."""
    device = pick_device(resources.device)
    rng = np.random.default_rng(0)
    n = config.batch_size
    pixels = rng.integers(0, 256, (n, config.resolution, config.resolution, 3), np.uint8)
    labels = np.zeros((n, schema.width), np.int8)
    for columns in schema.slices().values():
        labels[np.arange(n), rng.integers(columns.start, columns.stop, n)] = 1
    images = ImageSet(
        schema,
        [encode(Image.fromarray(p)) for p in pixels],
        [str(i) for i in range(n)],
        np.array(["train"] * n),
        labels,
    )
    with tempfile.TemporaryDirectory(prefix="tailfill-") as scratch:
        out = Path(scratch)
        short = config.model_copy(update={"steps": STEPS})
        points = finetune_pixel(short, images, 0, out, NoCheckpoints(), StopSignal(), device)
        files = {path.name: path for path in out.iterdir()}
        generator = PixelGenerator.load(files, device)
        start = time.monotonic()
        generator.sample(
            [SampleRequest(labels[i % n], i) for i in range(generate.batch_size)], generate.guidance, generate.steps
        )
        drawn = time.monotonic() - start
    return points[-1]["seconds"] / STEPS, drawn / generate.batch_size
