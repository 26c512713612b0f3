"""A study's stages as processes of this machine, the very ones that a cluster runs as Jobs: who gets a core or a GPU, and what is tried again."""

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
from shared.pipeline.status import Doing, doing_key

MAX_RETRIES = 5  # of a stage whose process ended with 75 or was killed; each later by twice the wait
FIRST_WAIT_SECONDS = 2.0
# glibc else gives a step's tensors back to the kernel after each use, and their page faults cost a tenth of a small network's training
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
TASKS = "tasks"  # in the work directory: what its stages were told
GRACE_SECONDS = 3.0  # a person's Ctrl-C ends everything within 5 seconds; 2 of them belong to the services


@dataclass
class _Running:
    """A step in work: the processes it has and those it may still start."""

    step: Step
    processes: list[StageProcess] = field(default_factory=list)
    pending: list[Launch] = field(default_factory=list)
    """Processes that wait for a free slot, or for the end of a retry's wait."""
    retries: dict[str, int] = field(default_factory=dict)
    """By the name of the launch."""
    not_before: float = 0.0
    started: float | None = None
    """When its first process got a slot."""


@dataclass
class Slots:
    """How many stage processes run at once, and what each may use."""

    count: int
    gpus: int

    @classmethod
    def of_machine(cls, study: ResolvedStudy) -> Slots:
        """One a GPU where there are any (and the study lets us use them), else one a core; `resources.processes` overrides."""
        gpus = 0 if study.resources.device == "cpu" else len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
        return cls(study.resources.processes or gpus or len(os.sched_getaffinity(0)), gpus)

    def take(self, free: list[int], most_gpus: int) -> list[int]:
        """The slots of a process, out of those that are free: one, or where all are, as many as bring it the GPUs that it can use."""
        if most_gpus == 1 or len(free) < self.count:
            return free[:1]
        enough = (free[:n] for n in range(1, len(free)) if len(self.gpus_of(free[:n])) >= most_gpus)
        return next(enough, list(free))

    def gpus_of(self, slots: Sequence[int]) -> list[int]:
        """Slots share the GPUs out among them; where there are more slots than GPUs, several have the same one."""
        shares = (range(slot % self.gpus, self.gpus, self.count) for slot in slots if self.gpus)
        return sorted({gpu for share in shares for gpu in share})

    def environment(self, slots: Sequence[int]) -> dict[str, str]:
        """Threads (and the GPUs) of the process in these slots; the threads depend on the machine alone, so that results do not vary by the hour."""
        threads = str(max(1, len(os.sched_getaffinity(0)) // self.count))
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        grace = {"TAILFILL_GRACE_SECONDS": str(int(GRACE_SECONDS))}
        device = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self.gpus_of(slots)))} if self.gpus else KEPT_MEMORY
        return dict.fromkeys(names, threads) | grace | device


def gpus_of_step(step: Step, gpus: int) -> int:
    """Returns how many of the GPUs one process of a stage can use: the training of some generators several, all else one."""
    if not isinstance(step.config, FinetuneConfig):
        return 1
    config = step.config.finetune
    return generator_kind(config.generator).most_gpus(config, gpus)


def running_here(workdir: Path) -> dict[str, Doing]:
    """The stages that run on this machine for a work directory, whichever command began them."""
    tasks = str((workdir / TASKS).resolve())
    found = dict[str, Doing]()
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or ()
        files = [Path(word) for word in command if word.startswith(tasks) and word.endswith(".json")]
        found |= {file.stem: Doing("running") for file in files}
    return found


class LocalExecutor:
    """Implements `shared.pipeline.scheduler.Executor`."""

    tick_seconds = 0.1
    patience = 0.0  # the services are ours, and a stage has waited for one that is not

    def __init__(
        self,
        study: ResolvedStudy,
        steps: Sequence[Step],
        workdir: Path,
        environment: Mapping[str, str],
        console: Console,
        workers: int | None,
    ) -> None:
        """`environment` is what a stage needs beyond this process's; `workers` of each search, or as the study says."""
        self.environment, self.console, self.workers = environment, console, workers
        self.tasks = (workdir / TASKS).resolve()
        self.tasks.mkdir(parents=True, exist_ok=True)
        self.slots = Slots.of_machine(study)
        self.free = list(range(self.slots.count))
        self.held: dict[int, list[int]] = {}  # pid → slots
        self.lines: Lines = queue.Queue()
        self.running: list[_Running] = []
        # what stands earlier in the plan gets a free slot first
        self.order = {step.id: position for position, step in enumerate(steps)}

    def begin(self, step: Step, task: Task) -> None:
        """Queues the step's processes."""
        file = path_below(self.tasks, f"{doing_key(task.stage, task.key)}.json", step.label)
        file.write_text(task.model_dump_json(indent=1, by_alias=True))
        self.running.append(_Running(step, pending=self._launches(step, file)))

    def advance(self) -> list[CompletedStep]:
        """Starts processes where slots are free; raises the error of one that failed for good."""
        self._drain()
        ended = self._collect()
        self._fill_slots()
        return ended

    def end(self) -> None:
        """Ends all processes, within GRACE_SECONDS."""
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
                    continue  # a coordinator behind it needs none
                running.pending.remove(launch)
                slots = self.slots.take(self.free, launch.most_gpus) if launch.takes_slot else []
                if launch.takes_slot:  # a coordinator begins at once, whether or not there is a slot for its workers
                    running.started = running.started or time.monotonic()
                process = start(launch, {**self.environment, **self.slots.environment(slots or [0])}, self.lines)
                running.processes.append(process)
                self.held[process.process.pid] = slots
                self.free = [slot for slot in self.free if slot not in slots]

    # -- what processes say and how they end

    def _drain(self) -> None:
        while True:
            try:
                process, line = self.lines.get_nowait()
            except queue.Empty:
                return
            self.console.line(process.launch.name, line)

    def _collect(self) -> list[CompletedStep]:
        ended = []
        for running in list(self.running):
            for process in list(running.processes):
                code = process.process.poll()
                if code is not None:
                    self._ended(running, process, code)
            if not running.processes and not running.pending:
                self.running.remove(running)
                ended.append(
                    CompletedStep(running.step, None if running.started is None else time.monotonic() - running.started)
                )
        return ended

    def _ended(self, running: _Running, process: StageProcess, code: int) -> None:
        running.processes.remove(process)
        self.console.finished(process.launch.name)
        self.free += self.held.pop(process.process.pid, [])
        if code == errors.COMMITTED:
            if not process.launch.takes_slot:
                running.pending = []  # the search is over: workers that never got a slot have nothing to do
            return
        process.reader.join(1.0)  # its last lines may still be on their way
        self._drain()
        said = "\n".join(process.errors), "\n".join(process.tail)
        # of a bug the traceback tells more than what was logged before it
        reason = next(
            (text for text in (said[::-1] if code == errors.BUG else said) if text), f"ended with code {code}"
        )
        if code in (errors.UNAVAILABLE, errors.STOPPED) or code < 0:
            self._retry(running, process, reason)
            return
        kind = {errors.INPUT: errors.InputError}.get(code, StageFailed)
        raise kind(f"{process.launch.name}: {reason}")

    def _retry(self, running: _Running, process: StageProcess, reason: str) -> None:
        retries = running.retries[process.launch.name] = running.retries.get(process.launch.name, 0) + 1
        if retries > MAX_RETRIES:
            raise errors.UnavailableError(f"{process.launch.name}: gave up after {MAX_RETRIES} retries: {reason}")
        wait = FIRST_WAIT_SECONDS * 2 ** (retries - 1) * random.uniform(0.5, 1.5)
        self.console.say(f"{process.launch.name}: {reason}; retry {retries} of {MAX_RETRIES} in {duration(wait)}")
        running.not_before = time.monotonic() + wait
        running.pending.append(process.launch)
