"""Tests which Jobs control creates, creates again, deletes, and considers complete."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.keys import new_task
from shared.config.load import load_study
from shared.config.stages import STAGES
from shared.config.task import Task, TaskReference, block_json
from shared.errors import UnavailableError
from shared.kube import mirror
from shared.kube.api import Cluster
from shared.kube.manifests import held_tasks
from shared.kube.release import Release
from shared.pipeline import kube_executor as cluster
from shared.pipeline.kube_executor import KubeExecutor
from shared.pipeline.plan import Step, make_task, plan
from shared.pipeline.session import Session
from shared.settings import Settings
from tests.support.committed import commit_task
from tests.support.kube_objects import pod
from tests.support.kube_server import KubeServer, kube_server, read_settled
from tests.support.small_study import SMALL_STUDY

STUDY = load_study(SMALL_STUDY)
STEPS = plan(STUDY)
PREPARE = make_task(STUDY, STEPS[0], {})


def manifest(stage: str, **annotations: str) -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/component": stage,
        "app.kubernetes.io/instance": "study",
        "app.kubernetes.io/managed-by": "tailfill-control",
    }
    return {
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {"template": {"metadata": {"labels": labels}}},
    }


class Here:
    """Holds a release, the server that has its Jobs, and a store."""

    def __init__(self, server: KubeServer, client: Cluster, folder: Path) -> None:
        self.server, self.client = server, client
        self.artifacts = Artifacts(FolderStore(folder / "store"), STUDY.name, folder / "cache")
        self.session = Session(STUDY, STEPS, self.artifacts, Settings.from_environment({}))

    def jobs(self, *tasks: Task, ttl: int | None = None, study: str = "1", **annotations: str) -> KubeExecutor:
        """Returns the executor of a control that has just started with a study of this digest and has begun these tasks."""
        manifests = {stage: manifest(stage, **annotations) for stage in STAGES}
        for made_of in manifests.values():
            made_of["spec"]["ttlSecondsAfterFinished"] = ttl
        owner = {"metadata": {"name": "study-stages", "uid": "1"}}
        release = Release("study", self.client, manifests, owner, manifest("tune"), study)
        made = KubeExecutor(release, self.session)
        for task in tasks:
            step = Step(task.stage, None, task.key, task.config, {})
            step.__dict__["id"] = task.key
            made.begin(step, task)
        return made

    @property
    def name(self) -> str:
        """Returns the name of the only Job."""
        (name,) = self.server.jobs
        return name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    with kube_server() as (server, client):
        read_settled(server, monkeypatch)
        yield Here(server, client, tmp_path)


def other(number: int) -> Task:
    """Returns a task of the same stage with another key."""
    return PREPARE.model_copy(update={"key": f"{number:x}" * 64})


def test_a_job_is_made_once_and_taken_for_done_when_it_is_complete(here: Here) -> None:
    jobs = here.jobs(PREPARE)
    assert jobs.advance() == jobs.advance() == []
    assert here.server.created == [here.name] == [f"study-prepare-{PREPARE.key[:8]}"]
    here.server.end(here.name)
    (ended,) = jobs.advance()
    assert ended.step.label == PREPARE.key
    assert jobs.advance() == []


def test_a_failed_job_waits_for_a_person_and_is_made_again_once_it_is_deleted(here: Here) -> None:
    jobs = here.jobs(PREPARE)
    jobs.advance()
    here.server.end(here.name, "Failed")
    assert jobs.advance() == jobs.advance() == []
    assert [entry.failed for entry in jobs.tasks.values()] == ["BackoffLimitExceeded"]
    assert {id_: reason for id_, (reason, _) in jobs.failures().items()} == {PREPARE.key: "BackoffLimitExceeded"}
    assert len(here.server.created) == 1
    here.server.jobs.clear()
    jobs.advance()
    assert len(here.server.created) == 2
    assert [entry.failed for entry in jobs.tasks.values()] == [None]
    assert jobs.failures() == {}


def test_a_failed_job_that_kubernetes_removed_in_time_is_not_made_again(here: Here) -> None:
    jobs = here.jobs(PREPARE, ttl=3600)
    jobs.advance()
    here.server.end(here.name, "Failed")
    jobs.advance()
    here.server.jobs.clear()
    assert jobs.advance() == jobs.advance() == []
    assert len(here.server.created) == 1
    (entry,) = jobs.tasks.values()
    assert entry.failed == "BackoffLimitExceeded"
    commit_task(PREPARE, here.artifacts)  # by another machine; the next `advance` notices it
    entry.not_before = 0.0
    assert len(jobs.advance()) == 1


@pytest.mark.parametrize(("replicas", "scaled"), [(1, [STUDY.written.search.workers]), (0, []), (5, [])])
def test_workers_are_as_many_as_the_study_says_unless_somebody_has_scaled_them(
    here: Here, replicas: int, scaled: list[int]
) -> None:
    here.server.allow_workers(replicas)
    here.jobs(PREPARE).advance()
    assert here.server.scaled == scaled
    here.server.allow_workers(1)  # by a user, later
    here.jobs(PREPARE).advance()
    assert here.server.scaled == scaled


def test_a_control_that_starts_ends_what_left_the_plan_and_makes_failed_ones_again(here: Here) -> None:
    before = here.jobs(PREPARE, other(1), other(2))
    before.advance()
    left, failed, running = (f"study-prepare-{task.key[:8]}" for task in (PREPARE, other(1), other(2)))
    here.server.end(failed, "Failed")
    here.server.jobs[running]["status"] = {"active": 1, "ready": 1}
    here.jobs(other(1), other(2)).advance()
    assert sorted(here.server.jobs) == sorted([left, failed, running])  # nobody changed the study
    here.jobs(other(1), other(2), study="2").advance()
    assert sorted(here.server.jobs) == sorted([failed, running])
    assert here.server.created == [left, failed, running, failed]


@pytest.mark.parametrize("study", ["1", "2"])
def test_a_control_that_starts_lets_a_job_end_whose_result_was_just_committed(here: Here, study: str) -> None:
    ending, waiting = (f"study-prepare-{task.key[:8]}" for task in (PREPARE, other(1)))
    here.jobs(PREPARE, other(1)).advance()
    here.server.jobs[ending]["status"] = {"active": 1, "ready": 1}
    for task in (PREPARE, other(1)):
        commit_task(task, here.artifacts)
    here.jobs(other(2), study=study).advance()
    assert ending in here.server.jobs
    assert waiting not in here.server.jobs  # it would hold a GPU for nothing as soon as it gets one


def test_a_pod_whose_node_does_not_answer_is_replaced_after_the_seconds_of_the_settings(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PODS_SECONDS", 0.0)
    lost = pod("lost", node="node-1")
    lost["metadata"]["deletionTimestamp"] = (datetime.now(UTC) - timedelta(seconds=60)).isoformat()
    lost["metadata"]["labels"] = manifest("final")["metadata"]["labels"]
    here.server.add("pods", lost)
    here.jobs(PREPARE).advance()
    here.jobs(PREPARE).advance()
    assert [found["metadata"]["name"] for found in here.server.pods] == ["lost"]
    here.session = replace(here.session, settings=replace(here.session.settings, lost_pod_seconds=30))
    here.jobs(PREPARE).advance()
    assert here.server.pods == []


def test_a_submitted_job_is_left_alone(here: Here) -> None:
    here.jobs().release.create_job(here.artifacts, [PREPARE], request="uid-r")
    here.jobs(other(1)).advance()
    assert f"study-prepare-{PREPARE.key[:8]}" in here.server.jobs


def test_a_changed_manifest_replaces_a_job_that_is_not_at_work_and_none_that_is(here: Here) -> None:
    here.jobs(PREPARE).advance()
    here.server.jobs[here.name]["status"] = {
        "active": 1,
        "ready": 0,
        "failed": 1,
    }  # its Pod was deleted while it waited
    here.jobs(PREPARE, image="new").advance()
    assert len(here.server.created) == 2
    here.server.jobs[here.name]["status"] = {"active": 1, "ready": 1}
    here.jobs(PREPARE, image="newer").advance()
    assert len(here.server.created) == 2


def test_jobs_that_version_0_1_0_made_go_on(here: Here) -> None:
    tasks = [final(0), final(1)]
    here.jobs(*tasks, **{"tailfill/parallelism": "1"}).advance()
    here.server.jobs[here.name]["status"] = {"active": 1, "ready": 1}
    annotations = here.server.jobs[here.name]["spec"]["template"]["metadata"]["annotations"]
    annotations["tailfill/task"] = block_json(tasks)
    later = here.jobs(*tasks, **{"tailfill/parallelism": "1"})
    assert later.advance() == []
    assert len(here.server.created) == 1
    for task in tasks:
        commit_task(task, here.artifacts)
    here.server.end(here.name)
    assert [done.step.label for done in later.advance()] == [task.key for task in tasks]
    assert len(here.server.created) == 1


def test_a_job_refers_to_its_tasks_in_the_store(here: Here) -> None:
    tasks = [final(0), final(1)]
    here.jobs(*tasks, **{"tailfill/parallelism": "1"}).advance()
    text = here.server.jobs[here.name]["spec"]["template"]["metadata"]["annotations"]["tailfill/task"]
    assert here.artifacts.load_tasks(TaskReference.model_validate_json(text)) == tasks
    assert tasks[0].config.model_dump_json() not in text


def test_no_more_jobs_of_a_stage_than_its_manifest_says(here: Here) -> None:
    jobs = here.jobs(PREPARE, other(1), other(2), **{"tailfill/parallelism": "1"})
    jobs.advance()
    here.server.jobs[here.name]["spec"]["suspend"] = True  # Kueue suspends it, but it exists
    jobs.advance()
    assert len(here.server.created) == 1
    here.server.end(here.name)
    jobs.advance()
    jobs.advance()
    assert len(here.server.created) == 2


def test_a_job_that_is_refused_stops_no_other_and_is_asked_for_again(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = here.jobs(PREPARE)
    here.server.refusals["POST", "jobs"] = 403
    assert jobs.advance() == []
    (entry,) = jobs.tasks.values()
    assert "POST" in str(entry.failed)
    assert jobs.refusals().steps == {entry.step.id: entry.failed}
    here.server.refusals.clear()
    jobs.advance()
    assert here.server.created == []  # not before the wait is over
    entry.not_before = 0.0
    jobs.advance()
    assert here.server.created == [here.name]
    assert entry.failed is None
    assert not jobs.refusals().steps


def test_a_job_that_was_told_to_end_before_its_program_began_is_created_again_once(here: Here) -> None:
    jobs = here.jobs(PREPARE)
    jobs.advance()
    (entry,) = jobs.tasks.values()
    for created in (1, 2):
        assert len(here.server.created) == created
        here.server.end(here.name, "Failed")
        here.server.jobs[here.name]["status"]["conditions"][0]["reason"] = "PodFailurePolicy"
        here.server.changed("jobs")
        jobs.advance()
        jobs.advance()
    assert len(here.server.created) == 2
    assert "PodFailurePolicy" in str(entry.failed)


def test_what_another_machine_commits_is_seen(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "STORE_SECONDS", 0.0)
    waiting, unmade = here.jobs(PREPARE), here.jobs(other(1))
    waiting.advance()
    for task in (PREPARE, other(1)):
        commit_task(task, here.artifacts)
    assert waiting.advance() == []  # its Pod may just have ended, which Kubernetes has not counted yet
    assert len(here.server.jobs) == 1
    assert len(waiting.advance()) == 1
    assert here.server.jobs == {}  # its Pod would find out the same
    assert len(unmade.advance()) == 1
    assert len(here.server.created) == 1


def test_a_job_that_did_the_work_stays_to_be_looked_at(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "STORE_SECONDS", 0.0)
    jobs = here.jobs(PREPARE)
    jobs.advance()
    commit_task(PREPARE, here.artifacts)
    here.server.end(here.name)
    assert len(jobs.advance()) == 1
    assert list(here.server.jobs) == [here.name]


def test_an_ended_step_is_not_lost_when_the_cluster_goes_away(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "WAITS", (0.01, 0.1))
    monkeypatch.setattr(mirror, "PATIENCE_SECONDS", 1.0)
    jobs = here.jobs(PREPARE, other(1))
    jobs.advance()
    here.server.end(f"study-prepare-{PREPARE.key[:8]}")
    del here.server.jobs[f"study-prepare-{other(1).key[:8]}"]
    here.server.refusals = {("GET", "jobs"): 503}
    here.server.drop_watches()
    refused = here.server.requests.count("WATCH jobs") + 2
    while here.server.requests.count("WATCH jobs") < refused:
        time.sleep(0.01)
    with pytest.raises(UnavailableError, match=r"GET .*jobs: no"):
        jobs.advance()
    here.server.refusals = {("POST", "jobs"): 503}
    with pytest.raises(UnavailableError, match=r"POST .*jobs: no"):
        jobs.advance()
    here.server.refusals = {}
    assert [ended.step.label for ended in jobs.advance()] == [PREPARE.key]


FINAL = next(step for step in STEPS if step.stage == "final")


def final(number: int) -> Task:
    """A training of the study without a search by whose trials to tell how long it takes."""
    return new_task(STUDY.name, "final", FINAL.config.model_copy(update={"repeat": number}), {}, STUDY.resources)


def held(here: Here) -> dict[str, list[int]]:
    """Which trainings each Job holds, by its name."""
    numbers = {final(number).key: number for number in range(20)}
    return {name: [numbers[key] for _, key in held_tasks(job)] for name, job in here.server.jobs.items()}


def name_of(number: int) -> str:
    return f"study-final-{final(number).key[:8]}"


def test_ready_trainings_are_dealt_to_as_many_jobs_as_may_run(here: Here) -> None:
    tasks = [final(number) for number in range(7)]
    jobs = here.jobs(*tasks, **{"tailfill/parallelism": "2"})
    jobs.advance()
    assert held(here) == {name_of(0): [0, 2, 4, 6], name_of(1): [1, 3, 5]}
    assert jobs.advance() == []
    assert len(here.server.created) == 2
    for task in tasks[::2]:
        commit_task(task, here.artifacts)
    here.server.end(name_of(0))
    assert [done.step.label for done in jobs.advance()] == [task.key for task in tasks[::2]]
    assert len(here.server.created) == 2


def test_a_slot_that_is_free_first_does_not_get_all_trainings(here: Here) -> None:
    jobs = here.jobs(final(9), **{"tailfill/parallelism": "2"})
    jobs.advance()
    for number in range(6):
        jobs.begin(step_of(final(number)), final(number))
    jobs.advance()
    assert held(here) == {name_of(9): [9], name_of(0): [0, 1, 2]}


def step_of(task: Task) -> Step:
    step = Step(task.stage, None, task.key, task.config, {})
    step.__dict__["id"] = task.key
    return step


def test_a_control_that_starts_deals_what_no_job_holds(here: Here) -> None:
    here.jobs(*(final(number) for number in range(3)), **{"tailfill/parallelism": "1"}).advance()
    here.server.jobs[name_of(0)]["status"] = {"active": 1, "ready": 1}
    commit_task(final(0), here.artifacts)
    later = here.jobs(*(final(number) for number in range(1, 6)), **{"tailfill/parallelism": "2"})
    later.advance()
    assert held(here) == {name_of(0): [0, 1, 2], name_of(3): [3, 4]}


def test_a_running_block_with_a_training_that_left_the_plan_is_dealt_anew(here: Here) -> None:
    here.jobs(final(0), final(1), **{"tailfill/parallelism": "1"}).advance()
    here.server.jobs[name_of(0)]["status"] = {"active": 1, "ready": 1}
    here.jobs(final(1), final(2), study="2", **{"tailfill/parallelism": "1"}).advance()
    assert held(here) == {name_of(1): [1, 2]}


def test_a_block_fails_at_one_training_and_the_others_go_on(here: Here) -> None:
    tasks = [final(number) for number in range(4)]
    jobs = here.jobs(*tasks, **{"tailfill/parallelism": "1"})
    jobs.advance()
    commit_task(tasks[0], here.artifacts)
    here.server.end(name_of(0), "Failed")
    assert [done.step.label for done in jobs.advance()] == [tasks[0].key]
    assert {entry.task.key: entry.failed for entry in jobs.tasks.values()} == {
        tasks[1].key: "BackoffLimitExceeded", tasks[2].key: None, tasks[3].key: None
    }  # fmt: skip
    assert held(here) == {name_of(0): [0, 1, 2, 3], name_of(2): [2, 3]}
    del here.server.jobs[name_of(0)]  # by a person, to try again
    here.server.jobs[name_of(2)]["status"] = {"active": 1, "ready": 1}
    jobs.advance()
    assert held(here) == {name_of(2): [2, 3]}  # no more than one at once
    for task in tasks[2:]:
        commit_task(task, here.artifacts)
    here.server.end(name_of(2))
    jobs.advance()
    assert held(here) == {name_of(2): [2, 3], name_of(1): [1]}
    assert [entry.failed for entry in jobs.tasks.values()] == [None]


def test_what_a_running_block_has_committed_is_seen_before_it_ends(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "STORE_SECONDS", 0.0)
    jobs = here.jobs(final(0), final(1), **{"tailfill/parallelism": "1"})
    jobs.advance()
    here.server.jobs[name_of(0)]["status"] = {"active": 1, "ready": 1}
    commit_task(final(0), here.artifacts)
    assert [done.step.label for done in jobs.advance()] == [final(0).key]
    assert list(here.server.jobs) == [name_of(0)]
