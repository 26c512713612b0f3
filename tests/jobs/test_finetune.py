from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from jobs import finetune
from shared.config.dataset import Rare
from shared.config.generation import PixelFinetune, StableDiffusionFinetune
from shared.config.stages import FinetuneConfig
from shared.errors import DataError, Stopped
from tests.support.pixel_study import PixelStudy, pictures


def config(**values: object) -> FinetuneConfig:
    pixel = PixelFinetune.model_validate(
        {"generator": "pixel", "steps": 6, "batch_size": 4, "resolution": 16, "width": 8, "checkpoint_every": 3}
        | values
    )
    return FinetuneConfig(finetune=pixel, rare=Rare(below=10), seed=5)


@pytest.fixture
def study(tmp_path: Path) -> PixelStudy:
    study = PixelStudy(tmp_path)
    study.prepare(pictures())
    return study


def test_it_commits_weights_curve_and_a_sheet(study: PixelStudy) -> None:
    context = study.context("finetune", config())
    manifest = finetune.run(config(), context)
    names = [file.name for file in manifest.files]
    assert names == ["curve.json", "generator.json", "model.safetensors", "samples.png"]
    curve = json.loads(context.fetch(manifest, "curve.json").read_text())
    assert manifest.summary == {"steps": 6, "loss": curve[-1]["loss"], "images": 24}
    with Image.open(io.BytesIO(context.fetch(manifest, "samples.png").read_bytes())) as sheet:
        # there is one rare class, and so one row of four real and four generated images
        assert sheet.width > sheet.height


def test_a_signal_keeps_a_checkpoint_and_the_same_command_goes_on(study: PixelStudy) -> None:
    stopped = study.context("finetune", config(checkpoint_every=1000))
    stopped.stop.set()
    with pytest.raises(Stopped):
        finetune.run(config(checkpoint_every=1000), stopped)
    again = study.context("finetune", config(checkpoint_every=1000))
    kept = again.load_checkpoint("training")
    assert kept is not None
    assert kept[1]["step"] == 1
    resumed = weights(finetune.run(config(checkpoint_every=1000), again))
    assert again.load_checkpoint("training") is None
    # `checkpoint_every` changes the key, but not the weights
    assert resumed == weights(finetune.run(config(), study.context("finetune", config())))


def test_gpus_that_stay_idle_are_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    section = StableDiffusionFinetune(generator="stable-diffusion", batch_size=4)
    device = torch.device("cuda")
    for gpus, used in ((2, 2), (3, 2)):
        monkeypatch.setattr("shared.device.gpu_count", lambda _, gpus=gpus: gpus)
        caplog.clear()
        with caplog.at_level("WARNING", "tailfill"):
            assert finetune.process_count(section, device) == used
        assert ["not all GPUs are used" in record.getMessage() for record in caplog.records] == [True] * (gpus - used)


def test_a_data_set_without_training_images_is_refused(study: PixelStudy) -> None:
    images = pictures()
    images.split[:] = "val"
    study.prepare(images)
    with pytest.raises(DataError, match="no training image"):
        finetune.run(config(), study.context("finetune", config()))


@pytest.mark.slow  # Python starts three times with torch and diffusers
def test_killed_by_sigkill_it_goes_on_and_ends_with_the_same_bytes(study: PixelStudy, tmp_path: Path) -> None:
    longer = config(steps=60, checkpoint_every=2)
    whole = weights(finetune.run(longer, study.context("finetune", longer)))
    other = PixelStudy(tmp_path / "killed")
    other.prepare(pictures())
    task = other.task("finetune", longer)
    file = tmp_path / "task.json"
    file.write_text(task.model_dump_json())
    command = [sys.executable, "-m", "jobs", "stage", "finetune", "--config", str(file)]
    environment = os.environ | {
        "TAILFILL_STORE": str(other.root / "store"), "TAILFILL_CACHE": str(other.root / "cache"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    artifacts = other.context("finetune", longer).artifacts

    def saved() -> bool:
        found = artifacts.load_checkpoint("finetune", task.key, "training.1")
        return found is not None and "step" in found[1]

    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 200
        while not saved() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=True)
    assert "continuing from a checkpoint" in done.stderr
    committed = other.context("finetune", longer).artifacts.find("finetune", task.key)
    assert committed is not None
    assert weights(committed) == whole


def weights(manifest: object) -> str:
    """Returns the digest of the committed weights."""
    return manifest.file("model.safetensors").digest  # type: ignore[attr-defined, no-any-return]
