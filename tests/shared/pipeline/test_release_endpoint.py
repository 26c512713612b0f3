"""Tests what control's endpoint tells, to whom, and that no answer has a secret, by a real HTTP server."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.load import load_study
from shared.errors import ConfigError, UnavailableError
from shared.kube.release import Release
from shared.kube.requests import SubmitRequest, request_body
from shared.pipeline import release_endpoint
from shared.pipeline.final_requests import FinalRequests
from shared.pipeline.plan import plan
from shared.pipeline.release_endpoint import ControlState, Endpoint, endpoint_served
from shared.pipeline.release_status import Refusals
from shared.pipeline.session import Session
from shared.search.metrics_server import metrics_application
from shared.settings import Settings
from tests.support.committed import commit_steps
from tests.support.kube_objects import pod
from tests.support.kube_server import KubeServer, kube_server
from tests.support.small_study import SMALL_STUDY

STUDY = load_study(SMALL_STUDY, ["verdict=none"])
STEPS = plan(STUDY)
SECRET = "pl4nted-s3cret"
SETTINGS = Settings.from_environment(
    {
        "DATABASE_URL": f"postgresql://nobody:{SECRET}@127.0.0.1:1/none",
        "AWS_ACCESS_KEY_ID": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "HF_TOKEN": SECRET,
        "TAILFILL_WEBHOOK": f"https://hooks.example/{SECRET}",
        "MLFLOW_TRACKING_URI": f"https://u:{SECRET}@mlflow.example",
    }
)
OWNER = {"metadata": {"name": "study-stages", "uid": "1"}}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


class Here:
    """Holds a control whose endpoint is served, and its API server."""

    def __init__(self, server: KubeServer, state: ControlState, port: int) -> None:
        self.server, self.state, self.port = server, state, port

    def get(self, target: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Any]:
        """Returns the status, the body and the headers of an answer, in which there is no secret."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, target, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        assert SECRET.encode() not in body
        assert SECRET not in str(answer.getheaders())
        return answer.status, body, answer.headers

    def text(self, target: str, status: int = 200) -> str:
        """Returns the body of an answer of this status."""
        found, body, _ = self.get(target)
        assert found == status, body
        return body.decode()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.setattr("shared.search.results.PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("shared.search.storage.PATIENCE_SECONDS", 0.2)
    settings = replace(SETTINGS, status_port=free_port())
    artifacts = Artifacts(FolderStore(tmp_path / "store"), STUDY.name, tmp_path / "cache")
    session = Session(STUDY, STEPS, artifacts, settings)
    with kube_server() as (server, cluster):
        control = pod("study-control-a", state={"running": {}}, more={"ready": True})
        control["metadata"]["labels"] = {
            "app.kubernetes.io/instance": "study",
            "app.kubernetes.io/component": "control",
        }
        server.add("pods", control)
        requests = FinalRequests(Release("study", cluster, {}, OWNER, {}, "1"), session)
        made = Here(server, ControlState(session, requests=requests), settings.status_port)
        metrics = metrics_application(settings, STUDY.name, ".*", lambda: {("prepare", "waiting"): 1})
        with endpoint_served(settings, lambda: Endpoint("study", cluster, lambda: made.state, metrics)) as port:
            assert port == settings.status_port
            yield made


def commit(here: Here, *stages: str, files: Callable[[Any], dict[str, Path]] = lambda _: {}) -> None:
    assert here.state.session is not None
    commit_steps(STUDY, [step for step in STEPS if step.stage in stages], here.state.session.artifacts, files)


def test_the_status_is_told_as_text_and_as_json(here: Here) -> None:
    commit(here, "prepare")
    text = here.text("/status")
    assert "prepare" in text
    assert "control: running" in text
    assert "requests" not in text
    told = json.loads(here.text("/status?json=1"))
    assert {step["step"]: step["state"] for step in told["steps"]}["prepare"] == "committed"
    assert (told["control"], told["requests"]) == ("running", [])
    assert json.loads(here.text("/status?why=prepare&json"))["why"]


def test_a_job_that_the_cluster_refuses_is_told_with_its_reason(here: Here) -> None:
    """It is no object of the cluster, so that only control knows of it."""
    (prepare, *_) = STEPS
    refused = Refusals({prepare.id: "admission webhook denied the request"}, "study-worker-0: exceeded quota")
    here.state = replace(here.state, refusals=lambda: refused)
    text = here.text("/status")
    assert re.search(r"^prepare +failed +admission webhook denied the request$", text, re.MULTILINE)
    assert "no process works on" not in text
    told = json.loads(here.text("/status?json=1"))
    assert told["steps"][0]["detail"] == "admission webhook denied the request"
    assert told["stuck"] == {"workers": "refused: study-worker-0: exceeded quota"}
    commit(here, "prepare")
    assert "denied the request" not in here.text("/status")


def test_a_stage_that_there_is_not_is_refused(here: Here) -> None:
    assert "did you mean prepare" in here.text("/status?why=perpare", 400)


def test_requests_are_told_with_their_state(here: Here) -> None:
    commit(here, "prepare")
    requests = here.state.requests
    assert requests is not None
    here.server.add("configmaps", request_body("study-request-0", "study", STUDY.name, SubmitRequest("none"), OWNER))
    requests.advance([])
    told = json.loads(here.text("/requests?results=study-request-0"))
    assert (told["study"], told["problem"], told["results"]) == (STUDY.name, None, [])
    assert [(each["request"], each["state"]) for each in told["requests"]] == [("study-request-0", "refused")]
    assert "  study-request-0: refused: --experiment none: there is no such experiment" in here.text("/status")
    requests.problem = "configmaps: no"
    assert "requests cannot be read: configmaps: no" in here.text("/status")


def test_before_its_services_answer_control_tells_for_what_it_waits(here: Here) -> None:
    here.state = ControlState(waiting="s3://bucket: is away")
    assert here.text("/status").startswith("nothing moves: s3://bucket: is away\ncontrol: running\n")
    assert json.loads(here.text("/status?json=1"))["stall"] == "nothing moves: s3://bucket: is away"
    for target in ("/report", "/requests", "/status?why=prepare"):
        assert here.text(target, 503) == "s3://bucket: is away\n"


def test_a_database_that_is_away_is_named_without_its_password(here: Here) -> None:
    commit(here, "prepare")
    text = here.text("/status")
    assert "127.0.0.1:1" in text
    assert "PostgreSQL at" in text


def test_a_store_that_is_away_is_named(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise UnavailableError("s3://bucket: no answer")

    monkeypatch.setattr(Artifacts, "find", away)
    assert here.text("/status").startswith("nothing moves: s3://bucket: no answer\n")
    assert here.text("/report", 503) == "s3://bucket: no answer\n"


def test_the_report_comes_as_an_archive(here: Here, tmp_path: Path) -> None:
    assert "its report is not committed yet" in here.text("/report", 400)
    page = tmp_path / "page.html"
    page.write_bytes(bytes(range(256)) * 1000)
    stages = sorted({step.stage for step in STEPS})
    commit(here, *stages, files=lambda step: {"index.html": page} if step.stage == "report" else {})
    status, body, headers = here.get("/report")
    assert (status, headers["Content-Type"], int(headers["Content-Length"])) == (200, "application/gzip", len(body))
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        (member,) = tar
        content = tar.extractfile(member)
        assert content is not None
        assert (member.name, content.read()) == ("index.html", page.read_bytes())


def test_metrics_are_told_here_too(here: Here) -> None:
    text = here.text("/metrics")
    assert f'study="{STUDY.name}"' in text
    assert "# TYPE" in text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("target", ["/status", "/metrics"])
def test_it_only_tells(here: Here, method: str, target: str) -> None:
    assert here.get(target, method)[0] == 405


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8081", "127.0.0.1.evil.example", "localhost.", "localhost@evil", "localhost:8081:1", "[::2]", "0.0.0.0"],
)  # fmt: skip
def test_a_page_from_elsewhere_learns_nothing(here: Here, host: str) -> None:
    for target in ("/status", "/report", "/requests", "/metrics"):
        status, body, _ = here.get(target, Host=host)
        assert (status, b"answers to 127.0.0.1, localhost" in body) == (403, True)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:12345", "[::1]:8081"])
def test_a_tunnel_may_have_another_port(here: Here, host: str) -> None:
    status, _, headers = here.get("/status", Host=host)
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("/", 404, "has /status, /report, /requests, /metrics"),
        ("/../etc/passwd", 404, "has /status"),
        ("/status/", 404, "has /status"),
        ("/status?token=1", 400, "knows no token; it takes json, why"),
        ("/report?why=x", 400, "knows no why; it takes nothing"),
        ("/status?" + "why=x&" * 9, 400, "the query cannot be read"),
        ("/status?why=%ff", 400, "the query cannot be read"),
        ("/status?why=" + "x" * 3000, 414, "no more than 2000 characters"),
        ("/" + "x" * 3000, 414, "no more than 2000 characters"),
        ("/status?why=%1b[2J", 400, "--why"),
    ],
)
def test_what_it_does_not_know_is_refused(here: Here, target: str, status: int, said: str) -> None:
    assert said in here.text(target, status)


def test_so_many_answers_are_put_together_at_once(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_endpoint, "WAIT_SECONDS", 0.1)
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slow(*_: object) -> None:
        begun.release()
        assert go_on.wait(20)

    monkeypatch.setattr(Artifacts, "find", slow)
    askers = [threading.Thread(target=here.get, args=("/status",)) for _ in range(release_endpoint.AT_ONCE)]
    for asker in askers:
        asker.start()
    for _ in askers:
        assert begun.acquire(timeout=20)
    assert "answers others; ask again" in here.text("/status", 503)
    assert here.get("/metrics")[0] == 200
    go_on.set()
    for asker in askers:
        asker.join()


def test_a_port_that_is_taken_is_named_and_without_one_nothing_is_served(here: Here) -> None:
    def never() -> Any:
        raise AssertionError("it is not made")

    with endpoint_served(replace(SETTINGS, status_port=0), never) as port:
        assert port is None
    for taken in (here.port, 70_000):
        settings = replace(SETTINGS, status_port=taken)
        said = pytest.raises(ConfigError, match=rf"TAILFILL_STATUS_PORT: {taken} cannot be listened on")
        with said, endpoint_served(settings, lambda: lambda *_: []):
            raise AssertionError("it listens")
