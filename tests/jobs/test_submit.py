"""Which trainings `submit final` asks for, and what it refuses; on a folder store."""

from __future__ import annotations

from pathlib import Path

import pytest
from committed import commit_steps

from jobs.opened import Opened
from jobs.plan import plan
from jobs.release import parameters_of
from jobs.submit import Wanted, final_tasks
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.load import load_study
from shared.config.task import Task
from shared.errors import ConfigError, InputError, UnavailableError
from shared.settings import Settings

STUDY = load_study(Path(__file__).parents[2] / "studies" / "demo.yaml")
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


def test_the_best_so_far_is_asked_of_the_database(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        final_tasks(opened(tmp_path, "prepare"), Wanted("real"))


def test_parameters_come_as_best_a_file_or_json(tmp_path: Path) -> None:
    assert parameters_of("best") is None
    assert parameters_of('{"training.lr": 1e-05}') == {"training.lr": 1e-05}
    (tmp_path / "best.json").write_text('{"parameters": {"training.lr": 0.1}, "value": 0.5}')
    assert parameters_of(str(tmp_path / "best.json")) == {"training.lr": 0.1}
    for bad in ("nowhere.yaml", "{", "{}", '{"parameters": 1}'):
        with pytest.raises(ConfigError, match="--params"):
            parameters_of(bad)
