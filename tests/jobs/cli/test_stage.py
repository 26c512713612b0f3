"""Tests a stage as a container runs it, but in this process: every exit code, on a small folder of images."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from jobs.__main__ import main
from jobs.cli.stage import _gpus, run_within
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.keys import new_task
from shared.artifacts.s3 import S3Store
from shared.config.dataset import GarmentsSource, Rare
from shared.config.generation import PixelFinetune
from shared.config.load import study_from_tree
from shared.config.search import Resources
from shared.config.stages import STAGES, FinetuneConfig
from shared.config.task import Input, Task
from shared.errors import BUG, COMMITTED, INPUT, STOPPED, UNAVAILABLE
from shared.pipeline.plan import make_task, plan
from shared.settings import Settings
from shared.stop import StopSignal
from shared.usage import records_under_way

pytestmark = pytest.mark.usefixtures("stage_surroundings")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Writes a task of `prepare` for two classes with two images each in every split."""
    for split in ("train", "val", "test"):
        for number, name in enumerate(("cat", "dog")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for shade in (0, 60):
                colour = (shade + 20 * len(split), 255 * number, shade)
                Image.new("RGB", (20, 20), colour).save(folder / f"{shade}.png")
    study = study_from_tree(
        {
            "name": "tiny",
            "dataset": {
                "source": "folder",
                "root": str(tmp_path / "data"),
                "resolution": 32,
                "on_leak": "keep",
                "leak_distance": 0,
            },
            "finetune": {"generator": "pixel"},
            "rare": {"below": None},
            "verdict": "none",
            "experiments": [{"name": "real"}],
        }
    )
    return make_task(study, plan(study)[0], {})


def exit_code(folder: Path, task: Task) -> int:
    file = folder / "task.json"
    file.write_text(task.model_dump_json())
    try:
        main(["--log", "json", "stage", task.stage, "--config", str(file)])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else BUG
    return COMMITTED


def artifacts(folder: Path) -> Artifacts:
    return Artifacts(FolderStore(folder / "store"), "tiny", folder / "cache")


def committed(folder: Path, task: Task) -> bool:
    return artifacts(folder).find("prepare", task.key) is not None


def test_a_task_in_the_store_is_run_like_one_in_the_file(tmp_path: Path, task: Task) -> None:
    file = tmp_path / "task.json"
    file.write_text(artifacts(tmp_path).save_tasks([task]).model_dump_json())
    main(["stage", "prepare", "--config", str(file)])
    assert committed(tmp_path, task)


def test_work_within_another_stage_s_is_counted_there(tmp_path: Path, task: Task) -> None:
    assert exit_code(tmp_path, task) == COMMITTED
    alone = artifacts(tmp_path).find("prepare", task.key)
    other = artifacts(tmp_path / "other")
    within = run_within(task, other, Settings.from_environment(), StopSignal())
    assert alone is not None
    assert within.digest == alone.digest
    assert alone.run.cpu_seconds
    assert within.run.cpu_seconds == within.run.device_seconds == 0
    assert run_within(task, other, Settings.from_environment(), StopSignal()) == within  # it is not run again


KILLED = """
import logging, os, pathlib, signal, sys, time
from jobs.__main__ import main

class Kill(logging.Handler):
    def emit(self, record):
        if record.getMessage() == "images":
            while not list(pathlib.Path(os.environ["TAILFILL_STORE"]).glob("tiny/prepare/*/spent/*.json")):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

logging.getLogger("tailfill").addHandler(Kill())
main(["stage", "prepare", "--config", sys.argv[1]])
"""


def test_the_hours_of_a_killed_process_are_spent_and_lost(tmp_path: Path, task: Task) -> None:
    (tmp_path / "task.json").write_text(task.model_dump_json())
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "task.json")], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    (killed,) = records_under_way(artifacts(tmp_path), "prepare")
    assert (killed.gpus, killed.kept) == (0, 0)
    assert exit_code(tmp_path, task) == COMMITTED
    made = artifacts(tmp_path).find("prepare", task.key)
    assert made is not None
    assert made.run.cpu_lost_seconds == killed.seconds > 0
    assert made.run.cpu_seconds == pytest.approx(killed.seconds + made.run.seconds)
    assert list(artifacts(tmp_path).store.list(f"tiny/prepare/{task.key}/")) == [
        f"tiny/prepare/{task.key}/manifest.json"
    ]


def test_the_gpus_that_a_process_sees_are_its_own(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    on_gpu, on_cpu = (Resources(device=device) for device in ("auto", "cpu"))
    held = {stage: _gpus(task.model_copy(update={"stage": stage, "resources": on_gpu})) for stage in STAGES}
    assert held == {stage: 2 if kind.on_device else 0 for stage, kind in STAGES.items()}
    assert _gpus(task.model_copy(update={"stage": "final", "resources": on_cpu})) == 0


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return "\n".join(json.loads(line)["event"] for line in capsys.readouterr().err.splitlines())


def test_0_it_committed_and_the_second_time_had(tmp_path: Path, task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(tmp_path, task) == COMMITTED == 0
    assert committed(tmp_path, task)
    assert "committed already" not in said(capsys)
    assert exit_code(tmp_path, task) == COMMITTED
    assert "committed already" in said(capsys)


def test_no_secret_is_stored_or_logged(
    tmp_path: Path, task: Task, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, "planted-secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:planted-secret@host/db")
    assert exit_code(tmp_path, task) == COMMITTED
    stored = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert [path for path in stored if path.name == "manifest.json"]
    assert [path for path in stored if b"planted-secret" in path.read_bytes()] == []
    assert "planted-secret" not in "".join(capsys.readouterr())


def test_2_what_no_retry_mends(tmp_path: Path, task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data" / "train" / "cat" / "0.png").write_bytes(b"no image")
    assert exit_code(tmp_path, task) == INPUT == 2
    assert "cat/0.png" in said(capsys)
    assert not committed(tmp_path, task)


def test_2_a_gpu_that_torch_cannot_use(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The study's `resources.device` is auto, but a Pod that holds a GPU does not fall back to its CPU."""
    assert exit_code(tmp_path, task) == COMMITTED
    made = artifacts(tmp_path).find("prepare", task.key)
    assert made is not None
    config = FinetuneConfig(finetune=PixelFinetune(generator="pixel"), rare=Rare(below=None), seed=0)
    inputs = {"prepare": Input(stage="prepare", key=made.key, digest=made.digest)}
    training = new_task("tiny", "finetune", config, inputs, task.resources)
    monkeypatch.setenv("TAILFILL_DEVICE", "cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert exit_code(tmp_path, training) == INPUT
    assert "torch finds no GPU that it can use" in said(capsys)


def test_75_a_service_is_away(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAILFILL_STORE", "s3://bucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(S3Store.__init__, "__defaults__", (1,))  # one attempt, as more would take seconds
    assert exit_code(tmp_path, task) == UNAVAILABLE == 75
    assert "127.0.0.1:1" in said(capsys)


def test_143_a_signal_before_the_commit(tmp_path: Path, task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    class Stop(logging.Handler):
        """Sends SIGTERM when the work on the first image begins."""

        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "images" and not record.__dict__["progress"]["done"]:
                signal.raise_signal(signal.SIGTERM)

    logger, stop = logging.getLogger("tailfill"), Stop()
    logger.addHandler(stop)
    try:
        assert exit_code(tmp_path, task) == STOPPED == 143
    finally:
        logger.removeHandler(stop)
    assert "stopped by a signal" in said(capsys)
    assert not committed(tmp_path, task)
    assert exit_code(tmp_path, task) == COMMITTED  # the same command continues


def test_1_a_bug_goes_up_unhandled(tmp_path: Path, task: Task) -> None:
    """The interpreter prints a traceback and exits with 1 (`test_processes`)."""
    garments = GarmentsSource(source="garments", resolution=32, train=100, val=50, test=50)
    broken = task.model_copy(update={"config": task.config.model_copy(update={"dataset": garments, "seed": -1})})
    with pytest.raises(ValueError, match="non-negative"):
        exit_code(tmp_path, broken)


def test_a_task_of_another_stage(tmp_path: Path, task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "task.json"
    file.write_text(task.model_dump_json())
    with pytest.raises(SystemExit, match="2"):
        main(["--log", "json", "stage", "final", "--config", str(file)])
    assert "is a task of the stage prepare, not of final; run `tailfill stage prepare`" in said(capsys)
