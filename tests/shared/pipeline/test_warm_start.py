"""Tests a study that starts from another one's search: how it is named and found, that the key depends on it, and the wait for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import Manifest, Run
from shared.artifacts.s3 import S3Store
from shared.artifacts.store import Store
from shared.config.load import study_from_tree
from shared.config.stages import Stage
from shared.config.study import Study
from shared.errors import ConfigError
from shared.pipeline.plan import Step, make_task, plan
from shared.pipeline.status import as_json, describe, states, why
from shared.pipeline.warm_start import WarmStart, find_warm_starts


@pytest.fixture(params=["folder", "seaweedfs"])
def store(request: pytest.FixtureRequest) -> Store:
    found: FolderStore | S3Store = request.getfixturevalue("folder_store" if request.param == "folder" else "s3_store")
    return found


@pytest.fixture
def artifacts(store: Store, tmp_path: Path) -> Artifacts:
    return Artifacts(store, "mine", tmp_path / "cache")


def tree(warm_start_from: str | None = "theirs/real", **values: Any) -> dict[str, Any]:
    return {
        "name": "mine",
        "dataset": {"source": "garments", "resolution": 32},
        "finetune": {"generator": "pixel", "steps": 5},
        "classifier": {"model": "test_resnet", "pretrained": False},
        "verdict": "none",
        "experiments": [{"name": "real", "search": {"warm_start_from": warm_start_from}}],
        **values,
    }


def study(warm_start_from: str | None = "theirs/real", **values: Any) -> Study:
    return study_from_tree(tree(warm_start_from, **values))


def commit(artifacts: Artifacts, name: str, stage: Stage, experiment: str | None, key: str, day: int = 1) -> Manifest:
    of_study = Artifacts(artifacts.store, name, artifacts.cache)
    run = Run(
        created=f"2026-11-{day:02}T00:00:00+00:00", seconds=1, device="cpu", device_seconds=0, code="", libraries={},
        experiment=experiment,
    )  # fmt: skip
    return of_study.commit(
        Manifest(study=name, stage=stage, key=key, version=1, config={}, inputs={}, files=(), summary={}, run=run)
    )


def tune_step(of_study: Study, artifacts: Artifacts) -> Step:
    steps = plan(of_study, warm_starts=find_warm_starts(of_study, artifacts))
    return next(step for step in steps if step.stage == "tune")


def test_the_newest_search_of_that_experiment_is_an_input(artifacts: Artifacts) -> None:
    commit(artifacts, "theirs", "tune", "real", "a" * 64, day=1)
    newest = commit(artifacts, "theirs", "tune", "real", "b" * 64, day=3)
    commit(artifacts, "theirs", "tune", "synthetic", "c" * 64, day=5)
    prepared = commit(artifacts, "mine", "prepare", None, "d" * 64)
    step = tune_step(study(), artifacts)
    task = make_task(study(), step, {step.needs["prepare"].id: prepared})
    source = task.inputs["warm_start"]
    assert (source.study, source.stage, source.digest) == ("theirs", "tune", newest.digest)
    assert artifacts.open(source) == newest
    assert "study" not in task.inputs["prepare"].model_dump()  # keys and digests of other inputs are unchanged

    plain = tune_step(study(None), artifacts)
    assert plain.id != step.id
    cold = make_task(study(None), plain, {plain.needs["prepare"].id: prepared})
    assert "warm_start" not in cold.inputs
    assert cold.key != task.key
    newer = commit(artifacts, "theirs", "tune", "real", "e" * 64, day=9)
    again = tune_step(study(), artifacts)
    assert make_task(study(), again, {again.needs["prepare"].id: prepared}).key != task.key
    assert again.warm_start is not None
    assert again.warm_start.committed().digest == newer.digest


def test_what_is_not_there_is_an_error_that_lists_what_is(artifacts: Artifacts) -> None:
    commit(artifacts, "theirs", "tune", "synthetic", "a" * 64)
    commit(artifacts, "theirs", "prepare", None, "b" * 64)
    commit(artifacts, "others", "tune", "real", "c" * 64)
    commit(artifacts, "unsearched", "prepare", None, "d" * 64)
    for name, listed in (
        ("theirs/real", "there are theirs/synthetic\\."),
        ("absent/real", "there are others/…, theirs/…\\."),
    ):
        step = tune_step(study(name), artifacts)
        with pytest.raises(ConfigError, match=f"warm_start_from: no finished search of '{name}' .*{listed}"):
            make_task(
                study(name),
                step,
                {need.id: commit(artifacts, "mine", "prepare", None, "e" * 64) for need in step.needs.values()},
            )


def test_status_waits_for_it(artifacts: Artifacts) -> None:
    steps = plan(study(), warm_starts=find_warm_starts(study(), artifacts))
    rows = states(study(), steps, artifacts)
    assert {row["step"]: row["state"] for row in as_json(rows)}["tune real"] == "waiting"
    assert "for prepare, search theirs/real" in describe(rows)
    assert "is known once prepare and search theirs/real are committed" in why(study(), steps, artifacts, "tune")


def test_a_run_says_so_before_anything_runs(tmp_path: Path, postgres_url: str) -> None:
    file, store = tmp_path / "study.yaml", tmp_path / "store"
    file.write_text(json.dumps(tree()))
    ended = subprocess.run(
        [sys.executable, "-m", "jobs", "run", str(file), "--workdir", str(tmp_path / "work")],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TAILFILL_STORE": str(store), "DATABASE_URL": postgres_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert "no finished search of 'theirs/real' is in this store; there are none." in ended.stderr
    assert not (store / "mine").exists()


def test_nothing_is_looked_for_where_nothing_is_named(artifacts: Artifacts) -> None:
    assert find_warm_starts(study(None), artifacts) == {}
    unsearched = study("theirs/real", search={"trials": 0})
    assert find_warm_starts(unsearched, artifacts) == {}
    assert [step.stage for step in plan(unsearched)] == ["prepare", *["final"] * 10, "report"]


def test_a_plan_needs_no_store() -> None:
    (step,) = (step for step in plan(study()) if step.stage == "tune")
    assert step.warm_start == WarmStart("theirs/real")


def test_an_experiment_above_is_a_step_that_it_needs() -> None:
    experiments = [
        {"name": "first"},
        {"name": "second", "search": {"warm_start_from": "first"}, "parameters_from": "first"},
        {"name": "third", "search": {"warm_start_from": "theirs/real"}},
    ]
    steps = {step.label: step for step in plan(study(experiments=experiments))}
    first, second, third = (steps[f"tune {name}"] for name in ("first", "second", "third"))
    assert second.needs["warm_start"] is second.needs["parameters"] is first
    assert second.warm_start is None
    assert "warm_start" not in first.needs.keys() | third.needs.keys()
    assert len({first.id, second.id, third.id}) == 3
