"""Tests which workers control makes and ends, beside real searches on PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from pydantic import SecretStr

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.keys import new_task
from shared.config.load import load_study
from shared.config.search import FloatRange, Search
from shared.config.task import Task, block_of_json
from shared.errors import Stopped
from shared.kube.manifests import jobs_selector
from shared.kube.mirror import Mirror
from shared.kube.release import Release
from shared.pipeline import worker_scaling
from shared.pipeline.plan import plan
from shared.pipeline.search_status import name_of_search
from shared.pipeline.session import Session
from shared.pipeline.worker_scaling import WorkerScaling
from shared.search.connections import PER_SEARCH, SPARE
from shared.search.coordinator import Coordinator
from shared.search.monitor import read_searches
from shared.search.storage import Database
from shared.search.worker import TrialHandle
from shared.settings import Settings
from shared.stop import StopSignal
from tests.support.kube_objects import pod
from tests.support.kube_server import KubeServer, kube_server, read_settled
from tests.support.search.drill import Drill, Place
from tests.support.search.in_threads import Objective, coordinated, new_worker
from tests.support.small_study import SMALL_STUDY

STUDY = load_study(SMALL_STUDY)
STEPS = plan(STUDY)
TUNE = next(step for step in STEPS if step.stage == "tune")
LABELS = {
    "app.kubernetes.io/instance": "study",
    "app.kubernetes.io/managed-by": "tailfill-control",
    "tailfill/role": "worker",
}
MANIFEST: dict[str, Any] = {"metadata": {"labels": LABELS}, "spec": {"template": {"metadata": {"labels": LABELS}}}}
OWNER = {"metadata": {"name": "study-stages", "uid": "1"}}


@dataclass
class Here:
    """Holds a release on a server, and a search that its coordinator may begin."""

    server: KubeServer
    scaling: WorkerScaling
    task: Task
    drill: Drill

    def advance(self, *tasks: Task) -> list[str]:
        """Lets control look once, and returns the names of the workers that are alive."""
        self.scaling.advance(tasks, list(self.server.jobs.values()))
        return sorted(name for name, job in self.server.jobs.items() if "conditions" not in job.get("status", {}))

    def open_searches(self) -> list[str]:
        """Returns the keys of the searches that workers are told of."""
        assert self.server.searches is not None
        return [task.key for task in block_of_json(self.server.searches.encode())]


@pytest.fixture
def here(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    artifacts = Artifacts(FolderStore(tmp_path / "store"), STUDY.name, tmp_path / "cache")
    session = Session(STUDY, STEPS, artifacts, Settings.from_environment({"DATABASE_URL": database_url}))
    task = new_task(STUDY.name, "tune", TUNE.config, {}, STUDY.resources)
    search = Search(
        strategy="random", trials=300, epochs=1, objective="val_loss", pruner="none", lease_seconds=4.0,
        space={"x": FloatRange(low=0, high=1)},
    )  # fmt: skip
    drill = Drill(database_url, name_of_search(task, artifacts), search, tmp_path)
    with kube_server() as (server, client):
        server.allow_workers(3)
        read_settled(server, monkeypatch)
        pods = Mirror(client, "pods", jobs_selector("study"))
        scaling = WorkerScaling(Release("study", client, {}, OWNER, MANIFEST, "1"), session, pods)
        yield Here(server, scaling, task, drill)


def begun(drill: Drill) -> None:
    deadline = time.monotonic() + 30
    while not any(snapshot.queued for snapshot in read_searches(drill.url, drill.name)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextmanager
def searching(drill: Drill) -> Iterator[None]:
    """Runs a coordinator while the block runs, whose search nobody works on."""
    database, stop = Database(drill.url), StopSignal()

    def coordinate() -> None:
        with suppress(Stopped):
            Coordinator(database, drill.spec, Place(), stop).run()

    thread = threading.Thread(target=coordinate)
    thread.start()
    try:
        begun(drill)
        yield
    finally:
        stop.set()
        thread.join()
        database.close()


def small(drill: Drill, trials: int) -> Drill:
    return replace(drill, search=drill.search.model_copy(update={"trials": trials}))


def test_there_are_no_more_workers_than_connections(
    here: Here, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit is the database's own, which its role may set."""
    connection = psycopg2.connect(here.drill.url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {here.drill.url.rpartition('/')[2]} CONNECTION LIMIT {SPARE + PER_SEARCH + 2}")
    with searching(here.drill):
        assert here.advance(here.task) == ["study-worker-0", "study-worker-1"]  # three are allowed
        here.advance(here.task)
        assert caplog.text.count("fewer tuning workers than the Deployment allows") == 1
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {here.drill.url.rpartition('/')[2]} CONNECTION LIMIT -1")
        assert len(here.advance(here.task)) == 2  # it is read once a minute
        monkeypatch.setattr(worker_scaling, "LIMIT_SECONDS", 0.0)
        assert len(here.advance(here.task)) == 3
    connection.close()


def test_before_its_search_has_begun_there_is_no_worker(here: Here) -> None:
    assert here.advance(here.task) == []
    assert here.open_searches() == []


def test_workers_are_made_while_there_are_trials_and_end_when_there_are_none(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.kube.workers.IDLE_SECONDS", 0.0)
    drill, database = small(here.drill, 2), Database(here.drill.url)
    with coordinated(drill):
        begun(drill)
        assert here.advance(here.task) == ["study-worker-0", "study-worker-1"]  # two trials, though three are allowed
        assert here.open_searches() == [here.task.key]
        assert here.server.requests.count("PATCH configmaps") == 1
        here.advance(here.task)
        assert here.server.requests.count("PATCH configmaps") == 1
        # one trial is left once a worker elsewhere has run the other: one of the two is idle
        held, go_on = threading.Event(), threading.Event()

        def objective(trial: TrialHandle) -> float:
            held.set()
            assert go_on.wait(30)
            return 1.0

        thread = threading.Thread(target=new_worker(database, drill).run, args=(Objective(objective),))
        thread.start()
        assert held.wait(20)
        assert here.advance(here.task) == ["study-worker-0"]
        go_on.set()
        thread.join(30)
    database.close()
    assert here.advance() == []
    assert here.open_searches() == []


def test_two_hundred_workers_are_made_at_once(here: Here) -> None:
    """A search queues no more than 64 trials at a time, which no worker's start waits for."""
    here.server.allow_workers(200)
    with searching(here.drill):
        since = time.monotonic()
        assert len(here.advance(here.task)) == 200
        assert time.monotonic() - since < 30


def test_the_worker_that_holds_a_trial_ends_last(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease names the host of its worker, which is the Pod of a Job."""
    monkeypatch.setattr("shared.search.worker.worker_label", lambda: "study-worker-2-x7k2p/1")
    drill, database = small(here.drill, 3), Database(here.drill.url)
    held, go_on = threading.Event(), threading.Event()

    def objective(trial: TrialHandle) -> float:
        held.set()
        assert go_on.wait(30)
        return 1.0

    with coordinated(drill):
        begun(drill)
        assert len(here.advance(here.task)) == 3
        for number in range(3):
            found = pod(f"study-worker-{number}-x7k2p")
            found["metadata"]["labels"] = LABELS | {"batch.kubernetes.io/job-name": f"study-worker-{number}"}
            here.server.add("pods", found)
        thread = threading.Thread(target=new_worker(database, drill).run, args=(Objective(objective),))
        thread.start()
        assert held.wait(20)
        here.server.allow_workers(1)
        assert here.advance(here.task) == ["study-worker-2"]
        go_on.set()
        thread.join(30)
    database.close()


def test_scaling_down_needs_no_database(here: Here) -> None:
    with searching(here.drill):
        assert len(here.advance(here.task)) == 3
    here.server.allow_workers(1)
    url = SecretStr("postgresql://nobody@127.0.0.1:1/none")
    session = here.scaling._session
    here.scaling._session = replace(session, settings=replace(session.settings, database_url=url))
    assert here.advance(here.task) == ["study-worker-0"]


def test_without_a_coordinator_only_what_is_queued_counts(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.server.allow_workers(200)
    with searching(here.drill):
        pass
    monkeypatch.setattr(worker_scaling, "COORDINATOR_SECONDS", 0.0)
    assert len(here.advance(here.task)) == 64


def test_a_refused_worker_waits(here: Here) -> None:
    here.server.refusals["POST", "jobs"] = 403
    with searching(here.drill):
        assert here.advance(here.task) == []
        here.server.refusals.clear()
        assert here.advance(here.task) == []
        assert "study-worker-0: Kubernetes: POST" in str(here.scaling.refusal)
        here.scaling._not_before = 0.0
        assert len(here.advance(here.task)) == 3
    assert here.scaling.refusal is None


def test_what_an_earlier_chart_or_manifest_left_is_removed(here: Here) -> None:
    labels = {"app.kubernetes.io/instance": "study", "tailfill/role": "worker"}
    here.server.add("replicasets", {"metadata": {"name": "study-tune-7844f9ff4b", "labels": labels}})
    release = here.scaling._release
    release.create_worker(0, STUDY.name)
    release.create_worker(1, "another study")
    here.scaling.begin(list(here.server.jobs.values()))
    assert here.server.objects["replicasets"] == {}
    assert sorted(here.server.jobs) == ["study-worker-0"]
