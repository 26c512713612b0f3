"""How many trainings a Job gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.keys import new_task
from shared.artifacts.manifest import Manifest
from shared.config.load import load_study
from shared.config.task import Task
from shared.kube.manifests import MOST_TASKS
from shared.pipeline.blocks import BLOCK_SECONDS, deal
from shared.pipeline.plan import make_task, plan
from tests.support.committed import commit_steps
from tests.support.small_study import SMALL_STUDY

STUDY = load_study(SMALL_STUDY, ["search.epochs=10", "final.epochs=20"])
STEPS = plan(STUDY)
FINAL = next(step for step in STEPS if step.stage == "final")
TUNE = next(step for step in STEPS if step.stage == "tune")


def trainings(count: int, seconds: float | None = None) -> list[Task]:
    configs = (FINAL.config.model_copy(update={"repeat": repeat}) for repeat in range(count))
    tasks = (new_task(STUDY.name, "final", config, {}, STUDY.resources) for config in configs)
    return [task.model_copy(update={"expected_seconds": seconds}) for task in tasks]


def searched(committed: dict[str, Manifest], trial_seconds: float) -> Manifest:
    """Returns the manifest of a search whose ten trials took so long each, on average."""
    manifest = committed[TUNE.id]
    run = manifest.run.model_copy(update={"device_seconds": 0.0, "cpu_seconds": 10 * trial_seconds})
    return manifest.model_copy(update={"summary": {"trials": 10, "parameters": {}}, "run": run})


def test_the_pace_of_the_search_tells_how_long_a_training_takes(tmp_path: Path) -> None:
    artifacts = Artifacts(FolderStore(tmp_path / "store"), STUDY.name, tmp_path / "cache")
    committed = commit_steps(STUDY, [step for step in STEPS if step.stage in ("prepare", "tune")][:2], artifacts)
    assert make_task(STUDY, FINAL, committed).expected_seconds is None  # no trial was counted
    found = [make_task(STUDY, FINAL, committed | {TUNE.id: searched(committed, s)}) for s in (1.0, 50.0)]
    assert [task.expected_seconds for task in found] == [2.0, 100.0]  # of twice as many epochs as a trial
    assert found[0].key == found[1].key


@pytest.mark.parametrize(("seconds", "sizes"), [(2.0, [12]), (100.0, [3, 3, 3, 3]), (7200.0, [1] * 12)])
def test_without_a_bound_a_job_has_minutes_of_work(seconds: float, sizes: list[int]) -> None:
    tasks = trainings(12, seconds)
    blocks = deal(tasks, None)
    assert [len(block) for block in blocks] == sizes
    assert sorted(task.key for block in blocks for task in block) == sorted(task.key for task in tasks)
    assert seconds * len(blocks[0]) <= BLOCK_SECONDS or len(blocks[0]) == 1


def test_without_a_bound_or_a_search_four_share_a_start() -> None:
    assert [len(block) for block in deal(trainings(10), None)] == [4, 3, 3]


@pytest.mark.parametrize(
    ("most", "active", "sizes"), [(3, 0, [4, 3, 3]), (3, 2, [4]), (3, 3, []), (3, 4, []), (20, 0, [1] * 10)]
)
def test_with_a_bound_a_job_has_its_share(most: int, active: int, sizes: list[int]) -> None:
    assert [len(block) for block in deal(trainings(10), most, active)] == sizes


@pytest.mark.parametrize(("seconds", "sizes"), [(2.0, [6, 6]), (100.0, [3, 3]), (7200.0, [1, 1])])
def test_with_a_bound_long_trainings_keep_a_job_of_their_own(seconds: float, sizes: list[int]) -> None:
    blocks = deal(trainings(12, seconds), 2)
    assert [len(block) for block in blocks] == sizes


def test_a_block_is_no_longer_than_a_job_may_be() -> None:
    tasks = trainings(2 * MOST_TASKS + 1, 0.1)
    assert [len(block) for block in deal(tasks, 1)] == [MOST_TASKS]
    assert [len(block) for block in deal(tasks, None)] == [MOST_TASKS, MOST_TASKS, 1]
    assert [task for block in deal(tasks, None) for task in block] == tasks


def test_a_stage_without_blocks_has_a_job_per_task() -> None:
    prepare = make_task(STUDY, STEPS[0], {})
    assert deal([prepare] * 3, None) == [[prepare]] * 3
    assert deal([prepare] * 3, 2, 1) == [[prepare]]
