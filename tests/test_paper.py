"""Tests the paper's study at a small scale, with its chain of searches and Stable Diffusion, on drawn clothes in DeepFashion's form.

Of the 14 rows it runs one of each kind: a chain of searches, a row that takes over its values, one with generated images, and a joint
search with generated images. ROWS can list more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from shared.config.dataset import GarmentsSource
from shared.config.load import load_study
from shared.data.garments import read_garments
from tests.support.in_process import InProcess
from tests.support.tiny_pipeline import tiny_pipeline

STUDIES = Path(__file__).parents[1] / "studies"
ROWS = (1, 2, 3, 5, 6, 12, 13)
SCALED = [
    "dataset.resolution=32", "rare.below=26", "finetune.resolution=32", "finetune.steps=2", "finetune.batch_size=2", "generate.total=6",
    "generate.steps=2", "generate.batch_size=4", "score.epochs=1", "score.folds=2", "classifier.model=test_resnet",
    "classifier.pretrained=false", "classifier.trainable=all", "classifier.resolution=32", "search.epochs=1", "search.trials=1",
    "search.workers=1", "final.epochs=1",
    "experiments.row-13.search.trials=2",
]  # fmt: skip


def write_deepfashion(folder: Path) -> None:
    """Writes `img/` and `split/` in the form of the paper's labelling: header lines, six integers per line, and a test split without labels."""
    config = GarmentsSource.model_validate(
        {"source": "garments", "resolution": 48, "train": 300, "val": 60, "test": 50, "rare_eval": 12}
    )
    source = read_garments(config, 0)
    (folder / "img").mkdir(parents=True)
    (folder / "split").mkdir()
    kinds = [f"{name} {number}" for number, group in enumerate(source.schema.groups, 1) for name in group.classes]
    (folder / "split" / "list_attr_cloth.txt").write_text(
        "\n".join(["26", "attribute_name attribute_type", *kinds]) + "\n"
    )
    lines: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    labels: dict[str, list[str]] = {"train": [], "val": []}
    for number, image in enumerate(source.images):
        assert image.split is not None
        # the drawn val split has images of every class; with it, enough of the rarest remain after val is split off from train
        split = (
            "train"
            if image.split == "val"
            else "test"
            if number % 20 == 0
            else "val"
            if image.split == "test"
            else "train"
        )
        path = f"img/{number:05d}.jpg"
        Image.fromarray(image.content).save(folder / path)
        lines[split].append(path)
        if split != "test":
            classes = [int(image.labels[columns].argmax()) for columns in source.schema.slices().values()]
            labels[split].append(" ".join(map(str, classes)))
    for split, paths in lines.items():
        (folder / "split" / f"{split}.txt").write_text("\n".join(["picture_filename", *paths]) + "\n")
    for split, rows in labels.items():
        header = " ".join(f"category{i}" for i in range(1, 7))
        (folder / "split" / f"{split}_attr.txt").write_text("\n".join([header, *rows]) + "\n")


def rows_of(name: str) -> list[dict[str, Any]]:
    """Returns the experiments of a study file."""
    rows: list[dict[str, Any]] = yaml.safe_load((STUDIES / name).read_text())["experiments"]
    return rows


def test_the_small_study_has_the_papers_rows() -> None:
    assert rows_of("paper-small.yaml") == rows_of("paper.yaml")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_rows_in_small(tmp_path: Path, database_url: str) -> None:
    """Runs both strategies of `make paper-small`, with one trial per search and one epoch."""
    tree = yaml.safe_load((STUDIES / "paper-small.yaml").read_text())
    tree["dataset"] |= {"resolution": 32, "train": 300, "val": 60, "test": 60}
    tree["classifier"] = {"model": "test_resnet", "pretrained": False, "trainable": "head", "head": [16]}
    tree["finetune"] |= {"steps": 2, "resolution": 16}
    tree["generate"] |= {"total": 6, "steps": 2}
    tree["search"] |= {"trials": 1, "epochs": 1}
    tree["final"]["epochs"] = 1
    for row in tree["experiments"]:
        if row.get("search", {}).get("trials"):
            row["search"]["trials"] = 1
    (tmp_path / "paper-small.yaml").write_text(yaml.safe_dump(tree))
    runs = InProcess(load_study(tmp_path / "paper-small.yaml"), tmp_path, database_url)
    report = runs.run(runs.steps["report"])
    rows = json.loads(runs.artifacts.fetch(report.file("results.json")).read_bytes())["experiments"]
    assert [row["paper_row"] for row in rows] == list(range(1, 15))
    assert all(row["metrics"]["accuracy"]["n"] == 1 and row["paper"]["index"] == row["paper_row"] for row in rows)
    finals = [runs.committed[runs.steps[f"final {row['name']} 0"].id] for row in rows]
    assert [final.summary["images"]["added"] for final in finals] == [0] * 11 + [6] * 3
    assert not {"judge", "score"} & {step.stage for step in runs.steps.values()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_paper_s_study_scaled_down(tmp_path: Path, database_url: str) -> None:
    write_deepfashion(tmp_path / "data")
    base = tiny_pipeline(tmp_path / "base")
    tree = yaml.safe_load((STUDIES / "paper.yaml").read_text())
    tree["experiments"] = [row for row in tree["experiments"] if row["paper_row"] in ROWS]
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump(tree))
    sets = [*SCALED, f"dataset.root={tmp_path / 'data'}", f"finetune.base={base}"]
    runs = InProcess(load_study(tmp_path / "paper.yaml", sets), tmp_path, database_url)
    report = runs.run(runs.steps["report"])
    rows = json.loads(runs.artifacts.fetch(report.file("results.json")).read_bytes())["experiments"]
    assert [row["paper_row"] for row in rows] == list(ROWS)
    found = {row["name"]: row["parameters"]["0"] for row in rows}
    # the chain searches one parameter after the other and keeps the best values, which rows without a search take over
    assert found["row-1"]["lr"] == found["row-2"]["lr"] == found["row-6"]["lr"]
    assert found["row-1"]["label_smoothing"] == 0
    assert found["row-5"]["label_smoothing"] == found["row-3"]["label_smoothing"] > 0
    assert found["row-12"]["dropout"] == found["row-6"]["dropout"]
