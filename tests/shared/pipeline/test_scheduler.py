"""Tests in which order the scheduler begins the steps of a plan, and what it does if a service is unavailable, on a real store."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.load import load_study
from shared.config.task import Task
from shared.errors import Stopped, UnavailableError
from shared.pipeline.plan import Step, plan
from shared.pipeline.scheduler import CompletedStep, Scheduler, StageFailed
from shared.stop import StopSignal
from tests.support.committed import commit_steps, commit_task
from tests.support.small_study import SMALL_STUDY

STUDY = load_study(SMALL_STUDY, ["final.seeds=1"])


class Instant:
    """Commits a task on the call of `advance` after it was begun; is unavailable for so many calls before that."""

    tick_seconds = 0.0

    def __init__(self, artifacts: Artifacts, away: int = 0, patience: float = 60.0, commits: bool = True) -> None:
        self.artifacts, self.away, self.patience, self.commits = artifacts, away, patience, commits
        self.begun: list[str] = []
        self.open: list[tuple[Step, Task]] = []
        self.ended = False

    def begin(self, step: Step, task: Task) -> None:
        assert all(self.artifacts.find(source.stage, source.key) for source in task.inputs.values())
        self.begun.append(step.label)
        self.open.append((step, task))

    def advance(self) -> list[CompletedStep]:
        if self.away:
            self.away -= 1
            raise UnavailableError("the cluster is away")
        done, self.open = self.open, []
        for _, task in done:
            if self.commits:
                commit_task(task, self.artifacts)
        return [CompletedStep(step, 1.0) for step, _ in done]

    def end(self) -> None:
        self.ended = True


def make_artifacts(folder: Path) -> Artifacts:
    return Artifacts(FolderStore(folder / "store"), STUDY.name, folder / "cache")


def make_control(executor: Instant, said: list[str]) -> Scheduler:
    return Scheduler(STUDY, plan(STUDY), executor.artifacts, executor, said.append, StopSignal())


def test_every_step_is_begun_once_when_what_it_needs_is_committed(tmp_path: Path) -> None:
    executor, said = Instant(make_artifacts(tmp_path)), list[str]()
    control = make_control(executor, said)
    report = control.run()
    assert report.stage == "report"
    assert sorted(executor.begun) == sorted(step.label for step in plan(STUDY))
    assert executor.begun[0] == "prepare"
    assert executor.begun[-1] == "report"
    assert executor.ended
    assert control.states()["final", "committed"] == 3
    assert "report: committed" in said[-1]


def test_what_is_committed_is_not_begun_and_rerun_begins_it_again(tmp_path: Path) -> None:
    artifacts = make_artifacts(tmp_path)
    commit_steps(STUDY, plan(STUDY), artifacts)
    executor, said = Instant(artifacts), list[str]()
    control = make_control(executor, said)
    control.run()
    assert executor.begun == []
    assert control.reused == len(plan(STUDY))
    make_control(executor, said).run(frozenset({"report"}))
    assert executor.begun == ["report"]


def test_a_service_that_comes_back_is_waited_for_and_nothing_is_begun_twice(tmp_path: Path) -> None:
    executor, said = Instant(make_artifacts(tmp_path), away=3), list[str]()
    make_control(executor, said).run()
    assert said.count("waiting: the cluster is away") == 3
    assert len(executor.begun) == len(set(executor.begun))


def test_a_service_that_stays_away_ends_the_run(tmp_path: Path) -> None:
    executor = Instant(make_artifacts(tmp_path), away=2, patience=0.0)
    with pytest.raises(UnavailableError, match="the cluster is away"):
        make_control(executor, []).run()
    assert executor.ended


def test_a_stage_that_commits_nothing_is_a_bug(tmp_path: Path) -> None:
    executor = Instant(make_artifacts(tmp_path), commits=False)
    with pytest.raises(StageFailed, match="prepare: ended without an error but committed nothing"):
        make_control(executor, []).run()


def test_a_stop_ends_the_run(tmp_path: Path) -> None:
    executor = Instant(make_artifacts(tmp_path))
    control = make_control(executor, [])
    control.stop.set()
    with pytest.raises(Stopped):
        control.run()
    assert executor.begun == []
