"""Sends the few requests to Kubernetes' API that tailfill needs, in one namespace, with plain JSON objects.

It does not use the client's own models, which check far more than we read, and the chart's manifests are JSON already.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Protocol, TypeVar

import kubernetes.config as config
import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.stream.ws_client import create_websocket, get_websocket_url
from websocket import ABNF, WebSocketConnectionClosedException

from shared.errors import InputError, UnavailableError
from shared.kube.errors import FORWARD, ClusterError, Conflict, Expired, Missing, Unauthorized, client_errors
from shared.log import Log
from shared.retries import Backoff, retrying
from shared.terminal import shortened

Object = dict[str, Any]
"""Represents a Kubernetes object as JSON."""
Objects = list[Object]
T = TypeVar("T")

PATHS = {
    "configmaps": "/api/v1",
    "deployments": "/apis/apps/v1",
    "events": "/api/v1",
    "jobs": "/apis/batch/v1",
    "pods": "/api/v1",
    "replicasets": "/apis/apps/v1",
    "workloads": "/apis/kueue.x-k8s.io/v1beta2",
}
SECONDS = (5.0, 30.0)  # to connect, and to answer
FOLLOW_SECONDS = 3600.0  # without a line in a log that is followed
SILENT_SECONDS = 330.0  # without an event of a watch; API servers send a bookmark about every minute
PAGE = 500  # objects per answer to a list, as kubectl and controllers have it
PAGES = {"configmaps": 20}  # of kinds whose objects may have a megabyte each, whoever has made them
LISTS = 3  # attempts at a list whose pages expire while they are read
FORWARD_SECONDS = 180.0  # without a byte from a port: control may wait for a store or a database before it answers
ATTEMPTS = 4
BACKOFF = Backoff(0.5)
ENDED = (WebSocketConnectionClosedException, ConnectionError)  # what the end of a websocket looks like
JSON_PATCH = "application/json-patch+json"

_log = Log("kubernetes")


class Observer(Protocol):
    """Learns what this process writes, before a watch tells it."""

    kind: str

    def created(self, found: Object) -> None:
        """Takes an object of this kind that was created."""

    def deleted(self, name: str) -> None:
        """Takes the name of an object of this kind that no longer exists."""

    def missed(self, name: str) -> None:
        """Takes the name of an object of this kind that was to be created, but exists."""


class Cluster:
    """Sends requests to one namespace of a cluster.

    All methods raise UnavailableError after bounded retries, and ClusterError if the cluster refuses.
    """

    def __init__(self, connect: Callable[[], client.ApiClient], namespace: str, backoff: Backoff = BACKOFF) -> None:
        """Prepares a client of one namespace, which waits for `backoff` between two attempts of a request.

        `connect` reads the credentials, now and whenever the server does not accept them any more.
        """
        self._connect, self._api = connect, connect()
        self.namespace, self._backoff = namespace, backoff
        self.observers: list[Observer] = []

    @classmethod
    def of_pod(cls, namespace: str) -> Cluster:
        """Returns the cluster of the Pod in which this runs, by its service account."""
        return cls(_connect_in_pod, namespace)

    @classmethod
    def of_kubeconfig(cls, namespace: str | None) -> Cluster:
        """Returns the cluster that `kubectl` uses, of the current context, and the context's namespace if none is given.

        The context stays, whatever `kubectl config use-context` changes meanwhile.
        """
        with _kubeconfig_errors():
            _, active = config.list_kube_config_contexts()

        def connect() -> client.ApiClient:
            loaded = client.Configuration()
            with _kubeconfig_errors():
                config.load_kube_config(context=active["name"], client_configuration=loaded)
            return client.ApiClient(loaded)

        return cls(connect, namespace or active["context"].get("namespace") or "default")

    def list(self, kind: str, selector: str = "", field_selector: str = "") -> list[Object]:
        """Returns the objects with these labels and fields."""
        return self.list_version(kind, selector, field_selector)[0]

    def list_if_served(self, kind: str, selector: str = "") -> Objects:
        """Returns the objects with these labels; none if the cluster does not have the kind, or does not let us list it."""
        try:
            return self.list(kind, selector)
        except (Missing, ClusterError):
            return []

    def list_version(self, kind: str, selector: str = "", field_selector: str = "") -> tuple[Objects, str]:
        """Returns the objects with these labels and fields, and the version of that list, from which `watch` goes on."""
        query = _query(selector, field_selector) | {"limit": str(PAGES.get(kind, PAGE))}
        for attempt in range(LISTS):
            found, token = Objects(), ""
            try:
                while True:
                    answer = self._request("GET", self._path(kind), query | ({"continue": token} if token else {}))
                    found += answer["items"]
                    metadata = answer.get("metadata") or {}
                    token = metadata.get("continue") or ""
                    if not token:
                        return found, str(metadata.get("resourceVersion", ""))
            except Expired:  # a page came too late; the next list begins with the first one
                _log.warning("listed again, as its pages expired", kind=kind, attempt=attempt + 1)
        raise UnavailableError(
            f"Kubernetes: GET {self._path(kind)}: its pages expired {LISTS} times while they were read"
        )

    def watch(
        self, kind: str, version: str, seconds: float, selector: str = "", field_selector: str = ""
    ) -> EventStream:
        """Returns what happens to the objects with these labels and fields after a version, for so many seconds at most.

        Raises Expired if the server does not remember that version. It tries once.
        """
        query = _query(selector, field_selector) | {
            "watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": str(int(seconds))
        }  # fmt: skip
        path = self._path(kind)
        return EventStream(self._send("GET", path, (SECONDS[0], SILENT_SECONDS), query).response, path)

    def get(self, kind: str, name: str) -> Object | None:
        """Returns the object of that name (`name/scale` for its scale), or None."""
        try:
            return self._request("GET", self._path(kind, name))
        except Missing:
            return None

    def create(self, kind: str, body: Object) -> bool:
        """Creates an object; returns False if one of that name exists."""
        try:
            found = self._request("POST", self._path(kind), body=body)
        except Conflict:
            for observer in self._observers_of(kind):
                observer.missed(body["metadata"]["name"])
            return False
        for observer in self._observers_of(kind):
            observer.created(found)
        return True

    def delete(self, kind: str, name: str, grace_seconds: int | None = None) -> None:
        """Deletes an object if it exists and, in the background, what it owns; a Pod gets its own grace period if none is given."""
        grace = {} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        try:
            answer = self._request("DELETE", self._path(kind, name), body={"propagationPolicy": "Background", **grace})
        except Missing:
            answer = {}
        if "metadata" in answer and answer.get("kind") != "Status":
            return  # the object, which exists until its finalizers are done or its grace period is over
        for observer in self._observers_of(kind):
            observer.deleted(name)

    def patch(self, kind: str, name: str, operations: Sequence[Object]) -> bool:
        """Applies a JSON patch (RFC 6902), whole or not at all; returns False if the object was deleted or has changed."""
        try:
            self._request("PATCH", self._path(kind, name), body=list(operations), content_type=JSON_PATCH)
        except (Missing, Conflict):
            return False
        return True

    def logs(self, pod: str) -> Iterator[str]:
        """Yields the lines of the Pod's log as they arrive, from the first to the end; none if the Pod does not exist."""
        path = self._path("pods", f"{pod}/log")
        try:
            answer = self._send("GET", path, (SECONDS[0], FOLLOW_SECONDS), {"follow": "true"}).response
        except Missing:
            return
        with client_errors("GET", path), answer:
            for line in _lines(answer):
                yield line.decode(errors="replace")

    def exchange(self, pod: str, port: int, sent: bytes, most: int) -> bytes:
        """Sends bytes to a port of the Pod, which may listen on its loopback only, and returns what comes back until the Pod ends the connection.

        It tries once. Raises UnavailableError if nothing listens there, or if the Pod ends, and InputError if more than `most` bytes come.
        """
        path = self._path("pods", f"{pod}/portforward")

        def forward(api: client.ApiClient) -> bytes:
            with client_errors(FORWARD, pod):
                _, url, headers, _, _ = _serialized(api, "GET", path, {"ports": str(port)})
                session = create_websocket(api.configuration, get_websocket_url(url), headers)
                try:
                    return _exchange(session, f"port {port} of the Pod {pod}", sent, most)
                finally:
                    session.shutdown()

        try:
            return self._authorized(forward)
        except (Missing, Conflict) as error:
            raise UnavailableError(f"the Pod {pod} has ended; run it again") from error

    def _observers_of(self, kind: str) -> Iterator[Observer]:
        return (observer for observer in self.observers if observer.kind == kind)

    def _path(self, kind: str, name: str = "") -> str:
        return f"{PATHS[kind]}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        headers = {"Accept": "application/json", "Content-Type": content_type}

        def attempt() -> Object:
            answer = self._send(method, path, SECONDS, query, headers, body)
            with client_errors(method, path):
                found: Object = json.loads(answer.response.data)
            return found

        warn = partial(_log.warning, "asked again", request=f"{method} {path}")
        return retrying(_may_pass, self._backoff, warn, ATTEMPTS)(attempt)

    def _send(
        self,
        method: str,
        path: str,
        seconds: tuple[float, float],
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Any:
        def send(api: client.ApiClient) -> Any:
            with client_errors(method, path):
                _, url, all_headers, sent, _ = _serialized(api, method, path, query, headers, body)
                answer: Any = api.call_api(method, url, all_headers, sent, _request_timeout=seconds)
                if answer.status >= 400:
                    raise ApiException(
                        status=answer.status, reason=answer.reason, body=answer.response.data.decode(errors="replace")
                    )
            return answer

        return self._authorized(send)

    def _authorized(self, work: Callable[[client.ApiClient], T]) -> T:
        """Works with the credentials and, if the server does not accept them any more, once more with those that are valid now."""
        try:
            return work(self._api)
        except Unauthorized:
            self._api = self._connect()
            return work(self._api)


def _serialized(
    api: client.ApiClient,
    method: str,
    path: str,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: Any = None,
) -> Any:
    """Returns method, address, headers and body of a request; it renews credentials whose end is known."""
    return api.param_serialize(
        method, path, query_params=list((query or {}).items()), header_params=dict(headers or {}), body=body, auth_settings=["BearerToken"]
    )  # fmt: skip


def _connect_in_pod() -> client.ApiClient:
    loaded = client.Configuration()
    loaded.keep_alive = True  # by which a connection whose other end is lost is noticed within a minute or so
    try:
        config.load_incluster_config(loaded)
    except (config.ConfigException, OSError) as error:
        raise ClusterError(f"service account: {error}; control runs in a Pod of the chart") from error
    return client.ApiClient(loaded)


@contextmanager
def _kubeconfig_errors() -> Iterator[None]:
    try:
        yield
    except (config.ConfigException, OSError) as error:
        raise ClusterError(f"kubeconfig: {error}; set KUBECONFIG, or see that `kubectl get pods` works") from error


def _may_pass(error: BaseException) -> bool:
    """Returns whether the same request may succeed later."""
    return isinstance(error, UnavailableError) and not isinstance(error, Expired)


def _query(selector: str, field_selector: str) -> dict[str, str]:
    given = {"labelSelector": selector, "fieldSelector": field_selector}
    return {name: value for name, value in given.items() if value}


def _lines(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Yields the lines of an answer as they arrive, without their ends."""
    rest = b""
    for chunk in answer.stream(1 << 14):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


class EventStream:
    """Yields the events of a watch as they arrive, until the server ends it, or `end` is called."""

    def __init__(self, answer: urllib3.BaseHTTPResponse, url: str) -> None:
        self._answer, self._url = answer, url

    def __iter__(self) -> Iterator[Object]:
        """Yields events with a `type` and an `object`.

        Raises Expired if the server has forgotten what comes next, UnavailableError if the connection breaks or is silent for SILENT_SECONDS,
        and ClusterError if the server refuses to go on.
        """
        with client_errors("GET", self._url), self._answer:
            for line in _lines(self._answer):
                event = json.loads(line)
                told = event.get("object") if isinstance(event, dict) else None
                if not isinstance(told, dict):
                    raise ValueError("the watch sent what is no event")
                if event.get("type") == "ERROR":
                    raise ApiException(status=told.get("code"), reason=told.get("reason"), body=json.dumps(told))
                needed = {"resourceVersion"} | (set() if event.get("type") == "BOOKMARK" else {"name", "uid"})
                if not needed <= set(told.get("metadata") or ()):
                    raise ValueError("the watch sent an object without a name or a version")
                yield event

    def end(self) -> None:
        """Ends the stream from another thread than the one that reads it."""
        connected = getattr(getattr(self._answer, "connection", None), "sock", None)
        if connected is not None:  # else it has ended
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)


def _exchange(session: Any, what: str, sent: bytes, most: int) -> bytes:
    """Sends bytes to a forwarded port, and returns what comes back.

    The API has two channels for a port: one for its bytes, one for what went wrong. Each begins with a message that names the port. The client's
    own `kubernetes.stream.portforward` is not used: it drops what it has not passed on yet when the connection ends.
    """
    session.settimeout(FORWARD_SECONDS)
    received, wrong, begun = bytearray(), bytearray(), set[int]()
    with suppress(*ENDED):  # if nothing listens there, that was told already
        session.send_binary(b"\0" + sent)
    while True:
        try:
            opcode, frame = session.recv_data_frame(True)
        except ENDED:
            break
        if opcode == ABNF.OPCODE_CLOSE:
            break
        if opcode != ABNF.OPCODE_BINARY or not frame.data:
            continue
        channel = frame.data[0]
        if channel not in begun:
            begun.add(channel)
            continue
        (wrong if channel % 2 else received).extend(frame.data[1:])
        if len(received) + len(wrong) > most:
            raise InputError(f"{what}: sends more than {most:,} bytes; see what runs in that Pod")
    if wrong and not received:
        raise UnavailableError(f"{what}: nothing answers there ({shortened(wrong.decode(errors='replace'), 300)})")
    return bytes(received)
