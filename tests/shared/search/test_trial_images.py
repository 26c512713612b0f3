"""Tests a search that varies how images are generated: the real stages, a real PostgreSQL, and a tiny study in a folder store."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shared.artifacts.manifest import Manifest
from shared.config.load import load_study
from tests.support.image_files import grey_folders
from tests.support.in_process import InProcess
from tests.support.small_study import SMALL_STUDY

SPACE = "{generate.image_to_image.strength: {values: [0.4, 0.9]}, synthetic.share: {low: 0.1, high: 0.3}}"
SETS = [
    "verdict=none",
    "dataset.train=200", "dataset.val=60", "dataset.test=60", "dataset.rare_eval=2", "rare={below: null, classes: [fabric/faux]}",
    "finetune.steps=2", "finetune.width=8", "finetune.batch_size=8",
    "generate={fill_to: 12, cap: 9, steps: 2, batch_size: 4, image_to_image: {share: 0.5, strength: 0.4}}",
    "score.epochs=1", "accept={plausibility: [0, 0.9999], copies: allow}",
    "search={trials: 3, epochs: 1, lease_seconds: 30}", "final={epochs: 1, seeds: 1}", "training.batch_size=64",
    f"experiments.synthetic.search={{space: {SPACE}}}", f"experiments.placebo.search={{space: {SPACE}}}",
]  # fmt: skip


def strength(generated: Manifest) -> float:
    return float(generated.config["generate"]["image_to_image"]["strength"])


@pytest.mark.slow
def test_equal_settings_are_made_once_and_the_best_are_trained_on(tmp_path: Path, database_url: str) -> None:
    runs = InProcess(load_study(SMALL_STUDY, SETS), tmp_path, database_url)
    best = {}
    for arm in ("synthetic", "placebo"):
        committed = runs.run(runs.steps[f"tune {arm}"])
        assert committed.summary["trials"] == 3
        trials = pq.read_table(runs.artifacts.fetch(committed.file("trials.parquet"))).to_pylist()
        best[arm] = json.loads(runs.artifacts.fetch(committed.file("best.json")).read_bytes())["parameters"]
        tried = {row["generate.image_to_image.strength"] for row in trials}
        made = [strength(manifest) for manifest in runs.artifacts.manifests("generate")]
        assert tried <= set(made)
        assert len(made) == len(set(made)) == len(runs.artifacts.manifests("score"))
        assert len(runs.artifacts.manifests("judge")) == 1

    final = runs.run(runs.steps["final synthetic 0"])
    generated = runs.artifacts.open(final.inputs["generate"])
    assert strength(generated) == best["synthetic"]["generate.image_to_image.strength"]
    assert final.summary["parameters"] == best["synthetic"]
    # a trial made these images, so there is nothing to generate again
    assert len(runs.artifacts.manifests("generate")) == len(made)


@pytest.mark.slow
def test_the_images_of_a_trial_are_made_from_the_fold_of_its_repetition(tmp_path: Path, database_url: str) -> None:
    root = grey_folders(tmp_path / "data", light=30, dark=30, grey=10)
    data = f"dataset={{source: folder, root: {root}, resolution: 32, leak_distance: 0, split: {{test: folds}}}}"
    kept = [
        sets for sets in SETS if not sets.startswith(("verdict", "dataset", "rare", "search=", "final", "experiments"))
    ]
    shared = "{synthetic.share: {low: 0.1, high: 0.3}}"
    of_images = "{generate.image_to_image.strength: {values: [0.4, 0.9]}, synthetic.share: {low: 0.1, high: 0.3}}"
    sets = [
        *kept, data, "rare={below: null, classes: [label/grey]}", "verdict={provisional: true, baseline: placebo}", "final={epochs: 1, seeds: 2}",
        f"search={{trials: 4, epochs: 1, pruner: none, objective: val_loss, space: {shared}}}", f"experiments.synthetic.search={{space: {of_images}}}",
        "experiments.real.search={space: {training.lr: {low: 0.001, high: 0.01}}}",
    ]  # fmt: skip
    runs = InProcess(load_study(SMALL_STUDY, sets), tmp_path, database_url)
    committed = runs.run(runs.steps["tune synthetic"])
    assert committed.summary["complete"] == 4
    data_sets = {runs.artifacts.open(committed.inputs[f"prepare/{number}"]).key for number in range(2)}
    made = runs.artifacts.manifests("generate")
    assert {manifest.inputs["prepare"].key for manifest in made} == data_sets
    assert len(runs.artifacts.manifests("judge")) == 2
    for score in runs.artifacts.manifests("score"):
        images, judges = (runs.artifacts.open(score.inputs[role]) for role in ("generate", "judge"))
        assert score.inputs["prepare"] == images.inputs["prepare"] == judges.inputs["prepare"]
