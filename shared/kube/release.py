"""Reads a release from its control Pod: its manifests, and the Jobs that are created from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shared.artifacts.artifacts import Artifacts
from shared.config.stages import Stage
from shared.config.task import Task
from shared.errors import ConfigError
from shared.kube.api import Cluster, Object
from shared.kube.errors import ClusterError
from shared.kube.manifests import (
    TASK_FILE,
    WORKER,
    job_name,
    read_manifest,
    read_manifests,
    searches_name,
    stage_job,
    stages_name,
    worker_digest,
    worker_job,
    worker_name,
)
from shared.kube.states import failure, never_began
from shared.log import Log
from shared.settings import Settings

CHART = Path("/etc/tailfill")
"""Points to the folder in which the chart mounts `study/study.json` and `stages/<stage>.json`."""

log = Log("control")


@dataclass(frozen=True)
class Release:
    """Creates and reads the Jobs of a release, by the service account of its control Pod."""

    name: str
    cluster: Cluster
    manifests: Mapping[Stage, Object]
    owner: Object
    """Holds the ConfigMap of the manifests, with which the Jobs are deleted: it is the chart's, and a service account may be another's."""
    worker: Object
    """Holds the manifest of the tuning workers."""
    study: str
    """Holds the chart's digest of the study file and of `data.revision`, which changes only if a user changes either."""
    _begun_again: set[str] = field(default_factory=set, compare=False)
    """Holds the names of the Jobs that `begin_again` has deleted."""

    @classmethod
    def of_pod(cls, settings: Settings) -> Release:
        """Returns the release of the Pod in which this runs; raises ConfigError if it runs elsewhere."""
        if settings.release is None:
            raise ConfigError(
                "TAILFILL_RELEASE: is not set; control runs in a Pod of the chart, on one machine use `tailfill run`"
            )
        cluster = Cluster.of_pod(settings.namespace)
        name = stages_name(settings.release)
        owner = cluster.get("configmaps", name)
        if owner is None:
            raise ClusterError(
                f"configmap {name}: does not exist; the release is being uninstalled, or install the chart again"
            )
        stages = CHART / "stages"
        worker = read_manifest(stages, WORKER)
        return cls(settings.release, cluster, read_manifests(stages), owner, worker, settings.study)

    def job_name(self, tasks: Sequence[Task]) -> str:
        """Returns the name of the Job of a task or a block, that of its first task."""
        return job_name(self.name, tasks[0].stage, tasks[0].key)

    def create_job(self, artifacts: Artifacts, tasks: Sequence[Task], request: str = "") -> bool:
        """Writes a task or a block into the store and creates its Job; returns False if one of its name exists.

        `request` is the uid of the request for it, if a person has requested it.
        """
        reference = artifacts.save_tasks(tasks)
        body = stage_job(self.manifests[reference.stage], self.name, reference, self.owner, self.study, request)
        return self.cluster.create("jobs", body)

    def worker_name(self, number: int) -> str:
        """Returns the name of the Job of the worker with this number."""
        return worker_name(self.name, number)

    def create_worker(self, number: int, study_name: str) -> bool:
        """Creates the Job of the worker with this number; returns False if one of its name exists."""
        return self.cluster.create("jobs", worker_job(self.worker, self.name, number, study_name, self.owner))

    def worker_digest(self, study_name: str) -> str:
        """Returns the digest of the present manifest of the workers, for the study of that name."""
        return worker_digest(self.worker, study_name)

    def write_searches(self, tasks: str) -> bool:
        """Writes the tasks of the open searches for the workers; returns False if the chart's ConfigMap does not exist."""
        operation = {"op": "add", "path": "/data", "value": {TASK_FILE: tasks}}
        return self.cluster.patch("configmaps", searches_name(self.name), [operation])

    def failure(self, job: Object) -> str:
        """Returns the last error that a failed Job's Pods logged."""
        return failure(job, self._pods_of(job))

    def begin_again(self, job: Object) -> bool:
        """Deletes a failed Job whose program never began, so that it can be created again; once per name, else returns False."""
        name = job["metadata"]["name"]
        if name in self._begun_again or not never_began(job, self._pods_of(job)):
            return False
        self._begun_again.add(name)
        log.warning("a Job was told to end before its program began, and is created again", job=name)
        self.cluster.delete("jobs", name)
        return True

    def _pods_of(self, job: Object) -> list[Object]:
        return self.cluster.list("pods", f"batch.kubernetes.io/job-name={job['metadata']['name']}")
