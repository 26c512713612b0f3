"""Runs a study's stages as processes of this machine, the same ones that a cluster runs as Jobs.

It decides which process gets a core or a GPU, and which failed ones are started again.
"""

from __future__ import annotations

import os
import queue
import random
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from shared import errors
from shared.config.resolve import ResolvedStudy
from shared.config.stages import STAGES, FinetuneConfig, TuneConfig
from shared.config.task import Task
from shared.diffusion.generators import generator_kind
from shared.log import duration
from shared.names import path_below
from shared.pipeline.console import Console
from shared.pipeline.plan import Step
from shared.pipeline.processes import Launch, Lines, StageProcess, start
from shared.pipeline.scheduler import CompletedStep, StageFailed
from shared.pipeline.status import TaskStatus, task_id

MAX_RETRIES = 5  # of a process that ended with 75 or was killed; each wait is twice as long as the one before
FIRST_WAIT_SECONDS = 2.0
# otherwise glibc returns a step's tensors to the kernel after each use, and their page faults cost a tenth of a small network's training
MALLOC_SETTINGS = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
TASKS = "tasks"
"""The folder in the work directory with the task files of its stages."""
GRACE_SECONDS = 3.0  # Ctrl-C ends everything within 5 seconds, and the services need 2 of them


@dataclass
class _RunningStep:
    """A step in progress: the processes that run, and those that may still start."""

    step: Step
    processes: list[StageProcess] = field(default_factory=list)
    pending: list[Launch] = field(default_factory=list)
    """Processes that wait for a free slot, or for the end of a retry's wait."""
    retries: dict[str, int] = field(default_factory=dict)
    """The number of retries by the name of the launch."""
    not_before: float = 0.0
    """The time, by the monotonic clock, before which no process of the step starts."""
    started: float | None = None
    """When its first process got a slot, by the monotonic clock."""


@dataclass
class Slots:
    """The slots of this machine: one stage process runs in each, and may use a share of the cores and GPUs."""

    count: int
    gpus: int
    """The number of GPUs that the study may use."""

    @classmethod
    def of_machine(cls, study: ResolvedStudy) -> Slots:
        """Returns one slot per GPU if the study may use any, else one per core; `resources.processes` overrides the number."""
        gpus = 0 if study.resources.device == "cpu" else len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
        return cls(study.resources.processes or gpus or len(os.sched_getaffinity(0)), gpus)

    def take(self, free: list[int], most_gpus: int) -> list[int]:
        """Returns the slots that a process gets, out of the free ones.

        That is one; but if all slots are free, as many as it takes for the `most_gpus` GPUs that the process can use.
        """
        if most_gpus == 1 or len(free) < self.count:
            return free[:1]
        enough = (free[:n] for n in range(1, len(free)) if len(self.gpus_of(free[:n])) >= most_gpus)
        return next(enough, list(free))

    def gpus_of(self, slots: Sequence[int]) -> list[int]:
        """Returns the GPUs of some slots. Each slot has an equal share; if there are more slots than GPUs, several share one."""
        shares = (range(slot % self.gpus, self.gpus, self.count) for slot in slots if self.gpus)
        return sorted({gpu for share in shares for gpu in share})

    def environment(self, slots: Sequence[int]) -> dict[str, str]:
        """Returns the environment variables that limit a process to its threads and GPUs.

        The number of threads depends on the machine and not on what is free, so that results do not vary from run to run.
        """
        threads = str(max(1, len(os.sched_getaffinity(0)) // self.count))
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        grace = {"TAILFILL_GRACE_SECONDS": str(int(GRACE_SECONDS))}
        device = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self.gpus_of(slots)))} if self.gpus else MALLOC_SETTINGS
        return dict.fromkeys(names, threads) | grace | device


def gpus_of_step(step: Step, gpus: int) -> int:
    """Returns how many of the machine's GPUs a process of the step can use: one, or several for the training of some generators."""
    if not isinstance(step.config, FinetuneConfig):
        return 1
    config = step.config.finetune
    return generator_kind(config.generator).most_gpus(config, gpus)


def running_tasks(workdir: Path) -> dict[str, TaskStatus]:
    """Returns the tasks that processes of this machine work on for a work directory, by `task_id`, whichever command started them."""
    tasks = str((workdir / TASKS).resolve())
    running = dict[str, TaskStatus]()
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or ()
        files = [Path(word) for word in command if word.startswith(tasks) and word.endswith(".json")]
        running |= {file.stem: TaskStatus("running") for file in files}
    return running


class LocalExecutor:
    """Implements `shared.pipeline.scheduler.Executor`."""

    tick_seconds = 0.1
    patience = 0.0  # the services run on this machine, and stages themselves have waited for others

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
        self.running: list[_RunningStep] = []
        # earlier steps of the plan get free slots first
        self.order = {step.id: position for position, step in enumerate(steps)}

    def begin(self, step: Step, task: Task) -> None:
        """Queues the step's processes."""
        file = path_below(self.tasks, f"{task_id(task.stage, task.key)}.json", step.label)
        file.write_text(task.model_dump_json(indent=1, by_alias=True))
        self.running.append(_RunningStep(step, pending=self._launches(step, file)))

    def advance(self) -> list[CompletedStep]:
        """Starts processes in free slots, and returns the completed steps; raises the error of a process that failed for good."""
        self._show_lines()
        completed = self._collect()
        self._fill_slots()
        return completed

    def end(self) -> None:
        """Ends all processes: by SIGTERM, and by SIGKILL after GRACE_SECONDS."""
        processes = [p for running in self.running for p in running.processes]
        for process in processes:
            process.signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and any(p.process.poll() is None for p in processes):
            time.sleep(0.05)
        for process in processes:
            process.kill()

    def _launches(self, step: Step, file: Path) -> list[Launch]:
        command = ("stage", step.stage, "--config", str(file))
        if isinstance(step.config, TuneConfig):
            workers = self.workers or step.config.search.workers
            coordinator = Launch(step.label, command, {}, takes_slot=False)
            return [
                coordinator,
                *(Launch(f"{step.label} worker {i}", (*command, "--worker"), {}) for i in range(workers)),
            ]
        if STAGES[step.stage].sharded:
            count = self.slots.count
            return [
                Launch(f"{step.label} {i}", command, {"JOB_COMPLETION_INDEX": str(i), "TAILFILL_COUNT": str(count)})
                for i in range(count)
            ]
        return [Launch(step.label, command, {}, most_gpus=gpus_of_step(step, self.slots.gpus))]

    def _fill_slots(self) -> None:
        for running in sorted(self.running, key=lambda r: self.order[r.step.id]):
            if time.monotonic() < running.not_before:
                continue
            for launch in list(running.pending):
                if launch.takes_slot and not self.free:
                    continue  # a coordinator later in the list needs no slot
                running.pending.remove(launch)
                slots = self.slots.take(self.free, launch.most_gpus) if launch.takes_slot else []
                if launch.takes_slot:  # a coordinator starts at once, even if there is no slot for its workers
                    running.started = running.started or time.monotonic()
                process = start(launch, {**self.environment, **self.slots.environment(slots or [0])}, self.lines)
                running.processes.append(process)
                self.held[process.process.pid] = slots
                self.free = [slot for slot in self.free if slot not in slots]

    # -- the output of processes, and how they end

    def _show_lines(self) -> None:
        while True:
            try:
                process, line = self.lines.get_nowait()
            except queue.Empty:
                return
            self.console.line(process.launch.name, line)

    def _collect(self) -> list[CompletedStep]:
        completed = []
        for running in list(self.running):
            for process in list(running.processes):
                code = process.process.poll()
                if code is not None:
                    self._process_ended(running, process, code)
            if not running.processes and not running.pending:
                self.running.remove(running)
                seconds = None if running.started is None else time.monotonic() - running.started
                completed.append(CompletedStep(running.step, seconds))
        return completed

    def _process_ended(self, running: _RunningStep, process: StageProcess, code: int) -> None:
        running.processes.remove(process)
        self.console.finished(process.launch.name)
        self.free += self.held.pop(process.process.pid, [])
        if code == errors.COMMITTED:
            if not process.launch.takes_slot:
                running.pending = []  # the search is over, so that workers without a slot are not needed
            return
        process.reader.join(1.0)  # its last lines may not have been read yet
        self._show_lines()
        logged, tail = "\n".join(process.errors), "\n".join(process.tail)
        # for a bug the traceback says more than the errors logged before it
        reason = (tail or logged if code == errors.BUG else logged or tail) or f"ended with code {code}"
        if code in (errors.UNAVAILABLE, errors.STOPPED) or code < 0:
            self._retry(running, process, reason)
            return
        kind = {errors.INPUT: errors.InputError}.get(code, StageFailed)
        raise kind(f"{process.launch.name}: {reason}")

    def _retry(self, running: _RunningStep, process: StageProcess, reason: str) -> None:
        retries = running.retries[process.launch.name] = running.retries.get(process.launch.name, 0) + 1
        if retries > MAX_RETRIES:
            raise errors.UnavailableError(f"{process.launch.name}: gave up after {MAX_RETRIES} retries: {reason}")
        wait = FIRST_WAIT_SECONDS * 2 ** (retries - 1) * random.uniform(0.5, 1.5)
        self.console.say(f"{process.launch.name}: {reason}; retry {retries} of {MAX_RETRIES} in {duration(wait)}")
        running.not_before = time.monotonic() + wait
        running.pending.append(process.launch)
