"""Builds a stage's Job: the chart's manifest with a task in it, or with a block of tasks. Builds the Jobs of tuning workers too.

The tasks are in the store. An annotation of the Pod refers to them, and a downwardAPI volume shows it as a file. Jobs that version 0.1.0 made hold
their tasks in that annotation. A worker has no task of its own: all read the open searches from one ConfigMap, which control keeps up to date.
`helm/templates/_stage.tpl` renders the rest of the manifest, except the Job's name, owner, key and digest, which are added here too.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path

from shared.artifacts.keys import canonical_digest
from shared.config.stages import STAGES, Stage
from shared.config.task import TaskReference, references_of_json
from shared.errors import ConfigError
from shared.kube.api import Object

TASK = "tailfill/task"
"""Names the annotation of a Pod that refers to its tasks, by a `TaskReference` as JSON."""
KEY = "tailfill/key"
"""Names the label of a stage's Job and Pods that holds the first letters of the key of their task, the first one of a block."""
SUBMITTED = "tailfill/submitted"
"""Names the label of a Job for a person's request, which control does not delete; it holds the uid of the request."""
MANIFEST = "tailfill/manifest"
"""Names the annotation of a Job that holds the digest of its manifest."""
STUDY = "tailfill/study"
"""Names the label of a stage's Job that holds the chart's digest of the study file and of `data.revision`."""
PARALLELISM = "tailfill/parallelism"
"""Names the annotation of a manifest that limits how many Jobs of the stage run at once."""
ROLE = "tailfill/role"
"""Names the label that tells tuning workers from coordinators, which have the same component."""
WORKER = "worker"
"""Gives the value of `ROLE` that workers have, and the name of their manifest."""
NUMBER = "tailfill/worker"
"""Names the label of a worker's Job that holds its number, counted from 0."""
TASK_FILE = "task.json"
MANAGER = "tailfill-control"
KEY_LETTERS = 16
MOST_TASKS = 100  # of a Job, so that it stays small: control and the API server hold all Jobs in memory


def job_name(release: str, stage: Stage, key: str) -> str:
    """Returns the name of a stage's Job: `<release>-<stage>-<first 8 letters of the key>`."""
    return f"{release}-{stage}-{key[:8]}"


def jobs_selector(release: str) -> str:
    """Returns the label selector of all Jobs that control makes for a release, workers' too, and of their Pods."""
    return f"app.kubernetes.io/instance={release},app.kubernetes.io/managed-by={MANAGER}"


def is_worker(found: Object) -> bool:
    """Returns whether a Job or Pod is that of a tuning worker."""
    return bool(found["metadata"].get("labels", {}).get(ROLE) == WORKER)


def searches_name(release: str) -> str:
    """Returns the name of the ConfigMap that holds the tasks of the open searches, which the workers read."""
    return f"{release}-searches"


def stages_name(release: str) -> str:
    """Returns the name of the ConfigMap that holds the manifests of the stages and workers."""
    return f"{release}-stages"


def read_manifests(folder: Path) -> dict[Stage, Object]:
    """Returns the chart's manifest of each stage; raises ConfigError if one is missing or is not JSON."""
    return {stage: read_manifest(folder, stage) for stage in STAGES}


def read_manifest(folder: Path, name: str) -> Object:
    """Returns the chart's manifest of a stage, or of the workers; raises ConfigError if it is missing or is not JSON."""
    path = folder / f"{name}.json"
    try:
        found: Object = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: is no manifest of the chart ({error}); install the chart of this version"
        ) from error
    return found


def stage_job(
    manifest: Object, release: str, tasks: TaskReference, owner: Object, study: str, request: str = ""
) -> Object:
    """Returns the Job of one or several tasks in the store, owned by `owner` (a ConfigMap of the chart's, so that it is deleted with the release).

    `study` is the chart's digest of the study for which it is made, and `request` the uid of the request for it, if a person has requested it.
    """
    key = tasks.keys[0]
    labels = {KEY: key[:KEY_LETTERS], STUDY: study} | ({SUBMITTED: request} if request else {})
    job = _job(manifest, job_name(release, tasks.stage, key), labels, manifest_digest(manifest), owner)
    pod = job["spec"]["template"]["metadata"]
    pod["annotations"] = {**pod.get("annotations", {}), TASK: tasks.model_dump_json()}
    return job


def worker_name(release: str, number: int) -> str:
    """Returns the name of a worker's Job."""
    return f"{release}-{WORKER}-{number}"


def worker_job(manifest: Object, release: str, number: int, study_name: str, owner: Object) -> Object:
    """Returns the Job of the worker with this number, which works on the searches of the study of that name."""
    digest = worker_digest(manifest, study_name)
    return _job(manifest, worker_name(release, number), {NUMBER: str(number)}, digest, owner)


def _job(manifest: Object, name: str, labels: Mapping[str, str], digest: str, owner: Object) -> Object:
    job = copy.deepcopy(manifest)
    metadata, described = job["metadata"], owner["metadata"]
    metadata["name"] = name
    metadata["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": described["name"], "uid": described["uid"]}
    ]
    metadata["annotations"] = {**metadata.get("annotations", {}), MANIFEST: digest}
    for labelled in (metadata, job["spec"]["template"]["metadata"]):
        labelled["labels"] = {**labelled.get("labels", {}), **labels}
    return job


def manifest_digest(manifest: Object) -> str:
    """Returns a short digest of a manifest, by which upgrades that change it are noticed."""
    return canonical_digest(manifest)[:KEY_LETTERS]


def worker_digest(manifest: Object, study_name: str) -> str:
    """Returns the digest of the manifest of a worker, which works on the searches of the study of that name."""
    return canonical_digest({"manifest": manifest, "study": study_name})[:KEY_LETTERS]


def held_tasks(job: Object) -> list[tuple[Stage, str]]:
    """Returns the stage and key of each task of a Job, in the order in which its Pod runs them."""
    annotations = job["spec"]["template"]["metadata"].get("annotations") or {}
    return references_of_json(annotations.get(TASK, ""))


def parallelism(manifest: Object) -> int | None:
    """Returns how many Jobs of a stage may exist at once; None if there is no limit."""
    value = manifest["metadata"].get("annotations", {}).get(PARALLELISM)
    return None if value is None else int(value)
