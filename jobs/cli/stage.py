"""Implements `tailfill stage`: runs one stage of a task file, in a container or in a process of one machine."""

from __future__ import annotations

import pkgutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.fingerprint import fingerprint, libraries
from shared.artifacts.manifest import Manifest
from shared.artifacts.open import open_store
from shared.config.stages import STAGES, stage_named
from shared.config.task import Task
from shared.context import Context
from shared.errors import ConfigError, UnavailableError
from shared.log import Log
from shared.settings import Settings
from shared.stop import StopSignal


def run_stage(name: str, file: Path, worker: bool) -> None:
    """Runs the stage of the task in `file`, unless its key is committed.

    With `worker`, a worker of the stage is run, if it has any. Raises ConfigError if the file is not a task of the stage `name`, and the errors
    of the stage.
    """
    stage_named(name, f"stage {name!r}")
    task = read_task(file)
    if task.stage != name:
        raise ConfigError(
            f"{file}: is a task of the stage {task.stage}, not of {name}; run `tailfill stage {task.stage}`"
        )
    log = Log(name)
    stop = StopSignal()
    stop.install()
    settings = Settings.from_environment()
    stop.grace_seconds = settings.grace_seconds
    artifacts = Artifacts(open_store(settings), task.study, settings.cache)
    if artifacts.find(task.stage, task.key) is not None:
        log.info("committed already", key=task.key[:8])
        return
    _run(task, artifacts, settings, stop, worker)


def _run(
    task: Task,
    artifacts: Artifacts,
    settings: Settings,
    stop: StopSignal,
    worker: bool = False,
    counted: bool = True,
) -> None:
    started = time.monotonic()
    kind = STAGES[task.stage]
    run: Any = pkgutil.resolve_name(kind.work if worker and kind.work else kind.run)
    task = _on_local_device(task, settings)
    with tempfile.TemporaryDirectory(prefix="tailfill-") as scratch, ExitStack() as stack:
        context = Context(
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
        if counted and task.stage != "tune":  # the leases of its trials record its usage
            stack.enter_context(context.meter)
        run(task.config, context)


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


def read_task(file: Path) -> Task:
    """Returns the task in a file; raises ConfigError if the file cannot be read or is not a task."""
    try:
        task = Task.model_validate_json(file.read_bytes())
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
    return task
