"""Commits the small study in the current folder with generated images of known scores, so that exports and reviews have something to read."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from jobs.generate import COLUMNS
from shared.config.stages import GenerateConfig
from shared.data.dataset import describe
from shared.data.imageset import ImageSet, write_shards
from shared.pipeline.plan import Step
from tests.support.pixel_study import SCHEMA, pictures

SCORES: Mapping[str, list[Any]] = {
    "plausibility": [0.1, 0.6, 0.7, 0.5, 0.99],
    "as_near": [1.0, 1.0, 0.0, 1.0, 1.0],
    "copy_of": [None] * 5,
    "leak_of": [None, None, None, "test/1.png", None],
    "neighbour": ["0.png", "1.png", "2.png", "0.png", "1.png"],
}
"""Scores of the five images: implausible, accepted, a near copy, a copy of a test image, too plausible."""


def config_of(step: Step) -> GenerateConfig:
    """Returns the config of the images that a step makes or scores."""
    config = step.config if step.stage == "generate" else step.needs["generate"].config
    assert isinstance(config, GenerateConfig)
    return config


def generated(guidance: float = 2.0, pool: int = 0) -> ImageSet:
    """Returns five generated images, which differ in their pixels for each guidance and pool."""
    real, encoded = pictures(3, 2), []
    for i in range(5):
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16), (40 * i, int(10 * guidance) % 256, 50 + pool)).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    rows = [
        {"index": i, "pool": pool, "seed": i, "filled": "shade/light" if i < 3 else "edge/thick", "source": i, "prompt": f"a photo {i}",
         "guidance": guidance, "strength": None, "start": None, "model": "0" * 64}
        for i in range(5)
    ]  # fmt: skip
    paths = [f"generated/{i:06d}.png" for i in range(5)]
    return ImageSet(
        SCHEMA, encoded, paths, np.full(5, "generated"), real.labels, pa.Table.from_pylist(rows, schema=COLUMNS)
    )


def stage_files(step: Step) -> dict[str, Path]:
    """Returns the files that a step commits; for `commit_all`."""
    folder = Path(f"files/{step.id[:16]}")
    folder.mkdir(parents=True)
    if step.stage == "prepare":
        real = pictures(3, 2)
        info = describe("test", SCHEMA, 16, real.labels, real.split)
        (folder / "dataset.json").write_text(info.model_dump_json(by_alias=True))
        return {path.name: path for path in (folder / "dataset.json", *write_shards(real, folder, "images"))}
    if step.stage == "generate":
        config = config_of(step)
        assert config.generate.guidance is not None
        images = generated(config.generate.guidance, config.pool)
        return {path.name: path for path in write_shards(images, folder, "images")}
    if step.stage == "score":
        strings = {name: pa.array(SCORES[name], pa.string()) for name in ("copy_of", "leak_of", "neighbour")}
        pq.write_table(pa.table({"index": list(range(5)), **SCORES, **strings}), folder / "scores.parquet")
        return {"scores.parquet": folder / "scores.parquet"}
    return {}
