"""Runs a study's stages as processes of this machine, the same ones that a cluster runs as Jobs.

It decides which process starts when a slot is free, and which failed ones are started again. If tasks are many and may be short, as final
trainings are, a process runs one after the other: it is given the next task while it works on the one before, so that nothing waits for
imports, and no task waits behind a long one while a slot is free. Tuning workers are all alike: each takes trials of all open searches.
"""

from __future__ import annotations

import itertools
import queue
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from shared import errors
from shared.artifacts.artifacts import Artifacts
from shared.config.resolve import ResolvedStudy
from shared.config.search import Search
from shared.config.stages import STAGES, TuneConfig
from shared.config.task import BEGINS, ENDS, Task, block_json, references_of_json
from shared.log import duration
from shared.names import path_below
from shared.pipeline.console import Console
from shared.pipeline.plan import Step
from shared.pipeline.processes import Launch, Lines, StageProcess, start
from shared.pipeline.scheduler import CompletedStep, StageFailed
from shared.pipeline.slots import GRACE_SECONDS, Slots, gpus_of_step
from shared.pipeline.status import TaskStatus, task_id

MAX_RETRIES = 5  # of a process that ended with 75 or was killed; each wait is twice as long as the one before
FIRST_WAIT_SECONDS = 2.0
TASKS = "tasks"
"""Names the folder in the work directory with the task files of its stages."""
WORKERS_FILE = "tune-workers.json"
"""Names the file in that folder with the open searches, from which all tuning workers take trials."""
START_SECONDS = 15.0  # that a process takes to start, roughly: a training that takes longer keeps no other one waiting


@dataclass(frozen=True)
class _Begun:
    """Holds a task that was begun and is not completed."""

    step: Step
    task: Task


@dataclass(eq=False)
class _Work:
    """Holds the processes that run the tasks of one file, and those that may still start."""

    file: Path
    tasks: list[_Begun]
    """Lists the tasks in the order in which they are run. Each is removed when it is completed."""
    block: bool = False
    """Says whether it is one process that may get further tasks."""
    processes: list[StageProcess] = field(default_factory=list)
    pending: list[Launch] = field(default_factory=list)
    """Lists the processes that wait for a free slot, or for the end of a retry's wait."""
    not_before: float = 0.0
    """Gives the time, by the monotonic clock, before which no process starts."""
    since: float | None = None
    """Gives the time, by the monotonic clock, at which the first process got a slot or, in a block, the task before the present one ended."""
    begun_at: float | None = None
    """Gives the time, by the monotonic clock, at which the process of a block began its present task; None while it starts."""
    ended: bool = False
    """Says whether its process has ended a task since it was started."""

    @property
    def waiting(self) -> bool:
        """Says whether it is a block that no process has begun."""
        return self.block and not self.processes

    def write(self) -> None:
        """Rewrites the file as a whole, since a process may be reading it."""
        text = block_json([begun.task for begun in self.tasks], indent=1)
        fresh = self.file.with_suffix(".part")
        fresh.write_text(text)
        fresh.replace(self.file)


def running_tasks(workdir: Path, artifacts: Artifacts) -> dict[str, TaskStatus]:
    """Returns the tasks that processes of this machine work on for a work directory, by `task_id`, whichever command started them.

    In a block, that is the first task that is not committed. A tuning worker works on all searches of its file.
    """
    tasks = str((workdir / TASKS).resolve())
    running = dict[str, TaskStatus]()
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or ()
        for file in (Path(word) for word in command if word.startswith(tasks) and word.endswith(".json")):
            present = _uncommitted(file, artifacts)
            for task in present if "--worker" in command else itertools.islice(present, 1):
                running[task] = TaskStatus("running")
    return running


def _uncommitted(file: Path, artifacts: Artifacts) -> Iterator[str]:
    """Yields the ids of a file's tasks that are not committed, in order."""
    try:
        found = references_of_json(file.read_bytes())
    except OSError:
        return  # the process has ended, and the folder is gone
    for stage, key in found:
        if artifacts.find(stage, key) is None:
            yield task_id(stage, key)


class LocalExecutor:
    """Runs tasks as processes; implements `shared.pipeline.scheduler.Executor`."""

    tick_seconds = 0.1
    patience = 0.0  # the services run on this machine, and the stages have already waited for other ones

    def __init__(
        self,
        study: ResolvedStudy,
        steps: Sequence[Step],
        workdir: Path,
        environment: Mapping[str, str],
        console: Console,
        workers: int | None,
    ) -> None:
        """Prepares the work directory and the slots.

        `environment` has the variables that a stage needs in addition to those of this process. `workers` is the number of workers per search;
        None takes the study's `search.workers`.
        """
        self.environment, self.console, self.workers = environment, console, workers
        self.tasks = (workdir / TASKS).resolve()
        self.tasks.mkdir(parents=True, exist_ok=True)
        self.slots = Slots.of_machine(study)
        self.free = list(range(self.slots.count))
        self.held: dict[int, list[int]] = {}  # pid → slots
        self.lines: Lines = queue.Queue()
        self.running: list[_Work] = []
        self.pool = _Work(self.tasks / WORKERS_FILE, [])
        """Holds the tuning workers, and the searches that are not closed."""
        self.labels: dict[int, str] = {}
        """Maps the pid of a process to the label of the step on which it says that it works."""
        self.retries = Counter[str]()
        """Counts the retries since a task ended, by the name of the launch, or in a block by the label of the task that the process was running."""
        self.completed: list[CompletedStep] = []
        # earlier steps of the plan get free slots first
        self.order = {step.id: position for position, step in enumerate(steps)}

    def begin(self, step: Step, task: Task) -> None:
        """Queues the step's processes."""
        begun = _Begun(step, task)
        if isinstance(step.config, TuneConfig):
            self.pool.tasks.append(begun)
            self.pool.write()
        self._queue(begun)

    def _queue(self, begun: _Begun) -> _Work:
        name = f"{task_id(begun.task.stage, begun.task.key)}.json"
        work = _Work(path_below(self.tasks, name, begun.step.label), [begun], STAGES[begun.task.stage].blocks)
        work.write()
        work.pending = self._launches(begun.step, work.file)
        self.running.append(work)
        return work

    def advance(self) -> list[CompletedStep]:
        """Starts processes in free slots, and returns the completed steps; raises the error of a process that failed for good."""
        self._show_lines()
        self._collect()
        self._fill_slots()
        completed, self.completed = self.completed, []
        return completed

    def end(self) -> None:
        """Ends all processes: by SIGTERM, and by SIGKILL after GRACE_SECONDS."""
        processes = [p for work in [*self.running, self.pool] for p in work.processes]
        for process in processes:
            process.signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and any(p.process.poll() is None for p in processes):
            time.sleep(0.05)
        for process in processes:
            process.kill()

    def _launches(self, step: Step, file: Path) -> list[Launch]:
        command = ("stage", step.stage, "--config", str(file))
        if STAGES[step.stage].sharded:
            count = self.slots.count
            return [
                Launch(f"{step.label} {i}", command, {"JOB_COMPLETION_INDEX": str(i), "TAILFILL_COUNT": str(count)})
                for i in range(count)
            ]
        coordinates = isinstance(step.config, TuneConfig)
        return [
            Launch(step.label, command, {}, takes_slot=not coordinates, most_gpus=gpus_of_step(step, self.slots.gpus))
        ]

    def _staff_pool(self) -> None:
        """Queues as many workers as the open searches ask for together, but no more than there are slots."""
        pool = self.pool
        asked = sum(self.workers or _search(begun).workers for begun in pool.tasks)
        count = min(asked, self.slots.count)
        if len(pool.processes) + len(pool.pending) > count:
            pool.pending = pool.pending[: max(count - len(pool.processes), 0)]
        names = {launch.name for launch in [*pool.pending, *(process.launch for process in pool.processes)]}
        free = (name for i in itertools.count() if (name := f"worker {i}") not in names)
        command = ("stage", "tune", "--config", str(pool.file), "--worker")
        pool.pending += [
            Launch(next(free), command, {}) for _ in range(count - len(pool.processes) - len(pool.pending))
        ]

    def _in_order(self) -> list[_Work]:
        """Returns all work in the order of the plan."""
        alive = [work for work in [*self.running, self.pool] if work.tasks]
        return sorted(alive, key=lambda work: min(self.order[begun.step.id] for begun in work.tasks))

    def _fill_slots(self) -> None:
        self._staff_pool()
        for work in self._in_order():
            if time.monotonic() < work.not_before:
                continue
            for launch in list(work.pending):
                if launch.takes_slot and not self.free:
                    continue  # a coordinator later in the list needs no slot
                work.pending.remove(launch)
                self._start(work, launch)
        self._feed_blocks()
        self._split_blocks()

    def _start(self, work: _Work, launch: Launch) -> None:
        slots = self.slots.take(self.free, launch.most_gpus) if launch.takes_slot else []
        if launch.takes_slot:  # a coordinator starts at once, even if there is no slot for its workers
            work.since = work.since or time.monotonic()
        process = start(launch, {**self.environment, **self.slots.environment(slots or [0])}, self.lines)
        work.ended, work.begun_at = False, None
        work.processes.append(process)
        self.held[process.process.pid] = slots
        self.free = [slot for slot in self.free if slot not in slots]

    def _feed_blocks(self) -> None:
        """Gives each block the task that it will need next."""
        for work in self._blocks_at_work():
            source = self._find_next(work) if len(work.tasks) == 1 else None
            if source is None:
                continue
            work.tasks.append(source.tasks.pop())
            work.write()
            if source.tasks:
                source.write()
            else:
                self.running.remove(source)

    def _find_next(self, work: _Work) -> _Work | None:
        """Returns the work whose last task a block is given: one that waits, unless something else should have the slot first.

        If nothing waits, it is a block whose process is still starting.
        """
        due = [other for other in self._in_order() if time.monotonic() >= other.not_before]
        queued = [other for other in due if any(launch.takes_slot for launch in other.pending)]
        if queued:
            same = queued[0].waiting and queued[0].tasks[0].task.stage == work.tasks[0].task.stage
            return queued[0] if same else None
        starting = (other for other in self._blocks_at_work() if not other.ended and len(other.tasks) > 1)
        return next(starting, None) if work.ended else None

    def _split_blocks(self) -> None:
        """Takes from a block the task that waits behind a long one, if there is a slot for it."""
        if not self.free or any(work.pending for work in self._in_order()):
            return
        for work in self._blocks_at_work():
            # the time of a process's first task includes its imports
            most = START_SECONDS if work.ended else 2 * START_SECONDS
            if len(work.tasks) > 1 and work.begun_at is not None and time.monotonic() - work.begun_at > most:
                begun = work.tasks.pop()
                work.write()
                self._queue(begun)
                return

    def _blocks_at_work(self) -> list[_Work]:
        return [work for work in self.running if work.block and work.processes]

    # -- the output of processes, and how they end

    def _show_lines(self) -> None:
        while True:
            try:
                process, line = self.lines.get_nowait()
            except queue.Empty:
                return
            if line["event"] not in (BEGINS, ENDS) or "key" not in line:
                self.console.line(self._name(process), line)
            elif line["event"] == BEGINS:
                self._task_begins(process, line["key"])
            else:
                self._task_ends(process, line["key"])

    def _name(self, process: StageProcess) -> str:
        """Returns the name of a process in messages, from what it works on now: `final real 3`, or `tune real worker 1`."""
        label = self.labels.get(process.process.pid)
        if process in self.pool.processes:
            return f"{label or 'tune'} {process.launch.name}"
        return label or process.launch.name

    def _task_begins(self, process: StageProcess, key: str) -> None:
        for work in [*self.running, self.pool]:
            for begun in work.tasks:
                if begun.task.key == key:
                    self.labels[process.process.pid] = begun.step.label
                    work.begun_at = time.monotonic()
                    work.since = work.since or work.begun_at  # a search begins with its first worker

    def _task_ends(self, process: StageProcess, key: str) -> None:
        """Completes the task of a block, or notes that a search is closed."""
        self.console.finished(self._name(process))
        works = [self.pool] if process in self.pool.processes else [work for work in self.running if work.block]
        for work in works:
            for begun in [begun for begun in work.tasks if begun.task.key == key]:
                work.tasks.remove(begun)
                self.retries.pop(begun.step.label if work.block else process.launch.name, None)
                work.ended = True
                if work is not self.pool:
                    self._complete(work, begun)
                work.write()

    def _complete(self, work: _Work, begun: _Begun) -> None:
        now = time.monotonic()
        self.completed.append(CompletedStep(begun.step, None if work.since is None else now - work.since))
        work.since = now

    def _collect(self) -> None:
        for work in [*self.running, self.pool]:
            for process in list(work.processes):
                code = process.process.poll()
                if code is not None:
                    self._process_ended(work, process, code)
            if work in self.running and not work.processes and not work.pending:
                self.running.remove(work)
                for begun in work.tasks:
                    self._complete(work, begun)

    def _process_ended(self, work: _Work, process: StageProcess, code: int) -> None:
        process.reader.join(1.0)  # its last lines may not have been read yet
        self._show_lines()
        name = self._name(process)
        work.processes.remove(process)
        self.console.finished(name)
        self.labels.pop(process.process.pid, None)
        self.free += self.held.pop(process.process.pid, [])
        if code == errors.COMMITTED:
            if not process.launch.takes_slot:
                self.pool.tasks = [begun for begun in self.pool.tasks if begun not in work.tasks]
                self.pool.write()
            elif work.block and work.ended:
                self._queue_again(work)  # it ended before it saw the last task that it was given
            return
        if work.block and not work.tasks:
            return  # it was lost after its last task
        logged, tail = "\n".join(process.errors), "\n".join(process.tail)
        # for a bug, the traceback says more than the errors logged before it
        reason = (tail or logged if code == errors.BUG else logged or tail) or f"ended with code {code}"
        if code in (errors.UNAVAILABLE, errors.STOPPED) or code < 0:
            self._retry(work, process, name, reason)
            return
        kind = {errors.INPUT: errors.InputError}.get(code, StageFailed)
        raise kind(f"{name}: {reason}")

    def _retry(self, work: _Work, process: StageProcess, name: str, reason: str) -> None:
        retried = name if work.block else process.launch.name
        self.retries[retried] += 1
        retries = self.retries[retried]
        if retries > MAX_RETRIES:
            raise errors.UnavailableError(f"{name}: gave up after {MAX_RETRIES} retries: {reason}")
        wait = FIRST_WAIT_SECONDS * 2 ** (retries - 1) * random.uniform(0.5, 1.5)
        self.console.say(f"{name}: {reason}; retry {retries} of {MAX_RETRIES} in {duration(wait)}")
        if work.block:
            work = self._queue_again(work)
        else:
            work.pending.append(process.launch)
        work.not_before = time.monotonic() + wait

    def _queue_again(self, work: _Work) -> _Work:
        """Queues each task of a block whose process has ended; returns the work of the first."""
        self.running.remove(work)
        queued = [self._queue(begun) for begun in work.tasks]
        if queued:
            queued[0].since = work.since
        return (queued or [work])[0]


def _search(begun: _Begun) -> Search:
    assert isinstance(begun.task.config, TuneConfig)
    return begun.task.config.search
