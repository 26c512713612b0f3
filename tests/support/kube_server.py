"""Serves an API with Jobs, Pods and at most one Deployment over HTTP, to test what control decides. `tests/cluster` uses a real cluster."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kubernetes import client

from shared.kube.api import Cluster

LONG_AGO = "2026-01-01T00:00:00Z"


class KubeServer(ThreadingHTTPServer):
    """Keeps Jobs by name. `refusals` holds statuses to answer with instead, by method and kind."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.deployment: dict[str, Any] | None = None
        self.scaled: list[int] = []
        self.created: list[str] = []
        self.pods: list[dict[str, Any]] = []
        self.failed: list[dict[str, Any]] = []
        """Lists the Pods whose status was patched."""
        self.replica_sets: dict[str, dict[str, Any]] = {}
        self.searches: str | None = None
        """Holds what control wrote for the workers."""
        self.requests: list[str] = []
        self.refusals: dict[tuple[str, str], int] = {}

    def end(self, name: str, kind: str = "Complete") -> None:
        """Ends the Job in this way, at a time long ago."""
        condition = {"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "lastTransitionTime": LONG_AGO}
        self.jobs[name]["status"] = {"conditions": [condition]}


class _Handler(BaseHTTPRequestHandler):
    server: KubeServer

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        _, kind, name = ("/" + self.path.split("?")[0].partition("/namespaces/ns/")[2] + "/").split("/")[:3]
        if refused := self.server.refusals.get((self.command, kind)):
            return self.give(refused, {"message": "no"})
        self.server.requests.append(f"{self.command} {kind}")
        if kind == "configmaps" and self.command == "PATCH":
            (step,) = json.loads(body)
            self.server.searches = step["value"]["task.json"]
            return self.give(200, {})
        if kind == "pods":
            return self.answer_about_pods(name, body)
        if kind == "replicasets":
            if self.command == "DELETE":
                del self.server.replica_sets[name]
            return self.give(200, {"items": list(self.server.replica_sets.values())})
        if kind == "deployments" and self.server.deployment is not None:
            if self.command == "PATCH":
                self.server.scaled += [step["value"] for step in json.loads(body)]
                self.server.deployment["spec"]["replicas"] = self.server.scaled[-1]
            return self.give(200, self.server.deployment)
        if kind != "jobs":
            return self.give(404 if name else 200, {"items": []})
        jobs = self.server.jobs
        if self.command == "POST":
            job = json.loads(body)
            name = job["metadata"]["name"]
            if name in jobs:
                return self.give(409, {"message": "already exists"})
            jobs[name] = job
            self.server.created.append(name)
            return self.give(201, job)
        if self.command == "DELETE":
            return self.give(200 if jobs.pop(name, None) else 404, {"message": "gone"})
        if name:
            return self.give(200, jobs[name]) if name in jobs else self.give(404, {"message": "gone"})
        return self.give(200, {"items": list(jobs.values())})

    def answer_about_pods(self, name: str, body: bytes) -> None:
        """Lists Pods, applies the patch of a status, or deletes a Pod, which only one that has ended allows at once."""
        pods = self.server.pods
        if self.command == "PATCH":
            (pod,) = (pod for pod in pods if pod["metadata"]["name"] == name)
            test, *steps = json.loads(body)
            assert test["value"] == pod["metadata"]["uid"]
            for step in steps:
                pod["status"][step["path"].removeprefix("/status/")] = step["value"]
            self.server.failed.append(pod)
        if self.command == "DELETE":
            assert json.loads(body)["gracePeriodSeconds"] == 0
            self.server.pods = [pod for pod in pods if pod["metadata"]["name"] != name]
        self.give(200, {"items": pods})

    do_GET = do_POST = do_DELETE = do_PATCH = answer

    def give(self, status: int, said: object) -> None:
        text = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@contextmanager
def kube_server() -> Iterator[tuple[KubeServer, Cluster]]:
    """Yields a server and its client."""
    with KubeServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        loaded = client.Configuration()
        loaded.host = f"http://127.0.0.1:{server.server_port}"
        api = client.ApiClient(loaded)
        yield server, Cluster(api, "ns")
        api.rest_client.pool_manager.clear()
        server.shutdown()
        thread.join()
