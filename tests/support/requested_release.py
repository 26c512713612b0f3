"""Provides a release to which final trainings are requested, on a fake API server, with a control that carries them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.load import load_study
from shared.kube.api import Cluster
from shared.kube.manifests import held_tasks
from shared.kube.release import Release
from shared.kube.requests import SubmitRequest, request_body, withdrawal_body
from shared.pipeline.final_requests import FinalRequests, RequestState, repeat_of
from shared.pipeline.plan import plan
from shared.pipeline.session import Session
from shared.settings import Settings
from tests.support.committed import commit_steps
from tests.support.kube_server import KubeServer
from tests.support.small_study import SMALL_STUDY

STUDY = load_study(SMALL_STUDY, ["verdict=none"])
STEPS = plan(STUDY)
OWNER = {"metadata": {"name": "study-stages", "uid": "1"}}
NAME = "study-request-0"
LABELS = {
    "app.kubernetes.io/component": "final",
    "app.kubernetes.io/instance": "study",
    "app.kubernetes.io/managed-by": "tailfill-control",
}
MANIFEST: dict[str, Any] = {
    "metadata": {"labels": LABELS, "annotations": {"tailfill/parallelism": "2"}},
    "spec": {"template": {"metadata": {"labels": LABELS}}},
}


class RequestedRelease:
    """Holds a release, the server that has its objects, and a store in which the data and the search of the real arm are committed."""

    def __init__(self, server: KubeServer, client: Cluster, folder: Path) -> None:
        self.server, self.client = server, client
        self.artifacts = Artifacts(FolderStore(folder / "store"), STUDY.name, folder / "cache")
        real = [step for step in STEPS if step.label in ("prepare", "tune real")]
        commit_steps(STUDY, real, self.artifacts)
        environment = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
        self.session = Session(STUDY, STEPS, self.artifacts, Settings.from_environment(environment))
        self.requests = self.control()

    def control(self) -> FinalRequests:
        """Returns a control that has just started."""
        return FinalRequests(Release("study", self.client, {"final": MANIFEST}, OWNER, {}, "1"), self.session)

    def ask(self, request: SubmitRequest, name: str = NAME, **changes: Any) -> str:
        """Creates a request, and returns its uid."""
        self.server.add("configmaps", request_body(name, "study", STUDY.name, request, OWNER) | changes)
        return str(self.server.objects["configmaps"][name]["metadata"]["uid"])

    def withdraw(self, request: str, name: str = "study-request-x", **changes: Any) -> None:
        """Creates what withdraws a request."""
        self.server.add("configmaps", withdrawal_body(name, "study", request, OWNER) | changes)

    def kept(self) -> list[str]:
        """Returns the uids of the requests about which the store has a decision."""
        keys = self.artifacts.store.list(f"{STUDY.name}/cluster/requests/")
        return [key.rpartition("/")[2].removesuffix(".json") for key in keys]

    def advance(self, requests: FinalRequests | None = None) -> list[RequestState]:
        """Lets a control look, and returns the states."""
        requests = requests or self.requests
        requests.advance(list(self.server.jobs.values()))
        return requests.states()

    def submitted(self) -> dict[str, list[int]]:
        """Returns the repetitions that each Job trains."""
        tasks = {task.key: repeat_of(task) for state in self.requests.states() for task in state.tasks}
        return {name: [tasks[key] for _, key in held_tasks(job)] for name, job in self.server.jobs.items()}
