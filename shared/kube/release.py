"""A release as its control Pod sees it: its manifests, and the Jobs that are made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.config.stages import Stage
from shared.config.task import Task
from shared.errors import ConfigError
from shared.kube.api import Cluster, ClusterError, Object
from shared.kube.manifests import job_name, read_manifests, stage_job
from shared.kube.states import failure
from shared.settings import Settings

CHART = Path("/etc/tailfill")
"""Where the chart mounts `study/study.json` and `stages/<stage>.json`."""


@dataclass(frozen=True)
class Release:
    """A release, by the service account of its control Pod."""

    name: str
    cluster: Cluster
    manifests: Mapping[Stage, Object]
    owner: Object
    """Control's ServiceAccount, whose end is the end of all Jobs."""

    @classmethod
    def of_pod(cls, settings: Settings) -> Release:
        """Of the Pod that this runs in; raises ConfigError elsewhere."""
        if settings.release is None:
            raise ConfigError(
                "TAILFILL_RELEASE: is not set; control runs in a Pod of the chart, on one machine use `tailfill run`"
            )
        cluster = Cluster.of_pod(settings.namespace)
        account = f"{settings.release}-control"
        owner = cluster.get("serviceaccounts", account)
        if owner is None:
            raise ClusterError(
                f"serviceaccount {account}: is not there; the release is being uninstalled, or install the chart again"
            )
        return cls(settings.release, cluster, read_manifests(CHART / "stages"), owner)

    def job_name(self, task: Task) -> str:
        """Of a task."""
        return job_name(self.name, task.stage, task.key)

    def create_job(self, task: Task, submitted: bool = False) -> bool:
        """Makes the task's Job; False where there is one."""
        body = stage_job(self.manifests[task.stage], self.name, task, self.owner, submitted)
        return self.cluster.create("jobs", body)

    def failure(self, job: Object) -> str:
        """What a failed Job's Pods said last."""
        return failure(job, self.cluster.list("pods", f"batch.kubernetes.io/job-name={job['metadata']['name']}"))
