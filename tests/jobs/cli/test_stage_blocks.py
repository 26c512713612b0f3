"""A process that runs a block of final trainings: what it commits, what a signal, an error or SIGKILL leaves, and what the next one does."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from jobs.__main__ import main
from shared.config.task import BEGINS, ENDS, Input, Task, block_json
from shared.errors import BUG, COMMITTED, INPUT, STOPPED
from shared.pipeline.plan import make_task, plan
from tests.support.finals import artifacts_of, finals_study, prepared

EPOCHS = 3


pytestmark = pytest.mark.usefixtures("stage_surroundings")


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    """Three trainings."""
    return prepared(tmp_path, EPOCHS, 3)[2]


def run_block(folder: Path, *tasks: Task, stage: str = "final") -> int:
    file = folder / "block.json"
    file.write_text(block_json(tasks))
    try:
        main(["--log", "json", "stage", stage, "--config", str(file)])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else BUG
    return COMMITTED


def committed(folder: Path, tasks: list[Task]) -> list[bool]:
    return [artifacts_of(folder).find("final", task.key) is not None for task in tasks]


def events(lines: str, *wanted: str) -> list[tuple[str, str]]:
    """The events with those names, with the number of the training for those that name one."""
    found = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    return [(line["event"], line.get("key", "")[:8]) for line in found if line["event"] in wanted]


def marked(tasks: list[Task], *numbers: int) -> list[tuple[str, str]]:
    return [(event, tasks[number].key[:8]) for number in numbers for event in (BEGINS, ENDS)]


@contextmanager
def on_epoch(epoch: int, training: int, act: Callable[[], object]) -> Iterator[None]:
    """Acts when that training of the block, counted from 0, has ended an epoch."""
    begun = -1

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            nonlocal begun
            begun += record.getMessage() == BEGINS
            if begun == training and record.getMessage().startswith(f"epoch {epoch}/"):
                act()

    logger, watch = logging.getLogger("tailfill"), Watch()
    logger.addHandler(watch)
    try:
        yield
    finally:
        logger.removeHandler(watch)


def test_trainings_in_one_process_are_those_of_processes_of_their_own(
    tmp_path: Path, tasks: list[Task], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_block(tmp_path, *tasks) == COMMITTED
    assert events(capsys.readouterr().err, BEGINS, ENDS) == marked(tasks, 0, 1, 2)
    alone = tmp_path / "alone"
    prepared(alone, EPOCHS, 3)
    (alone / "task.json").write_text(block_json(tasks[2:]))
    # as many threads as here, since sums depend on their number
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    environment = {
        **os.environ,
        **threads,
        "TAILFILL_STORE": str(alone / "store"),
        "TAILFILL_CACHE": str(alone / "cache"),
    }
    command = [sys.executable, "-m", "jobs", "stage", "final", "--config", str(alone / "task.json")]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    last, same = (artifacts_of(folder).find("final", tasks[2].key) for folder in (tmp_path, alone))
    assert last is not None
    assert same is not None
    digests = [{f.name: f.digest for f in run.files if f.name != "curve.json"} for run in (last, same)]
    assert digests[0] == digests[1]  # the curve has the seconds of each epoch
    assert digests[0].keys() >= {"model.safetensors", "predictions.parquet"}
    runs = [artifacts_of(tmp_path).find("final", task.key) for task in tasks]
    assert all(run is not None and run.run.seconds == pytest.approx(run.run.cpu_seconds, abs=1.0) for run in runs)


def test_what_is_committed_is_skipped(tmp_path: Path, tasks: list[Task], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_block(tmp_path, tasks[1]) == COMMITTED
    capsys.readouterr()
    assert run_block(tmp_path, *tasks[:2]) == COMMITTED
    lines = capsys.readouterr().err
    assert lines.count("epoch 1/") == 1
    assert events(lines, BEGINS, "committed already", ENDS) == [
        *marked(tasks, 0), (BEGINS, tasks[1].key[:8]), ("committed already", tasks[1].key[:8]), (ENDS, tasks[1].key[:8])
    ]  # fmt: skip


def test_a_task_that_is_added_meanwhile_is_run_and_one_that_is_taken_away_is_not(
    tmp_path: Path, tasks: list[Task], capsys: pytest.CaptureFixture[str]
) -> None:
    def change() -> None:
        (tmp_path / "block.json").write_text(block_json([tasks[0], tasks[2]]))

    with on_epoch(1, 0, change):
        assert run_block(tmp_path, *tasks[:2]) == COMMITTED
    assert events(capsys.readouterr().err, BEGINS, ENDS) == marked(tasks, 0, 2)
    assert committed(tmp_path, tasks) == [True, False, True]


def test_a_signal_stops_at_the_training_in_work_and_keeps_its_checkpoint(
    tmp_path: Path, tasks: list[Task], capsys: pytest.CaptureFixture[str]
) -> None:
    with on_epoch(1, 1, lambda: signal.raise_signal(signal.SIGTERM)):
        assert run_block(tmp_path, *tasks) == STOPPED
    assert committed(tmp_path, tasks) == [True, False, False]
    kept = artifacts_of(tmp_path).load_checkpoint("final", tasks[1].key, "training.1")
    assert kept is not None
    assert events(capsys.readouterr().err, BEGINS, ENDS) == [*marked(tasks, 0), (BEGINS, tasks[1].key[:8])]
    assert run_block(tmp_path, *tasks) == COMMITTED
    trained = [line for line in capsys.readouterr().err.splitlines() if '"epoch ' in line]
    assert len(trained) == EPOCHS - int(kept[1]["epoch"]) + EPOCHS  # the rest of the second, and the third
    assert committed(tmp_path, tasks) == [True, True, True]


def test_an_error_in_the_second_training_ends_the_process_after_the_first(
    tmp_path: Path, tasks: list[Task], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Input(stage="prepare", key="0" * 64, digest="0" * 64)
    broken = tasks[1].model_copy(update={"inputs": {"prepare": wrong}})
    assert run_block(tmp_path, tasks[0], broken, tasks[2]) == INPUT
    assert committed(tmp_path, tasks) == [True, False, False]
    assert events(capsys.readouterr().err, BEGINS, ENDS) == [*marked(tasks, 0), (BEGINS, tasks[1].key[:8])]


KILLED = """
import logging, os, signal, sys
from jobs.__main__ import main

class Kill(logging.Handler):
    begun = 0

    def emit(self, record):
        self.begun += record.getMessage() == "task begins"
        if self.begun == 2 and record.getMessage().startswith("epoch 1/"):
            os.kill(os.getpid(), signal.SIGKILL)

logging.getLogger("tailfill").addHandler(Kill())
main(["stage", "final", "--config", sys.argv[1]])
"""


def test_a_killed_process_loses_the_training_in_work_alone(
    tmp_path: Path, tasks: list[Task], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "block.json").write_text(block_json(tasks))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "block.json")], check=False, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL
    assert committed(tmp_path, tasks) == [True, False, False]
    first = artifacts_of(tmp_path).find("final", tasks[0].key)
    assert first is not None
    assert first.run.cpu_lost_seconds == 0
    assert run_block(tmp_path, *tasks) == COMMITTED
    said = capsys.readouterr().err
    assert events(said, "committed already") == [("committed already", tasks[0].key[:8])]
    assert committed(tmp_path, tasks) == [True, True, True]


def test_a_list_is_for_stages_whose_processes_run_blocks(
    tmp_path: Path, tasks: list[Task], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_block(tmp_path, *tasks, stage="tune") == INPUT
    assert "is a task of the stage final, not of tune; run `tailfill stage final`" in capsys.readouterr().err
    study = finals_study(EPOCHS, 3)
    one = make_task(study, plan(study)[0], {})
    assert run_block(tmp_path, one, one, stage="prepare") == INPUT
    assert "holds 2 tasks, but a process of the stage prepare runs one" in capsys.readouterr().err
    assert run_block(tmp_path, stage="final") == COMMITTED  # a list of none: nothing is left
