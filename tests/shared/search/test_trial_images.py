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
import shared.search.worker  # noqa: F401 - all before the second thread begins, which would import them half-made
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
SPACE = "{generate.image_to_image.strength: {values: [0.4, 0.9]}, synthetic.share: {low: 0.1, high: 0.3}}"
SETS = [
    "dataset.train=200", "dataset.val=60", "dataset.test=60", "dataset.rare_eval=2", "rare={below: null, classes: [fabric/faux]}",
    "finetune.steps=2", "finetune.width=8", "finetune.batch_size=8",
    "generate={fill_to: 12, cap: 9, steps: 2, batch_size: 4, image_to_image: {share: 0.5, strength: 0.4}}",
    "score.epochs=1", "accept={plausibility: [0, 1], copies: 0}",
    "search={trials: 3, epochs: 1, lease_seconds: 30}", "final={epochs: 1, seeds: 1}", "training.batch_size=64",
    f"experiments.synthetic.search={{space: {SPACE}}}", f"experiments.placebo.search={{space: {SPACE}}}",
]  # fmt: skip


class Runs:
    """A study whose stages run in this process."""

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
        coordinator, worker = (self._context(task, name) for name in ("coordinator", "worker"))
        with ThreadPoolExecutor() as pool:
            coordinating = pool.submit(tune.run, config, coordinator)
            coordinating.add_done_callback(lambda done: done.exception() and worker.stop.set())
            try:
                tune.work(config, worker)
            except BaseException:
                coordinator.stop.set()
                raise
            coordinating.result()

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


def strength(generated: Manifest) -> float:
    return float(generated.config["generate"]["image_to_image"]["strength"])


@pytest.mark.slow
def test_equal_settings_are_made_once_and_the_best_are_trained_on(tmp_path: Path, database_url: str) -> None:
    runs = Runs(load_study(DEMO, SETS), tmp_path, database_url)
    best = {}
    for arm in ("synthetic", "placebo"):
        committed = runs.run(runs.steps[f"tune {arm}"])
        assert committed.summary["trials"] == 3
        trials = pq.read_table(runs.artifacts.fetch(committed.file("trials.parquet"))).to_pylist()
        best[arm] = json.loads(runs.artifacts.fetch(committed.file("best.json")).read_bytes())["parameters"]
        tried = {row["generate.image_to_image.strength"] for row in trials}
        made = [strength(manifest) for manifest in runs.artifacts.manifests("generate")]
        assert tried <= set(made)
        assert len(made) == len(set(made)) == len(runs.artifacts.manifests("score"))

    final = runs.run(runs.steps["final synthetic 0"])
    generated = runs.artifacts.open(final.inputs["generate"])
    assert strength(generated) == best["synthetic"]["generate.image_to_image.strength"]
    assert final.summary["parameters"] == best["synthetic"]
    # a trial made these very images: there is nothing to generate again
    assert len(runs.artifacts.manifests("generate")) == len(made)
