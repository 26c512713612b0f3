"""Implements the commands on a release: the state of its Jobs and Pods, its report, and final trainings.

On a user's machine only the Kubernetes API has to be reachable: commands run in the release's control Pod, which can reach store and database.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import sys
import tarfile
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.control import load_release_study, open_release_session, release_hints
from jobs.submit import SubmitRequest
from jobs.submit import submit_final as submit
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.disk import whole_file
from shared.config.plain_yaml import NAME_LENGTH, parse_value, read_text
from shared.errors import ArtifactError, ConfigError, InputError, UnavailableError
from shared.kube.api import Cluster, Object
from shared.kube.manifests import held_tasks, is_worker, jobs_selector
from shared.kube.release import Release
from shared.kube.states import gpus_held, job_reason, job_state, leaving, mount_reason, pod_reason, pods_of
from shared.names import checked_part, path_below, shown
from shared.pipeline import search_status
from shared.pipeline import status as step_status
from shared.pipeline.local_session import WORK
from shared.pipeline.session import Session
from shared.pipeline.status import TaskStatus, task_id
from shared.search.connections import workers_limit
from shared.settings import Settings
from shared.terminal import shortened

KILLED = 137  # 128 + SIGKILL, which the kernel sends to all that runs in a container whose first process has ended
REASON_SECONDS = 10.0  # for Kubernetes to say why a container ended
MOST_SENT = 1 << 28  # characters of base64; a report has some megabytes
MOST_UNPACKED = 4 << 30  # bytes
MOST_FILES = 10_000


@dataclass(frozen=True)
class ReleaseSnapshot:
    """Holds the objects of a release in the Kubernetes API at one moment."""

    release: str
    control: list[Object]
    """Lists the Pods of control."""
    jobs: list[Object]
    pods: list[Object]
    """Lists the Pods of the Jobs."""
    workers: list[Object]
    """Lists the Jobs of tuning workers."""
    workers_pods: list[Object]
    workers_allowed: int
    """Gives the number of workers to which users have scaled the Deployment."""
    events: list[Object]
    """Lists the warnings in the namespace."""
    workloads: Sequence[Object] = ()
    """Lists Kueue's Workloads in the namespace, if a Job is suspended."""
    database_allows: int | None = None
    """Gives the number of workers that PostgreSQL has connections for; None if it is not known, or a pooler is in between."""

    @classmethod
    def take(cls, cluster: Cluster, release: str) -> ReleaseSnapshot:
        """Returns the release as it is now."""
        selector = jobs_selector(release)
        jobs, pods = cluster.list("jobs", selector), cluster.list("pods", selector)
        scale = cluster.get("deployments", f"{release}-tune/scale")
        return cls(
            release,
            cluster.list("pods", _control_selector(release)),
            [job for job in jobs if not is_worker(job)],
            [pod for pod in pods if not is_worker(pod)],
            [job for job in jobs if is_worker(job)],
            [pod for pod in pods if is_worker(pod)],
            0 if scale is None else int(scale["spec"].get("replicas", 0)),
            cluster.list("events", field_selector="type=Warning"),
            cluster.list_if_served("workloads") if any(job_state(job).phase == "suspended" for job in jobs) else (),
        )

    def task_statuses(self, artifacts: Artifacts) -> dict[str, TaskStatus]:
        """Returns the status of each task that has a Job, by `task_id`.

        In a block, the Job's status is that of the first task that is not committed. The others wait for it; if the Job has failed, control
        creates another one for them.
        """
        statuses = dict[str, TaskStatus]()
        jobs = [job for job in self.jobs if job_state(job).phase != "complete"]
        for job in sorted(jobs, key=lambda job: job_state(job).phase == "failed", reverse=True):
            missing = [held for held in held_tasks(job) if artifacts.find(*held) is None]
            for position, held in enumerate(missing):
                if position == 0:
                    statuses[task_id(*held)] = self._task_status(job)
                elif job_state(job).phase != "failed":
                    name = job["metadata"]["name"]
                    statuses[task_id(*held)] = TaskStatus("pending", f"number {position + 1} of what {name} has left")
        return statuses

    def _task_status(self, job: Object) -> TaskStatus:
        name = job["metadata"]["name"]
        pods = pods_of(name, self.pods)
        reason = job_reason(job, pods, self._events_of(name), self.workloads)
        if reason is not None:
            return TaskStatus("failed" if job_state(job).phase == "failed" else "pending", reason)
        if any(pod["status"].get("phase") == "Running" for pod in pods):
            return TaskStatus("running")
        events = [event for pod in pods for event in self._events_of(pod["metadata"]["name"])]
        return TaskStatus("pending", mount_reason(events) or "its Pod is starting")

    def _events_of(self, name: str) -> list[Object]:
        return [event for event in self.events if event["involvedObject"].get("name") == name]

    def lines(self) -> list[str]:
        """Returns the state of control, workers and GPUs as text, with the reasons why one does not work."""
        return [f"control: {self._control_state()}", *self._worker_lines(), f"GPUs held: {self.gpus}"]

    @property
    def gpus(self) -> int:
        """Returns the number of GPUs that the release's Pods hold."""
        return gpus_held([*self.pods, *self.workers_pods])

    @property
    def control_runs(self) -> bool:
        """Returns whether control runs, and nothing speaks of a recent end."""
        return self._control_state() == "running"

    def _control_state(self) -> str:
        alive = [pod for pod in self.control if not leaving(pod)]
        if not alive:
            return f"has no Pod; see `kubectl describe deployment/{self.release}-control`"
        reason = next(filter(None, map(pod_reason, alive)), None)
        return reason or str(alive[0]["status"].get("phase", "Pending")).lower()

    def _worker_lines(self) -> list[str]:
        waiting = self._workers_without_job()
        without = f"{waiting} without: no trial waits for them, or they failed or were refused (see control's log)"
        held = ""
        if self.database_allows is not None and self.database_allows < self.workers_allowed:
            held = (
                f"PostgreSQL has connections for {self.database_allows} (raise its max_connections, or use PgBouncer), "
            )
        return [
            f"workers: {self.workers_allowed} allowed (`kubectl scale deployment/{self.release}-tune` changes it), {held}"
            f"{self._workers_with_job()} with a Job" + (f", {without}" if waiting else ""),
            *(f"  {name}: {reason}" for name, reason in self._stuck_workers().items()),
        ]

    def _workers_with_job(self) -> int:
        return sum(not job_state(job).ended for job in self.workers)

    def _workers_without_job(self) -> int:
        limit = self.workers_allowed if self.database_allows is None else self.database_allows
        return max(min(self.workers_allowed, limit) - self._workers_with_job(), 0)

    def _stuck_workers(self) -> dict[str, str]:
        """Returns why a worker's Job makes no progress, by its name."""
        jobs = {job["metadata"]["name"]: job for job in self.workers}
        reasons = {
            name: job_reason(job, pods_of(name, self.workers_pods), self._events_of(name), self.workloads)
            for name, job in jobs.items()
        }
        return {name: reason for name, reason in reasons.items() if reason}

    def as_json(self) -> dict[str, Any]:
        """Returns the same for a script, as JSON values."""
        stuck = {pod["metadata"]["name"]: reason for pod in self.pods if (reason := pod_reason(pod))}
        return {
            "control": self._control_state(),
            "workers": {
                "all": self.workers_allowed,
                "waiting": self._workers_without_job(),
                "database_allows": self.database_allows,
            },
            "gpus_held": self.gpus,
            "stuck": stuck | self._stuck_workers(),
        }


def _control_selector(release: str) -> str:
    return f"app.kubernetes.io/instance={release},app.kubernetes.io/component=control"


# -- in the control Pod


def _open_session(settings: Settings) -> Session:
    return open_release_session(load_release_study(), settings)


def status(why: str | None, as_json: bool) -> str:
    """Returns the progress of the release's study, and why nothing moves if nothing does.

    With `why`, it returns what would make that stage run again.
    """
    settings = Settings.from_environment()
    release = Release.of_pod(settings)
    snapshot = ReleaseSnapshot.take(release.cluster, release.name)
    try:
        session = _open_session(settings)
        if why is not None:
            reasons = step_status.why(session.study, session.steps, session.artifacts, why)
            return json.dumps({"why": reasons.splitlines()}, ensure_ascii=False) if as_json else reasons
        statuses = snapshot.task_statuses(session.artifacts)
        rows = step_status.states(session.study, session.steps, session.artifacts, statuses)
        hints = release_hints(release.name)
        searches = search_status.search_states(rows, session.artifacts, session.database_url, hints)
        snapshot = replace(snapshot, database_allows=_database_allows(session, len(searches)))
    except UnavailableError as error:
        stall = f"nothing moves: {error}"
        if as_json:
            return json.dumps({"stall": stall, **snapshot.as_json()}, indent=1)
        return "\n".join([stall, *snapshot.lines()])
    if as_json:
        steps = step_status.as_json(rows, search_status.as_json(searches))
        return json.dumps({"steps": steps, **snapshot.as_json()}, indent=1)
    texts = [step_status.describe(rows, hints.resume), search_status.describe(searches), *snapshot.lines()]
    return "\n".join(filter(None, texts))


def _database_allows(session: Session, searches: int) -> int | None:
    """Returns how many workers PostgreSQL has connections for; None without a search, or if it is unavailable, as the searches' lines say."""
    try:
        return workers_limit(session.database_url, searches) if searches else None
    except UnavailableError:
        return None


def submit_final(experiment: str | None, seeds: int | None, parameters: Mapping[str, Any] | None, as_json: bool) -> str:
    """Creates the Jobs of final trainings, follows them, and returns their metrics."""
    settings = Settings.from_environment()
    session = _open_session(settings)
    return submit(Release.of_pod(settings), session, SubmitRequest(experiment, seeds, parameters), as_json)


def report_archive() -> str:
    """Returns the report's files as a tar archive in base64; raises ConfigError if the report is not committed."""
    settings = Settings.from_environment()
    session = _open_session(settings)
    last = step_status.states(session.study, session.steps, session.artifacts)[-1]
    if last.manifest is None:
        raise ConfigError("its report is not committed yet; `tailfill status --release` shows its progress")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for file in last.manifest.files:
            tar.add(session.artifacts.fetch(file), arcname=file.name)
    return base64.b64encode(buffer.getvalue()).decode()


# -- on a user's machine


def run_in_control(release: str, namespace: str | None, arguments: Sequence[str], out: Any = None) -> int:
    """Runs `tailfill control ARGUMENTS` in the release's control Pod, writes its stdout to `out`, and returns its exit code.

    Raises InputError if there is no such release, and UnavailableError if its control Pod is not running.
    """
    cluster = Cluster.of_kubeconfig(namespace)
    pod = _running_control(cluster, release)
    try:
        code = cluster.execute(pod, ["tailfill", "control", *arguments], out or sys.stdout, sys.stderr)
        if code == KILLED:
            raise UnavailableError("the command was killed: its container ended, or had no memory left; run it again")
        return code
    except UnavailableError as error:
        lines = _snapshot_after_end(cluster, release).lines()
        raise UnavailableError("\n".join([f"release {release}: {error}", *lines])) from error


def _snapshot_after_end(cluster: Cluster, release: str) -> ReleaseSnapshot:
    """Returns the release after its control Pod was lost; Kubernetes may need some seconds until it says why its container ended."""
    deadline = time.monotonic() + REASON_SECONDS
    while True:
        snapshot = ReleaseSnapshot.take(cluster, release)
        if not snapshot.control_runs or time.monotonic() >= deadline:
            return snapshot
        time.sleep(0.5)


def _running_control(cluster: Cluster, release: str) -> str:
    """Returns the name of the release's control Pod that runs; raises the errors of `run_in_control` if there is none."""
    control = cluster.list("pods", _control_selector(release))
    running = [pod for pod in control if not leaving(pod) and _ready(pod)]
    if running:
        return str(running[0]["metadata"]["name"])
    snapshot = ReleaseSnapshot.take(cluster, release)
    if not (snapshot.control or snapshot.jobs or snapshot.workers):
        raise InputError(
            f"release {release}: there is none in the namespace {cluster.namespace}; name it with --release and --namespace, "
            "see `helm list -A`, or its fullnameOverride if it has one"
        )
    raise UnavailableError("\n".join([f"release {release}: its control Pod is not ready", *snapshot.lines()]))


def _ready(pod: Object) -> bool:
    """Returns whether a command can be run in the Pod, which needs no service for that."""
    statuses = pod["status"].get("containerStatuses") or ()
    return any("running" in container.get("state", {}) for container in statuses)


class _Archive(io.StringIO):
    """Holds what control prints, which has an end."""

    def __init__(self, release: str) -> None:
        super().__init__()
        self._release = release

    def write(self, text: str, /) -> int:
        """Adds text; raises ArtifactError if there is more than any report has."""
        if self.tell() + len(text) > MOST_SENT:
            raise ArtifactError(
                f"report of the release {self._release}: control sends more than {MOST_SENT:,} characters, which no report has; "
                "see what runs in its control Pod"
            )
        return super().write(text)


def print_release_report(release: str, namespace: str | None, workdir: Path | None, as_json: bool) -> str:
    """Copies a release's report into the work directory, `work/<release>` by default.

    Returns the path of its page or, with `as_json`, its results.json.
    """
    folder = workdir or WORK / checked_part(release, "--release", ConfigError)
    page = fetch_release_report(release, namespace, folder / "report")
    return (Path(page).parent / "results.json").read_text() if as_json else page


def fetch_release_report(release: str, namespace: str | None, folder: Path) -> str:
    """Copies the report of a release into a folder, and returns the path of its page.

    Raises ArtifactError if what control sent is damaged or would be written outside of the folder, and the errors of `run_in_control`.
    """
    archive = _Archive(release)
    code = run_in_control(release, namespace, ["report"], archive)
    if code == UnavailableError.exit_code:
        raise UnavailableError(f"release {release}: its store did not answer control; run again")
    if code:
        raise InputError(f"release {release}: no report could be fetched (exit {code} in its control Pod)")
    what = f"report of the release {release}"
    try:
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(archive.getvalue())), mode="r:gz") as tar:
            unpacked = 0
            for number, member in enumerate(tar, 1):
                path = path_below(folder, member.name, what)
                unpacked += member.size
                if number > MOST_FILES or unpacked > MOST_UNPACKED:
                    raise ArtifactError(
                        f"{what}: unpacks to more than any report has; see what runs in its control Pod"
                    )
                content = tar.extractfile(member) if member.isfile() else None
                if content is None:
                    raise ArtifactError(f"{what}: {shown(member.name)} is not a regular file; run `report` again")
                with whole_file(path, private=False) as temporary, temporary.open("wb") as file:
                    shutil.copyfileobj(content, file)
    except (ValueError, EOFError, OSError, tarfile.TarError, zlib.error) as error:
        raise ArtifactError(f"{what}: control sent no archive ({error}); run the same command again") from error
    return str(folder / "index.html")


def read_parameters(given: str) -> Mapping[str, Any] | None:
    """Returns the parameters by path of `--params`, or None for `best`.

    `given` is a JSON or YAML file, which may be a search's best.json, or the JSON itself. Raises ConfigError if it is neither.
    """
    if given == "best":
        return None
    if given.lstrip().startswith("{"):
        name, text = "--params", given
    else:
        name = f"--params {given}"
        text = read_text(Path(given), name, "give `best`, or a file with values by path")
    tree = parse_value(text, name)[0]
    tree = tree.get("parameters", tree) if isinstance(tree, dict) else tree
    if not isinstance(tree, dict) or not tree:
        raise ConfigError(
            f"{shortened(name, NAME_LENGTH)}: must be a mapping of paths to values, e.g. training.lr: 0.001"
        )
    return tree
