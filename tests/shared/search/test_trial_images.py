"""A search over how images are made: the real stages, a real PostgreSQL, a tiny study in a folder store."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

import shared.classifier.fit
import shared.diffusion.load
import shared.score.judges
import shared.search.coordinator
import shared.search.worker  # noqa: F401 - all before the threads begin, which would import them half-made
from jobs import tune
from jobs.plan import Step, make_task, plan
from jobs.stage import run_task
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import Manifest
from shared.config.load import load_study
from shared.config.study import Study
from shared.config.task import Task, TuneConfig
from shared.context import Context, StopSignal
from shared.settings import Settings

DEMO = Path(__file__).parents[3] / "studies" / "demo.yaml"
SPACE = "{generate.guidance: {values: [1.0, 2.0]}, generate.image_to_image.strength: {values: [0.4, 0.9]}, synthetic.share: {low: 0.1, high: 0.3}}"
SETS = [
    "dataset.train=200", "dataset.val=60", "dataset.test=60", "dataset.rare_eval=2", "rare={below: null, classes: [fabric/faux]}",
    "finetune.steps=2", "finetune.width=8", "finetune.batch_size=8",
    "generate={fill_to: 12, cap: 9, steps: 2, batch_size: 4, image_to_image: {share: 0.5, strength: 0.4}}",
    "score.epochs=1", "accept={plausibility: [0, 1], copies: 0}",
    "search={trials: 6, epochs: 1, startup_trials: 6, lease_seconds: 30}", "final={epochs: 1, seeds: 1}", "training.batch_size=64",
    f"experiments.synthetic.search={{space: {SPACE}}}", f"experiments.placebo.search={{space: {SPACE}}}",
]  # fmt: skip


class Runs:
    """A study whose stages run in this process; searches with two workers."""

    def __init__(self, study: Study, root: Path, url: str) -> None:
        self.study, self.steps = study, {step.label: step for step in plan(study)}
        environment = {"TAILFILL_STORE": str(root / "store"), "TAILFILL_CACHE": str(root / "cache")}
        self.settings = replace(Settings.from_environment(environment), database_url=SecretStr(url))
        self.artifacts = Artifacts(FolderStore(root / "store"), study.name, root / "cache")
        self.scratch, self.committed = root, dict[str, Manifest]()

    def run(self, step: Step) -> Manifest:
        """What it needs first."""
        if step.id not in self.committed:
            for needed in step.needs.values():
                self.run(needed)
            task = make_task(self.study, step, self.committed)
            if step.stage == "tune":
                self._search(task)
            self.committed[step.id] = run_task(task, self.artifacts, self.settings, StopSignal())
        return self.committed[step.id]

    def _search(self, task: Task) -> None:
        config = task.stage_config()
        assert isinstance(config, TuneConfig)
        coordinator, *workers = (self._context(task, str(i)) for i in range(3))
        with ThreadPoolExecutor() as pool:
            working = [pool.submit(tune.work, config, context) for context in workers]
            for future in working:  # a worker that fails ends the search
                future.add_done_callback(lambda done: done.exception() and coordinator.stop.set())
            try:
                tune.run(config, coordinator)
            finally:
                for future in working:
                    future.result()

    def _context(self, task: Task, name: str) -> Context:
        folder = self.scratch / f"{task.key[:8]}-{name}"
        folder.mkdir()

        def run_stage(other: Task, stop: StopSignal) -> Manifest:
            return run_task(other, self.artifacts, self.settings, stop)

        return Context(
            task,
            self.artifacts,
            self.settings,
            folder,
            StopSignal(),
            tune.VERSION,
            lambda: ("code", {}),
            run_stage=run_stage,
        )


@pytest.mark.slow
def test_equal_settings_are_made_once_and_the_best_are_trained_on(tmp_path: Path, database_url: str) -> None:
    runs = Runs(load_study(DEMO, SETS), tmp_path, database_url)
    best = {}
    for arm in ("synthetic", "placebo"):
        committed = runs.run(runs.steps[f"tune {arm}"])
        assert committed.summary["trials"] == 6
        trials = pq.read_table(runs.artifacts.fetch(committed.file("trials.parquet"))).to_pylist()
        best[arm] = json.loads(runs.artifacts.fetch(committed.file("best.json")).read_bytes())["parameters"]
        tried = {(row["generate.guidance"], row["generate.image_to_image.strength"]) for row in trials}
        made = [m.config["generate"] for m in runs.artifacts.manifests("generate")]
        settings = [(g["guidance"], g["image_to_image"]["strength"]) for g in made]
        assert tried <= set(settings)
        assert len(settings) == len(set(settings)) <= 4
        assert len(runs.artifacts.manifests("score")) == len(made)
    runs_before = len(runs.artifacts.manifests("generate"))

    final = runs.run(runs.steps["final synthetic 0"])
    generated = runs.artifacts.open(final.inputs["generate"])
    assert generated.config["generate"]["guidance"] == best["synthetic"]["generate.guidance"]
    assert generated.config["generate"]["image_to_image"]["strength"] == best["synthetic"]["generate.image_to_image.strength"]  # fmt: skip
    assert final.summary["parameters"] == best["synthetic"]
    # a trial made these very images: there is nothing to generate again
    assert len(runs.artifacts.manifests("generate")) == runs_before
