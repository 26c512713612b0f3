"""Tests what a user reads if the API refuses or is unavailable. The answers come from a real HTTP server, in the form of the API.

`tests/cluster` tests the effect of the requests on a real cluster.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import kubernetes.config.incluster_config
import pytest
from kubernetes import client

from shared.errors import InputError, UnavailableError
from shared.kube import api
from shared.kube.api import Cluster
from shared.kube.errors import ClusterError
from shared.retries import Backoff
from tests.support.kube_objects import pod
from tests.support.kube_server import kube_server


class Answers(ThreadingHTTPServer):
    """Gives the answers of a list, repeating the last one, and records the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, object]] = []
        self.asked: list[tuple[str, str, bytes]] = []
        self.credentials: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    def answer(self) -> None:
        server = self.server
        assert isinstance(server, Answers)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server.asked.append((self.command, self.path, body))
        server.credentials.append(self.headers.get("Authorization"))
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
        yield Cluster(lambda: made, "ns", Backoff(0.0))
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


@pytest.fixture
def kubeconfig(server: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provides the file of a kubeconfig that names a user with a token in the file `token` beside it."""
    tree = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {"tokenFile": str(tmp_path / "token")}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(tree))
    (tmp_path / "token").write_text("old")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    return path


def test_credentials_that_end_are_read_anew(server: Answers, kubeconfig: Path) -> None:
    server.answers = [(200, {"items": []})]
    cluster = Cluster.of_kubeconfig(None)
    assert (cluster.namespace, cluster.list("jobs")) == ("default", [])
    (kubeconfig.parent / "token").write_text("new")
    server.answers = [(401, status("Unauthorized")), (200, {"items": []})]
    assert cluster.list("jobs") == []
    assert server.credentials == ["Bearer old", "Bearer old", "Bearer new"]
    server.answers = [(401, status("Unauthorized"))]
    with pytest.raises(ClusterError, match=r"GET .*/jobs: Unauthorized; log in to the cluster again"):
        cluster.list("jobs")
    assert len(server.credentials) == 5  # each once with the credentials at hand, and once with those read anew


def test_what_a_plugin_gives_is_asked_for_again(server: Answers, kubeconfig: Path) -> None:
    """A plugin need not say when its token ends, as those of clouds whose sessions an administrator ends."""
    plugin, tree = kubeconfig.parent / "plugin", json.loads(kubeconfig.read_text())
    text = '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "%s"}}'
    plugin.write_text(f"#!/bin/sh\necho x >>{plugin}.runs\nprintf '{text}' $(wc -l <{plugin}.runs)\n")
    plugin.chmod(0o755)
    used = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    tree["users"][0]["user"] = {"exec": used}
    kubeconfig.write_text(json.dumps(tree))
    server.answers = [(200, {"items": []}), (401, status("Unauthorized")), (200, {"items": []})]
    cluster = Cluster.of_kubeconfig(None)
    for _ in range(3):
        cluster.list("jobs")
    assert server.credentials == ["Bearer 1", "Bearer 1", "Bearer 2", "Bearer 2"]


def test_the_token_of_a_pod_is_read_again(server: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes replaces it before it ends; one that was revoked is noticed at once."""
    token, ca = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("old")
    ca.write_text("x")
    loader = kubernetes.config.incluster_config
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.server_port)}
    loaders = []

    class Loader(loader.InClusterConfigLoader):  # type: ignore[misc]
        def __init__(self, **_: object) -> None:
            super().__init__(str(token), str(ca), environ=environment)
            loaders.append(self)

        def _load_config(self) -> None:
            super()._load_config()
            self.host, self.ssl_ca_cert = self.host.replace("https", "http"), None

    monkeypatch.setattr(loader, "InClusterConfigLoader", Loader)
    cluster = Cluster.of_pod("ns")
    server.answers = [(200, {"items": []})]
    cluster.list("jobs")
    token.write_text("later")
    loaders[0].token_expires_at = datetime.now()  # which is a minute after it was read
    cluster.list("jobs")
    token.write_text("last")
    server.answers = [(401, status("Unauthorized")), (200, {"items": []})]
    cluster.list("jobs")
    assert server.credentials == ["bearer old", "bearer later", "bearer later", "bearer last"]


def echo(connection: socket.socket) -> None:
    """Sends back what comes, in two parts, and ends the connection."""
    with connection:
        said = connection.recv(100)
        for part in (said[:3], said[3:] * 100_000):
            connection.sendall(part)


@pytest.fixture
def listening() -> Iterator[int]:
    """Provides a port at which a program echoes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):  # it is closed
                while True:
                    echo(listener.accept()[0])

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_what_a_port_of_a_pod_sends_comes_whole(listening: int) -> None:
    with kube_server() as (pods, reached):
        pods.add("pods", pod("p"))
        pods.forwarded[8081] = listening
        said = reached.exchange("p", 8081, b"abcdef", 1 << 20)
        assert (len(said), said[:6], set(said[3:])) == (300_003, b"abcdef", set(b"def"))
        with pytest.raises(InputError, match="port 8081 of the Pod p: sends more than 1,000 bytes"):
            reached.exchange("p", 8081, b"abcdef", 1000)
        with pytest.raises(UnavailableError, match=r"port 9 of the Pod p: nothing answers there \(.*refused\)"):
            reached.exchange("p", 9, b"abcdef", 1000)
        with pytest.raises(UnavailableError, match="the Pod q has ended"):
            reached.exchange("q", 8081, b"abcdef", 1000)


@pytest.mark.parametrize("refused", [400, 404, 409, 500, 503])
def test_a_pod_that_has_just_ended_is_no_fault_of_the_chart(server: Answers, cluster: Cluster, refused: int) -> None:
    server.answers = [(refused, status("unable to upgrade connection: pod does not exist"))]
    with pytest.raises(UnavailableError, match="pod"):
        cluster.exchange("pod", 8081, b"", 1)


def test_a_refused_websocket_is_a_refusal(server: Answers, cluster: Cluster) -> None:
    server.answers = [(403, status('pods "pod" is forbidden: User "x" cannot get resource "pods/portforward"'))]
    with pytest.raises(
        ClusterError, match=r"forward to pod: pods .* is forbidden: .*pods/portforward.*; ask for the right"
    ):
        cluster.exchange("pod", 8081, b"", 1)
    assert server.asked[-1][1] == "/api/v1/namespaces/ns/pods/pod/portforward?ports=8081"


def test_logs_come_line_by_line_and_a_pod_that_is_gone_has_none(server: Answers, cluster: Cluster) -> None:
    server.answers = [(200, "a")]
    assert list(cluster.logs("p")) == ['"a"']
    server.answers = [(404, status("pods not found"))]
    assert list(cluster.logs("p")) == []
