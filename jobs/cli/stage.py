"""Implements `tailfill stage`: runs the tasks of a file, all of one stage, in a container or in a process of one machine."""

from __future__ import annotations

import pkgutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.disk import room_errors
from shared.artifacts.fingerprint import fingerprint, libraries
from shared.artifacts.manifest import Manifest
from shared.artifacts.open import open_store
from shared.artifacts.store import Store
from shared.config.stages import STAGES, Stage, stage_named
from shared.config.task import BEGINS, ENDS, Task, TaskReference, block_of_json, reference_of_json
from shared.context import Context
from shared.errors import ConfigError, UnavailableError
from shared.log import Log
from shared.settings import Settings
from shared.stop import StopSignal


def run_stage(name: str, file: Path, worker: bool) -> None:
    """Runs the stage of each task in `file`, one after the other, unless its key is committed.

    The file holds tasks, or refers to some in the store. It is read again after each task, as whoever started this process may have changed it.
    With `worker`, a worker of the stage is run, if it has any. Raises ConfigError if the file holds anything else than a task of the stage
    `name`, or a list of them if its processes run blocks, and the errors of the stage.
    """
    stage = stage_named(name, f"stage {name!r}")
    stop = StopSignal()
    stop.install()
    settings = Settings.from_environment()
    stop.grace_seconds = settings.grace_seconds
    surroundings = _Surroundings(settings, stop)
    surroundings.read_tasks(file, stage, worker)  # before anything else is opened
    log = Log(stage)
    if worker and STAGES[stage].work is not None:
        _run_worker(stage, file, surroundings)
        return
    done = set[str]()
    while left := [task for task in surroundings.read_tasks(file, stage) if task.key not in done]:
        stop.raise_if_set()
        _run_one(left[0], surroundings, log)
        done.add(left[0].key)


def _run_one(task: Task, surroundings: _Surroundings, log: Log) -> None:
    in_block = STAGES[task.stage].blocks
    if in_block:
        log.info(BEGINS, key=task.key, experiment=task.experiment)
    artifacts = surroundings.artifacts(task)
    if artifacts.find(task.stage, task.key) is not None:
        log.info("committed already", key=task.key[:8])
    else:
        _run(task, artifacts, surroundings.settings, surroundings.stop)
    if in_block:
        from shared.device import release_memory

        release_memory()
        log.info(ENDS, key=task.key, experiment=task.experiment)


def _run_worker(stage: Stage, file: Path, surroundings: _Surroundings) -> None:
    """Runs a worker of the stage until nothing is left of the tasks in the file, to which others may come meanwhile."""
    work: Any = pkgutil.resolve_name(str(STAGES[stage].work))
    contexts = dict[str, Context | None]()
    with ExitStack() as stack:

        def open_contexts() -> list[Context]:
            tasks = surroundings.read_tasks(file, stage, worker=True)
            for task in tasks:
                if task.key not in contexts:
                    contexts[task.key] = _open_context(task)
            return [context for task in tasks if (context := contexts[task.key]) is not None]

        def _open_context(task: Task) -> Context | None:
            artifacts = surroundings.artifacts(task)
            if artifacts.find(stage, task.key) is not None:
                Log(stage).info("committed already", key=task.key[:8])
                return None
            return stack.enter_context(_context(task, artifacts, surroundings.settings, surroundings.stop))

        work(open_contexts)


@dataclass(frozen=True)
class _Surroundings:
    """Holds what all tasks of a process share."""

    settings: Settings
    stop: StopSignal

    @cached_property
    def store(self) -> Store:
        """Returns the store, opened once."""
        return open_store(self.settings)

    def artifacts(self, task: Task | TaskReference) -> Artifacts:
        """Returns the artifacts of the task's study."""
        return Artifacts(self.store, task.study, self.settings.cache)

    def read_tasks(self, file: Path, stage: Stage, worker: bool = False) -> list[Task]:
        """Returns the tasks in a file, or those in the store to which it refers.

        Raises ConfigError if the file cannot be read, if something in it is no task of the stage, or if it is a list although a process of the
        stage runs one task, unless it is for a worker; and ArtifactError if the store does not have the tasks.
        """
        try:
            tasks = self._parse(file.read_bytes())
        except OSError as error:
            raise ConfigError(
                f"{file}: cannot be read ({error.strerror}); control writes task files, see `tailfill run`"
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            path = ".".join(map(str, first["loc"])) or "the file"
            raise ConfigError(
                f"{file}: {path}: {first['msg']}; it was written by another version, run `tailfill run` again"
            ) from error
        if others := sorted({task.stage for task in tasks} - {stage}):
            raise ConfigError(
                f"{file}: is a task of the stage {others[0]}, not of {stage}; run `tailfill stage {others[0]}`"
            )
        if len(tasks) > 1 and not (worker or STAGES[stage].blocks):
            raise ConfigError(
                f"{file}: holds {len(tasks)} tasks, but a process of the stage {stage} runs one; split the file"
            )
        return tasks

    def _parse(self, text: bytes) -> list[Task]:
        reference = reference_of_json(text)
        if reference is None:
            return block_of_json(text)
        if reference not in self._loaded:
            self._loaded[reference] = self.artifacts(reference).load_tasks(reference)
        return self._loaded[reference]

    @cached_property
    def _loaded(self) -> dict[TaskReference, list[Task]]:
        """Holds the tasks that were read from the store, where they do not change."""
        return {}


def _run(task: Task, artifacts: Artifacts, settings: Settings, stop: StopSignal, counted: bool = True) -> None:
    with _context(task, artifacts, settings, stop, counted) as context, ExitStack() as stack:
        run: Any = pkgutil.resolve_name(STAGES[task.stage].run)
        if counted and task.stage != "tune":  # the leases of its trials record its usage
            stack.enter_context(context.meter)
        run(context.task.config, context)


@contextmanager
def _context(
    task: Task, artifacts: Artifacts, settings: Settings, stop: StopSignal, counted: bool = True
) -> Iterator[Context]:
    """Yields the surroundings of a run of the task, with a folder of its own for temporary files."""
    started = time.monotonic()
    task = _on_local_device(task, settings)
    with tempfile.TemporaryDirectory(prefix="tailfill-") as scratch, room_errors(Path(scratch)):
        yield Context(
            task=task,
            artifacts=artifacts,
            settings=settings,
            scratch=Path(scratch),
            stop=stop,
            code=lambda: (fingerprint(task.stage), libraries()),
            run_stage=lambda other, stop: run_within(other, artifacts, settings, stop),
            started=started,
            gpus=_gpus(task),
            counted=counted,
        )


def _on_local_device(task: Task, settings: Settings) -> Task:
    """Returns the task with this machine's device, if the environment names one."""
    if settings.device is None:
        return task
    return task.model_copy(update={"resources": task.resources.model_copy(update={"device": settings.device})})


def _gpus(task: Task) -> int:
    """Returns the number of GPUs that this process occupies: all that it sees, used or not, if its stage computes on a device."""
    if not STAGES[task.stage].on_device:
        return 0
    from shared.device import gpu_count, pick_device

    return gpu_count(pick_device(task.resources.device))


def run_within(task: Task, artifacts: Artifacts, settings: Settings, stop: StopSignal) -> Manifest:
    """Returns the manifest of the task; if it is not committed, the stage is run here first, as a part of the stage that needs it."""
    if artifacts.find(task.stage, task.key) is None:
        _run(task, artifacts, replace(settings, index=0, count=1), stop, counted=False)
    manifest = artifacts.find(task.stage, task.key)
    if manifest is None:
        raise UnavailableError(
            f"{task.stage} {task.key[:8]}: ended without an error but is not committed; run the same command again"
        )
    return manifest
