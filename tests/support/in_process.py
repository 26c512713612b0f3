"""Runs a study's stages in this process, one after the other, as `tailfill run` does, without starting Python for each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import sqlalchemy.orm  # noqa: F401 - as below; Optuna imports it at its first use
from pydantic import SecretStr

import shared.classifier.fit
import shared.diffusion.load
import shared.score.judges
import shared.search.coordinator
import shared.search.visits
import shared.search.worker  # noqa: F401 - these are imported before the second thread starts, which could see them half imported
from jobs import tune
from jobs.cli.stage import run_within
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import Manifest
from shared.artifacts.store import Store
from shared.config.stages import TuneConfig
from shared.config.study import Study
from shared.config.task import Task
from shared.context import Context
from shared.data.sources.digest import source_digest
from shared.pipeline.plan import Step, make_task, plan
from shared.settings import Settings
from shared.stop import StopSignal


class InProcess:
    """Runs a study with a real PostgreSQL, and with a folder store or the given `store`, which `settings` name."""

    def __init__(
        self, study: Study, root: Path, url: str, store: Store | None = None, settings: Settings | None = None
    ) -> None:
        environment = {"TAILFILL_STORE": str(root / "store"), "TAILFILL_CACHE": str(root / "cache")}
        given = settings or Settings.from_environment(environment)
        self.settings = replace(given, cache=root / "cache", database_url=SecretStr(url))
        digest = source_digest(study.dataset, self.settings)
        self.study, self.steps = study, {step.label: step for step in plan(study, digest)}
        self.artifacts = Artifacts(store or FolderStore(root / "store"), study.name, root / "cache")
        self.scratch, self.committed = root, dict[str, Manifest]()

    def run(self, step: Step) -> Manifest:
        """Runs the step, after the steps that it needs, and returns its manifest."""
        if step.id not in self.committed:
            for needed in step.needs.values():
                self.run(needed)
            task = make_task(self.study, step, self.committed)
            if step.stage == "tune":
                self._search(task)
            self.committed[step.id] = run_within(task, self.artifacts, self.settings, StopSignal())
        return self.committed[step.id]

    def _search(self, task: Task) -> None:
        config = task.config
        assert isinstance(config, TuneConfig)
        coordinator, worker = (self._context(task, name) for name in ("coordinator", "worker"))
        with ThreadPoolExecutor() as pool:
            coordinating = pool.submit(tune.run, config, coordinator)
            coordinating.add_done_callback(lambda done: done.exception() and worker.stop.set())
            try:
                tune.work(lambda: [worker])
            except BaseException:
                coordinator.stop.set()
                raise
            coordinating.result()

    def _context(self, task: Task, name: str) -> Context:
        folder = self.scratch / f"{task.key[:8]}-{name}"
        folder.mkdir()

        def run_stage(other: Task, stop: StopSignal) -> Manifest:
            return run_within(other, self.artifacts, self.settings, stop)

        return Context(
            task,
            self.artifacts,
            self.settings,
            folder,
            StopSignal(),
            lambda: ("code", {}),
            run_stage=run_stage,
        )
