"""Makes a Stable Diffusion that is small enough for tests (70,000 random weights), in diffusers' layout, and images to train it on."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.random_base import TINY, write_base
from shared.artifacts.checkpoints import NoCheckpoints
from shared.data.imageset import ImageSet
from shared.data.schema import LabelGroup, LabelSchema
from shared.diffusion.generator import BaseSource, Finetuning
from shared.stop import StopSignal

SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="colour", classes=("red", "green")),
        LabelGroup(name="shape", classes=("square", "v_stripe")),
    )
)


def tiny_pipeline(folder: Path, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """Writes the parts into `folder`, without a safety checker, and returns it. Images of 32 pixels have latents of 16."""
    return write_base(TINY, folder, prediction_type, seed)


def tiny_images(count: int = 12, side: int = 32) -> ImageSet:
    """Returns noisy red and green images; every fourth is green, the rare colour."""
    random = np.random.default_rng(0)
    encoded, labels = [], np.zeros((count, 4), np.int8)
    for i in range(count):
        colour, shape = int(i % 4 == 3), i % 2
        labels[i, [colour, 2 + shape]] = 1
        pixels = random.integers(0, 60, (side, side, 3), np.uint8)
        pixels[..., colour] += 150
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return ImageSet(SCHEMA, encoded, [f"{i}.png" for i in range(count)], np.full(count, "train"), labels)


def tiny_finetuning(out: Path, source: BaseSource, device: torch.device, seed: int = 1) -> Finetuning:
    """Returns the inputs of a training that keeps no checkpoint and is not stopped."""
    return Finetuning(
        images=tiny_images(),
        rare=np.array([1]),
        seed=seed,
        device=device,
        out=out,
        checkpoints=NoCheckpoints(),
        stop=StopSignal(),
        base=source,
    )
