"""Defines what a stage's `run(config, context)` gets besides its config: inputs, a scratch folder, the stop signal and the commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.attempts import Attempt
from shared.artifacts.checkpoints import Checkpoints, Values
from shared.artifacts.keys import keyed
from shared.artifacts.manifest import Manifest, Run
from shared.config.stages import STAGES
from shared.config.task import Task
from shared.settings import Settings
from shared.stop import StopSignal
from shared.usage import ComputeUsage, Meter, Record


def _runs_no_stage(task: Task, _: StopSignal) -> Manifest:
    raise RuntimeError(f"stage {task.stage}: this context cannot run another stage")


@dataclass
class Context:
    """Holds the surroundings of one stage run."""

    task: Task
    artifacts: Artifacts
    settings: Settings
    scratch: Path
    """Points to an empty folder for temporary files, which is removed when the stage ends."""
    stop: StopSignal
    code: Callable[[], tuple[str, dict[str, str]]]
    """Returns the fingerprint of the stage's code, and the versions of the libraries that compute."""
    clock: Callable[[], float] = time.monotonic
    """Returns seconds that only increase; tests pass their own clock."""
    started: float | None = None
    """Gives the time at which the work began, by the clock; None means now."""
    gpus: int = 0
    """Counts the GPUs that this process holds."""
    run_stage: Callable[[Task, StopSignal], Manifest] = _runs_no_stage
    """Runs another stage's task in this process unless its result is committed, so that stages need not import each other."""
    counted: bool = True
    """Says whether the seconds count: they do not if the work is part of another stage's, whose seconds include this one's."""
    earlier_seconds: float = 0.0
    """Counts the wall seconds of earlier, interrupted runs, as a checkpoint recorded them."""
    _attempts: dict[str, Attempt] = field(default_factory=dict, init=False)
    """Holds this process's attempt at the work of each checkpoint, by name."""
    meter: Meter = field(init=False)
    """Measures this process's work; whoever starts the stage starts it too."""

    def __post_init__(self) -> None:
        started = self.clock() if self.started is None else self.started
        self.meter = Meter(self.artifacts, self.task.stage, self.task.key, self.gpus, started, self.clock)

    @property
    def compiled(self) -> Path | None:
        """Returns the folder that keeps compiled networks; None if networks are not compiled."""
        return self.settings.cache / "compiled" if self.task.resources.compile else None

    def input(self, role: str) -> Manifest:
        """Returns the manifest of an input by its role in the task; raises ArtifactError if it is not as the task says."""
        return self.artifacts.open(self.task.inputs[role])

    def fetch(self, manifest: Manifest, name: str) -> Path:
        """Returns the path of an input's file on local disk, after checking its digest."""
        return self.artifacts.fetch(manifest.file(name))

    def fetch_all(self, manifest: Manifest, stem: str) -> list[Path]:
        """Returns the local paths of the input's files whose names begin with `<stem>-`, in order: the shards of a set."""
        return [self.artifacts.fetch(file) for file in manifest.shards(stem)]

    def save_checkpoint(self, name: str, files: Mapping[str, Path], **values: int | float | str) -> None:
        """Saves the files in the store until the commit, with the seconds spent so far."""
        seconds = self.meter.seconds()
        total = {"seconds": self.earlier_seconds + seconds}
        self._attempt(name).save(files, {**values, **total})
        self.meter.keep(seconds)

    def load_checkpoint(self, name: str) -> tuple[dict[str, Path], dict[str, int | float | str]] | None:
        """Returns the files and values of the last checkpoint of that name, or None; a process that loads it has begun a newer attempt."""
        found = self._attempt(name).load()
        if found is not None:
            self.earlier_seconds = float(found[1]["seconds"])
        return found

    def _attempt(self, name: str) -> Attempt:
        if name not in self._attempts:
            self._attempts[name] = Attempt(self.artifacts, self.task.stage, self.task.key, name)
        return self._attempts[name]

    def save_part(self, index: int, files: Mapping[str, Path]) -> None:
        """Saves one part of a stage that several processes make together, unless another process has saved it."""
        seconds = self.meter.seconds()
        self.artifacts.save_part(self.task.stage, self.task.key, index, files, {})
        self.meter.keep(seconds)

    def checkpoints(self, name: str) -> Checkpoints:
        """Returns the checkpoint of that name in the form that resumable training needs."""
        return _StageCheckpoints(self, name)

    def seconds(self) -> float:
        """Returns the wall seconds of this work so far, including earlier interrupted runs."""
        return self.earlier_seconds + self.meter.seconds()

    def commit(
        self,
        files: Mapping[str, Path],
        summary: Mapping[str, Any],
        device: str = "cpu",
        spent: ComputeUsage | None = None,
        unfinished: Sequence[str] = (),
    ) -> Manifest:
        """Uploads the files, writes the manifest last, and returns the committed one (another process's if that was faster).

        `spent` is the work of all processes if they do not record it themselves, as in a search, whose leases hold it. Checkpoints
        named `unfinished` stay.
        """
        uploaded = tuple(self.artifacts.upload(name, path) for name, path in sorted(files.items()))
        code, libraries = self.code()
        seconds = self.meter.seconds()
        if spent is None:
            own = Record(gpus=self.gpus or int(device != "cpu"), seconds=seconds, kept=seconds)
            spent = ComputeUsage.of([*self.meter.settle(), *([own] if self.counted else [])])
        run = Run(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=self.earlier_seconds + seconds,
            device=device,
            device_seconds=spent.gpu,
            cpu_seconds=spent.cpu,
            device_lost_seconds=spent.gpu_lost,
            cpu_lost_seconds=spent.cpu_lost,
            code=code,
            libraries=libraries,
            experiment=self.task.experiment,
        )
        task = self.task
        return self.artifacts.commit(
            Manifest(
                study=task.study,
                stage=task.stage,
                key=task.key,
                version=STAGES[task.stage].version,
                config=keyed(task.stage, task.config),
                inputs=task.inputs,
                files=uploaded,
                summary=dict(summary),
                run=run,
            ),
            unfinished,
            files,
        )


class _StageCheckpoints:
    """Keeps a stage's checkpoints in the store."""

    def __init__(self, context: Context, name: str) -> None:
        self._context, self._name = context, name

    def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
        self._context.save_checkpoint(self._name, files, **values)

    def load(self) -> tuple[dict[str, Path], Values] | None:
        return self._context.load_checkpoint(self._name)
