"""Tests the stage `score` on drawn garments. Some of the "generated" images are new drawings, others are copies of real ones."""

from __future__ import annotations

import io
import json
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
from jobs.judge import judge
from jobs.score import score
from shared.classifier.runtime import Runtime
from shared.config.generation import Accept
from shared.config.search import Resources
from shared.config.stages import ScoreConfig
from shared.config.task import Task
from shared.context import Context
from shared.data.accept import accepted_images
from shared.data.garments import garment_image
from shared.data.imageset import ImageSet, write_shards
from shared.errors import DataError, Stopped
from shared.log import Log
from shared.metrics.table import METRICS
from shared.score.judges import assign_folds, train_classifier
from shared.score.near_duplicates import Images
from shared.score.plausibility import out_of_fold_mean, target_probabilities
from shared.score.table import started_from
from shared.settings import Settings
from shared.stop import StopSignal
from tests.support import judges
from tests.support.judges import SEED, SIDE, VALUES, commit, commit_real, files_in, make_runtime, open_artifacts

torch.set_num_threads(1)

NEW, COPIES, TEST_COPIES = 30, 4, 2
CONFIG = ScoreConfig(**VALUES)
SCORED = ("scores.parquet", "judges.json", "copies.png")


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def images() -> Images:
    train, val, test = judges.real_images().values()
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


@pytest.fixture(scope="module")
def judged(images: Images, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns the files that `judge` commits, by name."""
    out = tmp_path_factory.mktemp("judged")
    judge(judges.CONFIG, images.train, images.val, out, make_runtime())
    return files_in(out)


@pytest.fixture(scope="module")
def scored(
    images: Images, judged: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("scored")
    return out, score(CONFIG, images, judged, out, make_runtime())


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
    found = json.loads((scored[0] / "judges.json").read_text())
    assert set(found["accuracy"]) == {group.name for group in images.train.schema.groups}
    measured = {metric.name for metric in METRICS if metric.of_generated}
    assert set(found["cas"]) == measured | {"groups", "real"}
    assert set(found["cas"]["real"]) == measured
    for name in ("kid", "precision", "recall", "density", "coverage"):
        assert found[name] is not None
    assert scored[1]["images"] == len(images.generated)


def test_the_scores_have_the_bits_of_judges_that_were_trained_in_memory(
    images: Images, scored: tuple[Path, dict[str, Any]]
) -> None:
    train, generated = images.train, images.generated
    fold = assign_folds(train, CONFIG.folds, SEED)
    answers = []
    for number in range(CONFIG.folds):
        held_out, rest = (train.take(np.flatnonzero((fold == number) == own)) for own in (True, False))
        trained = train_classifier(CONFIG, rest, held_out, "judge", number, Log("test"), make_runtime())
        answers.append(trained.predict(generated))
    probabilities = out_of_fold_mean(answers, fold, started_from(generated))
    wanted = target_probabilities(train.schema, probabilities, generated.labels)
    table = pq.read_table(scored[0] / "scores.parquet")
    for position, group in enumerate(train.schema.groups):
        assert table[f"p_{group.name}"].to_numpy().tobytes() == wanted[:, position].tobytes()


def test_the_images_of_further_pools_are_scored_alike_and_not_measured_as_a_set(
    images: Images, judged: dict[str, Path], scored: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    further = replace(images, generated=generated_from(images.train, images.test, pool=3))
    summary = score(CONFIG, further, judged, tmp_path, make_runtime())
    assert (tmp_path / "scores.parquet").read_bytes() == (scored[0] / "scores.parquet").read_bytes()
    assert set(json.loads((tmp_path / "judges.json").read_text())) == {"accuracy", "neighbours"}
    assert scored[1].keys() - summary.keys() == {"cas", "kid"}


def test_an_interrupted_run_ends_with_the_same_bytes(
    images: Images, judged: dict[str, Path], scored: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    stop = StopSignal()
    runtime = make_runtime(stop, tmp_path / "checkpoints")

    class StoppingCheckpoints:
        """Stops the work once the first epoch is kept."""

        load = runtime.checkpoints("cas-0").load

        def save(self, files: Any, **values: Any) -> None:
            runtime.checkpoints("cas-0").save(files, **values)
            stop.set()

    stopping = Runtime(runtime.device, runtime.resources, lambda _: StoppingCheckpoints(), stop)
    with pytest.raises(Stopped):
        score(CONFIG, images, judged, tmp_path, stopping)
    assert runtime.checkpoints("cas-0").load() is not None
    assert not (tmp_path / "scores.parquet").exists()
    resumed = Runtime(runtime.device, runtime.resources, runtime.checkpoints, StopSignal())
    assert score(CONFIG, images, judged, tmp_path, resumed) == scored[1]
    for name in SCORED:
        assert (tmp_path / name).read_bytes() == (scored[0] / name).read_bytes()


def test_nothing_to_score_is_said(images: Images, judged: dict[str, Path], tmp_path: Path) -> None:
    none = images.generated.take(np.zeros(0, np.int64))
    with pytest.raises(DataError, match="made no images"):
        score(CONFIG, Images(images.train, images.val, images.test, none), judged, tmp_path, make_runtime())


def test_the_stage_reads_what_the_others_committed(
    images: Images, judged: dict[str, Path], scored: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    artifacts = open_artifacts(tmp_path)
    (tmp_path / "made").mkdir()
    write_shards(images.generated, tmp_path / "made", "images")
    real = {"train": images.train, "val": images.val, "test": images.test}
    inputs = {
        "prepare": commit_real(artifacts, real, tmp_path / "real"),
        "generate": commit(artifacts, "generate", files_in(tmp_path / "made")),
        "judge": commit(artifacts, "judge", judged),
    }
    task = Task(
        study="study", stage="score", key="score", config=CONFIG, inputs=inputs, resources=Resources(device="cpu")
    )
    settings = Settings.from_environment({"TAILFILL_CACHE": str(tmp_path / "cache")})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    manifest = stage.run(CONFIG, Context(task, artifacts, settings, scratch, StopSignal(), lambda: ("", {})))
    assert manifest.summary == scored[1]
    for name in SCORED:
        assert artifacts.fetch(manifest.file(name)).read_bytes() == (scored[0] / name).read_bytes()
