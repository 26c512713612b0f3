"""Tests the slots and retries of one machine, with real processes of the command."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from shared.config.load import load_study
from shared.errors import InputError, UnavailableError
from shared.pipeline.console import PlainConsole
from shared.pipeline.local_executor import MAX_RETRIES, LocalExecutor, Slots, _RunningStep, gpus_of_step
from shared.pipeline.plan import plan
from shared.pipeline.processes import Launch

STUDY = Path(__file__).parents[3] / "studies" / "demo.yaml"


def make_machine(folder: Path) -> LocalExecutor:
    study = load_study(STUDY)
    environment = {"TAILFILL_STORE": str(folder / "store"), "TAILFILL_CACHE": str(folder / "cache")}
    return LocalExecutor(study, plan(study), folder, environment, PlainConsole(), None)


def begun(machine: LocalExecutor, *launches: Launch) -> _RunningStep:
    """Returns a running step with these launches in its queue."""
    running = _RunningStep(plan(load_study(STUDY))[0], pending=list(launches))
    machine.running.append(running)
    return running


def finish(machine: LocalExecutor, running: _RunningStep, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while running.processes and time.monotonic() < deadline:
        machine._collect()
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("count", "gpus", "free", "most_gpus", "slots", "seen"),
    [
        (4, 4, [0, 1, 2, 3], 4, [0, 1, 2, 3], [0, 1, 2, 3]),  # nothing else runs, so it gets all of them
        (4, 4, [0, 1, 2, 3], 2, [0, 1], [0, 1]),  # it gets no more than it can use
        (4, 4, [1, 2, 3], 4, [1], [1]),  # another stage runs
        (4, 4, [3, 0, 1, 2], 1, [3], [3]),
        (1, 4, [0], 4, [0], [0, 1, 2, 3]),  # resources.processes: 1
        (4, 2, [0, 1, 2, 3], 2, [0, 1], [0, 1]),
        (4, 2, [3], 2, [3], [1]),
        (2, 0, [0, 1], 1, [0], []),
    ],
)
def test_who_gets_which_gpus(
    count: int, gpus: int, free: list[int], most_gpus: int, slots: list[int], seen: list[int]
) -> None:
    machine = Slots(count, gpus)
    assert machine.take(free, most_gpus) == slots
    assert machine.gpus_of(slots) == seen
    assert machine.environment(slots).get("CUDA_VISIBLE_DEVICES") == (",".join(map(str, seen)) if gpus else None)


@pytest.mark.parametrize(("batch_size", "gpus", "most"), [(4, 4, 4), (6, 4, 3), (1, 4, 1), (4, 0, 1)])
def test_a_stable_diffusion_takes_as_many_gpus_as_share_its_batch(batch_size: int, gpus: int, most: int) -> None:
    sets = ["finetune={generator: stable-diffusion, resolution: 32}", f"finetune.batch_size={batch_size}"]
    steps = {step.stage: step for step in plan(load_study(STUDY, sets))}
    assert gpus_of_step(steps["finetune"], gpus) == most
    assert gpus_of_step(steps["final"], gpus) == 1
    pixel = {step.stage: step for step in plan(load_study(STUDY))}
    assert gpus_of_step(pixel["finetune"], gpus) == 1


def test_a_coordinator_waits_for_no_slot(tmp_path: Path) -> None:
    machine = make_machine(tmp_path)
    machine.free = []
    worker = Launch("worker", ("--version",), {})
    running = begun(machine, worker, Launch("coordinator", ("--version",), {}, takes_slot=False))
    machine._fill_slots()
    assert running.pending == [worker]
    assert [p.launch.name for p in running.processes] == ["coordinator"]
    running.processes[0].process.wait()
    running.processes[0].reader.join()


def test_what_no_retry_mends_ends_the_run_with_the_stage_s_words(tmp_path: Path) -> None:
    machine = make_machine(tmp_path)
    running = begun(machine, Launch("prepare", ("stage", "prepare", "--config", "nowhere.json"), {}))
    machine._fill_slots()
    with pytest.raises(InputError, match=r"prepare: nowhere\.json: cannot be read"):
        finish(machine, running)


def test_a_service_that_is_away_is_asked_a_bounded_number_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.pipeline.local_executor.FIRST_WAIT_SECONDS", 0.0)
    machine = make_machine(tmp_path)
    process: Any = type(
        "Ended", (), {"launch": Launch("final", (), {}), "errors": ["the bucket is away"], "tail": []}
    )()
    running = begun(machine)
    for _ in range(MAX_RETRIES):
        machine._retry(running, process, "the bucket is away")
    assert running.pending == [process.launch] * MAX_RETRIES
    with pytest.raises(UnavailableError, match=f"final: gave up after {MAX_RETRIES} retries: the bucket is away"):
        machine._retry(running, process, "the bucket is away")
