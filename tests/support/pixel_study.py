"""Prepares a data set of tiny pictures in a folder store, and makes contexts for the stages that follow."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.keys import new_task
from shared.artifacts.manifest import Manifest
from shared.config.search import Resources
from shared.config.stages import Stage, StageConfig
from shared.config.task import Input, Task
from shared.context import Context
from shared.data.dataset import describe
from shared.data.imageset import ImageSet, write_shards
from shared.data.schema import LabelGroup, LabelSchema
from shared.settings import Settings
from shared.stop import StopSignal
from tests.support.configs import any_config

SCHEMA = LabelSchema(
    groups=(LabelGroup(name="shade", classes=("dark", "light")), LabelGroup(name="edge", classes=("thin", "thick")))
)
RARE = "shade/light"


def pictures(light: int = 6, dark: int = 18, side: int = 16) -> ImageSet:
    """Returns a training split with so many `light` and `dark` images, which have an edge of 1 or 3 white pixels."""
    rng = np.random.default_rng(0)
    labels, encoded = np.zeros((light + dark, 4), np.int8), []
    for i in range(light + dark):
        labels[i, [int(i < light), 2 + i % 2]] = 1
        pixels = rng.integers(0, 40, (side, side, 3), np.uint8) + np.uint8(150 if i < light else 20)
        pixels[: 1 + 2 * (i % 2)] = 255
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return ImageSet(SCHEMA, encoded, [f"{i}.png" for i in range(light + dark)], np.full(light + dark, "train"), labels)


class PixelStudy:
    """Holds the store of one study, and makes the contexts of its stages."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = FolderStore(root / "store")
        self.inputs: dict[str, Input] = {}

    def prepare(self, images: ImageSet) -> None:
        context = self.context("prepare", any_config("prepare"))
        info = describe("test", images.schema, 16, images.labels, images.split)
        (context.scratch / "dataset.json").write_text(info.model_dump_json(by_alias=True))
        shards = write_shards(images, context.scratch, "images")
        files = {path.name: path for path in (context.scratch / "dataset.json", *shards)}
        self.keep(context.commit(files, {}))

    def keep(self, manifest: Manifest) -> None:
        """Makes a committed result an input of the stages that follow."""
        self.inputs[manifest.stage] = Input(stage=manifest.stage, key=manifest.key, digest=manifest.digest)

    def task(self, stage: Stage, config: StageConfig) -> Task:
        return new_task("test", stage, config, self.inputs, Resources())

    def context(
        self,
        stage: Stage,
        config: StageConfig,
        index: int = 0,
        count: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> Context:
        """Returns what the stage's process `index` of `count` is given."""
        environment = {"TAILFILL_CACHE": str(self.root / "cache")}
        scratch = self.root / f"scratch-{len(list(self.root.glob('scratch-*')))}"
        scratch.mkdir(parents=True)
        return Context(
            task=self.task(stage, config),
            artifacts=Artifacts(self.store, "test", self.root / "cache"),
            settings=replace(Settings.from_environment(environment), index=index, count=count),
            scratch=scratch,
            stop=StopSignal(),
            code=lambda: ("code", {}),
            clock=clock,
        )
