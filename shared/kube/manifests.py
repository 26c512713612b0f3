"""A stage's Job: the chart's manifest with a task in it.

The task travels as an annotation of the Pod, which a downwardAPI volume shows as a file: each Job has its own copy, and none is left
when the Job goes. What the chart's manifests give and what is added here: `helm/templates/stages-configmap.yaml`.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

from shared.artifacts.keys import canonical_digest
from shared.config.stages import STAGES, Stage
from shared.config.task import Task
from shared.errors import ConfigError
from shared.kube.api import Object

TASK = "tailfill/task"
"""Annotation of a Pod: its task as JSON."""
KEY = "tailfill/key"
"""Label of a stage's Job and Pods: the first letters of the task's key."""
SUBMITTED = "tailfill/submitted"
"""Label of a Job that a person made: control leaves it alone."""
MANIFEST = "tailfill/manifest"
"""Annotation of a Job: which manifest it was made from."""
PARALLELISM = "tailfill/parallelism"
"""Annotation of a manifest: so many Jobs of the stage at once."""
GATE = "tailfill/work"
"""The scheduling gate of a tuning worker without work."""
ROLE = "tailfill/role"
MANAGER = "tailfill-control"
KEY_LETTERS = 16
LARGEST_TASK = 250_000  # bytes; Kubernetes refuses Pods with more than 256 KiB of annotations


def job_name(release: str, stage: Stage, key: str) -> str:
    """`<release>-<stage>-<key8>`."""
    return f"{release}-{stage}-{key[:8]}"


def jobs_selector(release: str) -> str:
    """Labels of a release's stage Jobs and of their Pods."""
    return f"app.kubernetes.io/instance={release},app.kubernetes.io/managed-by={MANAGER}"


def workers_selector(release: str) -> str:
    """Labels of a release's tuning workers."""
    return f"app.kubernetes.io/instance={release},{ROLE}=worker"


def read_manifests(folder: Path) -> dict[Stage, Object]:
    """The chart's manifest of each stage; raises ConfigError where one is missing or is none."""
    found: dict[Stage, Object] = {}
    for stage in STAGES:
        path = folder / f"{stage}.json"
        try:
            found[stage] = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path}: is no manifest of the chart ({error}); install the chart of this version"
            ) from error
    return found


def stage_job(manifest: Object, release: str, task: Task, owner: Object, submitted: bool = False) -> Object:
    """The Job of a task, owned by `owner` (control's ServiceAccount, so that it goes with the release)."""
    job = copy.deepcopy(manifest)
    labels = {KEY: task.key[:KEY_LETTERS]} | ({SUBMITTED: "true"} if submitted else {})
    metadata, pod = job["metadata"], job["spec"]["template"]["metadata"]
    metadata["name"] = job_name(release, task.stage, task.key)
    metadata["ownerReferences"] = [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
        }
    ]
    metadata["annotations"] = {**metadata.get("annotations", {}), MANIFEST: manifest_digest(manifest)}
    for described in (metadata, pod):
        described["labels"] = {**described.get("labels", {}), **labels}
    text = task_annotation(task)
    pod["annotations"] = {**pod.get("annotations", {}), TASK: text}
    return job


def manifest_digest(manifest: Object) -> str:
    """Tells the manifests of two upgrades apart."""
    return canonical_digest(manifest)[:KEY_LETTERS]


def task_annotation(task: Task) -> str:
    """The task as a Pod carries it; raises ConfigError where no Pod can."""
    text = task.model_dump_json(by_alias=True)
    size = len(text.encode())
    if size > LARGEST_TASK:
        raise ConfigError(
            f"{task.stage} {task.key[:8]}: its task has {size} bytes, a Pod carries at most {LARGEST_TASK}; "
            "split the study: fewer experiments, or fewer final.seeds"
        )
    return text


def parallelism(manifest: Object) -> int | None:
    """How many Jobs of a stage may be there at once; None for any number."""
    value = manifest["metadata"].get("annotations", {}).get(PARALLELISM)
    return None if value is None else int(value)
