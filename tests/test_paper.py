"""The paper's study scaled down: its chain of searches, Stable Diffusion and all, on drawn clothes in DeepFashion's form.

Of the 14 rows those that differ in kind: a chain of searches, a row that takes its values, one with generated images, a joint search
with generated images. All rows take five minutes on two cores: put them all into ROWS.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from PIL import Image
from test_study import ROOT, environment, tailfill
from tiny_pipeline import tiny_pipeline

from shared.config.dataset import GarmentsSource
from shared.data.garments import read_garments

ROWS = (1, 2, 3, 5, 6, 12, 13)
SCALED = [
    "dataset.resolution=32", "rare.below=26", "finetune.resolution=32", "finetune.steps=2", "finetune.batch_size=2", "generate.total=6",
    "generate.steps=2", "generate.batch_size=4", "score.epochs=1", "score.folds=2", "classifier.model=test_resnet",
    "classifier.pretrained=false", "classifier.trainable=all", "classifier.resolution=32", "search.epochs=1", "search.trials=1",
    "search.workers=1", "final.epochs=1",
    "experiments.row-13.search.trials=2",
]  # fmt: skip


def write_deepfashion(folder: Path) -> None:
    """`img/` and `split/` as the paper's labelling is distributed: six integers a line, with header lines, a test split without labels."""
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
        # the drawn val split has some of every class: with it, enough of the rarest remain when val is carved from train
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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_paper_s_study_scaled_down(tmp_path: Path) -> None:
    write_deepfashion(tmp_path / "data")
    base = tiny_pipeline(tmp_path / "base")
    sets = [*SCALED, f"dataset.root={tmp_path / 'data'}", f"finetune.base={base}"]
    study = yaml.safe_load((ROOT / "studies" / "paper.yaml").read_text())
    study["experiments"] = [row for row in study["experiments"] if row["paper_row"] in ROWS]
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump(study))
    command = tailfill("run", str(tmp_path / "paper.yaml"), "--workdir", str(tmp_path / "work"), "--json")
    command += [part for setting in sets for part in ("--set", setting)]
    ended = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    page = Path(json.loads(ended.stdout)["report"])
    rows = json.loads((page.parent / "results.json").read_text())["experiments"]
    assert [row["paper_row"] for row in rows] == list(ROWS)
    found = {row["name"]: row["parameters"] for row in rows}
    # one parameter after the other, the best value kept; rows without a search take what the chain found
    assert found["row-1"]["lr"] == found["row-2"]["lr"] == found["row-6"]["lr"]
    assert found["row-1"]["label_smoothing"] == 0
    assert found["row-5"]["label_smoothing"] == found["row-3"]["label_smoothing"] > 0
    assert found["row-12"]["dropout"] == found["row-6"]["dropout"]
