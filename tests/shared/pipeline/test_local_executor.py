"""Tests the slots and retries of one machine, with real processes of the command."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.load import load_study
from shared.config.task import Input, references_of_json
from shared.errors import InputError, UnavailableError
from shared.pipeline.console import PlainConsole
from shared.pipeline.local_executor import (
    MAX_RETRIES,
    START_SECONDS,
    LocalExecutor,
    _Begun,
    _Work,
)
from shared.pipeline.plan import make_task, plan
from shared.pipeline.processes import Launch, start
from tests.support.committed import commit_steps
from tests.support.finals import artifacts_of, prepared
from tests.support.small_study import SMALL_STUDY

STUDY = SMALL_STUDY


def make_machine(folder: Path) -> LocalExecutor:
    study = load_study(STUDY)
    environment = {"TAILFILL_STORE": str(folder / "store"), "TAILFILL_CACHE": str(folder / "cache")}
    return LocalExecutor(study, plan(study), folder, environment, PlainConsole(), None)


def begun(machine: LocalExecutor, *launches: Launch) -> _Work:
    """A step in work that has these launches in the queue."""
    study = load_study(STUDY)
    step = plan(study)[0]
    work = _Work(machine.tasks / "prepare.json", [_Begun(step, make_task(study, step, {}))], pending=list(launches))
    machine.running.append(work)
    return work


def finish(machine: LocalExecutor, running: _Work, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while running.processes and time.monotonic() < deadline:
        machine._collect()
        time.sleep(0.05)


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
        "Ended", (), {"launch": Launch("prepare", (), {}), "errors": ["the bucket is away"], "tail": []}
    )()
    running = begun(machine)
    for _ in range(MAX_RETRIES):
        machine._retry(running, process, "prepare", "the bucket is away")
    assert running.pending == [process.launch] * MAX_RETRIES
    with pytest.raises(UnavailableError, match=f"prepare: gave up after {MAX_RETRIES} retries: the bucket is away"):
        machine._retry(running, process, "prepare", "the bucket is away")


class Recorder(PlainConsole):
    """Keeps what is shown."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.said: list[str] = []

    def line(self, stage: str, line: dict[str, Any]) -> None:
        self.lines.append((stage, line["event"]))

    def say(self, text: str) -> None:
        self.said.append(text)


def trainings(folder: Path, count: int, slots: int) -> tuple[LocalExecutor, list[_Begun]]:
    """A machine with so many slots, and trainings of three epochs that it can begin."""
    study, steps, tasks = prepared(folder, 3, count, slots)
    environment = {"TAILFILL_STORE": str(folder / "store"), "TAILFILL_CACHE": str(folder / "cache")}
    machine = LocalExecutor(study, plan(study), folder, environment, Recorder(), None)
    return machine, [_Begun(step, task) for step, task in zip(steps, tasks, strict=True)]


def held(work: _Work) -> list[str]:
    """The keys in its file."""
    return [key for _, key in references_of_json(work.file.read_bytes())]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_trainings_share_processes_and_a_killed_one_loses_the_training_in_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.pipeline.local_executor.FIRST_WAIT_SECONDS", 0.1)
    machine, all_ = trainings(tmp_path, 7, slots=2)
    for one in all_:
        machine.begin(one.step, one.task)
    completed: list[str] = []
    pids, killed = set[int](), ""
    try:
        while len(completed) < len(all_):
            for done in machine.advance():
                assert done.seconds is not None
                completed.append(done.step.label)
            pids |= machine.held.keys()
            assert all(len(work.tasks) <= 2 for work in machine.running)  # the one in work, and the next
            if len(completed) >= 2 and not killed:
                work = next(work for work in machine.running if work.processes)
                killed = work.tasks[0].step.label
                work.processes[0].kill()
            time.sleep(0.05)
    finally:
        machine.end()
    assert sorted(completed) == [one.step.label for one in all_]
    assert len(pids) == 3  # two, and the one after the one that was killed
    console = machine.console
    assert isinstance(console, Recorder)
    assert [line.split(":")[0] for line in console.said] == [killed]
    begun_epochs = [stage for stage, event in console.lines if event.startswith("epoch 1/")]
    assert set(begun_epochs) == set(completed)
    assert len([label for label in begun_epochs if label != killed]) == len(all_) - 1  # none but that one twice


def advance_for_ever(machine: LocalExecutor) -> None:
    while True:
        machine.advance()
        time.sleep(0.05)


@pytest.mark.slow
def test_an_error_in_a_block_names_its_training(tmp_path: Path) -> None:
    machine, all_ = trainings(tmp_path, 3, slots=1)
    wrong = Input(stage="prepare", key="0" * 64, digest="0" * 64)
    all_[1] = _Begun(all_[1].step, all_[1].task.model_copy(update={"inputs": {"prepare": wrong}}))
    for one in all_:
        machine.begin(one.step, one.task)
    try:
        with pytest.raises(InputError, match=r"^final real 1: "):
            advance_for_ever(machine)
    finally:
        machine.end()
    assert artifacts_of(tmp_path).find("final", all_[0].task.key) is not None
    assert artifacts_of(tmp_path).find("final", all_[2].task.key) is None


def in_work(machine: LocalExecutor, *all_: _Begun) -> _Work:
    """A block that a process runs."""
    for one in all_:
        machine.begin(one.step, one.task)
    first, *others = machine.running[-len(all_) :]
    for other in others:
        machine.running.remove(other)
        first.tasks += other.tasks
    first.write()
    first.pending = []
    first.processes.append(start(Launch("final", ("--version",), {}), {}, machine.lines))
    first.processes[0].process.wait()
    machine._task_begins(first.processes[0], all_[0].task.key)
    return first


def test_a_process_gets_one_training_ahead_unless_another_process_should_have_its_slot(tmp_path: Path) -> None:
    machine, all_ = trainings(tmp_path, 4, slots=1)
    machine.free = []
    work = in_work(machine, all_[0])
    for one in all_[1:3]:
        machine.begin(one.step, one.task)
    earlier = begun(machine, Launch("prepare", ("--version",), {}))
    machine.order[earlier.tasks[0].step.id] = -1
    machine._feed_blocks()
    assert held(work) == [all_[0].task.key]  # an earlier stage waits for the slot
    machine.running.remove(earlier)
    machine._feed_blocks()
    machine._feed_blocks()
    assert held(work) == [all_[0].task.key, all_[1].task.key]
    assert [other.tasks for other in machine.running] == [work.tasks, [all_[2]]]


def test_a_process_that_has_nothing_left_takes_what_waits_for_another_one_s_imports(tmp_path: Path) -> None:
    machine, all_ = trainings(tmp_path, 3, slots=2)
    machine.free = []
    warm, cold = in_work(machine, all_[0]), in_work(machine, *all_[1:])
    machine._feed_blocks()
    assert (held(warm), len(held(cold))) == ([all_[0].task.key], 2)
    warm.ended = True
    machine._feed_blocks()
    assert (held(warm), held(cold)) == ([all_[0].task.key, all_[2].task.key], [all_[1].task.key])


def test_what_waits_behind_a_long_training_moves_to_a_free_slot(tmp_path: Path) -> None:
    machine, all_ = trainings(tmp_path, 2, slots=2)
    work = in_work(machine, *all_)
    machine._split_blocks()
    assert len(machine.running) == 1  # it is not known to be long
    work.begun_at = time.monotonic() - START_SECONDS - 1
    machine._split_blocks()
    assert len(machine.running) == 1  # it may be its imports
    work.ended = True
    machine._split_blocks()
    assert held(work) == [all_[0].task.key]
    (other,) = (other for other in machine.running if other is not work)
    assert (other.waiting, held(other)) == (True, [all_[1].task.key])


def searches(folder: Path, *sets: str, workers: int | None = None) -> tuple[LocalExecutor, list[_Begun]]:
    """A machine with three slots, and the demo's searches."""
    study = load_study(STUDY, ["resources.processes=3", *sets])
    steps = plan(study)
    artifacts = Artifacts(FolderStore(folder / "store"), study.name, folder / "cache")
    stages = ("prepare", "finetune", "generate", "judge", "score")
    committed = commit_steps(study, [step for step in steps if step.stage in stages], artifacts)
    machine = LocalExecutor(study, steps, folder, {}, Recorder(), workers)
    tunes = [step for step in steps if step.stage == "tune"]
    return machine, [_Begun(step, make_task(study, step, committed)) for step in tunes]


@pytest.mark.parametrize(("per_search", "option", "counts"), [(1, None, (1, 2)), (2, None, (2, 3)), (1, 2, (2, 3))])
def test_workers_are_one_pool_for_all_open_searches(
    tmp_path: Path, per_search: int, option: int | None, counts: tuple[int, int]
) -> None:
    machine, (first, second, *_) = searches(tmp_path, f"search.workers={per_search}", workers=option)
    for one, count in zip((first, second), counts, strict=True):
        machine.begin(one.step, one.task)
        machine._staff_pool()
        assert [launch.name for launch in machine.pool.pending] == [f"worker {i}" for i in range(count)]
    assert held(machine.pool) == [first.task.key, second.task.key]
    worker = start(Launch("worker 0", ("--version",), {}), {}, machine.lines)
    worker.process.wait()
    machine.pool.processes.append(worker)
    machine._task_begins(worker, first.task.key)
    assert machine._name(worker) == "tune real worker 0"
    machine._task_ends(worker, first.task.key)
    assert held(machine.pool) == [second.task.key]
    machine._task_ends(worker, second.task.key)
    machine._staff_pool()
    assert (held(machine.pool), machine.pool.pending) == ([], [])
    assert len(machine.running) == 2  # the coordinators commit what was found


def test_a_worker_that_ended_before_a_search_came_is_started_for_it(tmp_path: Path) -> None:
    machine, (first, second, *_) = searches(tmp_path, "search.workers=1")
    machine.begin(first.step, first.task)
    machine._staff_pool()
    worker = start(machine.pool.pending.pop(), {"DATABASE_URL": ""}, machine.lines)
    machine.pool.processes.append(worker)
    worker.kill()
    machine._task_ends(worker, first.task.key)
    machine.begin(second.step, second.task)
    machine.pool.processes.remove(worker)
    machine._staff_pool()
    assert [launch.name for launch in machine.pool.pending] == ["worker 0"]
