"""Tests what the status of a release says about its Jobs, its workers and control."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.keys import new_task
from shared.config.load import load_study
from shared.kube.manifests import stage_job
from shared.pipeline.plan import plan
from shared.pipeline.release_status import ReleaseSnapshot
from shared.pipeline.status import task_id
from tests.support.committed import commit_task
from tests.support.kube_objects import job, pod


def test_of_a_block_one_training_runs_and_the_others_wait(tmp_path: Path) -> None:
    study = load_study(Path(__file__).parents[3] / "studies" / "demo.yaml")
    config = next(step for step in plan(study) if step.stage == "final").config
    tasks = [
        new_task(study.name, "final", config.model_copy(update={"repeat": number}), {}, study.resources)
        for number in range(6)
    ]
    artifacts = Artifacts(FolderStore(tmp_path / "store"), study.name, tmp_path / "cache")
    commit_task(tasks[0], artifacts)
    owner = {"metadata": {"name": "study-control", "uid": "1"}}

    def block(*numbers: int) -> dict[str, Any]:
        labels = {"app.kubernetes.io/component": "final"}
        manifest = {"metadata": {"labels": labels}, "spec": {"template": {"metadata": {"labels": labels}}}}
        return stage_job(manifest, "study", artifacts.save_tasks([tasks[number] for number in numbers]), owner, "1")

    working, failed = block(0, 1, 2), block(3, 4, 5)
    name = working["metadata"]["name"]
    condition = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": ""}
    failed["status"] = {"conditions": [condition]}
    again = block(4)
    pods = [
        {
            "metadata": {"name": one, "labels": {"batch.kubernetes.io/job-name": one}},
            "spec": {},
            "status": {"phase": "Running"},
        }
        for one in (name, again["metadata"]["name"])
    ]
    snapshot = ReleaseSnapshot("study", [], [working, failed, again], pods, [], [], 0, [])
    statuses = snapshot.task_statuses(artifacts)
    states = {number: statuses.get(task_id("final", task.key)) for number, task in enumerate(tasks)}
    assert {number: state.state if state else None for number, state in states.items()} == {
        0: None, 1: "running", 2: "pending", 3: "failed", 4: "running", 5: None
    }  # fmt: skip
    assert states[2] is not None
    assert states[2].detail == f"number 2 of what {name} has left"


def test_the_status_tells_workers_with_a_job_from_those_without_and_says_why_one_failed() -> None:
    failed = job("study-worker-2", ("Failed", "PodFailurePolicy", "exit code 2"))
    ended = {"terminated": {"exitCode": 2, "message": '{"level": "error", "event": "no such model"}'}}
    pods = [pod("a", node="n", gpus=1), pod("b", "Failed", node="n", gpus=1, state=ended, owner="uid-study-worker-2")]
    for found, name in zip(pods, ("study-worker-0", "study-worker-2"), strict=True):
        found["metadata"]["labels"]["batch.kubernetes.io/job-name"] = name
    workers = [job("study-worker-0"), job("study-worker-1", suspend=True), failed]
    workers[1]["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gold"}
    lacks = {"type": "QuotaReserved", "status": "False", "message": "insufficient quota for cpu in flavor default"}
    owner = [{"uid": "uid-study-worker-1"}]
    workload = {"metadata": {"ownerReferences": owner}, "status": {"conditions": [lacks]}}
    control = pod("study-control-a", state={"running": {}}, more={"ready": True})
    snapshot = ReleaseSnapshot("study", [control], [], [], workers, pods, 5, [], [workload])
    said = {
        "study-worker-1": "is suspended: the queue gold has not admitted it: insufficient quota for cpu in flavor default",
        "study-worker-2": "failed (PodFailurePolicy: exit code 2): exit 2: no such model",
    }
    first, counts, *reasons, last = snapshot.lines()
    assert (first, last, snapshot.control_runs) == ("control: running", "GPUs held: 1", True)
    assert counts.startswith(
        "workers: 5 allowed (`kubectl scale deployment/study-tune` changes it), 2 with a Job, 3 without: "
    )
    assert reasons == [f"  {name}: {reason}" for name, reason in said.items()]
    expected = {
        "control": "running",
        "workers": {"all": 5, "waiting": 3, "database_allows": None},
        "gpus_held": 1,
        "stuck": said,
    }
    assert snapshot.as_json() == expected


def test_the_status_says_why_the_cluster_refuses_workers() -> None:
    snapshot = ReleaseSnapshot("study", [], [], [], [], [], 2, [], refused_worker="study-worker-0: exceeded quota")
    assert "0 with a Job, 2 without: refused: study-worker-0: exceeded quota" in snapshot.lines()[1]
    assert snapshot.as_json()["stuck"] == {"workers": "refused: study-worker-0: exceeded quota"}


def test_the_status_says_that_postgresql_has_too_few_connections() -> None:
    snapshot = ReleaseSnapshot("study", [], [], [], [job("study-worker-0")], [], 50, [], database_allows=20)
    _, counts, *_ = snapshot.lines()
    assert "50 allowed" in counts
    assert (
        "PostgreSQL has connections for 20 (raise its max_connections, or use PgBouncer), 1 with a Job, 19 without"
        in counts
    )
    assert snapshot.as_json()["workers"] == {"all": 50, "waiting": 19, "database_allows": 20}
    plenty = replace(snapshot, database_allows=60)
    assert "PostgreSQL" not in "".join(plenty.lines())
    assert plenty.as_json()["workers"] == {"all": 50, "waiting": 49, "database_allows": 60}
