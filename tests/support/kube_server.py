"""Serves the part of Kubernetes' API that control uses over HTTP, as an API server does: lists in pages, watches, bookmarks, versions that expire.

It runs nothing: no Job gets a Pod. `tests/cluster` uses a real cluster.
"""

from __future__ import annotations

import base64
import bisect
import copy
import json
import socket
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qs, urlsplit

import pytest
from kubernetes import client

from shared.kube.api import Cluster
from shared.kube.mirror import Mirror
from shared.retries import Backoff
from tests.support.port_forward import forward

Object = dict[str, Any]
LONG_AGO = "2026-01-01T00:00:00Z"
KINDS = ("jobs", "pods", "deployments", "replicasets", "configmaps", "serviceaccounts", "events")
FIRST_VERSION = 1000


class Event(NamedTuple):
    """Holds what happened to an object."""

    version: int
    kind: str
    what: str
    found: Object


class KubeServer(ThreadingHTTPServer):
    """Keeps objects by kind and name, and tells watches what happens to them.

    Tests may change `objects`, and call `changed` for the watches to learn of it. `refusals` holds statuses to answer with, by method and kind.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, dict[str, Object]] = {kind: {} for kind in KINDS}
        self.requests: list[str] = []
        """Lists the requests as `GET jobs`, and as `WATCH jobs` those that begin a watch."""
        self.sent = Counter[str]()
        """Counts the bytes of the answers, by request."""
        self.connections = 0
        self.refusals: dict[tuple[str, str], int] = {}
        self.refusal_seconds = 0.0
        """Gives the time that a refusal takes, as with a server that is overloaded."""
        self.scaled: list[int] = []
        self.created: list[str] = []
        """Lists the names of the Jobs that were created."""
        self.failed: list[Object] = []
        """Lists the Pods whose status was patched."""
        self.searches: str | None = None
        """Holds what control wrote for the workers."""
        self.forwarded: dict[int, int] = {}
        """Maps the ports of Pods to ports of this machine, on which what is forwarded to them arrives."""
        self.logs: dict[str, str] = {}
        """Holds the logs of Pods by name."""
        self.silent = False
        """Says whether watches stay open but tell nothing, as those of a server that was cut off."""
        self.watch_seconds: float | None = None
        """Ends watches sooner than the client asks, as API servers may."""
        self.condition = threading.Condition(threading.RLock())
        self.version = FIRST_VERSION
        self.forgotten = 0
        """Gives the version up to which the server has forgotten what happened."""
        self.events: list[Event] = []
        self.bookmarks = 0
        """Counts the times that all watches were sent a bookmark."""
        self.drops = 0
        """Counts the times that all watches were cut off."""
        self.pages: dict[str, list[Object]] = {}
        """Holds what is left of lists, by the token of the next page."""
        self.closing = False
        self.known: dict[str, dict[str, Object]] = {kind: {} for kind in KINDS}
        """Holds the objects as the last event told them, by kind and name; these are never changed."""

    @property
    def jobs(self) -> dict[str, Object]:
        """Returns the Jobs by name."""
        return self.objects["jobs"]

    @property
    def pods(self) -> list[Object]:
        """Returns the Pods."""
        return list(self.objects["pods"].values())

    @property
    def deployment(self) -> Object:
        """Returns the Deployment whose replicas are the number of workers."""
        return self.objects["deployments"]["study-tune"]

    def add(self, kind: str, *found: Object) -> None:
        """Adds objects, or replaces those of the same names."""
        for each in found:
            self.objects[kind][each["metadata"]["name"]] = each
            self.note(kind, each["metadata"]["name"])

    def allow_workers(self, replicas: int) -> None:
        """Scales the workers' Deployment, which is made if there is none."""
        found = self.objects["deployments"].get("study-tune", {"metadata": {"name": "study-tune", "uid": "7"}})
        self.add("deployments", {**found, "spec": {"replicas": replicas}})

    def end(self, name: str, kind: str = "Complete") -> None:
        """Ends the Job in this way, at a time long ago."""
        condition = {"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "lastTransitionTime": LONG_AGO}
        self.jobs[name]["status"] = {"conditions": [condition]}
        self.note("jobs", name)

    def handle_error(self, *_: object) -> None:
        """Reports an error, except that a client has gone."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*_)  # type: ignore[arg-type]

    # -- what watches are told

    def note(self, kind: str, name: str) -> None:
        """Takes notice of what has happened to the object of this name."""
        with self.condition:
            found, known = self.objects[kind].get(name), self.known[kind].get(name)
            if found is not None:
                found["metadata"].setdefault("uid", str(uuid.uuid4()))
                found["metadata"].setdefault("resourceVersion", "0")
            if found == known:
                return
            if known is not None and (found is None or found["metadata"]["uid"] != known["metadata"]["uid"]):
                del self.known[kind][name]
                self._tell(kind, "DELETED", copy.deepcopy(known))
                known = None
            if found is not None:
                self.known[kind][name] = self._tell(kind, "ADDED" if known is None else "MODIFIED", found)

    def _tell(self, kind: str, what: str, found: Object) -> Object:
        self.version += 1
        found["metadata"]["resourceVersion"] = str(self.version)
        told = copy.deepcopy(found)
        self.events.append(Event(self.version, kind, what, told))
        self.condition.notify_all()
        return told

    def changed(self, *kinds: str) -> int:
        """Takes notice of all that tests have changed, of these kinds or of all, and returns the version."""
        with self.condition:
            for kind in kinds or KINDS:
                for name in self.objects[kind].keys() | self.known[kind].keys():
                    self.note(kind, name)
            return self.version

    def send_bookmarks(self) -> None:
        """Tells all watches the present version."""
        with self.condition:
            self.bookmarks += 1
            self.condition.notify_all()

    def drop_watches(self) -> None:
        """Cuts all watches off in the middle of an answer."""
        with self.condition:
            self.drops += 1
            self.condition.notify_all()

    def forget(self) -> None:
        """Forgets what happened, and the pages of lists, as an API server does after some minutes."""
        with self.condition:
            self.version += 1  # by an object of another namespace
            self.forgotten = self.version
            self.events.clear()
            self.pages.clear()

    def settle(self, mirror: Mirror) -> None:
        """Waits until a copy that has begun has all that has happened; fails after some seconds."""
        version = self.changed()
        if mirror._thread is None or ("GET", mirror.kind) in self.refusals:
            return
        deadline = time.monotonic() + 10
        while not mirror.version or int(mirror.version) < version:
            self.send_bookmarks()
            assert time.monotonic() < deadline, f"{mirror.kind}: {mirror.version} instead of {version}"
            time.sleep(0.005)


class _Handler(BaseHTTPRequestHandler):
    server: KubeServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        _, kind, name, part = ("/" + url.path.partition("/namespaces/ns/")[2] + "//").split("/")[:4]
        self.label = f"{'WATCH' if 'watch' in query else self.command} {kind}"
        with self.server.condition:  # what tests do once they see the request is done to it
            self.server.requests.append(self.label)
            dropped, bookmarked = self.server.drops, self.server.bookmarks
        if refused := self.server.refusals.get((self.command, kind)):
            time.sleep(self.server.refusal_seconds)
            self.give(refused, {"kind": "Status", "code": refused, "message": "no"})
        elif "watch" in query:
            self.watch(kind, query, dropped, bookmarked)
        elif part == "portforward" and name in self.server.objects["pods"]:
            forward(self, int(query["ports"]), self.server.forwarded.get(int(query["ports"])))
        elif part == "log":
            self.give_text(200, self.server.logs.get(name, "").encode())
        else:
            with self.server.condition:
                status, said = getattr(self, f"answer_{self.command.lower()}")(kind, name, part, query, body)
            self.give(status, said)

    do_GET = do_POST = do_DELETE = do_PATCH = answer

    def answer_get(self, kind: str, name: str, part: str, query: dict[str, str], _: bytes) -> tuple[int, object]:
        server = self.server
        if kind not in server.known:  # as of a custom resource that is not installed
            return 404, {"kind": "Status", "message": "the server could not find the requested resource"}
        server.changed(kind)
        if not name:
            return self.list(kind, query)
        found = server.known[kind].get(name)
        if found is None:
            return 404, {"kind": "Status", "message": f'{kind} "{name}" not found'}
        return 200, _scale(found) if part == "scale" else found

    def list(self, kind: str, query: dict[str, str]) -> tuple[int, object]:
        """Answers with a page of a list as it was when its first page was read."""
        server, token = self.server, query.get("continue")
        if token is None:
            left = [each for _, each in sorted(server.known[kind].items()) if _selected(each, query)]
            version = server.version
        elif token in server.pages:
            left, version = server.pages.pop(token), json.loads(base64.b64decode(token))["version"]
        else:
            return 410, {
                "kind": "Status",
                "code": 410,
                "reason": "Expired",
                "message": "The provided continue parameter is too old",
            }
        page = int(query.get("limit", 0)) or len(left)
        metadata: Object = {"resourceVersion": str(version)}
        if left[page:]:
            following = base64.b64encode(json.dumps({"version": version, "next": str(uuid.uuid4())}).encode()).decode()
            server.pages[following] = left[page:]
            metadata |= {"continue": following, "remainingItemCount": len(left[page:])}
        return 200, {"kind": "List", "metadata": metadata, "items": left[:page]}

    def answer_post(self, kind: str, _: str, __: str, ___: dict[str, str], body: bytes) -> tuple[int, object]:
        server, found = self.server, json.loads(body)
        name = found["metadata"]["name"]
        if sum(map(len, found.get("data", {}).values())) > 1 << 20:
            return 422, {"kind": "Status", "message": "Too long: must have at most 1048576 bytes"}
        if name in server.objects[kind]:
            return 409, {"kind": "Status", "message": "already exists"}
        found["metadata"]["uid"] = str(uuid.uuid4())
        server.add(kind, found)
        if kind == "jobs":
            server.created.append(name)
        return 201, found

    def answer_delete(self, kind: str, name: str, _: str, __: dict[str, str], body: bytes) -> tuple[int, object]:
        server = self.server
        if name not in server.objects[kind]:
            return 404, {"kind": "Status", "message": "gone"}
        found = server.objects[kind][name]
        if kind == "pods" and json.loads(body).get("gracePeriodSeconds") != 0:
            found["metadata"]["deletionTimestamp"] = LONG_AGO
            server.note(kind, name)
            return 200, found
        del server.objects[kind][name]
        server.note(kind, name)
        return 200, {
            "kind": "Status",
            "status": "Success",
            "metadata": {},
            "details": {"name": name, "uid": found["metadata"]["uid"]},
        }

    def answer_patch(self, kind: str, name: str, part: str, _: dict[str, str], body: bytes) -> tuple[int, object]:
        server, steps = self.server, json.loads(body)
        if kind == "configmaps":
            server.searches = steps[0]["value"]["task.json"]
            return 200, {}
        found = server.objects[kind].get(name)
        if found is None:
            return 404, {"kind": "Status", "message": "gone"}
        changed = copy.deepcopy(found)
        for step in steps:
            *folders, last = step["path"].split("/")[1:]
            place = changed
            for folder in folders:
                place = place.setdefault(folder, {})
            if step["op"] == "test" and place.get(last) != step["value"]:
                return 422, {"kind": "Status", "message": "the test failed"}
            if step["op"] != "test":
                place[last] = step["value"]
        server.add(kind, changed)
        if (kind, part) == ("pods", "status"):
            server.failed.append(changed)
        if part == "scale":
            server.scaled.append(changed["spec"]["replicas"])
        return 200, changed

    def watch(self, kind: str, query: dict[str, str], dropped: int, bookmarked: int) -> None:
        """Sends events until the time is over, each in two chunks, as nothing says that a chunk is a line.

        The numbers are those of the drops and bookmarks before it began.
        """
        server, version = self.server, int(query.get("resourceVersion") or 0)
        seconds = float(query.get("timeoutSeconds", 3600))
        deadline = time.monotonic() + min(seconds, server.watch_seconds or seconds)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True  # unless the answer has its end
        with suppress(OSError):  # the client has ended the watch
            while time.monotonic() < deadline and not server.closing:
                with server.condition:
                    if version < server.forgotten:
                        told = {
                            "kind": "Status",
                            "code": 410,
                            "reason": "Expired",
                            "message": "too old resource version",
                        }
                        news, version = [{"type": "ERROR", "object": told}], server.forgotten
                        deadline = 0.0
                    else:
                        new = server.events[bisect.bisect(server.events, version, key=lambda event: event.version) :]
                        news = [
                            {"type": each.what, "object": each.found}
                            for each in new
                            if each.kind == kind and _selected(each.found, query)
                        ]
                        version = server.version
                    if bookmarked != server.bookmarks and "allowWatchBookmarks" in query and deadline:
                        bookmarked = server.bookmarks
                        news.append({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}})
                    if dropped != server.drops:
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return
                    if not news:
                        server.condition.wait(0.5)
                        continue
                while server.silent and not server.closing:
                    time.sleep(0.05)
                for event in news:
                    text = json.dumps(event).encode() + b"\n"
                    for part in (text[:20], text[20:]):
                        self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                        self.wfile.flush()
                    server.sent[self.label] += len(text)
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()
            self.close_connection = False

    def give(self, status: int, said: object) -> None:
        self.give_text(status, json.dumps(said).encode())

    def give_text(self, status: int, text: bytes) -> None:
        self.server.sent[self.label] += len(text)
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


def _scale(deployment: Object) -> Object:
    return {"metadata": deployment["metadata"], "spec": {"replicas": deployment["spec"]["replicas"]}}


def _selected(found: Object, query: dict[str, str]) -> bool:
    """Returns whether an object has the labels of a selector (`a=b,c=d`, or `a` with any value) and the name of a field selector."""
    labels = found["metadata"].get("labels", {})
    wanted = [term.partition("=") for term in query.get("labelSelector", "").split(",") if term]
    fields = [term.split("=") for term in query.get("fieldSelector", "").split(",") if term]
    return all(name in labels and (not equal or labels[name] == value) for name, equal, value in wanted) and all(
        found["metadata"]["name"] == value for name, value in fields if name == "metadata.name"
    )


@contextmanager
def kube_server() -> Iterator[tuple[KubeServer, Cluster]]:
    """Yields a server and its client."""
    with KubeServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        cluster = connected(server)
        yield server, cluster
        server.closing = True
        server.send_bookmarks()
        disconnect(cluster)
        server.shutdown()
        thread.join()


def connected(server: KubeServer) -> Cluster:
    """Returns a client of the server, with connections of its own."""
    loaded = client.Configuration()
    loaded.host = f"http://127.0.0.1:{server.server_port}"
    return Cluster(lambda: client.ApiClient(loaded), "ns", Backoff(0.01))


def disconnect(cluster: Cluster) -> None:
    """Ends the watches of a client and closes its connections."""
    for observer in list(cluster.observers):
        cast(Mirror, observer).close()
    cluster._api.rest_client.pool_manager.clear()


def read_settled(server: KubeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets all copies wait, whenever they are read, for what has happened on the server, so that tests need not."""
    objects = Mirror.objects

    def settled(mirror: Mirror) -> list[Object]:
        server.settle(mirror)
        return objects(mirror)

    monkeypatch.setattr(Mirror, "objects", settled)
