"""Runs one trial as a tuning worker does, but without a database: the worker's objective on a store in a folder."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.outcome import Outcome
from jobs import prepare, tune
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.checkpoints import Checkpoints
from shared.artifacts.folder import FolderStore
from shared.artifacts.keys import canonical_digest, new_task
from shared.artifacts.manifest import Manifest, Run
from shared.config.resolve import ResolvedStudy
from shared.config.stages import STAGES, PrepareConfig, TuneConfig
from shared.config.task import Input
from shared.context import Context
from shared.data.dataset import DatasetInfo, describe, read_info
from shared.data.encoded import EncodedImages
from shared.data.imageset import ImageSet, read_shards, write_shards
from shared.data.sources.digest import source_digest
from shared.pipeline.plan import arm_of, make_task, plan
from shared.search.worker import TrialHandle
from shared.settings import Settings
from shared.stop import StopSignal

OBJECTIVES = ("val_accuracy", "val_macro_f1")


@dataclass(frozen=True)
class Bench:
    """Holds a study's first experiment, with its data prepared and reduced, in a folder."""

    study: ResolvedStudy
    config: TuneConfig
    artifacts: Artifacts
    settings: Settings
    scratch: Path
    data: Input
    info: DatasetInfo
    train: ImageSet
    val: ImageSet

    @classmethod
    def make(cls, study: ResolvedStudy, folder: Path, images: int | None, val_images: int | None) -> Bench:
        """Prepares the study's data unless the folder has it, and draws that many images of each split (None keeps all)."""
        settings = replace(Settings.from_environment({}), cache=folder / "cache")
        artifacts = Artifacts(FolderStore(folder / "store"), study.name, settings.cache)
        prepared = _prepared(study, artifacts, settings, folder)
        info = read_info(artifacts.fetch(prepared.file("dataset.json")))
        everything = read_shards([artifacts.fetch(file) for file in prepared.shards("images")], info.schema_)
        train, val = (_some(everything.of(s), n, study.seed) for s, n in (("train", images), ("val", val_images)))
        data, info = _commit(artifacts, info, train, val, folder)
        experiment = study.experiments[0]
        search = experiment.search.model_copy(update={"objective": OBJECTIVES})
        config = TuneConfig(arm=arm_of(experiment), search=search, seed=experiment.seed)
        return cls(study, config, artifacts, settings, folder, data, info, train, val)

    def run(self, seed: int, features: Path) -> Outcome:
        """Trains with this seed; the outputs of the frozen backbone are cached in the folder `features`."""
        config = self.config.model_copy(update={"seed": self.config.seed + seed})
        with tempfile.TemporaryDirectory(dir=self.scratch) as scratch:
            context = self._context(config, Path(scratch), features)
            objective = tune.ArmObjective(config, context)
            started = time.monotonic()
            objective.prepare()
            ready = time.monotonic()
            trial = Trial({}, context.checkpoints(f"trial-{seed}"), context.stop)
            accuracy, macro_f1 = objective(cast(TrialHandle, trial))
            ended = time.monotonic()
        self.artifacts.clean("tune", context.task.key)
        return Outcome(seed, ready - started, ended - ready, accuracy, macro_f1)

    def _context(self, config: TuneConfig, scratch: Path, features: Path) -> Context:
        task = new_task(self.study.name, "tune", config, {"prepare": self.data}, self.study.resources)
        settings = replace(self.settings, cache=features)
        return Context(task, self.artifacts, settings, scratch, StopSignal(), _no_code)


@dataclass(frozen=True)
class Trial:
    """Stands in for the `TrialHandle` of an objective, without a database."""

    parameters: dict[str, Any]
    checkpoints: Checkpoints
    stop: StopSignal
    repetition: int | None = None

    def report(self, epoch: int, value: float) -> None:
        """Does nothing: no trial is pruned."""


def _prepared(study: ResolvedStudy, artifacts: Artifacts, settings: Settings, folder: Path) -> Manifest:
    step = plan(study, source_digest(study.dataset, settings))[0]
    task = make_task(study, step, {})
    found = artifacts.find("prepare", task.key)
    if found is not None:
        return found
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        context = Context(task, artifacts, settings, Path(scratch), StopSignal(), _no_code)
        return prepare.run(cast(PrepareConfig, task.config), context)


def _some(images: ImageSet, n: int | None, seed: int) -> ImageSet:
    order = np.random.default_rng(seed).permutation(len(images))
    return images.take(np.sort(order[:n]))


def _commit(
    artifacts: Artifacts, whole: DatasetInfo, train: ImageSet, val: ImageSet, folder: Path
) -> tuple[Input, DatasetInfo]:
    """Commits the reduced data set as if `prepare` had made it."""
    labels, split = np.concatenate([train.labels, val.labels]), np.concatenate([train.split, val.split])
    both = ImageSet(
        train.schema,
        EncodedImages.of(train.encoded).joined(EncodedImages.of(val.encoded)),
        [*train.paths, *val.paths],
        split,
        labels,
    )
    info = describe(whole.source, whole.schema_, whole.resolution, labels, split)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        text = Path(scratch) / "dataset.json"
        text.write_text(info.model_dump_json(by_alias=True))
        paths = [text, *write_shards(both, Path(scratch), "images")]
        files = tuple(artifacts.upload(path.name, path) for path in paths)
    key = canonical_digest([file.digest for file in files])
    run = Run(created="", seconds=0.0, device="cpu", device_seconds=0.0, code="", libraries={})
    committed = artifacts.commit(
        Manifest(
            study=artifacts.study, stage="prepare", key=key, version=STAGES["prepare"].version, config={}, inputs={},
            files=files, summary={}, run=run,
        )
    )  # fmt: skip
    return Input(stage="prepare", key=key, digest=committed.digest), info


def _no_code() -> tuple[str, dict[str, str]]:
    return "", {}
