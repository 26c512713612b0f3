"""How many trainings a Job gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.keys import new_task
from shared.config.load import load_study
from shared.config.task import Input, Task
from shared.kube.manifests import LARGEST_TASK, task_annotation
from shared.pipeline.blocks import BLOCK_SECONDS, deal
from shared.pipeline.plan import make_task, plan
from tests.support.committed import commit_steps
from tests.support.small_study import SMALL_STUDY

STUDY = load_study(SMALL_STUDY, ["search.epochs=10", "final.epochs=20"])
STEPS = plan(STUDY)
FINAL = next(step for step in STEPS if step.stage == "final")
TUNE = next(step for step in STEPS if step.stage == "tune")


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(FolderStore(tmp_path / "store"), STUDY.name, tmp_path / "cache")


def trainings(count: int, **inputs: Input) -> list[Task]:
    configs = (FINAL.config.model_copy(update={"repeat": repeat}) for repeat in range(count))
    return [new_task(STUDY.name, "final", config, inputs, STUDY.resources) for config in configs]


def searched(artifacts: Artifacts, trial_seconds: float) -> Input:
    """A search whose ten trials took so long each, on average."""
    committed = commit_steps(STUDY, [step for step in STEPS if step.stage in ("prepare", "tune")][:2], artifacts)
    manifest = committed[TUNE.id]
    run = manifest.run.model_copy(update={"device_seconds": 0.0, "cpu_seconds": 10 * trial_seconds})
    other = manifest.model_copy(update={"key": "9" * 64, "summary": {"trials": 10}, "run": run})
    return Input(stage="tune", key=other.key, digest=artifacts.commit(other).digest)


@pytest.mark.parametrize(("trial_seconds", "sizes"), [(1.0, [12]), (50.0, [3, 3, 3, 3]), (3600.0, [1] * 12)])
def test_without_a_bound_a_job_has_minutes_of_work(
    artifacts: Artifacts, trial_seconds: float, sizes: list[int]
) -> None:
    tasks = trainings(12, tune=searched(artifacts, trial_seconds))  # of twice as many epochs as a trial
    blocks = deal(tasks, artifacts, None)
    assert [len(block) for block in blocks] == sizes
    assert sorted(task.key for block in blocks for task in block) == sorted(task.key for task in tasks)
    assert 2 * trial_seconds * len(blocks[0]) <= BLOCK_SECONDS or len(blocks[0]) == 1


def test_without_a_bound_or_a_search_four_share_a_start(artifacts: Artifacts) -> None:
    assert [len(block) for block in deal(trainings(10), artifacts, None)] == [4, 3, 3]


@pytest.mark.parametrize(
    ("most", "active", "sizes"), [(3, 0, [4, 3, 3]), (3, 2, [4]), (3, 3, []), (3, 4, []), (20, 0, [1] * 10)]
)
def test_with_a_bound_a_job_has_its_share(artifacts: Artifacts, most: int, active: int, sizes: list[int]) -> None:
    assert [len(block) for block in deal(trainings(10), artifacts, most, active)] == sizes


@pytest.mark.parametrize(("trial_seconds", "sizes"), [(1.0, [6, 6]), (50.0, [3, 3]), (3600.0, [1, 1])])
def test_with_a_bound_long_trainings_keep_a_job_of_their_own(
    artifacts: Artifacts, trial_seconds: float, sizes: list[int]
) -> None:
    blocks = deal(trainings(12, tune=searched(artifacts, trial_seconds)), artifacts, 2)
    assert [len(block) for block in blocks] == sizes


def test_a_block_is_no_larger_than_a_pod_carries(artifacts: Artifacts) -> None:
    tasks = [task.model_copy(update={"experiment": "y" * (LARGEST_TASK // 3)}) for task in trainings(5)]
    assert [len(block) for block in deal(tasks, artifacts, 1)] == [2]
    blocks = deal(tasks, artifacts, None)
    assert sum(map(len, blocks)) == 5
    for block in blocks:
        task_annotation(block)


def test_a_stage_without_blocks_has_a_job_per_task(artifacts: Artifacts) -> None:
    prepare = make_task(STUDY, STEPS[0], {})
    assert deal([prepare] * 3, artifacts, None) == [[prepare]] * 3
    assert deal([prepare] * 3, artifacts, 2, 1) == [[prepare]]
