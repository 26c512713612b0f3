"""Runs null.py's studies by the command: all arms have generated images, in whose place other held-out real images are committed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from benchmarks.held_out import ACCEPTS_ALL, STUDIES, HeldOut, Setup
from jobs import finetune, prepare
from shared.artifacts.manifest import Manifest
from shared.config.load import load_study
from shared.config.stages import FinetuneConfig, GenerateConfig, PrepareConfig
from shared.config.task import Task
from shared.context import Context
from shared.data.imageset import write_shards
from shared.pipeline.local_session import current_fingerprints, local_session
from shared.pipeline.plan import make_task
from shared.pipeline.session import Session
from shared.stop import StopSignal


@dataclass(frozen=True)
class NullStudy:
    """Describes a study of arms that differ only in which held-out images they add."""

    setup: Setup
    seed: int
    arms: int
    """Counts the arms beside the baseline."""

    @property
    def sets(self) -> tuple[str, ...]:
        """What it changes of the study's file."""
        names = [f"draw-{number}" for number in range(self.arms + 1)]
        # nothing is generated: the guidance only makes each arm's pools its own
        arms = [
            {"name": name, "images": "real+synthetic", "generate": {"guidance": 1.0 + number / 10}}
            for number, name in enumerate(names)
        ]
        rule = {"metric": "rare_macro_f1", "baseline": names[0], "generators": "one", "provisional": True}
        return (
            *self.setup.sets,
            f"seed={self.seed}",
            "finetune.steps=1",
            ACCEPTS_ALL,
            f"verdict={json.dumps(rule)}",
            f"experiments={json.dumps(arms)}",
        )

    def run(self, workdir: Path) -> list[dict[str, Any]]:
        """Runs the study in a work directory, and returns the comparisons of its arms with the baseline as `results.json` has them.

        Raises CalledProcessError if the command fails, and ValueError for a data set of which classes are thinned: `prepare` knows of none.
        """
        if self.setup.thinned:
            raise ValueError(
                f"{self.setup.study}: its classes are thinned after `prepare`, so the command cannot run it"
            )
        file = STUDIES / self.setup.study
        workdir.mkdir(parents=True, exist_ok=True)
        study = load_study(file, self.sets)
        with local_session(study, current_fingerprints(study, workdir), workdir) as local:
            _commit_pools(local.session, HeldOut.of(self.setup, self.sets))
        settings = [part for setting in self.sets for part in ("--set", setting)]
        command = [sys.executable, "-m", "jobs", "run", str(file), *settings, "--workdir", str(workdir)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        results = json.loads((workdir / "report" / "results.json").read_text())
        return [arm["against_baseline"] for arm in results["verdict"]["arms"]]


def _commit_pools(session: Session, data: HeldOut) -> None:
    """Runs the stages before `generate`, and commits held-out images as what `generate` made."""
    committed: dict[str, Manifest] = {}
    for step in session.steps:
        if step.stage not in ("prepare", "finetune", "generate"):
            continue
        task = make_task(session.study, step, committed)
        found = session.artifacts.find(task.stage, task.key)
        committed[step.id] = found if found is not None else _made(session, task, data)


def _made(session: Session, task: Task, data: HeldOut) -> Manifest:
    with tempfile.TemporaryDirectory() as scratch:
        context = Context(task, session.artifacts, session.settings, Path(scratch), StopSignal(), lambda: ("", {}))
        if task.stage == "prepare":
            return prepare.run(cast(PrepareConfig, task.config), context)
        if task.stage == "finetune":
            return finetune.run(cast(FinetuneConfig, task.config), context)
        config = cast(GenerateConfig, task.config)
        pool = data.pool(f"guidance {config.generate.guidance}", config.pool)
        files = {path.name: path for path in write_shards(pool, Path(scratch), "images")}
        assert pool.extra is not None
        filled: list[str] = pool.extra["filled"].to_pylist()
        classes = {name: filled.count(name) for name in dict.fromkeys(filled)}
        return context.commit(files, {"images": len(pool), "classes": classes})
