"""Tests what a user reads if the API refuses or is unavailable. The answers come from a real HTTP server, in the form of the API.

`tests/cluster` tests the effect of the requests on a real cluster.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kubernetes import client
from kubernetes.stream.ws_client import ERROR_CHANNEL, WSClient

from shared.errors import UnavailableError
from shared.kube import api
from shared.kube.api import Cluster, ClusterError
from shared.retries import Backoff


class Answers(ThreadingHTTPServer):
    """Gives the answers of a list, repeating the last one, and records the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, object]] = []
        self.asked: list[tuple[str, str, bytes]] = []


class Handler(BaseHTTPRequestHandler):
    def answer(self) -> None:
        server = self.server
        assert isinstance(server, Answers)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server.asked.append((self.command, self.path, body))
        status, said = server.answers[0] if len(server.answers) == 1 else server.answers.pop(0)
        text = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = do_PATCH = answer

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@pytest.fixture
def server() -> Iterator[Answers]:
    with Answers() as answers:
        thread = threading.Thread(target=answers.serve_forever)
        thread.start()
        yield answers
        answers.shutdown()
        thread.join()


@pytest.fixture
def cluster(server: Answers) -> Iterator[Cluster]:
    loaded = client.Configuration()
    loaded.host = f"http://127.0.0.1:{server.server_port}"
    with client.ApiClient(loaded) as made:
        yield Cluster(made, "ns", Backoff(0.0))
        made.rest_client.pool_manager.clear()


def status(message: str) -> dict[str, str]:
    return {"kind": "Status", "message": message}


def test_requests_are_the_api_s(server: Answers, cluster: Cluster) -> None:
    server.answers = [(200, {"items": [{"metadata": {"name": "p"}}]})]
    assert cluster.list("pods", "a=b") == [{"metadata": {"name": "p"}}]
    assert server.asked[-1][:2] == ("GET", "/api/v1/namespaces/ns/pods?labelSelector=a%3Db&limit=500")
    server.answers = [(201, {})]
    assert cluster.create("jobs", {"kind": "Job"})
    assert server.asked[-1] == ("POST", "/apis/batch/v1/namespaces/ns/jobs", b'{"kind": "Job"}')
    server.answers = [(200, {})]
    assert cluster.patch("deployments", "study-tune/scale", [{"op": "remove", "path": "/x"}])
    method, path, body = server.asked[-1]
    assert (method, path) == ("PATCH", "/apis/apps/v1/namespaces/ns/deployments/study-tune/scale")
    assert json.loads(body) == [{"op": "remove", "path": "/x"}]


def test_what_is_missing_or_there_already(server: Answers, cluster: Cluster) -> None:
    server.answers = [(404, status('jobs.batch "x" not found'))]
    assert cluster.get("jobs", "x") is None
    cluster.delete("jobs", "x")
    assert not cluster.patch("pods", "x", [])
    server.answers = [(409, status("already exists"))]
    assert not cluster.create("jobs", {})
    server.answers = [(422, status("the test failed"))]
    assert not cluster.patch("pods", "x", [])


def test_a_refusal_names_the_request_and_the_remedy(server: Answers, cluster: Cluster) -> None:
    server.answers = [(403, status('jobs.batch is forbidden: User "x" cannot create resource "jobs"'))]
    with pytest.raises(
        ClusterError, match=r"POST .*/jobs: jobs.batch is forbidden: User .*; ask for the right"
    ) as refused:
        cluster.create("jobs", {})
    assert refused.value.exit_code == 2
    server.answers = [(422, status('Job.batch "x" is invalid: spec.template: Required value'))]
    with pytest.raises(ClusterError, match=r"is invalid: spec\.template: Required value; see the chart"):
        cluster.create("jobs", {})


def test_a_server_that_is_unavailable_is_asked_a_bounded_number_of_times(server: Answers, cluster: Cluster) -> None:
    server.answers = [(503, status("starting")), (200, {"items": []})]
    assert cluster.list("jobs") == []
    server.answers, before = [(500, status("etcd is unavailable"))], len(server.asked)
    with pytest.raises(UnavailableError, match=r"Kubernetes: GET .*jobs: etcd is unavailable"):
        cluster.list("jobs")
    assert len(server.asked) - before == api.ATTEMPTS


def test_no_server_at_all(cluster: Cluster, server: Answers) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(UnavailableError, match="Kubernetes: GET"):
        cluster.list("jobs")


def test_no_kubeconfig(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", f"{tmp_path}/none")
    with pytest.raises(ClusterError, match=r"kubeconfig: .*; set KUBECONFIG"):
        Cluster.of_kubeconfig(None)


class Session:
    """Imitates the client's exec session: each update brings a batch of (channel, bytes), and the last one closes it."""

    def __init__(self, batches: list[list[tuple[int, bytes]]], returncode: int | str | None) -> None:
        self.batches, self.channels, self._returncode, self.sock = batches, dict[int, bytes](), returncode, self

    def is_open(self) -> bool:
        return bool(self.batches)

    def update(self, timeout: float = 0) -> None:
        for channel, data in self.batches.pop(0) if self.batches else ():
            self.channels[channel] = self.channels.get(channel, b"") + data

    def read_channel(self, channel: int) -> bytes:
        if channel not in self.channels:
            self.update()  # as the client's own does
        return self.channels.pop(channel, b"")

    @property
    def returncode(self) -> int:
        if self._returncode is None:
            raise TypeError("'NoneType' object is not subscriptable")  # as the client's own does after a cut
        return int(self._returncode)  # as the client's own does, whatever the API server said


def test_all_output_of_a_command_is_passed_on() -> None:
    out, err = io.StringIO(), io.StringIO()
    half, rest = "±".encode()[:1], "±".encode()[1:]
    session = Session([[(1, b"AAAA" + half)], [(2, b"note")], [(1, rest + b"BBBB")]], 3)
    assert api._forward_output(session, {1: out, 2: err}) == 3
    assert (out.getvalue(), err.getvalue()) == ("AAAA±BBBB", "note")


def test_a_cut_connection_is_no_exit_code() -> None:
    out = io.StringIO()
    with pytest.raises(UnavailableError, match="was cut before the command ended"):
        api._forward_output(Session([[(1, b"A")]], None), {1: out, 2: out})
    assert out.getvalue() == "A"


def test_a_container_that_ended_before_the_command_began_is_no_exit_code() -> None:
    said = 'unable to upgrade connection: container not found ("main")'
    with pytest.raises(UnavailableError, match=r"^the Pod's container ended before the command did; run it again$"):
        api._forward_output(Session([[]], said), {1: io.StringIO(), 2: io.StringIO()})


@pytest.mark.parametrize(
    "told",
    [
        b'unable to upgrade connection: container not found ("main")',
        b"error: a: b",
        b"%oops",
        b"- [",
        b"",
        b"[]",
        b'{"status": "Failure"}',
        b'{"status": "Failure", "details": null}',
        b'{"status": "Failure", "details": {"causes": []}}',
        b'{"status": "Failure", "details": {"causes": [{"reason": "ExitCode"}]}}',
        b'{"status": "Failure", "details": {"causes": [{"message": null}]}}',
        b'{"status": "Failure", "details": {"causes": [{"message": "error executing command in container"}]}}',
    ],
)
def test_whatever_the_server_says_in_place_of_an_exit_code_is_no_exit_code(told: bytes) -> None:
    class Told(Session):
        returncode = WSClient.returncode  # the client's own reading of it

    with pytest.raises(UnavailableError, match=r"run it again$"):
        api._forward_output(Told([[(ERROR_CHANNEL, told)]], None), {1: io.StringIO(), 2: io.StringIO()})


@pytest.mark.parametrize("refused", [400, 404, 409, 500])
def test_a_pod_that_has_just_ended_is_no_fault_of_the_chart(server: Answers, cluster: Cluster, refused: int) -> None:
    server.answers = [(refused, status("cannot exec into a container in a completed pod; current phase is Failed"))]
    with pytest.raises(UnavailableError, match="pod"):
        cluster.execute("pod", ["true"], io.StringIO(), io.StringIO())


def test_a_refused_websocket_is_a_refusal_and_a_closed_one_is_not(server: Answers, cluster: Cluster) -> None:
    out = io.StringIO()
    server.answers = [(403, status("pods is forbidden"))]
    with pytest.raises(ClusterError, match=r"exec in pod: 403 refused \(403\); ask for the right"):
        cluster.execute("pod", ["true"], out, out)
    assert server.asked[-1][1].startswith("/api/v1/namespaces/ns/pods/pod/exec?command=true")
    server.answers = [(503, status("starting"))]
    with pytest.raises(UnavailableError, match=r"exec in pod: 503 refused"):
        cluster.execute("pod", ["true"], out, out)


def test_logs_come_line_by_line_and_a_pod_that_is_gone_has_none(server: Answers, cluster: Cluster) -> None:
    server.answers = [(200, "a")]
    assert list(cluster.logs("p")) == ['"a"']
    server.answers = [(404, status("pods not found"))]
    assert list(cluster.logs("p")) == []
