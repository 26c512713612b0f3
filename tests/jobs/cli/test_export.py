from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.cli.export import export, export_images, write_folder
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import File, Manifest, Run
from shared.config.generation import Accept
from shared.config.stages import GenerateConfig
from shared.data.dataset import describe
from shared.data.imageset import ImageSet, write_shards
from shared.data.schema import LabelGroup, LabelSchema
from shared.errors import ConfigError, DataError
from shared.pipeline.plan import Step
from tests.support.local_commands import commit_all, run
from tests.support.pixel_study import SCHEMA as PIXEL_SCHEMA
from tests.support.pixel_study import pictures

SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="sleeve", classes=("long", "short")),
        LabelGroup(name="tags", kind="any", classes=("new", "sale")),
    )
)
LABELS = np.array([[1, 0, 1, -1], [0, 1, 0, 0], [-1, -1, 1, 1]], np.int8)


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, kind)
    return buffer.getvalue()


def images(split: list[str], extra: pa.Table | None = None) -> ImageSet:
    data = [encoded("png"), encoded("jpeg"), encoded("png")]
    return ImageSet(SCHEMA, data, ["a/../0.png", "/1.jpg", "2.png"], np.array(split), LABELS, extra)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]


def committed(artifacts: Artifacts, stage: Any, files: dict[str, Path]) -> Manifest:
    run = Run(created="", seconds=0, device="cpu", device_seconds=0, code="", libraries={})
    uploaded: tuple[File, ...] = tuple(artifacts.upload(name, path) for name, path in files.items())
    return artifacts.commit(
        Manifest(study="s", stage=stage, key="k", version=1, config={}, inputs={}, files=uploaded, summary={}, run=run)
    )


def test_a_data_set(tmp_path: Path, folder_store: FolderStore) -> None:
    artifacts = Artifacts(folder_store, "s", tmp_path / "cache")
    prepared = images(["train", "val", "train"])
    info = describe("garments", SCHEMA, 4, LABELS, prepared.split)
    (tmp_path / "dataset.json").write_text(info.model_dump_json(by_alias=True))
    files = {path.name: path for path in write_shards(prepared, tmp_path, "images")}
    manifest = committed(artifacts, "prepare", {"dataset.json": tmp_path / "dataset.json", **files})
    assert export(artifacts, manifest, None, None, tmp_path / "out") == f"3 images in {tmp_path / 'out'}"
    found = rows(tmp_path / "out")
    assert found[0] == {
        "file_name": "train/000000.png", "path": "a/../0.png", "split": "train", "sleeve": "long",
        "tags": {"new": 1, "sale": None},
    }  # fmt: skip
    assert [row["file_name"] for row in found[1:]] == ["val/000001.jpg", "train/000002.png"]
    assert found[2]["sleeve"] is None
    assert (tmp_path / "out" / "val" / "000001.jpg").read_bytes() == encoded("jpeg")


def test_generated_images_with_scores_and_the_filter(tmp_path: Path, folder_store: FolderStore) -> None:
    artifacts = Artifacts(folder_store, "s", tmp_path / "cache")
    info = describe("garments", SCHEMA, 4, LABELS, np.array(["train"] * 3))
    (tmp_path / "dataset.json").write_text(info.model_dump_json(by_alias=True))
    prepared = committed(artifacts, "prepare", {"dataset.json": tmp_path / "dataset.json"})
    extra = pa.table(
        {"pool": pa.array([0, 0, 1], pa.int32()), "prompt": ["x", "y", "z"], "strength": [None, 0.5, None]}
    )
    shards = write_shards(images(["generated"] * 3, extra), tmp_path, "images")
    generated = committed(artifacts, "generate", {path.name: path for path in shards})
    scores = pa.table(
        {
            "index": [0, 1, 2],
            "plausibility": [0.5, 0.1, 0.9],
            "neighbour_ratio": [1.0, 2.0, math.nan],
            "neighbour": ["n"] * 3,
            "as_near": [1.0] * 3,
            "copy_of": pa.nulls(3, pa.string()),
            "leak_of": pa.nulls(3, pa.string()),
        }
    )
    pq.write_table(scores, tmp_path / "scores.parquet")
    scored = committed(artifacts, "score", {"scores.parquet": tmp_path / "scores.parquet"})
    export(artifacts, prepared, generated, scored, tmp_path / "out", Accept(copies="allow"))
    found = rows(tmp_path / "out")
    assert [row["accepted"] for row in found] == [True, False, True]
    assert [row["prompt"] for row in found] == ["x", "y", "z"]
    assert [row["neighbour_ratio"] for row in found] == [1.0, 2.0, None]
    assert found[1]["file_name"] == "generated/000001.jpg"


def test_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(ConfigError, match="is not an empty folder"):
        write_folder(images(["train"] * 3), tmp_path)
    with pytest.raises(ConfigError, match="is not an empty folder"):
        write_folder(images(["train"] * 3), tmp_path / "precious")


def test_scores_of_another_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"scores\.parquet: has 1 rows for 3 images"):
        write_folder(images(["train"] * 3), tmp_path / "out", pa.table({"index": [0]}))


TWO_SETS = (
    "experiments=[{name: real}, {name: a, images: real+synthetic, generate: {guidance: 1.0}, accept: {copies: allow}},"
    " {name: b, images: real+synthetic, generate: {guidance: 3.0}, accept: {copies: refuse, plausibility: [0.5, 1.0]}}]"
)


def guidance_of(step: Step) -> float:
    assert isinstance(step.config, GenerateConfig)
    return step.config.generate.guidance


def image_files(step: Step) -> dict[str, Path]:
    """Returns the files that a step commits, with three images per set. The sets differ in guidance, and their scores in plausibility."""
    folder = Path(f"files/{step.id[:16]}")
    folder.mkdir(parents=True)
    real = pictures(1, 2)
    if step.stage == "prepare":
        info = describe("test", PIXEL_SCHEMA, 16, real.labels, real.split)
        (folder / "dataset.json").write_text(info.model_dump_json(by_alias=True))
        return {path.name: path for path in (folder / "dataset.json", *write_shards(real, folder, "images"))}
    if step.stage == "generate":
        extra = pa.table({"pool": pa.array([0, 0, 0], pa.int32()), "guidance": [guidance_of(step)] * 3})
        made = ImageSet(PIXEL_SCHEMA, real.encoded, real.paths, np.full(3, "generated"), real.labels, extra)
        return {path.name: path for path in write_shards(made, folder, "images")}
    if step.stage == "score":
        guidance = guidance_of(step.needs["generate"])
        none = pa.nulls(3, pa.string())
        columns = {"plausibility": [guidance / 10, 0.6, 0.7], "as_near": [1.0] * 3, "copy_of": none, "leak_of": none}
        table = pa.table({"index": [0, 1, 2], **columns})
        pq.write_table(table, folder / "scores.parquet")
        return {"scores.parquet": folder / "scores.parquet"}
    return {}


def exported(experiment: str | None) -> list[dict[str, object]]:
    out = Path(f"out-{experiment}")
    export_images("generated", out, experiment, None, None)
    return [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("empty_folder")
def test_each_experiment_s_images_with_their_own_scores_and_filter() -> None:
    commit_all(TWO_SETS, files=image_files)
    run(TWO_SETS)
    first, second = exported("a"), exported("b")
    assert [row["guidance"] for row in (*first, *second)] == [1.0] * 3 + [3.0] * 3
    assert [row["plausibility"] for row in (*first, *second)] == [0.1, 0.6, 0.7, 0.3, 0.6, 0.7]
    assert [row["accepted"] for row in (*first, *second)] == [False, True, True, False, True, True]
    with pytest.raises(ConfigError, match=r"has 2 sets of generated images .*--experiment NAME: a, b"):
        exported(None)
    with pytest.raises(ConfigError, match=r"--experiment real: has no generated images; experiments that have: a, b"):
        exported("real")
    for experiment, pool in (("a", None), (None, 0)):
        with pytest.raises(ConfigError, match="is for `export generated`; a study has one data set"):
            export_images("dataset", Path("out"), experiment, pool, None)
    assert export_images("dataset", Path("out"), None, None, None) == "3 images in out"
    with pytest.raises(ConfigError, match="--pool 1: must be below 1, the number of pools"):
        export_images("generated", Path("out-pool"), "a", 1, None)


@pytest.mark.usefixtures("empty_folder")
def test_one_set_needs_no_name() -> None:
    commit_all(files=image_files)
    run()
    assert exported(None) == exported("placebo")


@pytest.mark.usefixtures("empty_folder")
def test_images_of_an_arm_that_takes_all_have_no_scores() -> None:
    takes_all = "accept={plausibility: [0, 1], copies: allow}"
    commit_all(takes_all, files=image_files)
    run(takes_all)
    rows = exported(None)
    assert len(rows) == 3
    assert not any(row.keys() & {"plausibility", "accepted"} for row in rows)


@pytest.mark.usefixtures("empty_folder")
def test_a_study_without_generated_images() -> None:
    commit_all("experiments=[{name: real}]")
    run("experiments=[{name: real}]")
    with pytest.raises(ConfigError, match="no experiment has generated images"):
        exported(None)
