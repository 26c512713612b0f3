"""Runs one small `final` as a process, with its checkpoints in a folder: `python final_driver.py FOLDER EPOCHS`.

It prints one line per epoch, so that a test can kill it at a known epoch. Tests also call these functions themselves.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jobs.final import FinalInputs, FinalResult, final
from shared.artifacts.checkpoints import Checkpoints, Values
from shared.classifier.runtime import Runtime
from shared.config.search import Resources
from shared.config.stages import FinalConfig
from shared.data.dataset import DatasetInfo, describe
from shared.data.imageset import ImageSet
from shared.data.schema import LabelGroup, LabelSchema
from shared.stop import StopSignal

SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="colour", classes=("red", "green", "blue")),
        LabelGroup(name="marks", kind="any", classes=("dark", "noisy")),
    )
)


class DurableCheckpoints:
    """Keeps checkpoints in a folder for the next process. A rename after the files are written makes a checkpoint valid."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
        target = self._folder / f"epoch-{values['epoch']}"
        target.mkdir(parents=True, exist_ok=True)
        for name, path in files.items():
            shutil.copy(path, target / name)
        fresh = self._folder / "latest.part"
        fresh.write_text(json.dumps({"folder": target.name, "files": list(files), "values": values}))
        os.replace(fresh, self._folder / "latest.json")

    def load(self) -> tuple[dict[str, Path], Values] | None:
        latest = self._folder / "latest.json"
        if not latest.exists():
            return None
        found = json.loads(latest.read_text())
        return {name: self._folder / found["folder"] / name for name in found["files"]}, found["values"]


def images(sizes: Mapping[str, int]) -> ImageSet:
    """Returns images of coloured squares, some dark, some noisy, in splits of these sizes; blue is rare."""
    rng = np.random.default_rng(0)
    split = np.repeat(list(sizes), list(sizes.values()))
    encoded, labels = [], np.zeros((len(split), SCHEMA.width), np.int8)
    for row in labels:
        colour, (dark, noisy) = int(rng.choice(3, p=(0.5, 0.3, 0.2))), rng.random(2) < 0.5
        pixels = np.full((32, 32, 3), 40.0)
        pixels[..., colour] = 220
        pixels = pixels * (0.5 if dark else 1.0) + rng.normal(0, 40 if noisy else 2, pixels.shape)
        out = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "PNG")
        encoded.append(out.getvalue())
        row[colour], row[3:] = 1, (dark, noisy)
    return ImageSet(SCHEMA, encoded, [f"{s}/{i}.png" for i, s in enumerate(split)], split, labels)


def dataset(test: int = 40) -> tuple[ImageSet, DatasetInfo]:
    """Returns the data set and its description."""
    found = images({"train": 60, "val": 30, "test": test})
    return found, describe("squares", SCHEMA, 32, found.labels, found.split)


def config(epochs: int, repeat: int = 0) -> FinalConfig:
    """Returns a config that a CPU can train, with all features that have a state: dropout, mixup, augmentation, batch-norm and a refit."""
    arm = {
        "rare": {"below": 20},
        "accept": None,
        "classifier": {"model": "test_resnet.r160_in1k", "pretrained": False, "trainable": "layer4", "head": [16]},
        "augmentation": "hard",
        "images": "real",
        "training": {"lr": 0.01, "batch_size": 20, "warmup_epochs": 1, "mixup": 0.2, "refit_epochs": 1},
        "synthetic": None,
    }
    tree = {"arm": arm, "final": {"epochs": epochs, "checkpoint_every": 1}, "seed": 5, "repeat": repeat}
    return FinalConfig.model_validate_json(json.dumps(tree))


def runtime(checkpoints: Checkpoints, stop: StopSignal | None = None) -> Runtime:
    """Returns a runtime on the CPU, which keeps all checkpoints in one place."""
    return Runtime(torch.device("cpu"), Resources(), lambda name: checkpoints, stop or StopSignal())


def small_final(folder: Path, epochs: int) -> FinalResult:
    """Runs a small `final` in `folder`, from the checkpoint that an earlier process may have left there."""
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    found, info = dataset()
    checkpoints = DurableCheckpoints(folder / "checkpoints")
    return final(config(epochs), FinalInputs(found, info), runtime(checkpoints), out)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    small_final(Path(sys.argv[1]), int(sys.argv[2]))
