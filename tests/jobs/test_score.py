"""Tests the stage `score` on drawn garments. Some of the "generated" images are new drawings, others are copies of real ones."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from jobs import score as stage
from jobs.score import score
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.checkpoints import FolderCheckpoints, NoCheckpoints
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import Manifest, Run
from shared.classifier.runtime import Runtime
from shared.config.generation import Accept, Score
from shared.config.search import Resources
from shared.config.stages import ScoreConfig, Stage
from shared.config.task import Input, Task
from shared.config.training import Classifier, Training
from shared.context import Context
from shared.data.accept import accepted_images
from shared.data.dataset import describe
from shared.data.garments import garment_image
from shared.data.imageset import ImageSet, write_shards
from shared.errors import DataError, Stopped
from shared.metrics.table import METRICS
from shared.score.judges import Images
from shared.settings import Settings
from shared.stop import StopSignal
from tests.support.copied_images import garments

torch.set_num_threads(1)

SEED, SIDE = 11, 32
NEW, COPIES, TEST_COPIES = 30, 4, 2
CONFIG = ScoreConfig(
    score=Score(folds=2, epochs=2),
    classifier=Classifier(model="test_resnet", pretrained=False, trainable="all", head=()),
    augmentation="basic",
    training=Training(batch_size=32, warmup_epochs=0),
    seed=SEED,
)


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def images() -> Images:
    train, val, test = garments(SIDE, 100, 50, 50, SEED).values()
    return Images(train, val, test, generated_from(train, test))


def generated_from(train: ImageSet, test: ImageSet, pool: int = 0) -> ImageSet:
    """Returns new drawings with the labels of the first training images, then exact copies of training images and of test images."""
    new = [garment_image(train.schema, train.labels[i], "train", 5000 + i, SIDE, SEED) for i in range(NEW)]
    encoded = [*(png(i.content) for i in new), *train.encoded[:COPIES], *test.encoded[:TEST_COPIES]]
    labels = np.concatenate([train.labels[:NEW], train.labels[:COPIES], test.labels[:TEST_COPIES]])
    n = len(encoded)
    filled = [train.schema.class_names[int(row.argmax())] for row in labels]
    start = [None] * NEW + list(range(COPIES)) + [None] * TEST_COPIES
    extra = pa.table(
        {
            "index": pa.array(range(n), pa.int64()),
            "pool": pa.array([pool] * n, pa.int32()),
            "filled": pa.array(filled),
            "start": pa.array(start, pa.int64()),
        }
    )
    return ImageSet(
        train.schema, encoded, [f"generated/{i}.png" for i in range(n)], np.full(n, "generated"), labels, extra
    )


def make_runtime(stop: StopSignal | None = None, folder: Path | None = None) -> Runtime:
    kept: dict[str, FolderCheckpoints] = {}

    def checkpoints(name: str) -> FolderCheckpoints | NoCheckpoints:
        if folder is None:
            return NoCheckpoints()
        return kept.setdefault(name, FolderCheckpoints(folder / name))

    return Runtime(torch.device("cpu"), Resources(device="cpu"), checkpoints, stop or StopSignal())


@pytest.fixture(scope="module")
def scored(images: Images, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("scored")
    return out, score(CONFIG, images, out, make_runtime())


def test_a_row_an_image_with_every_column(images: Images, scored: tuple[Path, dict[str, Any]]) -> None:
    table = pq.read_table(scored[0] / "scores.parquet")
    groups = [f"p_{group.name}" for group in images.train.schema.groups]
    assert table.column_names == [
        "index", *groups, "plausibility", "copy_of", "leak_of",
        "neighbour", "neighbour_ratio", "as_near", "test_neighbour", "test_ratio", "test_as_near",
    ]  # fmt: skip
    assert table["index"].to_pylist() == list(range(NEW + COPIES + TEST_COPIES))
    for name in [*groups, "plausibility", "neighbour_ratio", "as_near", "test_ratio", "test_as_near"]:
        assert table.schema.field(name).type == pa.float32()
        assert np.isfinite(table[name].to_numpy()).all()
    # the first group is the filled one
    np.testing.assert_allclose(table["plausibility"].to_numpy(), table[groups[0]].to_numpy(), rtol=1e-6)


def test_copies_are_found(images: Images, scored: tuple[Path, dict[str, Any]]) -> None:
    table = pq.read_table(scored[0] / "scores.parquet")
    honest, copies, leaks = slice(0, NEW), slice(NEW, NEW + COPIES), slice(NEW + COPIES, None)
    assert table["copy_of"].to_pylist()[copies] == images.train.paths[:COPIES]
    assert table["leak_of"].to_pylist()[leaks] == images.test.paths[:TEST_COPIES]
    assert table["copy_of"].null_count == NEW + TEST_COPIES
    assert table["leak_of"].null_count == NEW + COPIES
    assert table["test_neighbour"].to_pylist()[leaks] == images.test.paths[:TEST_COPIES]
    assert (table["test_as_near"].to_numpy()[leaks] == 0).all()
    # the copies say that they were made from the images that they are copies of, and so are near to no other
    assert not set(table["neighbour"].to_pylist()[copies]) & set(images.train.paths[:COPIES])
    assert table["neighbour_ratio"].to_numpy()[honest].min() > 0.3
    assert scored[1]["copies"] == COPIES
    assert scored[1]["leaks"] == TEST_COPIES
    accept = Accept(plausibility=(0.0, 1.0))
    accepted = accepted_images(accept, images.generated, table)
    assert accepted[honest].sum() >= NEW - 1
    assert not accepted[NEW:].any()
    with Image.open(scored[0] / "copies.png") as sheet:
        assert sheet.width > 300


def test_the_whole_is_measured(images: Images, scored: tuple[Path, dict[str, Any]]) -> None:
    judges = json.loads((scored[0] / "judges.json").read_text())
    assert set(judges["accuracy"]) == {group.name for group in images.train.schema.groups}
    measured = {metric.name for metric in METRICS if metric.of_generated}
    assert set(judges["cas"]) == measured | {"groups", "real"}
    assert set(judges["cas"]["real"]) == measured
    for name in ("kid", "precision", "recall", "density", "coverage"):
        assert judges[name] is not None
    assert scored[1]["images"] == len(images.generated)


def test_the_images_of_further_pools_are_scored_alike_and_not_measured_as_a_set(
    images: Images, scored: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    further = replace(images, generated=generated_from(images.train, images.test, pool=3))
    summary = score(CONFIG, further, tmp_path, make_runtime())
    assert (tmp_path / "scores.parquet").read_bytes() == (scored[0] / "scores.parquet").read_bytes()
    assert set(json.loads((tmp_path / "judges.json").read_text())) == {"accuracy", "neighbours"}
    assert scored[1].keys() - summary.keys() == {"cas", "kid"}


def test_an_interrupted_run_ends_with_the_same_bytes(
    images: Images, scored: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    stop = StopSignal()
    runtime = make_runtime(stop, tmp_path / "checkpoints")
    take = runtime.checkpoints

    def stopping(name: str) -> Any:
        if name == "judge-1":  # the first judge is done, and the second is about to train
            stop.set()
        return take(name)

    with pytest.raises(Stopped):
        score(CONFIG, images, tmp_path, Runtime(runtime.device, runtime.resources, stopping, stop))
    assert take("opinion-0").load() is not None
    assert not (tmp_path / "scores.parquet").exists()
    resumed = Runtime(runtime.device, runtime.resources, take, StopSignal())
    assert score(CONFIG, images, tmp_path, resumed) == scored[1]
    for name in ("scores.parquet", "judges.json", "copies.png"):
        assert (tmp_path / name).read_bytes() == (scored[0] / name).read_bytes()


def test_nothing_to_score_is_said(images: Images, tmp_path: Path) -> None:
    none = images.generated.take(np.zeros(0, np.int64))
    with pytest.raises(DataError, match="made no images"):
        score(CONFIG, Images(images.train, images.val, images.test, none), tmp_path, make_runtime())


def commit(artifacts: Artifacts, name: Stage, files: dict[str, Path]) -> Input:
    run = Run(created="", seconds=0.0, device="cpu", device_seconds=0.0, code="", libraries={})
    manifest = artifacts.commit(
        Manifest(
            study="study", stage=name, key=name, version=1, config={}, inputs={}, summary={}, run=run,
            files=tuple(artifacts.upload(file, path) for file, path in files.items()),
        )
    )  # fmt: skip
    return Input(stage=name, key=name, digest=manifest.digest)


@pytest.fixture
def task(images: Images, tmp_path: Path) -> Task:
    """Commits the inputs in the store `tmp_path / "store"`, and returns the task of scoring them."""
    artifacts = Artifacts(FolderStore(tmp_path / "store"), "study", tmp_path / "cache")
    train = images.train
    sets = (images.train, images.val, images.test)
    real = ImageSet(
        train.schema,
        [data for one in sets for data in one.encoded],
        [path for one in sets for path in one.paths],
        np.concatenate([one.split for one in sets]),
        np.concatenate([one.labels for one in sets]),
    )
    (tmp_path / "real").mkdir()
    (tmp_path / "made").mkdir()
    info = describe("garments", train.schema, SIDE, real.labels, real.split)
    (tmp_path / "dataset.json").write_text(info.model_dump_json(by_alias=True))
    shards = {path.name: path for path in write_shards(real, tmp_path / "real", "images")}
    prepared = commit(artifacts, "prepare", {"dataset.json": tmp_path / "dataset.json", **shards})
    made = commit(
        artifacts, "generate", {path.name: path for path in write_shards(images.generated, tmp_path / "made", "images")}
    )
    return Task(
        study="study", stage="score", key="score", config=CONFIG, inputs={"prepare": prepared, "generate": made},
        resources=Resources(device="cpu"),
    )  # fmt: skip


@pytest.mark.slow
def test_after_sigkill_the_same_command_goes_on_and_commits_the_same(
    task: Task, scored: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "task.json"
    file.write_text(task.model_dump_json(by_alias=True))
    environment = {
        **os.environ,
        "TAILFILL_STORE": str(tmp_path / "store"),
        "TAILFILL_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "jobs", "stage", "score", "--config", str(file)]
    heard = tmp_path / "store" / "study" / "score" / "score" / "checkpoints" / "opinion-0.json"
    first = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not heard.exists() and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert heard.exists()
    artifacts = Artifacts(FolderStore(tmp_path / "store"), "study", tmp_path / "cache")
    assert artifacts.find("score", "score") is None

    settings = Settings.from_environment(environment)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    context = Context(task, artifacts, settings, scratch, StopSignal(), lambda: ("", {}))
    manifest = stage.run(CONFIG, context)
    assert manifest.summary == scored[1]
    for name in ("scores.parquet", "judges.json", "copies.png"):
        assert artifacts.fetch(manifest.file(name)).read_bytes() == (scored[0] / name).read_bytes()
    assert not heard.exists()
