"""Kubernetes' API: the few requests that tailfill makes, in one namespace, as plain JSON objects.

The client's own models are left out: they check far more than we read, and a manifest of the chart is JSON already.
"""

from __future__ import annotations

import codecs
import json
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

import kubernetes.config as config
import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream
from websocket import WebSocketException

from shared.errors import InputError, UnavailableError
from shared.log import Log

Object = dict[str, Any]
"""A Kubernetes object as JSON has it."""

PATHS = {
    "deployments": "/apis/apps/v1",
    "events": "/api/v1",
    "jobs": "/apis/batch/v1",
    "pods": "/api/v1",
    "serviceaccounts": "/api/v1",
}
SECONDS = (5.0, 30.0)  # to connect, and to answer
FOLLOW_SECONDS = 3600.0  # without a line in a log that is followed
PING_SECONDS = 30.0  # load balancers drop connections on which nothing moves
ATTEMPTS = 4
AWAY = (429, 500, 502, 503, 504)  # what the API server says of itself, not of the request
JSON_PATCH = "application/json-patch+json"

_log = Log("kubernetes")


class ClusterError(InputError):
    """The cluster refuses for good: no right to do it, or an object that it does not accept."""


class Cluster:
    """One namespace of a cluster. All methods raise UnavailableError after bounded retries, and ClusterError where they are refused."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._api, self.namespace = api, namespace

    @classmethod
    def of_pod(cls, namespace: str) -> Cluster:
        """By the service account of the Pod that this runs in."""
        loaded = client.Configuration()
        try:
            config.load_incluster_config(loaded)
        except config.ConfigException as error:
            raise ClusterError(f"service account: {error}; control runs in a Pod of the chart") from error
        return cls(client.ApiClient(loaded), namespace)

    @classmethod
    def of_kubeconfig(cls, namespace: str | None) -> Cluster:
        """As `kubectl` finds it: KUBECONFIG or ~/.kube/config, its current context, and its namespace where none is given."""
        loaded = client.Configuration()
        try:
            _, active = config.list_kube_config_contexts()
            config.load_kube_config(client_configuration=loaded)
        except (config.ConfigException, OSError) as error:
            raise ClusterError(f"kubeconfig: {error}; set KUBECONFIG, or see that `kubectl get pods` works") from error
        return cls(client.ApiClient(loaded), namespace or active["context"].get("namespace", "default"))

    def list(self, kind: str, selector: str = "", field_selector: str = "") -> list[Object]:
        """The objects with these labels (and fields)."""
        query = {"labelSelector": selector, "fieldSelector": field_selector}
        answer = self._request("GET", self._path(kind), {name: value for name, value in query.items() if value})
        found: list[Object] = answer["items"]
        return found

    def get(self, kind: str, name: str) -> Object | None:
        """The object of that name (`name/scale` for its scale), or None."""
        try:
            return self._request("GET", self._path(kind, name))
        except _Missing:
            return None

    def create(self, kind: str, body: Object) -> bool:
        """Makes an object; False where there is one of that name."""
        try:
            self._request("POST", self._path(kind), body=body)
        except _Conflict:
            return False
        return True

    def delete(self, kind: str, name: str) -> None:
        """Removes an object and, in the background, what it owns; nothing happens where there is none."""
        try:
            self._request("DELETE", self._path(kind, name), body={"propagationPolicy": "Background"})
        except _Missing:
            return

    def patch(self, kind: str, name: str, operations: Sequence[Object]) -> bool:
        """Applies a JSON patch (RFC 6902), whole or not at all; False where the object is gone or has changed meanwhile."""
        try:
            self._request("PATCH", self._path(kind, name), body=list(operations), content_type=JSON_PATCH)
        except (_Missing, _Conflict):
            return False
        return True

    def logs(self, pod: str) -> Iterator[str]:
        """Lines of the Pod's container from its first on, as they come, until it ends; none where the Pod is gone."""
        method, url, headers, _, _ = self._api.param_serialize(
            "GET", self._path("pods", f"{pod}/log"), query_params=[("follow", "true")], auth_settings=["BearerToken"]
        )
        try:
            answer = self._send(method, url, headers, None, (SECONDS[0], FOLLOW_SECONDS)).response
        except _Missing:
            return
        with _translated("GET", url), answer:
            rest = b""
            for chunk in answer.stream(1 << 14):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
            if rest:
                yield rest.decode(errors="replace")

    def execute(self, pod: str, command: Sequence[str], out: TextIO, err: TextIO) -> int:
        """Runs a command in the Pod's container, passes its output on as it comes, and returns its exit code."""
        call = client.CoreV1Api(self._api).connect_get_namespaced_pod_exec
        options = {"command": list(command), "stdout": True, "stderr": True, "stdin": False, "tty": False}
        with _translated("exec in", pod):
            session = stream(
                call, pod, self.namespace, container="main", **options, binary=True, _preload_content=False
            )
            try:
                return _passed_on(session, {1: out, 2: err})
            finally:
                session.close()

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
        for attempt in range(1, ATTEMPTS + 1):
            sent = self._api.param_serialize(
                method, path, query_params=list((query or {}).items()), header_params=headers, body=body, auth_settings=["BearerToken"]
            )  # fmt: skip
            try:
                answer = self._send(*sent[:4], SECONDS)
                with _translated(method, path):
                    found: Object = json.loads(answer.response.data)
                return found
            except UnavailableError as error:
                if attempt == ATTEMPTS:
                    raise
                wait = 2.0**attempt / 4 * random.uniform(0.5, 1.5)
                _log.warning("asked again", request=f"{method} {path}", attempt=attempt, seconds=wait, error=str(error))
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _send(self, method: str, url: str, headers: Any, body: Any, seconds: tuple[float, float]) -> Any:
        with _translated(method, url):
            answer = self._api.call_api(method, url, headers, body, _request_timeout=seconds)
            if answer.status >= 400:
                raise ApiException(status=answer.status, reason=answer.reason, body=answer.response.data.decode())
        return answer


def _passed_on(session: Any, targets: Mapping[int, TextIO]) -> int:
    """The exit code of an exec session, whose channels are passed on until it ends."""
    decoders = {channel: codecs.getincrementaldecoder("utf-8")("replace") for channel in targets}

    def pass_on() -> None:
        for channel, target in targets.items():
            if data := session.read_channel(channel):
                target.write(decoders[channel].decode(data))
                target.flush()

    pinged = time.monotonic()
    try:
        while session.is_open():
            session.update(timeout=1)
            pass_on()
            if time.monotonic() - pinged >= PING_SECONDS:
                session.sock.ping()
                pinged = time.monotonic()
        pass_on()  # what came together with the end
        return int(session.returncode)
    except (
        WebSocketException,
        OSError,
        TypeError,
        KeyError,
        IndexError,
    ) as error:  # no exit code came: the client's words for a cut
        raise UnavailableError(
            f"the connection to the Pod was cut before the command ended ({error!r}); run it again"
        ) from error


class _Missing(Exception):
    """404."""


class _Conflict(Exception):
    """409, or a patch whose test failed (422)."""


class _translated:
    """Turns what the client raises into our errors."""

    def __init__(self, method: str, target: str) -> None:
        self._what = f"{method} {target.split('?')[0]}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ApiException) and (refused := re.search(r"Handshake status (\d+)", str(error.reason))):
            error.status = int(refused[1])  # of a websocket, whose refusal the client gives as words
            error.reason = f"refused ({refused[1]})"
        if isinstance(error, urllib3.exceptions.HTTPError | ValueError):
            raise UnavailableError(f"Kubernetes: {self._what}: {' '.join(str(error).split())[:300]}") from error
        if not isinstance(error, ApiException):
            return
        said = _message(error)
        if not error.status or error.status in AWAY:
            raise UnavailableError(f"Kubernetes: {self._what}: {said}") from error
        if error.status == 404:
            raise _Missing from error
        if error.status == 409 or (error.status == 422 and self._what.startswith("PATCH")):
            raise _Conflict from error
        remedy = {
            401: "log in to the cluster again",
            403: "ask for the right (or for more quota), see the chart's README",
        }
        raise ClusterError(
            f"Kubernetes: {self._what}: {said}; {remedy.get(error.status, 'see the chart and its values')}"
        ) from error


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"
