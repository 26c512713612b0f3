"""Runs a study's stages in order: as processes of one machine (`shared.pipeline.local_executor`), or as Jobs of a cluster (`shared.pipeline.kube_executor`).

It holds no state: what is committed in the store and in PostgreSQL is the state. Kill it at any moment and run it again; two at once do
no harm.
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
from shared.stop import StopSignal


class StageFailed(TailfillError):
    """A stage ended with a bug, whose traceback is in the message."""


@dataclass(frozen=True)
class CompletedStep:
    """A step whose work has ended well."""

    step: Step
    seconds: float | None
    """Since its first process began; None where nobody looked then."""


class Executor(Protocol):
    """Has tasks done."""

    tick_seconds: float
    """Between two looks."""
    patience: float
    """Seconds for which a service may be away before the run ends with its error."""

    def begin(self, step: Step, task: Task) -> None:
        """Takes a task on, once everything that it needs is committed; called once for each."""

    def advance(self) -> list[CompletedStep]:
        """Starts what can start, and says what has ended well since. Raises what ends the run."""

    def end(self) -> None:
        """Ends what a run may leave behind."""


class Scheduler:
    """One run of a study."""

    def __init__(
        self,
        study: ResolvedStudy,
        steps: Sequence[Step],
        artifacts: Artifacts,
        executor: Executor,
        say: Callable[[str], None],
        stop: StopSignal,
    ) -> None:
        """`steps` is the study's plan; `say` shows a person a line."""
        self.study, self.steps, self.artifacts = study, steps, artifacts
        self.executor, self.say, self.stop = executor, say, stop
        self.committed: dict[str, Manifest] = {}
        self.begun: dict[str, Task] = {}
        self.reused = 0
        self._ended: list[CompletedStep] = []

    def run(self, rerun: frozenset[str] = frozenset()) -> Manifest:
        """Runs what is not committed and returns the report's manifest; raises the error of the first stage that failed for good."""
        last, answered = self.steps[-1].id, time.monotonic()
        try:
            while True:
                self.stop.raise_if_set()
                try:
                    self._tick(rerun)
                    answered = time.monotonic()
                except UnavailableError as error:
                    if time.monotonic() - answered >= self.executor.patience:
                        raise
                    self.say(f"waiting: {error}")
                if last in self.committed:
                    return self.committed[last]
                self.stop.wait(self.executor.tick_seconds * random.uniform(0.75, 1.25))
        finally:
            self.executor.end()

    def states(self, failed: Collection[str] = ()) -> Counter[tuple[str, str]]:
        """How many steps of each stage are `committed`, `begun`, `failed` (those with these ids) or `waiting`."""
        return Counter((step.stage, "failed" if step.id in failed else self._state(step)) for step in self.steps)

    def _state(self, step: Step) -> str:
        return "committed" if step.id in self.committed else "begun" if step.id in self.begun else "waiting"

    def _tick(self, rerun: frozenset[str]) -> None:
        for step in self.steps:  # in order: what an earlier one commits may let a later one begin
            known = step.id in self.committed or step.id in self.begun
            if not known and all(needed.id in self.committed for needed in step.needs.values()):
                self._begin(step, step.stage in rerun)
        self._ended += self.executor.advance()
        while self._ended:  # one whose manifest cannot be read now is looked at again
            self._commit(self._ended[0])
            self._ended.pop(0)

    def _begin(self, step: Step, rerun: bool) -> None:
        task = make_task(self.study, step, self.committed)
        manifest = self.artifacts.find(task.stage, task.key)
        if manifest is not None and rerun:
            self.artifacts.forget(task.stage, task.key)
            self.say(f"{step.label}: run again ({task.key[:8]})")
            manifest = None
        if manifest is not None:
            self.committed[step.id] = manifest
            self.reused += 1
            self.say(f"{step.label}: committed already ({task.key[:8]})")
            return
        self.executor.begin(step, task)
        self.begun[step.id] = task

    def _commit(self, ended: CompletedStep) -> None:
        step, task = ended.step, self.begun[ended.step.id]
        manifest = self.artifacts.find(task.stage, task.key)
        if manifest is None:
            raise StageFailed(f"{step.label}: ended well but committed nothing")
        self.committed[step.id] = manifest
        took = "" if ended.seconds is None else f" in {duration(ended.seconds)}"
        self.say(f"{step.label}: committed ({task.key[:8]}){took}")
