"""Tests a study that is begun with its data in a bucket, and continued with the same data in a folder, and the other way round."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from jobs.cli.upload import upload
from shared.artifacts.manifest import Manifest, Run
from shared.artifacts.s3 import S3Store
from shared.config.load import load_study
from shared.config.stages import STAGES
from shared.settings import Settings
from tests.support.hub_endpoint import point_at
from tests.support.hub_server import Hub, serve_hub
from tests.support.in_process import InProcess
from tests.support.pinned import demo_manifests
from tests.support.two_classes import write_images

STUDY = """
name: places
dataset: {source: folder, root: nowhere, resolution: 32}
rare: {below: 12}
finetune: {generator: pixel, steps: 2, width: 8, batch_size: 8}
generate: {fill_to: 14, cap: 9, steps: 2, batch_size: 4}
score: {epochs: 1, folds: 2}
accept: {plausibility: [0, 0.9999], copies: allow}
classifier: {model: test_resnet, pretrained: true, trainable: head, head: []}
training: {batch_size: 16}
search: {trials: 3, epochs: 1, workers: 1, lease_seconds: 30, objective: val_loss}
final: {epochs: 1, seeds: 1}
verdict: none
experiments:
  - name: synthetic
    images: real+synthetic
    search: {space: {training.lr: {low: 0.001, high: 0.01}, generate.guidance: {values: [1.0, 2.0]}}}
  - {name: real, search: {trials: 0}}
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    (tmp_path / "hub").mkdir()
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), tmp_path / "hub/model.safetensors")
    with serve_hub({"timm/test_resnet.r160_in1k": tmp_path / "hub"}) as hub:
        point_at(hub.url, monkeypatch)
        yield hub


@pytest.mark.slow
def test_what_was_begun_in_one_place_is_carried_on_in_the_other(
    tmp_path: Path, hub: Hub, s3_store: S3Store, s3_server: Settings, database_url: str
) -> None:
    write_images(tmp_path / "data")
    data = f"{s3_store.url}/data"
    upload(tmp_path / "data", data, s3_server, False)
    (tmp_path / "study.yaml").write_text(STUDY)
    settings = replace(s3_server, store=f"{s3_store.url}/store")
    store = S3Store(s3_store.bucket, settings.store.split("/", 3)[3], s3_server)

    def place(name: str, root: object) -> InProcess:
        (tmp_path / name).mkdir()
        study = load_study(tmp_path / "study.yaml", [f"dataset.root={root}"])
        return InProcess(study, tmp_path / name, database_url, store, settings)

    def committed(runs: InProcess) -> dict[str, Run]:
        return {m.digest: m.run for stage in STAGES for m in runs.artifacts.manifests(stage)}

    there = place("there", data)
    there.run(there.steps["tune synthetic"])
    begun = committed(there)
    stages = [manifest.stage for stage in STAGES for manifest in there.artifacts.manifests(stage)]
    assert stages.count("prepare") == stages.count("weights") == stages.count("tune") == 1
    assert stages.count("generate") == stages.count("score") > 0  # the trials made them
    assert stages.count("judge") == 1

    hub.repositories, hub.asked = {}, []
    here = place("here", tmp_path / "data")
    report = here.run(here.steps["report"])
    after = committed(here)
    assert {digest: after[digest] for digest in begun} == begun  # no part of it was run again
    new = [m.stage for stage in STAGES for m in here.artifacts.manifests(stage) if m.digest not in begun]
    assert sorted(new) == ["final", "final", "report"]
    assert not hub.asked
    assert "weights/test_resnet" in report.inputs

    _check_names([m for stage in STAGES for m in here.artifacts.manifests(stage)])
    again = place("again", data)  # and the other way round
    assert again.run(again.steps["report"]).digest == report.digest
    assert committed(again) == after


def _check_names(manifests: list[Manifest]) -> None:
    """Checks that the names which users and later stages read have not changed: keys of summaries, and files."""
    # the first of each stage: the images of further pools are not measured as a set
    pinned = {manifest.stage: manifest for manifest in reversed(demo_manifests().values())}
    for manifest in manifests:
        if old := pinned.get(manifest.stage):
            assert manifest.summary.keys() == old.summary.keys(), manifest.stage
            assert _names(manifest) == _names(old), manifest.stage


def _names(manifest: Manifest) -> set[str]:
    """Returns the names of a result's files, without the numbers of shards and the names of plots, which vary."""
    names = {re.sub(r"-\d+\.parquet$", "", file.name) for file in manifest.files}
    return {name for name in names if not name.startswith("plots/")}
