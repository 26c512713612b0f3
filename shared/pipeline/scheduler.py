"""Runs a study's stages in the order of its plan, by an executor.

`shared.pipeline.local_executor` runs them as processes of one machine, and `shared.pipeline.kube_executor` as Jobs of a cluster. The scheduler
holds no state: the state is what is committed in the store and in PostgreSQL. It may be killed at any moment and run again, and two at once
do no harm.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.manifest import Manifest
from shared.config.resolve import ResolvedStudy
from shared.config.task import Task
from shared.errors import TailfillError, UnavailableError
from shared.log import duration
from shared.pipeline.plan import Step, make_task
from shared.pipeline.status import StepState
from shared.stop import StopSignal


class StageFailed(TailfillError):
    """Says that a stage failed because of a bug, whose traceback is in the message."""


@dataclass(frozen=True)
class CompletedStep:
    """Describes a step whose work has ended without an error."""

    step: Step
    seconds: float | None
    """Counts the seconds since its first process started; None if another program did the work."""


class Executor(Protocol):
    """Runs tasks: on this machine, or on a cluster."""

    tick_seconds: float
    """Sets the number of seconds between two calls of `advance`."""
    patience: float
    """Limits the seconds for which a service may be unavailable before the run ends with its error."""

    def begin(self, step: Step, task: Task) -> None:
        """Accepts a task. It is called once per task, when everything that the task needs is committed."""

    def advance(self) -> list[CompletedStep]:
        """Starts what can start, and returns the steps completed since the last call; raises the error that ends the run."""

    def end(self) -> None:
        """Stops everything that must not outlive the run."""


class Observer(Protocol):
    """Follows a study, of whose committed steps it hears. It returns at once and raises nothing, so that it cannot stop or slow the study."""

    def committed(self, step: Step, task: Task, manifest: Manifest) -> None:
        """Hears of a step that is committed now, or was found committed."""


class Scheduler:
    """Runs a study."""

    def __init__(
        self,
        study: ResolvedStudy,
        steps: Sequence[Step],
        artifacts: Artifacts,
        executor: Executor,
        say: Callable[[str], None],
        stop: StopSignal,
        observer: Observer | None = None,
    ) -> None:
        """Prepares a run of `steps`, the study's plan; `say` is called with each line that the user should see."""
        self.study, self.steps, self.artifacts = study, steps, artifacts
        self.executor, self.say, self.stop, self.observer = executor, say, stop, observer
        self.committed: dict[str, Manifest] = {}
        self.begun: dict[str, Task] = {}
        self.reused = 0
        self._ended: list[CompletedStep] = []

    def run(self, rerun: frozenset[str] = frozenset()) -> Manifest:
        """Runs all steps that are not committed, and returns the report's manifest.

        Stages in `rerun` run even if they are committed. Raises the error of the first stage that failed for good, and Stopped at a signal.
        """
        last, last_success = self.steps[-1].id, time.monotonic()
        try:
            while True:
                self.stop.raise_if_set()
                try:
                    self._tick(rerun)
                    last_success = time.monotonic()
                except UnavailableError as error:
                    if time.monotonic() - last_success >= self.executor.patience:
                        raise
                    self.say(f"waiting: {error}")
                if last in self.committed:
                    return self.committed[last]
                self.stop.wait(self.executor.tick_seconds * random.uniform(0.75, 1.25))
        finally:
            self.executor.end()

    def states(self, failed: Collection[str] = ()) -> Counter[tuple[str, str]]:
        """Counts the steps by stage and state: `committed`, `begun`, `failed` (those whose id is in `failed`) or `waiting`."""
        return Counter((step.stage, "failed" if step.id in failed else self._state(step)) for step in self.steps)

    def rows(self) -> list[StepState]:
        """Returns the state of each step as this run knows it, without asking the store; another thread may call it."""
        return [StepState(step, self.begun.get(step.id), self.committed.get(step.id)) for step in self.steps]

    def _state(self, step: Step) -> str:
        return "committed" if step.id in self.committed else "begun" if step.id in self.begun else "waiting"

    def _tick(self, rerun: frozenset[str]) -> None:
        for step in self.steps:  # in order, since a step that is found committed may allow a later one to start
            known = step.id in self.committed or step.id in self.begun
            if not known and all(needed.id in self.committed for needed in step.needs.values()):
                self._begin(step, step.stage in rerun)
        self._ended += self.executor.advance()
        while self._ended:  # if its manifest cannot be read now, a step stays in the list for the next tick
            self._commit(self._ended[0])
            self._ended.pop(0)

    def _begin(self, step: Step, rerun: bool) -> None:
        task = make_task(self.study, step, self.committed)
        manifest = self._find(task)
        if manifest is not None and rerun:
            self.artifacts.forget(task.stage, task.key)
            self.say(f"{step.label}: run again ({task.key[:8]})")
            manifest = None
        if manifest is not None:
            self._record(step, task, manifest)
            self.reused += 1
            self.say(f"{step.label}: committed already ({task.key[:8]})")
            return
        self.executor.begin(step, task)
        self.begun[step.id] = task

    def _find(self, task: Task) -> Manifest | None:
        with self.stop.interrupting():  # a server that does not answer is asked for minutes
            return self.artifacts.find(task.stage, task.key)

    def _commit(self, ended: CompletedStep) -> None:
        step, task = ended.step, self.begun[ended.step.id]
        manifest = self._find(task)
        if manifest is None:
            raise StageFailed(f"{step.label}: ended without an error but committed nothing")
        self._record(step, task, manifest)
        took = "" if ended.seconds is None else f" in {duration(ended.seconds)}"
        self.say(f"{step.label}: committed ({task.key[:8]}){took}")

    def _record(self, step: Step, task: Task, manifest: Manifest) -> None:
        self.committed[step.id] = manifest
        if self.observer is not None:
            self.observer.committed(step, task, manifest)
