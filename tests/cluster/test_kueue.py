"""Tests a study whose Jobs wait in a queue of Kueue's: for a queue that there is not, for quota, and for what has preempted them.

The tests depend on each other and run in order. They need Kueue on the cluster (`make kind-kueue`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster_release import ROOT, Release, registry, tag, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]

VALUES = Path(__file__).parent / "small-values.yaml"
QUEUE = ROOT / "k8s" / "kueue" / "queue.yaml"
TRIALS = 6
TINY = "tailfill-tiny"
"""Names a LocalQueue whose quota no Pod of a stage fits in."""
PREEMPTIONS = 3  # of finetune


@pytest.fixture(scope="module", autouse=True)
def queues(release: Release) -> Iterator[None]:
    """Provides the queue of k8s/kueue/queue.yaml in the namespace, with a quota of two GPUs, and one with next to no quota."""
    if "clusterqueues" not in release.kubectl("api-resources", "--api-group=kueue.x-k8s.io", "-o", "name", check=False):
        pytest.skip("Kueue is not installed on this cluster: make kind-kueue")
    if not release.has_gpus():
        pytest.skip("no node has a GPU: make kind-gpus")
    objects = [found for found in yaml.safe_load_all(QUEUE.read_text()) if found]
    (cluster_queue,) = [found for found in objects if found["kind"] == "ClusterQueue"]
    (local_queue,) = [found for found in objects if found["kind"] == "LocalQueue"]
    cluster_queue["metadata"]["name"] = local_queue["spec"]["clusterQueue"] = release.namespace
    quota(cluster_queue, "nvidia.com/gpu", 1)
    tiny = json.loads(json.dumps(cluster_queue)) | {"metadata": {"name": TINY}}
    quota(tiny, "cpu", "5m")
    objects += [tiny, local_queue | {"metadata": {"name": "tiny"}, "spec": {"clusterQueue": TINY}}]
    release.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(objects))
    yield
    release.kubectl("delete", "jobs", "--all", "--wait=true")
    release.kubectl("delete", "clusterqueue", release.namespace, TINY, "--wait=false")


def values(folder: Path, queue: str = "research", shards: int = 1, fill_to: int = 14) -> Path:
    """Writes the values of the small study for a queue; finetune is preempted more often than it may fail."""
    tree = yaml.safe_load(VALUES.read_text())
    tree["kueue"] = {"queueName": queue}
    tree["study"]["generate"]["fill_to"] = fill_to
    tree["stages"] = {"finetune": {"backoffLimit": PREEMPTIONS - 2}, "generate": {"shards": shards}}
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def quota(cluster_queue: dict[str, Any], resource: str, value: object) -> None:
    """Sets the quota of a resource."""
    (found,) = [
        each
        for each in cluster_queue["spec"]["resourceGroups"][0]["flavors"][0]["resources"]
        if each["name"] == resource
    ]
    found["nominalQuota"] = value


def detail(release: Release, step: str) -> str:
    """Returns what the status says about a step."""
    return str(release.steps().get(step, {}).get("detail"))


def suspended(release: Release, stage: str) -> list[str]:
    """Returns the names of a stage's Jobs that are suspended."""
    return [name for name, job in release.jobs(stage).items() if job["spec"].get("suspend")]


def take_gpu(release: Release) -> None:
    """Creates a Job of high priority that takes the only GPU."""
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "urgent",
            "labels": {"kueue.x-k8s.io/queue-name": "research", "kueue.x-k8s.io/priority-class": "tailfill-high"},
        },
        "spec": {"suspend": True, "template": {"spec": urgent_pod()}},
    }
    release.kubectl("create", "-f", "-", text=json.dumps(job))


def urgent_pod() -> dict[str, Any]:
    """Returns the Pod of that Job, which sleeps."""
    limited = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    main = {
        "name": "main",
        "image": f"{registry()}/tailfill/control:{tag()}",
        "command": ["python", "-c", "import signal; signal.pause()"],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"nvidia.com/gpu": 1}},
        "securityContext": limited,
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "securityContext": security,
        "containers": [main],
    }


def give_gpu_back(release: Release) -> None:
    """Ends the Job of high priority."""
    release.kubectl("delete", "job", "urgent")


def preempt_finetune(release: Release, done: int) -> int:
    """Takes finetune's GPU after more than so many steps, looks at the status, and gives it back; returns the number of steps."""
    (pod,) = wait_for(lambda: release.pods("finetune", "Running"), "finetune runs", 300)
    wait_for(lambda: release.progress(pod) > done, "it has gone on", 120, 0.5)
    steps = release.progress(pod)
    take_gpu(release)
    wait_for(lambda: suspended(release, "finetune"), "it is preempted", 60)
    said = wait_for(lambda: "preempted" in (found := detail(release, "finetune")) and found, "it says so", 60)
    assert "the queue research has not admitted it" in said
    wait_for(lambda: not release.pods("finetune", "Running"), "its Pod has ended", 60)
    give_gpu_back(release)
    return steps


def test_a_queue_that_there_is_not(release: Release, tmp_path: Path) -> None:
    release.install(values(tmp_path, "nowhere"))
    wait_for(lambda: release.pods("control", "Running"), "control runs", 300)
    wait_for(lambda: "LocalQueue nowhere doesn't exist" in detail(release, "prepare"), "the status says so", 240)
    assert not release.pods("prepare")


def test_a_quota_that_is_too_small_for_ever(release: Release, tmp_path: Path) -> None:
    release.install(values(tmp_path, "tiny"))
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=120s")
    said = wait_for(lambda: "maximum capacity" in (found := detail(release, "prepare")) and found, "it says so", 120)
    assert "the queue tiny has not admitted it" in said
    assert "insufficient quota for cpu in flavor tailfill" in said


def test_a_preempted_training_goes_on_however_often_it_happens(release: Release, tmp_path: Path) -> None:
    release.install(values(tmp_path))
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=120s")
    done = 0
    for _ in range(PREEMPTIONS):
        done = preempt_finetune(release, done)
    (job,) = release.jobs("finetune").values()
    assert not job["status"].get("failed"), job["status"]
    wait_for(lambda: not suspended(release, "finetune"), "it goes on", 60)


def test_workers_beyond_the_quota_wait_and_say_so(release: Release) -> None:
    wait_for(lambda: release.workers(), "a worker", 300)
    stuck = wait_for(lambda: release.status()["stuck"], "the other waits", 120)
    ((name, said),) = stuck.items()
    assert name.startswith("study-worker-")
    assert "insufficient unused quota for nvidia.com/gpu in flavor tailfill, 1 more needed" in said
    assert len(release.workers(None)) == 1


def test_a_preempted_trial_is_resumed(release: Release) -> None:
    wait_for(lambda: any(search["running"] for search in release.searches().values()), "a trial runs", 240)
    take_gpu(release)
    wait_for(lambda: not release.workers(), "no worker runs", 60)
    wait_for(lambda: "preempted" in str(release.status()["stuck"]), "the status says so", 60)
    give_gpu_back(release)
    wait_for(lambda: any(search["resumes"] for search in release.searches().values()), "the trial is resumed", 240)
    assert not any(search["losses"] for search in release.searches().values())  # it was given back, with its checkpoint


def test_the_study_ends_and_nothing_ran_without_admission(release: Release) -> None:
    wait_for(lambda: release.jobs("report"), "the report's Job", 900, 3.0)
    wait_for(release.all_committed, "the report", 240, 3.0)
    found = release.summaries("tune")
    assert [(summary["trials"], summary["failed"]) for summary in found] == [(TRIALS, 0), (TRIALS, 0)]
    admitted = {
        owner["uid"]
        for workload in release.objects("workloads.kueue.x-k8s.io")
        for owner in workload["metadata"]["ownerReferences"]
        if any(c["type"] == "Finished" or c["type"] == "Admitted" for c in workload["status"]["conditions"])
    }
    jobs = release.objects("jobs", "app.kubernetes.io/managed-by=tailfill-control")
    assert {job["metadata"]["uid"] for job in jobs if job["status"].get("succeeded")} <= admitted
    assert not [job["metadata"]["name"] for job in jobs if job["status"].get("failed")]


def test_generate_begins_with_the_shards_that_fit(release: Release, tmp_path: Path) -> None:
    release.install(values(tmp_path, shards=2, fill_to=15))
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=120s")

    def both() -> list[dict[str, Any]]:
        jobs = release.jobs("generate").values()
        return [job for job in jobs if job["spec"]["completions"] == 2 and job["status"].get("succeeded") == 2]

    (job,) = wait_for(both, "both shards are complete", 300)
    assert job["spec"]["parallelism"] == 1  # the quota's only GPU
    release.helm("uninstall", release.name)
