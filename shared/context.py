"""What a stage's `run(config, context)` is given beside its config: inputs, a scratch folder, the stop signal, and the commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.checkpoints import Checkpoints, Values
from shared.artifacts.keys import keyed
from shared.artifacts.manifest import Manifest, Run
from shared.config.stages import STAGES
from shared.config.task import Task
from shared.settings import Settings
from shared.stop import StopSignal
from shared.usage import Meter, Record


def _runs_no_stage(task: Task, _: StopSignal) -> Manifest:
    raise RuntimeError(f"stage {task.stage}: this context runs no other stage")


@dataclass(frozen=True)
class ComputeUsage:
    """Seconds of work on a result, over all processes that had a part in it."""

    gpu: float = 0.0
    cpu: float = 0.0
    """Without a GPU."""
    gpu_lost: float = 0.0
    """Of those on a GPU, work that went with a process."""
    cpu_lost: float = 0.0

    @classmethod
    def of(cls, records: Sequence[Record]) -> ComputeUsage:
        """By processes that have ended, or are about to."""
        return cls(
            gpu=sum(r.gpu_seconds for r in records),
            cpu=sum(r.seconds for r in records if not r.gpus),
            gpu_lost=sum(r.gpus * (r.seconds - r.kept) for r in records),
            cpu_lost=sum(r.seconds - r.kept for r in records if not r.gpus),
        )


@dataclass
class Context:
    """The surroundings of one stage run."""

    task: Task
    artifacts: Artifacts
    settings: Settings
    scratch: Path
    """An empty folder for files on their way; removed when the stage ends."""
    stop: StopSignal
    code: Callable[[], tuple[str, dict[str, str]]]
    """Fingerprint of the stage's code, and the versions of the libraries that compute."""
    started: float = field(default_factory=time.monotonic)
    gpus: int = 0
    """How many this process holds."""
    run_stage: Callable[[Task, StopSignal], Manifest] = _runs_no_stage
    """Has another stage's task done here, unless it is committed; stages meet through what they commit, never by import."""
    counted: bool = True
    """False inside another stage's work, whose seconds hold this one's: they would be counted twice."""
    earlier_seconds: float = 0.0
    """Wall seconds of earlier, interrupted runs, as a checkpoint recorded them."""
    meter: Meter = field(init=False)
    """Of this process's work; who starts a stage starts it too."""

    def __post_init__(self) -> None:
        self.meter = Meter(self.artifacts, self.task.stage, self.task.key, self.gpus, self.started)

    def input(self, role: str) -> Manifest:
        """The manifest of an input by its role in the task; raises ArtifactError where it is not as the task says."""
        return self.artifacts.open(self.task.inputs[role])

    def fetch(self, manifest: Manifest, name: str) -> Path:
        """A file of an input, on local disk and checked."""
        return self.artifacts.fetch(manifest.file(name))

    def fetch_all(self, manifest: Manifest, stem: str) -> list[Path]:
        """The files of an input whose names begin with `<stem>-`, in order: the shards of a set."""
        return [
            self.artifacts.fetch(f)
            for f in sorted(manifest.files, key=lambda f: f.name)
            if f.name.startswith(f"{stem}-")
        ]

    def save_checkpoint(self, name: str, files: Mapping[str, Path], **values: int | float | str) -> None:
        """Keeps the files in the store until the commit; the seconds spent so far go with them."""
        seconds = self.meter.seconds()
        total = {"seconds": self.earlier_seconds + seconds}
        self.artifacts.save_checkpoint(self.task.stage, self.task.key, name, files, {**values, **total})
        self.meter.keep(seconds)

    def load_checkpoint(self, name: str) -> tuple[dict[str, Path], dict[str, int | float | str]] | None:
        """The files and values of the last checkpoint of that name, or None."""
        found = self.artifacts.load_checkpoint(self.task.stage, self.task.key, name)
        if found is not None:
            self.earlier_seconds = float(found[1]["seconds"])
        return found

    def save_part(self, index: int, files: Mapping[str, Path]) -> None:
        """Like save_checkpoint, for one part of a stage that several processes make together."""
        seconds = self.meter.seconds()
        self.artifacts.save_part(self.task.stage, self.task.key, index, files, {})
        self.meter.keep(seconds)

    def checkpoints(self, name: str) -> Checkpoints:
        """The checkpoint of that name, as resumable training wants it."""
        return _StageCheckpoints(self, name)

    def seconds(self) -> float:
        """Wall seconds of this work so far, those of earlier interrupted runs included."""
        return self.earlier_seconds + self.meter.seconds()

    def commit(
        self,
        files: Mapping[str, Path],
        summary: Mapping[str, Any],
        device: str = "cpu",
        spent: ComputeUsage | None = None,
        unfinished: Sequence[str] = (),
    ) -> Manifest:
        """Uploads the files, writes the manifest last, and returns what stands committed (a faster racer's, if there was one).

        `spent` is the work of all processes where it is not theirs to record: a search's leases tell it. Checkpoints named `unfinished`
        stay.
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
        )


class _StageCheckpoints:
    """A stage's checkpoints in the store."""

    def __init__(self, context: Context, name: str) -> None:
        self._context, self._name = context, name

    def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
        self._context.save_checkpoint(self._name, files, **values)

    def load(self) -> tuple[dict[str, Path], Values] | None:
        return self._context.load_checkpoint(self._name)
