"""Tests which trainings a request stands for, and what is refused, on a folder store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.load import load_study
from shared.config.resolve import ResolvedStudy
from shared.config.stages import FinalConfig, TuneConfig
from shared.config.task import Task
from shared.errors import ConfigError, InputError, UnavailableError
from shared.kube.requests import SubmitRequest
from shared.pipeline import final_tasks as module
from shared.pipeline.final_tasks import final_tasks
from shared.pipeline.plan import plan
from shared.pipeline.search_status import name_of_search
from shared.pipeline.session import Session
from shared.pipeline.status import states
from shared.search.leases import Leases
from shared.search.search_state import SearchStep, make_study, write_search
from shared.search.storage import Database, quiet_optuna
from shared.settings import Settings
from tests.support.committed import commit_steps
from tests.support.small_study import SMALL_STUDY

STUDY = load_study(SMALL_STUDY, ["verdict={provisional: true}"])
"""It has a verdict, so each repetition has a pool of images and a search of its own."""
STEPS = plan(STUDY)


def open_study(folder: Path, *stages: str, study: ResolvedStudy = STUDY) -> Session:
    """Opens a study of which these stages are committed."""
    artifacts, steps = Artifacts(FolderStore(folder / "store"), study.name, folder / "cache"), plan(study)
    commit_steps(study, [step for step in steps if step.stage in stages], artifacts)
    environment = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    return Session(study, steps, artifacts, Settings.from_environment(environment))


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    study = open_study(tmp_path, "prepare", "finetune")
    with pytest.raises(
        InputError,
        match="experiment synthetic: there is nothing to train on yet: generate 0, generate 1, score 0, score 1 not committed",
    ):
        final_tasks(study, SubmitRequest("synthetic"))
    with pytest.raises(ConfigError, match="--experiment sythetic: there is no such experiment; did you mean synthetic"):
        final_tasks(study, SubmitRequest("sythetic"))
    with pytest.raises(
        ConfigError, match="--experiment x: there is no such experiment; there are placebo, real, synthetic"
    ):
        final_tasks(study, SubmitRequest("x"))


def repeat_of(task: Task) -> int:
    assert isinstance(task.config, FinalConfig)
    return task.config.repeat


def test_after_the_search_they_are_the_study_s_own_trainings(tmp_path: Path) -> None:
    stages = ("prepare", "finetune", "generate", "judge", "score", "tune", "final")
    study = open_study(tmp_path, *stages)
    tasks = final_tasks(study, SubmitRequest())
    assert len(tasks) == 3 * STUDY.written.final.seeds
    assert all(study.artifacts.find("final", task.key) for task in tasks)
    more = final_tasks(study, SubmitRequest("real", seeds=STUDY.written.final.seeds + 1))
    assert [bool(study.artifacts.find("final", task.key)) for task in more] == [True] * STUDY.written.final.seeds + [
        False
    ]
    assert [repeat_of(task) for task in more] == list(range(STUDY.written.final.seeds + 1))


def test_given_parameters_are_trained_with_no_search(tmp_path: Path) -> None:
    study = open_study(tmp_path, "prepare", "finetune", "generate", "judge", "score")
    (task,) = final_tasks(study, SubmitRequest("synthetic", 1, {"training.lr": 0.0123}))
    assert parameters(task) == {"training.lr": 0.0123}
    assert sorted(task.inputs) == sorted(set(_final_inputs()) - {"tune"})
    assert Task.model_validate_json(task.model_dump_json()) == task
    with pytest.raises(ConfigError, match=r"training\.lr"):
        final_tasks(study, SubmitRequest("real", 1, {"training.lr": -1}))


def test_a_filter_over_images_that_were_not_scored_is_refused(tmp_path: Path) -> None:
    study = load_study(SMALL_STUDY, ["verdict=none", "accept={plausibility: [0, 1], copies: allow}"])
    session = open_study(tmp_path, "prepare", "finetune", "generate", study=study)
    (task,) = final_tasks(session, SubmitRequest("synthetic", 1, {"training.lr": 0.0123}))
    assert "score" not in task.inputs
    with pytest.raises(ConfigError, match="--params: choose among the generated images of synthetic"):
        final_tasks(session, SubmitRequest("synthetic", 1, {"accept.copies": "refuse"}))


def _final_inputs() -> list[str]:
    return list(next(step for step in STEPS if step.label == "final synthetic 0").needs)


def test_the_best_so_far_is_asked_of_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.search.results.PATIENCE_SECONDS", 0.5)
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        final_tasks(open_study(tmp_path, "prepare"), SubmitRequest("real"))


CHAIN = load_study(
    SMALL_STUDY,
    [
        "verdict=none",
        "search.strategy=sequential",
        "experiments=[{name: a}, {name: b, parameters_from: a, training: {lr: 0.007}, search: {trials: 0}},"
        " {name: c, parameters_from: a, training: {weight_decay: 0.5}, search: {space: {training.tau: {low: 0.1, high: 1.0}}}}]",
    ],
)


def found(session: Session, label: str, fixed: dict[str, float], parameters: dict[str, float]) -> None:
    """Adds a finished trial to the search of that step. In a sequential search, `fixed` are the best values of its earlier steps."""
    task = next(r.task for r in states(session.study, session.steps, session.artifacts) if r.step.label == label)
    assert task is not None
    config = task.config
    assert isinstance(config, TuneConfig)
    database = Database(session.database_url)
    try:
        database.create_tables()
        name = name_of_search(task, session.artifacts)
        study = make_study(database, f"{name}/{len(fixed)}", config.search)
        space = {path: optuna.distributions.FloatDistribution(0.0, 10.0) for path in parameters}
        study.add_trial(optuna.trial.create_trial(params=parameters, distributions=space, value=0.5))
        Leases(database, config.search.lease_seconds).adopt(study._study_id)
        step = SearchStep(f"{name}/{len(fixed)}", "0-x", tuple(parameters), dict(fixed))
        write_search(database, name, study._study_id, step, config.search, None)
    finally:
        database.close()


def parameters(task: Task) -> dict[str, Any]:
    assert isinstance(task.config, FinalConfig)
    return task.config.parameters


def test_the_best_so_far_is_what_the_search_would_commit_now(tmp_path: Path, database_url: str) -> None:
    quiet_optuna()
    steps = plan(CHAIN)
    artifacts = Artifacts(FolderStore(tmp_path / "store"), CHAIN.name, tmp_path / "cache")
    commit_steps(CHAIN, [step for step in steps if step.stage == "prepare"], artifacts)
    study = Session(CHAIN, steps, artifacts, Settings.from_environment({"DATABASE_URL": database_url}))
    with pytest.raises(InputError, match="tune a: has no complete trial yet"):
        final_tasks(study, SubmitRequest("a", 1))
    found(study, "tune a", {}, {"training.lr": 0.001})
    (own,) = final_tasks(study, SubmitRequest("a", 1))
    assert parameters(own) == {"training.lr": 0.001}
    # what the experiment sets itself stands over what it takes over
    (taken,) = final_tasks(study, SubmitRequest("b", 1))
    assert parameters(taken) == {}
    with pytest.raises(InputError, match="tune c: has no complete trial yet"):
        final_tasks(study, SubmitRequest("c", 1))
    # in a later step of a sequential search, the best values of the earlier steps count
    found(study, "tune a", {"training.lr": 0.002}, {"training.dropout": 9.0})
    (own,) = final_tasks(study, SubmitRequest("a", 1))
    assert parameters(own) == {"training.lr": 0.002}


def test_a_request_has_so_many_trainings_at_most(tmp_path: Path) -> None:
    """It is refused before any of them is made."""
    most = module.MOST_TRAININGS
    with pytest.raises(ConfigError, match=rf"--seeds: {3 * (most // 2):,} trainings in all; a request has at most"):
        final_tasks(open_study(tmp_path), SubmitRequest(seeds=most // 2))
