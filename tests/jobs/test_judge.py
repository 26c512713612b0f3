"""Tests the stage `judge` on drawn garments."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs import judge as stage
from jobs.judge import judge
from shared.classifier.runtime import Runtime
from shared.config.search import Resources
from shared.config.stages import JudgeConfig
from shared.config.task import Task
from shared.config.training import Classifier, Training
from shared.context import Context
from shared.data.imageset import ImageSet
from shared.errors import DataError, Stopped
from shared.log import Log
from shared.score.judges import RealPredictions, assign_folds, load_judge, train_classifier
from shared.settings import Settings
from shared.stop import StopSignal
from tests.support.judges import CONFIG, VALUES, commit_real, files_in, make_runtime, open_artifacts, real_images

torch.set_num_threads(1)

COMMITTED = ["judge-0.safetensors", "judge-1.safetensors", "real.safetensors"]


@pytest.fixture(scope="module")
def real() -> dict[str, ImageSet]:
    return real_images()


@pytest.fixture(scope="module")
def judged(real: dict[str, ImageSet], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("judged")
    return out, judge(CONFIG, real["train"], real["val"], out, make_runtime())


def test_the_weights_and_what_the_judges_say_of_real_images(
    real: dict[str, ImageSet], judged: tuple[Path, dict[str, Any]]
) -> None:
    files, train, val = files_in(judged[0]), real["train"], real["val"]
    assert sorted(files) == COMMITTED
    said = RealPredictions.load(files, train, val)
    assert said.fold.tolist() == assign_folds(train, 2, CONFIG.seed).tolist()
    assert said.judges == 2
    assert (said.held_out.shape, said.held_out.dtype) == (train.labels.shape, np.float32)
    assert (len(said.train_features), len(said.val_features)) == (len(train), len(val))
    accuracy = said.accuracy(train)
    assert accuracy.keys() == {group.name for group in train.schema.groups}
    assert judged[1] == {"judges": 2, "images": len(train), "accuracy": accuracy}


@pytest.mark.parametrize("trainable", ["all", "layer4", "head"])
def test_committed_judges_answer_with_the_bits_of_the_trained_ones(
    real: dict[str, ImageSet], tmp_path: Path, trainable: str
) -> None:
    classifier = Classifier(model="test_resnet", pretrained=False, trainable=trainable, head=(16,))
    values = VALUES | {"classifier": classifier, "training": Training(batch_size=32, warmup_epochs=0, dropout=0.3)}
    config, runtime = JudgeConfig(**values), make_runtime()
    train, val, test = real["train"], real["val"], real["test"]
    judge(config, train, val, tmp_path, runtime)
    files = files_in(tmp_path)
    said = RealPredictions.load(files, train, val)
    for number in range(2):
        held_out, rest = (train.take(np.flatnonzero((said.fold == number) == own)) for own in (True, False))
        trained = train_classifier(config, rest, held_out, "judge", number, Log("test"), runtime)
        loaded = load_judge(config, files, number, train, runtime)
        for images in (test, val):
            assert loaded.predict(images).tobytes() == trained.predict(images).tobytes()
            assert loaded.features(images).tobytes() == trained.features(images).tobytes()
        assert said.held_out[said.fold == number].tobytes() == trained.predict(held_out).tobytes()
        assert said.val[number].tobytes() == trained.predict(val).tobytes()
        if number == 0:
            assert said.train_features.tobytes() == trained.features(train).tobytes()
            assert said.val_features.tobytes() == trained.features(val).tobytes()


def test_an_interrupted_run_ends_with_the_same_bytes(
    real: dict[str, ImageSet], judged: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    stop = StopSignal()
    runtime = make_runtime(stop, tmp_path / "checkpoints")
    take, asked = runtime.checkpoints, list[str]()

    def stopping(name: str) -> Any:
        asked.append(name)
        if name == "judge-1":  # the first judge is done, and the second is about to train
            stop.set()
        return take(name)

    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(Stopped):
        judge(CONFIG, real["train"], real["val"], out, Runtime(runtime.device, runtime.resources, stopping, stop))
    assert take("trained-0").load() is not None
    (out / "judge-0.safetensors").unlink()  # a new process has an empty folder
    stop, asked = StopSignal(), []

    def noting(name: str) -> Any:
        asked.append(name)
        return take(name)

    resumed = Runtime(runtime.device, runtime.resources, noting, stop)
    assert judge(CONFIG, real["train"], real["val"], out, resumed) == judged[1]
    assert asked == ["trained-0", "trained-1", "judge-1"]  # the first judge is not trained again
    assert sorted(files_in(out)) == COMMITTED
    for name, path in files_in(out).items():
        assert path.read_bytes() == (judged[0] / name).read_bytes()


def test_files_that_do_not_fit_are_refused(
    real: dict[str, ImageSet], judged: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    files, train, val = files_in(judged[0]), real["train"], real["val"]
    first, changed = "judge-0.safetensors", tmp_path / "changed.safetensors"
    runtime = make_runtime()

    def refused(message: str, files: dict[str, Path], config: JudgeConfig = CONFIG) -> None:
        with pytest.raises(DataError, match=rf"{message}.*run judge again \(--rerun judge\)"):
            load_judge(config, files, 0, train, runtime)

    refused(r"^judge-0\.safetensors: missing beside", {})
    changed.write_bytes(pickle.dumps({"head.0.weight": 1}))
    refused(r"^judge-0\.safetensors: is no readable safetensors file", {first: changed})
    save_file(load_file(files[first]) | {"more": torch.zeros(1)}, changed)
    refused(r"^judge-0\.safetensors: more should be no such tensor", {first: changed})
    deeper = Classifier(model="test_resnet", pretrained=False, trainable="all", head=(8,))
    refused(
        r"^judge-0\.safetensors: head\.0\.bias should be \(8,\)", files, JudgeConfig(**VALUES | {"classifier": deeper})
    )
    again = r"run judge again \(--rerun judge\)"
    with pytest.raises(DataError, match=rf"^real\.safetensors: fold should be \(99,\), got \(100,\); .*{again}"):
        RealPredictions.load(files, train.take(np.arange(99)), val)
    with pytest.raises(DataError, match=rf"^real\.safetensors: val should be \(1, 50, .*{again}"):
        RealPredictions.load({name: path for name, path in files.items() if name != first}, train, val)
    save_file({"fold": torch.zeros(100, dtype=torch.int64)}, changed)
    with pytest.raises(DataError, match=rf"^real\.safetensors: held_out should be .*, got no such tensor; .*{again}"):
        RealPredictions.load(files | {"real.safetensors": changed}, train, val)


@pytest.mark.slow
def test_after_sigkill_the_same_command_goes_on_and_commits_the_same(
    real: dict[str, ImageSet], judged: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    artifacts = open_artifacts(tmp_path)
    prepared = commit_real(artifacts, real, tmp_path / "real")
    resources = Resources(device="cpu")
    task = Task(
        study="study", stage="judge", key="judge", config=CONFIG, inputs={"prepare": prepared}, resources=resources
    )
    file = tmp_path / "task.json"
    file.write_text(task.model_dump_json(by_alias=True))
    environment = {
        **os.environ,
        "TAILFILL_STORE": str(tmp_path / "store"),
        "TAILFILL_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "jobs", "stage", "judge", "--config", str(file)]
    trained = tmp_path / "store" / "study" / "judge" / "judge" / "checkpoints" / "trained-0.1.json"

    def saved() -> bool:
        return trained.exists() and bool(json.loads(trained.read_text())["values"])  # without values it has only begun

    first = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not saved() and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert saved()
    assert artifacts.find("judge", "judge") is None

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    context = Context(task, artifacts, Settings.from_environment(environment), scratch, StopSignal(), lambda: ("", {}))
    manifest = stage.run(CONFIG, context)
    assert manifest.summary == judged[1]
    assert [committed.name for committed in manifest.files] == COMMITTED
    for committed in manifest.files:
        assert artifacts.fetch(committed).read_bytes() == (judged[0] / committed.name).read_bytes()
    assert not trained.exists()
