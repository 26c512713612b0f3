"""Small judges of drawn garments: their config, images and runtime, and a store with the data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.checkpoints import NoCheckpoints
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import Manifest, Run
from shared.classifier.runtime import Runtime
from shared.config.search import Resources
from shared.config.stages import JudgeConfig, Stage
from shared.config.task import Input
from shared.config.training import Classifier, Training
from shared.data.dataset import describe
from shared.data.imageset import ImageSet, write_shards
from shared.stop import StopSignal
from tests.support.checkpoints import FolderCheckpoints
from tests.support.copied_images import garments

SEED, SIDE = 11, 32
VALUES: dict[str, Any] = {
    "folds": 2,
    "epochs": 2,
    "classifier": Classifier(model="test_resnet", pretrained=False, trainable="all", head=()),
    "augmentation": "basic",
    "training": Training(batch_size=32, warmup_epochs=0),
    "seed": SEED,
}
"""The fields of the configs of `judge` and `score`."""
CONFIG = JudgeConfig(**VALUES)


def real_images() -> dict[str, ImageSet]:
    """Returns the splits of a drawn data set."""
    return garments(SIDE, 100, 50, 50, SEED)


def make_runtime(stop: StopSignal | None = None, folder: Path | None = None) -> Runtime:
    kept: dict[str, FolderCheckpoints] = {}

    def checkpoints(name: str) -> FolderCheckpoints | NoCheckpoints:
        if folder is None:
            return NoCheckpoints()
        return kept.setdefault(name, FolderCheckpoints(folder / name))

    return Runtime(torch.device("cpu"), Resources(device="cpu"), checkpoints, stop or StopSignal())


def files_in(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.iterdir()}


def open_artifacts(folder: Path) -> Artifacts:
    """Opens the store `folder / "store"`."""
    return Artifacts(FolderStore(folder / "store"), "study", folder / "cache")


def commit(artifacts: Artifacts, name: Stage, files: dict[str, Path]) -> Input:
    """Commits files as the result of a stage, under its name as the key."""
    run = Run(created="", seconds=0.0, device="cpu", device_seconds=0.0, code="", libraries={})
    manifest = artifacts.commit(
        Manifest(
            study="study", stage=name, key=name, version=1, config={}, inputs={}, summary={}, run=run,
            files=tuple(artifacts.upload(file, path) for file, path in files.items()),
        )
    )  # fmt: skip
    return Input(stage=name, key=name, digest=manifest.digest)


def commit_real(artifacts: Artifacts, real: dict[str, ImageSet], folder: Path) -> Input:
    """Commits the splits as `prepare` does; the shards are written into `folder`."""
    sets = list(real.values())
    together = ImageSet(
        sets[0].schema,
        [data for one in sets for data in one.encoded],
        [path for one in sets for path in one.paths],
        np.concatenate([one.split for one in sets]),
        np.concatenate([one.labels for one in sets]),
    )
    folder.mkdir()
    info = describe("garments", together.schema, SIDE, together.labels, together.split)
    (folder / "dataset.json").write_text(info.model_dump_json(by_alias=True))
    write_shards(together, folder, "images")
    return commit(artifacts, "prepare", files_in(folder))
