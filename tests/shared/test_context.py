from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.task import Input, Task
from shared.context import Context, Spent, StopSignal
from shared.errors import ArtifactError, Stopped
from shared.settings import Settings


@pytest.fixture
def context(folder_store: FolderStore, tmp_path: Path) -> Context:
    task = Task(study="study", stage="finetune", key="k", config={})
    return Context(
        task=task,
        artifacts=Artifacts(folder_store, "study", tmp_path / "cache"),
        settings=Settings.from_environment({}),
        scratch=tmp_path,
        stop=StopSignal(),
        version=3,
        code=lambda: ("fingerprint", {"numpy": "2"}),
    )


@pytest.fixture
def _signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_commit_records_how_it_came_about(context: Context, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    committed = context.commit(
        {"images-00001.parquet": tmp_path / "a", "b": tmp_path / "a"}, {"steps": 4}, device="NVIDIA T4"
    )
    assert committed.version == 3
    assert [file.name for file in committed.files] == ["b", "images-00001.parquet"]
    assert (committed.run.code, committed.run.libraries) == ("fingerprint", {"numpy": "2"})
    assert (committed.run.device_seconds, committed.run.cpu_seconds) == (committed.run.seconds, 0)
    assert context.fetch(committed, "b").read_bytes() == b"a"
    assert [path.read_bytes() for path in context.fetch_all(committed, "images")] == [b"a"]
    assert context.commit({}, {"steps": 5}) == committed  # only once


def test_a_cpu_holds_no_device(context: Context) -> None:
    run = context.commit({}, {}).run
    assert (run.device_seconds, run.cpu_seconds) == (0, run.seconds)


def test_the_work_of_several_processes_is_told(context: Context) -> None:
    run = context.commit({}, {}, "H100", Spent(gpu=9, cpu=4, gpu_lost=2, cpu_lost=1)).run
    assert (run.device_seconds, run.cpu_seconds, run.device_lost_seconds, run.cpu_lost_seconds) == (9, 4, 2, 1)


def test_checkpoints_carry_the_seconds_spent(context: Context, tmp_path: Path) -> None:
    checkpoints = context.checkpoints("training")
    assert checkpoints.load() is None
    (tmp_path / "w").write_bytes(b"weights")
    context.earlier_seconds = 100.0
    checkpoints.save({"w": tmp_path / "w"}, step=7)
    context.earlier_seconds = 0.0
    found = checkpoints.load()
    assert found is not None
    assert found[0]["w"].read_bytes() == b"weights"
    assert found[1]["step"] == 7
    assert context.seconds() >= 100
    context.commit({}, {})
    assert checkpoints.load() is None


def test_a_missing_input(context: Context) -> None:
    context.task.inputs["prepare"] = Input(stage="prepare", key="p", digest="d")
    with pytest.raises(ArtifactError, match="run the stage prepare first"):
        context.input("prepare")


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_between_steps(number: signal.Signals) -> None:
    stop = StopSignal()
    stop.install()
    stop.raise_if_set()
    assert not stop
    assert not stop.wait(0)
    os.kill(os.getpid(), number)
    assert stop
    assert stop.wait(0)
    with pytest.raises(Stopped, match="what was checkpointed stays"):
        stop.raise_if_set()
