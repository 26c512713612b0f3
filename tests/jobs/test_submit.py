"""Which trainings `submit final` asks for, and what it refuses; on a folder store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from committed import commit_steps

from jobs.opened import Opened
from jobs.plan import plan
from jobs.progress import name_of_search
from jobs.release import parameters_of
from jobs.status import states
from jobs.submit import Wanted, final_tasks
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.load import load_study
from shared.config.task import Task, TuneConfig
from shared.errors import ConfigError, InputError, UnavailableError
from shared.search.leases import Leases
from shared.search.search_state import SearchStep, make_study, write_search
from shared.search.storage import Database, quiet_optuna
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
STUDY = load_study(ROOT / "studies" / "demo.yaml")
STEPS = plan(STUDY)


def opened(folder: Path, *stages: str) -> Opened:
    """A study of which these stages are committed."""
    artifacts = Artifacts(FolderStore(folder / "store"), STUDY.name, folder / "cache")
    commit_steps(STUDY, [step for step in STEPS if step.stage in stages], artifacts)
    environment = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    return Opened(STUDY, STEPS, artifacts, Settings.from_environment(environment))


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    study = opened(tmp_path, "prepare", "finetune")
    with pytest.raises(
        InputError, match="experiment synthetic: there is nothing to train on yet: generate, score not committed"
    ):
        final_tasks(study, Wanted("synthetic"))
    with pytest.raises(
        ConfigError, match="--experiment sythetic: there is no such experiment; there are real, synthetic"
    ):
        final_tasks(study, Wanted("sythetic"))


def test_after_the_search_they_are_the_study_s_own_trainings(tmp_path: Path) -> None:
    stages = ("prepare", "finetune", "generate", "score", "tune", "final")
    study = opened(tmp_path, *stages)
    tasks = final_tasks(study, Wanted())
    assert len(tasks) == 3 * STUDY.final.seeds
    assert all(study.artifacts.find("final", task.key) for task in tasks)
    more = final_tasks(study, Wanted("real", seeds=STUDY.final.seeds + 1))
    assert [bool(study.artifacts.find("final", task.key)) for task in more] == [True] * STUDY.final.seeds + [False]
    assert [task.config["repeat"] for task in more] == list(range(STUDY.final.seeds + 1))


def test_given_parameters_are_trained_with_no_search(tmp_path: Path) -> None:
    study = opened(tmp_path, "prepare", "finetune", "generate", "score")
    (task,) = final_tasks(study, Wanted("synthetic", 1, {"training.lr": 0.0123}))
    assert task.config["arm"]["training"]["lr"] == 0.0123
    assert sorted(task.inputs) == sorted(set(_final_inputs()) - {"tune"})
    assert Task.model_validate_json(task.model_dump_json()).stage_config()
    with pytest.raises(ConfigError, match=r"training\.lr"):
        final_tasks(study, Wanted("real", 1, {"training.lr": -1}))


def _final_inputs() -> list[str]:
    return list(next(step for step in STEPS if step.label == "final synthetic 0").needs)


def test_the_best_so_far_is_asked_of_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.search.results.PATIENCE_SECONDS", 0.5)
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        final_tasks(opened(tmp_path, "prepare"), Wanted("real"))


CHAIN = load_study(
    ROOT / "studies" / "demo.yaml",
    [
        "verdict=none",
        "search.strategy=sequential",
        "experiments=[{name: a}, {name: b, parameters_from: a, training: {lr: 0.007}, search: {trials: 0}},"
        " {name: c, parameters_from: a, training: {weight_decay: 0.5}, search: {space: {training.tau: {low: 0.1, high: 1.0}}}}]",
    ],
)


def found(opened: Opened, label: str, fixed: dict[str, float], parameters: dict[str, float]) -> None:
    """The search of that step has finished one trial, of the step after those that ended with `fixed`."""
    task = next(r.task for r in states(opened.study, opened.steps, opened.artifacts) if r.step.label == label)
    assert task is not None
    config = task.stage_config()
    assert isinstance(config, TuneConfig)
    database = Database(opened.database_url)
    try:
        database.create_tables()
        name = name_of_search(task, opened.artifacts)
        study = make_study(database, f"{name}/{len(fixed)}", config.search)
        space = {path: optuna.distributions.FloatDistribution(0.0, 10.0) for path in parameters}
        study.add_trial(optuna.trial.create_trial(params=parameters, distributions=space, value=0.5))
        Leases(database, config.search.lease_seconds).adopt(study._study_id)
        step = SearchStep(f"{name}/{len(fixed)}", "0-x", tuple(parameters), dict(fixed))
        write_search(database, name, study._study_id, step, config.search, None)
    finally:
        database.close()


def arm(task: Task) -> dict[str, Any]:
    trained: dict[str, Any] = task.config["arm"]["training"]
    return trained


def test_the_best_so_far_is_what_the_search_would_commit_now(tmp_path: Path, database_url: str) -> None:
    quiet_optuna()
    steps = plan(CHAIN)
    artifacts = Artifacts(FolderStore(tmp_path / "store"), CHAIN.name, tmp_path / "cache")
    commit_steps(CHAIN, [step for step in steps if step.stage == "prepare"], artifacts)
    study = Opened(CHAIN, steps, artifacts, Settings.from_environment({"DATABASE_URL": database_url}))
    with pytest.raises(InputError, match="tune a: has no complete trial yet"):
        final_tasks(study, Wanted("a", 1))
    found(study, "tune a", {}, {"training.lr": 0.001})
    (own,) = final_tasks(study, Wanted("a", 1))
    assert arm(own)["lr"] == 0.001
    # what the experiment sets itself stands over what it takes over
    (taken,) = final_tasks(study, Wanted("b", 1))
    assert arm(taken)["lr"] == 0.007
    with pytest.raises(InputError, match="tune c: has no complete trial yet"):
        final_tasks(study, Wanted("c", 1))
    # a step of a sequential search that has begun: what the earlier ones ended with
    found(study, "tune a", {"training.lr": 0.002}, {"training.dropout": 9.0})
    (own,) = final_tasks(study, Wanted("a", 1))
    assert (arm(own)["lr"], arm(own)["dropout"]) == (0.002, CHAIN.training.dropout)


def test_parameters_come_as_best_a_file_or_json(tmp_path: Path) -> None:
    assert parameters_of("best") is None
    assert parameters_of('{"training.lr": 1e-05}') == {"training.lr": 1e-05}
    (tmp_path / "best.json").write_text('{"parameters": {"training.lr": 0.1}, "value": 0.5}')
    assert parameters_of(str(tmp_path / "best.json")) == {"training.lr": 0.1}
    for bad in ("nowhere.yaml", "{", "{}", '{"parameters": 1}'):
        with pytest.raises(ConfigError, match="--params"):
            parameters_of(bad)
