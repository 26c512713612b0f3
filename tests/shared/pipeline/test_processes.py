"""Tests real stage processes: their output is read, and none outlives the process that started it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from shared.errors import BUG, INPUT
from shared.pipeline.processes import Launch, Lines, StageProcess, start
from tests.support.hostile import AT_STARTUP, OTHERS, OURS, HostileFolder

ROOT = Path(__file__).parents[3]
PARENT = """
import json, queue, sys, time
from shared.pipeline.processes import Launch, start
child = start(Launch("prepare", tuple(sys.argv[1:]), {}), {}, queue.Queue())
print(child.process.pid, flush=True)
time.sleep(60)
"""


def begin(*arguments: str, environment: dict[str, str] | None = None) -> tuple[StageProcess, Lines]:
    lines: Lines = queue.Queue()
    return start(Launch("a stage", arguments, {}), environment or {}, lines), lines


def ended(process: StageProcess) -> int:
    code = process.process.wait(60)
    process.reader.join(10)
    return code


def write_task(folder: Path, seed: int, **dataset: int) -> Path:
    """Writes a task that draws many garments, which takes minutes, unless `dataset` replaces it."""
    garments = {"source": "garments", "resolution": 224, "train": 100_000, "val": 50, "test": 50} | dataset
    config = {"dataset": garments, "rare": {"below": None}, "seed": seed}
    file = folder / "task.json"
    file.write_text(json.dumps({"study": "tiny", "stage": "prepare", "key": "k" * 64, "config": config}))
    return file


@pytest.fixture
def long_task(tmp_path: Path) -> Path:
    return write_task(tmp_path, 0)


def test_its_errors_arrive_also_those_longer_than_a_pipe_holds() -> None:
    name = "x" * 100_000  # a pipe holds 65,536 bytes
    process, lines = begin("stage", name, "--config", "nowhere")
    assert ended(process) == INPUT
    (error,) = process.errors
    assert error.startswith(f"stage '{name}': there is no such stage")
    said, line = lines.get_nowait()
    assert (said, line["level"], line["event"]) == (process, "error", error)


def test_a_bug_leaves_its_traceback_and_1(tmp_path: Path) -> None:
    file = write_task(tmp_path, -1)  # no study has such a seed
    store = {"TAILFILL_STORE": str(tmp_path / "store"), "TAILFILL_CACHE": str(tmp_path / "cache")}
    process, _ = begin("stage", "prepare", "--config", str(file), environment=store)
    assert ended(process) == BUG == 1
    assert process.errors == []
    assert "jobs/prepare.py" in "\n".join(process.tail)
    assert process.tail[-1].startswith("ValueError")


def test_a_kill_ends_it_and_a_signal_afterwards_does_nothing(long_task: Path) -> None:
    process, _ = begin("stage", "prepare", "--config", str(long_task))
    process.kill()
    assert process.process.returncode == -signal.SIGKILL
    process.signal(signal.SIGTERM)
    process.kill()


def test_it_does_not_outlive_a_parent_that_was_killed(long_task: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, "stage", "prepare", "--config", str(long_task)]
    environment = {**os.environ, "TAILFILL_STORE": str(tmp_path / "store"), "TAILFILL_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 5
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("modules", "packages"),
    [((*OURS, *AT_STARTUP, *OTHERS), ()), (AT_STARTUP, (*OURS, *OTHERS))],
    ids=["files", "packages"],
)
def test_it_imports_nothing_from_the_current_folder(
    modules: tuple[str, ...], packages: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = HostileFolder(tmp_path / "user", modules, packages)
    monkeypatch.chdir(hostile.folder)
    monkeypatch.setenv("PYTHONPATH", f":.:{os.environ.get('PYTHONPATH', '')}")
    store = {"TAILFILL_STORE": str(tmp_path / "store"), "TAILFILL_CACHE": str(tmp_path / "cache")}
    task = write_task(tmp_path, 0, resolution=32, train=100, rare_eval=4)
    process, _ = begin("stage", "prepare", "--config", str(task), environment=store)
    assert (ended(process), hostile.imported) == (0, []), process.tail


def test_it_runs_the_code_of_who_started_it_whatever_the_search_path_leads_to(tmp_path: Path) -> None:
    other = HostileFolder(tmp_path / "other", (), OURS)
    process, _ = begin("--version", environment={"PYTHONPATH": str(other.folder)})
    assert (ended(process), other.imported) == (0, []), process.tail


def test_it_imports_no_other_module_of_the_folder_that_holds_our_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = HostileFolder(tmp_path / "checkout", (*AT_STARTUP, *OTHERS))
    for name in OURS:
        (hostile.folder / name).symlink_to(ROOT / name)
    monkeypatch.setattr("shared.pipeline.processes.COMMAND", hostile.folder / "jobs" / "isolated.py")
    monkeypatch.chdir(hostile.folder)
    assert not any((ROOT / name / "__init__.py").read_text() for name in OURS)
    process, _ = begin("--version")
    assert (ended(process), hostile.imported) == (0, []), process.tail
