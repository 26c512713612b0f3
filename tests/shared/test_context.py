from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.stages import STAGES
from shared.config.task import Input, Task
from shared.context import Context
from shared.errors import ArtifactError, Stopped
from shared.settings import Settings
from shared.stop import StopSignal
from shared.usage import ComputeUsage
from tests.support.configs import any_config


def context_of(folder: Path, **values: Any) -> Context:
    """Returns the context of a process that works on a fine-tuning."""
    return Context(
        task=Task(study="study", stage="finetune", key="k", config=any_config("finetune")),
        artifacts=Artifacts(FolderStore(folder / "store"), "study", folder / "cache"),
        settings=Settings.from_environment({}),
        scratch=folder,
        stop=StopSignal(),
        code=lambda: ("fingerprint", {"numpy": "2"}),
        **values,
    )


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return context_of(tmp_path)


def stopped(folder: Path, ago: float, checkpoint: bool = False, **values: Any) -> None:
    """Runs a process that began so long ago, saved a checkpoint at once or never, and is stopped now."""
    now = [time.monotonic()]
    context = context_of(folder, clock=lambda: now[0], started=now[0] - ago, **values)
    with suppress(Stopped), context.meter:
        if checkpoint:
            context.checkpoints("training").load()
            context.checkpoints("training").save({})
            now[0] += 7  # it keeps working
        raise Stopped("a signal")


def test_commit_records_how_it_came_about(context: Context, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    committed = context.commit(
        {"images-00001.parquet": tmp_path / "a", "b": tmp_path / "a"}, {"steps": 4}, device="NVIDIA T4"
    )
    assert committed.version == STAGES["finetune"].version
    assert [file.name for file in committed.files] == ["b", "images-00001.parquet"]
    assert (committed.run.code, committed.run.libraries) == ("fingerprint", {"numpy": "2"})
    assert (committed.run.device_seconds, committed.run.cpu_seconds) == (committed.run.seconds, 0)
    assert context.fetch(committed, "b").read_bytes() == b"a"
    assert [path.read_bytes() for path in context.fetch_all(committed, "images")] == [b"a"]
    assert context.commit({}, {"steps": 5}) == committed  # only once


def test_a_cpu_holds_no_device(context: Context) -> None:
    run = context.commit({}, {}).run
    assert (run.device_seconds, run.cpu_seconds) == (0, run.seconds)


def test_the_work_of_stopped_processes_is_spent_and_lost_but_for_what_was_kept(tmp_path: Path) -> None:
    stopped(tmp_path, 50)
    stopped(tmp_path, 20, checkpoint=True)
    stopped(tmp_path, 9)
    last = context_of(tmp_path, started=time.monotonic() - 30)
    with last.meter:
        last.checkpoints("training").load()
        run = last.commit({}, {}).run
    assert run.seconds == pytest.approx(20 + 30, abs=4)  # what the result's own chain of runs took
    assert run.cpu_seconds == pytest.approx(50 + 27 + 9 + 30, abs=4)
    assert run.cpu_lost_seconds == pytest.approx(50 + 7 + 9, abs=4)
    assert run.cpu_seconds - run.cpu_lost_seconds == pytest.approx(run.seconds, abs=2)
    assert (run.device_seconds, run.device_lost_seconds) == (0, 0)


def test_each_gpu_that_a_process_holds_is_counted_and_a_cpu_apart(tmp_path: Path) -> None:
    stopped(tmp_path, 50, gpus=4)
    stopped(tmp_path, 20)
    last = context_of(tmp_path, started=time.monotonic() - 30, gpus=2)
    with last.meter:
        run = last.commit({}, {}, device="H100").run
    assert run.device_seconds == pytest.approx(4 * 50 + 2 * 30, abs=10)
    assert run.device_lost_seconds == pytest.approx(4 * 50, abs=10)
    assert run.cpu_seconds == run.cpu_lost_seconds == pytest.approx(20, abs=4)


def test_what_another_stage_counts_is_not_counted_here_but_earlier_work_is(tmp_path: Path) -> None:
    stopped(tmp_path, 50)
    run = context_of(tmp_path, started=time.monotonic() - 30, counted=False).commit({}, {}).run
    assert run.cpu_seconds == run.cpu_lost_seconds == pytest.approx(50, abs=4)


def test_the_work_of_several_processes_is_passed_in(context: Context) -> None:
    run = context.commit({}, {}, "H100", ComputeUsage(gpu=9, cpu=4, gpu_lost=2, cpu_lost=1)).run
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
    context.task.inputs["prepare"] = Input(stage="prepare", key="p", digest="d" * 64)
    with pytest.raises(ArtifactError, match="run the stage prepare first"):
        context.input("prepare")
