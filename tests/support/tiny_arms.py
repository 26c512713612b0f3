"""Makes a small labelled set whose classes are easy to distinguish, and an arm that learns it in a second."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image

from shared.config.stages import Arm
from shared.data.imageset import ImageSet
from shared.data.schema import LabelGroup, LabelSchema

SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="colour", classes=("red", "green", "blue")),
        LabelGroup(name="shade", kind="any", classes=("dark", "noisy")),
    )
)


def make_images(n: int, seed: int = 0, side: int = 32, split: str = "train") -> ImageSet:
    """Returns images of plain coloured squares: the last `colour` (blue) is rare, `dark` halves the values, `noisy` adds noise.

    One label is unknown.
    """
    rng = np.random.default_rng(seed)
    encoded, labels = [], np.zeros((n, 5), np.int8)
    for i in range(n):
        colour = int(rng.choice(3, p=(0.5, 0.35, 0.15)))
        dark, noisy = rng.random(2) < 0.5
        pixels = np.full((side, side, 3), 40.0)
        pixels[..., colour] = 220
        pixels = pixels * (0.5 if dark else 1.0) + rng.normal(0, 40 if noisy else 2, pixels.shape)
        out = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "PNG")
        encoded.append(out.getvalue())
        labels[i, colour], labels[i, 3:] = 1, (dark, noisy)
    labels[0, :3] = -1
    labels[1, 4] = -1
    return ImageSet(SCHEMA, encoded, [f"{split}/{i}.png" for i in range(n)], np.array([split] * n), labels)


def make_arm(**changes: dict[str, object] | str | int | None) -> Arm:
    """Returns an arm that a CPU can train, with `changes` merged into its sections."""
    tree: dict[str, object] = {
        "rare": {"below": None, "classes": ["colour/blue"]},
        "accept": None,
        "classifier": {"model": "test_resnet.r160_in1k", "pretrained": False, "trainable": "all", "head": [16]},
        "augmentation": "none",
        "images": "real",
        "training": {"lr": 0.003, "batch_size": 16, "warmup_epochs": 1},
        "synthetic": None,
    }
    for name, value in changes.items():
        old = tree[name]
        tree[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return Arm.model_validate_json(json.dumps(tree))
