"""Tests how a stage's Job is built from the chart's manifest and a task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.config.stages import STAGES
from shared.config.task import Task, TaskReference, block_json
from shared.errors import ConfigError
from shared.kube.manifests import (
    MOST_TASKS,
    held_tasks,
    is_worker,
    job_name,
    manifest_digest,
    parallelism,
    read_manifests,
    stage_job,
    worker_digest,
    worker_job,
)
from tests.support.configs import any_config

MANIFEST: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"labels": {"app.kubernetes.io/component": "final"}, "annotations": {"tailfill/parallelism": "2"}},
    "spec": {
        "template": {"metadata": {"labels": {"app.kubernetes.io/component": "final"}}, "spec": {"containers": []}}
    },
}
OWNER = {"metadata": {"name": "study-control", "uid": "1-2-3"}}
TASK = Task(study="s", stage="final", key="0123456789abcdef" * 4, config=any_config("final"), experiment="real")


def reference(*tasks: Task) -> TaskReference:
    """Returns what the Job of these tasks carries."""
    return TaskReference(study="s", stage="final", keys=tuple(task.key for task in tasks), digest="d" * 64)


def test_a_job_is_the_chart_s_manifest_with_a_task() -> None:
    before = json.dumps(MANIFEST)
    job = stage_job(MANIFEST, "study", reference(TASK), OWNER, "digest")
    assert json.dumps(MANIFEST) == before
    assert job["metadata"]["name"] == job_name("study", "final", TASK.key) == "study-final-01234567"
    assert job["metadata"]["ownerReferences"][0]["uid"] == "1-2-3"
    assert job["metadata"]["annotations"] == {
        "tailfill/parallelism": "2",
        "tailfill/manifest": manifest_digest(MANIFEST),
    }
    pod = job["spec"]["template"]["metadata"]
    for labels in (job["metadata"]["labels"], pod["labels"]):
        assert labels == {
            "app.kubernetes.io/component": "final",
            "tailfill/key": "0123456789abcdef",
            "tailfill/study": "digest",
        }
    assert TaskReference.model_validate_json(pod["annotations"]["tailfill/task"]) == reference(TASK)
    assert parallelism(MANIFEST) == 2
    assert (
        stage_job(MANIFEST, "study", reference(TASK), OWNER, "digest", request="uid-r")["metadata"]["labels"][
            "tailfill/submitted"
        ]
        == "uid-r"
    )


def test_the_job_of_a_block_holds_its_tasks_in_order_and_has_the_first_one_s_name() -> None:
    second = TASK.model_copy(update={"key": "f" * 64, "experiment": "synthetic"})
    job = stage_job(MANIFEST, "study", reference(TASK, second), OWNER, "digest")
    assert job["metadata"]["name"] == "study-final-01234567"
    assert held_tasks(job) == [("final", TASK.key), ("final", second.key)]
    assert held_tasks(stage_job(MANIFEST, "study", reference(TASK), OWNER, "digest")) == [("final", TASK.key)]
    assert held_tasks(MANIFEST) == []


def test_a_job_of_version_0_1_0_carries_its_tasks_themselves() -> None:
    second = TASK.model_copy(update={"key": "f" * 64})
    for tasks in ([TASK], [TASK, second]):
        job = stage_job(MANIFEST, "study", reference(*tasks), OWNER, "digest")
        job["spec"]["template"]["metadata"]["annotations"]["tailfill/task"] = block_json(tasks)
        assert held_tasks(job) == [("final", task.key) for task in tasks]


def test_the_job_of_a_worker_has_a_number_and_no_task() -> None:
    job = worker_job(MANIFEST, "study", 3, "s", OWNER)
    assert job["metadata"]["name"] == "study-worker-3"
    assert job["metadata"]["labels"]["tailfill/worker"] == "3"
    assert "annotations" not in job["spec"]["template"]["metadata"]
    digest = job["metadata"]["annotations"]["tailfill/manifest"]
    assert digest == worker_digest(MANIFEST, "s") != worker_digest(MANIFEST, "another")
    assert not is_worker(job)  # by the role in its manifest, which this one lacks
    assert is_worker({"metadata": {"labels": {"tailfill/role": "worker"}}})


def test_a_job_is_small_whatever_its_tasks() -> None:
    tasks = [TASK.model_copy(update={"key": f"{number:064x}"}) for number in range(MOST_TASKS)]
    assert len(json.dumps(stage_job(MANIFEST, "study", reference(*tasks), OWNER, "digest"))) < 10_000


def test_a_chart_of_another_version(tmp_path: Path) -> None:
    for stage in list(STAGES)[:-1]:
        (tmp_path / f"{stage}.json").write_text(json.dumps(MANIFEST))
    with pytest.raises(ConfigError, match=r"report\.json: is no manifest of the chart"):
        read_manifests(tmp_path)
    (tmp_path / "report.json").write_text(json.dumps(MANIFEST))
    assert read_manifests(tmp_path)["report"] == MANIFEST
