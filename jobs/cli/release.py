"""A release from outside and from inside: where its Jobs and Pods stand, and commands that run in its control Pod.

From a person's machine only the Kubernetes API need be in reach; store and database are asked by the control Pod.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.control import mounted_study, open_mounted
from jobs.submit import SubmitRequest
from jobs.submit import submit_final as submit
from shared.artifacts.disk import disk_errors
from shared.config.load import parse
from shared.errors import ArtifactError, ConfigError, InputError, UnavailableError
from shared.kube.api import Cluster, Object
from shared.kube.manifests import KEY, jobs_selector, workers_selector
from shared.kube.release import Release
from shared.kube.states import gated, gpus_held, job_reason, job_state, leaving, mount_reason, pod_reason
from shared.names import path_below, shown
from shared.pipeline import search_status as progress
from shared.pipeline import status as status_module
from shared.pipeline.session import Session
from shared.pipeline.status import Doing
from shared.settings import Settings


@dataclass(frozen=True)
class ReleaseSnapshot:
    """What the Kubernetes API says of a release at one moment."""

    release: str
    control: list[Object]
    jobs: list[Object]
    pods: list[Object]
    """Of the Jobs."""
    workers: list[Object]
    events: list[Object]

    @classmethod
    def at(cls, cluster: Cluster, release: str) -> ReleaseSnapshot:
        """As it is now."""
        selector = jobs_selector(release)
        return cls(
            release,
            cluster.list("pods", _control_selector(release)),
            cluster.list("jobs", selector),
            cluster.list("pods", selector),
            cluster.list("pods", workers_selector(release)),
            cluster.list("events", field_selector="type=Warning"),
        )

    def doings(self) -> dict[str, Doing]:
        """What becomes of tasks that are Jobs."""
        return {
            f"{job['metadata']['labels']['app.kubernetes.io/component']}-{job['metadata']['labels'][KEY]}": self._doing(
                job
            )
            for job in self.jobs
            if job_state(job).phase != "complete"
        }

    def _doing(self, job: Object) -> Doing:
        name = job["metadata"]["name"]
        pods = [p for p in self.pods if p["metadata"]["labels"].get("batch.kubernetes.io/job-name") == name]
        reason = job_reason(job, pods, self._events_of(name))
        if reason is not None:
            return Doing("failed" if job_state(job).phase == "failed" else "pending", reason)
        if any(pod["status"].get("phase") == "Running" for pod in pods):
            return Doing("running")
        events = [event for pod in pods for event in self._events_of(pod["metadata"]["name"])]
        return Doing("pending", mount_reason(events) or "its Pod is starting")

    def _events_of(self, name: str) -> list[Object]:
        return [event for event in self.events if event["involvedObject"].get("name") == name]

    def lines(self) -> list[str]:
        """Control, workers and GPUs, and what keeps each from working."""
        return [self._control_line(), *self._worker_lines(), f"GPUs held: {self.gpus}"]

    @property
    def gpus(self) -> int:
        """Of all of the release's Pods that have a node."""
        return gpus_held([*self.pods, *self.workers])

    def _control_line(self) -> str:
        alive = [pod for pod in self.control if not leaving(pod)]
        if not alive:
            return "control: has no Pod; see `kubectl describe deployment/" + self.release + "-control`"
        reason = next(filter(None, map(pod_reason, alive)), None)
        phase = str(alive[0]["status"].get("phase", "Pending")).lower()
        return f"control: {reason or phase}"

    def _worker_lines(self) -> list[str]:
        there = [pod for pod in self.workers if not leaving(pod)]
        waiting = [pod for pod in there if gated(pod)]
        at_work = len(there) - len(waiting)
        lines = [
            f"workers: {len(there)} in all, {at_work} with work, {len(waiting)} that wait for some and hold no GPU"
        ]
        stuck = {pod["metadata"]["name"]: pod_reason(pod) for pod in there}
        return lines + [f"  {name}: {reason}" for name, reason in stuck.items() if reason]

    def as_json(self) -> dict[str, Any]:
        """The same for a script."""
        there = [pod for pod in self.workers if not leaving(pod)]
        return {
            "control": self._control_line().removeprefix("control: "),
            "workers": {"all": len(there), "waiting": sum(map(gated, there))},
            "gpus_held": self.gpus,
            "stuck": {p["metadata"]["name"]: reason for p in [*self.pods, *there] if (reason := pod_reason(p))},
        }


def _control_selector(release: str) -> str:
    return f"app.kubernetes.io/instance={release},app.kubernetes.io/component=control"


# -- in the control Pod


def _look_into(settings: Settings) -> Session:
    return open_mounted(mounted_study(), settings, look=True)


def status(why: str | None, as_json: bool) -> str:
    """Where the release's study stands, and why nothing moves when nothing does; with `why`, what would make a stage run again."""
    settings = Settings.from_environment()
    release = Release.of_pod(settings)
    look = ReleaseSnapshot.at(release.cluster, release.name)
    try:
        opened = _look_into(settings)
        if why is not None:
            said = status_module.why(opened.study, opened.steps, opened.artifacts, why)
            return json.dumps({"why": said.splitlines()}, ensure_ascii=False) if as_json else said
        rows = status_module.states(opened.study, opened.steps, opened.artifacts, look.doings())
        remedies = progress.Remedies(
            f"see `kubectl logs deployment/{release.name}-control`",
            f"`kubectl scale deployment/{release.name}-tune --replicas=2` brings some, unless they are below with a reason",
        )
        searches = progress.search_states(rows, opened.artifacts, opened.database_url, remedies)
    except UnavailableError as error:
        said = f"nothing moves: {error}"
        return json.dumps({"stall": said, **look.as_json()}, indent=1) if as_json else "\n".join([said, *look.lines()])
    if as_json:
        return json.dumps(
            {"steps": status_module.as_json(rows, progress.as_json(searches)), **look.as_json()}, indent=1
        )
    return "\n".join(
        filter(None, [status_module.describe(rows, remedies.go_on), progress.describe(searches), *look.lines()])
    )


def submit_final(experiment: str | None, seeds: int | None, parameters: Mapping[str, Any] | None, as_json: bool) -> str:
    """Makes the final Jobs, follows them, and returns their metrics."""
    settings = Settings.from_environment()
    opened = _look_into(settings)
    return submit(Release.of_pod(settings), opened, SubmitRequest(experiment, seeds, parameters), as_json)


def report_archive() -> str:
    """The report's files as a tar in base64, for whoever has no way to the store."""
    settings = Settings.from_environment()
    opened = _look_into(settings)
    last = status_module.states(opened.study, opened.steps, opened.artifacts)[-1]
    if last.manifest is None:
        raise ConfigError("its report is not committed yet; `tailfill status --release` says where it stands")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for file in last.manifest.files:
            tar.add(opened.artifacts.fetch(file), arcname=file.name)
    return base64.b64encode(buffer.getvalue()).decode()


# -- from a person's machine


def run_in_control(release: str, namespace: str | None, arguments: Sequence[str], out: Any = None) -> int:
    """Runs `tailfill control ARGUMENTS` in the release's control Pod and returns its exit code; raises UnavailableError where none runs."""
    cluster = Cluster.of_kubeconfig(namespace)
    control = cluster.list("pods", _control_selector(release))
    running = [pod for pod in control if not leaving(pod) and _ready(pod)]
    if not running:
        look = ReleaseSnapshot.at(cluster, release)
        known = look.control or look.jobs or look.workers
        if not known:
            raise InputError(
                f"release {release}: there is none in the namespace {cluster.namespace}; name it with --release and --namespace, see `helm list -A`"
            )
        raise UnavailableError("\n".join([f"release {release}: its control Pod is not ready", *look.lines()]))
    return cluster.execute(
        running[0]["metadata"]["name"], ["tailfill", "control", *arguments], out or sys.stdout, sys.stderr
    )


def _ready(pod: Object) -> bool:
    """Whether a command can be run in it: also one whose services are away."""
    statuses = pod["status"].get("containerStatuses") or ()
    return any("running" in container.get("state", {}) for container in statuses)


def fetch(release: str, namespace: str | None, folder: Path) -> str:
    """Brings the report of a release into a folder; the path of its page."""
    archive = io.StringIO()
    code = run_in_control(release, namespace, ["report"], archive)
    if code == UnavailableError.exit_code:
        raise UnavailableError(f"release {release}: its store did not answer control; run again")
    if code:
        raise InputError(f"release {release}: no report could be fetched (exit {code} in its control Pod)")
    what = f"report of the release {release}"
    try:
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(archive.getvalue())), mode="r:gz") as tar:
            members = {path_below(folder, member.name, what): member for member in tar}
            for path, member in members.items():
                content = tar.extractfile(member) if member.isfile() else None
                if content is None:
                    raise ArtifactError(f"{what}: {shown(member.name)} is no regular file; run `report` again")
                with disk_errors(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content.read())
    except (ValueError, EOFError, OSError, tarfile.TarError, zlib.error) as error:
        raise ArtifactError(f"{what}: control sent no archive ({error}); run the same command again") from error
    return str(folder / "index.html")


def parameters_of(given: str) -> Mapping[str, Any] | None:
    """`best` → None; else a file with parameters by path (JSON or YAML, also a search's best.json), or their JSON itself."""
    if given == "best":
        return None
    try:
        text = given if given.lstrip().startswith("{") else Path(given).read_text()
    except OSError as error:
        raise ConfigError(
            f"--params {given}: cannot be read ({error}); give `best`, or a file with values by path"
        ) from error
    tree: Any = parse(text, "--params")[0] if text.strip() else {}
    tree = tree.get("parameters", tree)
    if not isinstance(tree, dict) or not tree:
        raise ConfigError(f"--params {given}: must be a mapping of paths to values, e.g. training.lr: 0.001")
    return tree
