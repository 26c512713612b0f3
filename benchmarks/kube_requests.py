"""Counts what releases ask of the Kubernetes API, on an API server that runs nothing (`tests/support/kube_server.py`), over HTTP.

Each release is control's own executor with its own connections, in a thread of this process: first while its last Jobs end, then idle, as control is
once the report is there. Then one release has thousands of Jobs at work, and control restarts.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import yaml

from jobs.control import DONE_SECONDS
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.keys import new_task
from shared.config.load import load_study
from shared.config.stages import STAGES, Stage
from shared.config.task import Input, Task
from shared.kube.api import Cluster, Object
from shared.kube.release import Release
from shared.pipeline import kube_executor
from shared.pipeline.kube_executor import KubeExecutor
from shared.pipeline.plan import Step, plan
from shared.pipeline.session import Session
from shared.settings import Settings
from tests.support.kube_server import KubeServer, connected, disconnect, kube_server

ROOT = Path(__file__).parents[1]
STUDY = load_study(ROOT / "studies" / "demo.yaml")
RELEASES = 500  # for which the requests of the releases are scaled up
STARTED = "2026-11-28T12:00:00Z"
IN_WORK: Object = {"active": 1, "ready": 1, "startTime": STARTED}


@dataclass(frozen=True)
class Asked:
    """Holds what was asked in some time."""

    seconds: float
    requests: Mapping[str, int]
    """Counts requests by method and kind; `WATCH jobs` begins a watch."""
    megabytes: float
    connections: int

    @property
    def rate(self) -> float:
        """Returns the requests per second."""
        return sum(self.requests.values()) / self.seconds


class Meter:
    """Measures what a server is asked from now on."""

    def __init__(self, server: KubeServer) -> None:
        self._server, self._since = server, time.monotonic()
        self._requests, self._sent, self._connections = len(server.requests), server.sent.total(), server.connections

    def read(self) -> Asked:
        """Returns what was asked since."""
        server = self._server
        requests = Counter(server.requests[self._requests :])
        sent = (server.sent.total() - self._sent) / 1e6
        return Asked(time.monotonic() - self._since, requests, sent, server.connections - self._connections)


def chart_manifests() -> dict[str, Object]:
    """Returns the chart's manifests by stage, and that of the workers, as Helm renders them."""
    secrets = ROOT / "tests" / "helm" / "existing-secrets.yaml"
    command = [
        os.environ.get("HELM", "helm"),
        "template",
        "study",
        str(ROOT / "helm"),
        "-f",
        str(secrets),
        "--kube-version",
        "1.31.0",
    ]
    objects = yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    (stages,) = (found for found in objects if found and found["metadata"]["name"] == "study-stages")
    return {file.removesuffix(".json"): json.loads(text) for file, text in stages["data"].items()}


def open_release(name: str, cluster: Cluster, manifests: Mapping[str, Object]) -> Release:
    """Returns a release of this name, whose Jobs have its labels."""
    own = json.loads(
        json.dumps(manifests).replace(
            '"app.kubernetes.io/instance": "study"', f'"app.kubernetes.io/instance": "{name}"'
        )
    )
    stages: dict[Stage, Object] = {stage: own[stage] for stage in STAGES}
    owner = {"metadata": {"name": f"{name}-control", "uid": "1"}}
    return Release(name, cluster, stages, owner, own["worker"], "1")


def open_session(folder: Path) -> Session:
    """Returns a session of the demo with a store in a folder."""
    artifacts = Artifacts(FolderStore(folder / "store"), STUDY.name, folder / "cache")
    return Session(STUDY, plan(STUDY), artifacts, Settings.from_environment({}))


def trainings(count: int) -> list[Task]:
    """Returns final trainings of an hour each, so that each one has a Job of its own."""
    final = next(step for step in plan(STUDY) if step.stage == "final")
    inputs = {
        role: Input(stage=role, key="a" * 64, digest="b" * 64)
        for role in ("prepare", "generate", "judge", "score", "tune")
    }  # fmt: skip
    configs = (final.config.model_copy(update={"repeat": repeat}) for repeat in range(count))
    tasks = (new_task(STUDY.name, "final", config, inputs, STUDY.resources, "synthetic") for config in configs)
    return [task.model_copy(update={"expected_seconds": 3600.0}) for task in tasks]


def begin(executor: KubeExecutor, tasks: list[Task]) -> None:
    """Gives the executor the tasks."""
    for task in tasks:
        step = Step(task.stage, None, task.key, task.config, {})
        step.__dict__["id"] = task.key
        executor.begin(step, task)


class IdleRelease(threading.Thread):
    """Runs a release from the end of its last Jobs on, until it is told to stop."""

    def __init__(self, number: int, server: KubeServer, manifests: Mapping[str, Object], folder: Path) -> None:
        super().__init__(daemon=True)
        self.release_name = f"r{number}"
        self._server, self._folder = server, folder
        self.cluster = connected(server)
        self._release = open_release(self.release_name, self.cluster, manifests)
        self.stop = threading.Event()

    def run(self) -> None:
        """Begins with a Job and a worker at work, which end; then does what control does once the report is there."""
        executor = KubeExecutor(self._release, open_session(self._folder))
        self._release.create_worker(0, STUDY.name)
        tasks = trainings(1)
        begin(executor, tasks)
        executor.advance()
        (name,) = (name for name in list(self._server.jobs) if name.startswith(f"{self.release_name}-final"))
        self._server.jobs[name]["status"] = IN_WORK
        self._server.note("jobs", name)
        until = time.monotonic() + kube_executor.PODS_SECONDS + 2
        while time.monotonic() < until:  # so that it looks at Pods once
            executor.advance()
            self.stop.wait(executor.tick_seconds)
        self._server.end(name)
        while not self.stop.is_set():
            executor.advance()
            self.stop.wait(DONE_SECONDS)


def measure_idle(manifests: Mapping[str, Object], count: int, seconds: float, settle: float) -> tuple[Asked, Asked]:
    """Returns what idle releases ask when they begin, and for so many seconds once they have settled."""
    with tempfile.TemporaryDirectory() as folder, kube_server() as (server, _):
        releases = [IdleRelease(number, server, manifests, Path(folder) / str(number)) for number in range(count)]
        meter = Meter(server)
        for release in releases:
            server.add("deployments", {"metadata": {"name": f"{release.release_name}-tune"}, "spec": {"replicas": 1}})
            release.start()
        time.sleep(settle)
        first, meter = meter.read(), Meter(server)
        time.sleep(seconds)
        idle = meter.read()
        for release in releases:
            release.stop.set()
        for release in releases:
            release.join()
            disconnect(release.cluster)
        return first, idle


def measure_many(manifests: Mapping[str, Object], count: int, seconds: float) -> tuple[Asked, int]:
    """Returns what a control asks for so many seconds that starts beside thousands of Jobs at work, and the bytes of one of these."""
    unbound = {
        name: found | {"metadata": {**found["metadata"], "annotations": {}}} for name, found in manifests.items()
    }
    with tempfile.TemporaryDirectory() as folder, kube_server() as (server, client):
        session, tasks = open_session(Path(folder)), trainings(count)
        cluster = connected(server)
        release = open_release("study", cluster, unbound)
        server.add("deployments", {"metadata": {"name": "study-tune"}, "spec": {"replicas": 1}})
        first = KubeExecutor(release, session)
        begin(first, tasks)
        first.advance()
        assert len(server.jobs) == count
        disconnect(cluster)
        for name, job in server.jobs.items():
            job["status"] = IN_WORK
            server.note("jobs", name)
        size = len(json.dumps(next(iter(server.jobs.values()))))
        second = KubeExecutor(open_release("study", client, unbound), session)
        begin(second, tasks)
        meter, until = Meter(server), time.monotonic() + seconds
        while time.monotonic() < until:
            second.advance()
            time.sleep(second.tick_seconds)
        return meter.read(), size


@click.command()
@click.option("--releases", default=20, help="Releases of this process.")
@click.option("--jobs", default=5000, help="Jobs of the release that has many.")
@click.option("--seconds", default=120.0, help="Time of each count.")
@click.option("--settle", default=60.0, help="Time until the releases are idle.")
@click.option(
    "--hurry", default=1.0, help="Let each watch end this many times sooner, as if the count took so many times longer."
)
def main(releases: int, jobs: int, seconds: float, settle: float, hurry: float) -> None:
    """Prints the requests of idle releases, and of one that has many Jobs."""
    manifests = chart_manifests()
    if hurry != 1.0:
        from shared.kube import mirror

        least, most = mirror.WATCH_SECONDS
        mirror.WATCH_SECONDS = (least / hurry, most / hurry)
    first, idle = measure_idle(manifests, releases, seconds, settle)
    _print(f"{releases} releases until they are idle", first)
    _print(f"{releases} idle releases", idle)
    click.echo(f"  {RELEASES} of them: {idle.rate / hurry * RELEASES / releases:.2f} requests/s")
    many, size = measure_many(manifests, jobs, seconds)
    _print(f"a control that starts beside {jobs} Jobs at work of {size:,} bytes each", many)


def _print(what: str, asked: Asked) -> None:
    requests = ", ".join(f"{number} {request}" for request, number in sorted(asked.requests.items()))
    click.echo(
        f"{what}, in {asked.seconds:.0f} s: {requests or 'nothing'}; {asked.megabytes:.1f} MB, {asked.connections} new connections"
    )


if __name__ == "__main__":
    main()
