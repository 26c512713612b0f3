"""Turns what the Kubernetes client raises into errors of ours."""

from __future__ import annotations

import json
from typing import Any

import urllib3
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException
from websocket import WebSocketBadStatusException, WebSocketException

from shared.errors import InputError, UnavailableError

UNAVAILABLE = (429, 500, 502, 503, 504)  # statuses that concern the API server, not the request
FORWARD = "forward to"  # in place of a method


class ClusterError(InputError):
    """Says that the cluster refuses permanently: a right is missing, or it does not accept an object."""


class Unauthorized(ClusterError):
    """Says that the API server does not accept the credentials (401)."""


class Expired(UnavailableError):
    """Says that the API server does not remember a version any more (410), so that the objects must be listed anew."""


class Missing(Exception):
    """Says that the object does not exist (404)."""


class Conflict(Exception):
    """Says that the object exists or has changed (409), or that a patch's test failed (422)."""


class client_errors:
    """Turns what the Kubernetes client raises into our errors."""

    def __init__(self, method: str, target: str) -> None:
        self._method = method
        self._what = f"{method} {target.split('?')[0]}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, WebSocketBadStatusException):
            said = (error.resp_body or b"").decode(errors="replace")
            error = ApiException(status=error.status_code, reason="refused", body=said)
        elif isinstance(error, WebSocketException | OSError):
            raise UnavailableError(
                f"Kubernetes: {self._what}: the connection was cut ({' '.join(str(error).split())[:300]}); run it again"
            ) from error
        if isinstance(error, urllib3.exceptions.HTTPError | ValueError | ConfigException):
            raise UnavailableError(f"Kubernetes: {self._what}: {' '.join(str(error).split())[:300]}") from error
        if not isinstance(error, ApiException):
            return
        said = _message(error)
        if not error.status or error.status in UNAVAILABLE:
            raise UnavailableError(f"Kubernetes: {self._what}: {said}") from error
        if error.status == 404:
            raise Missing from error
        if error.status == 410:
            raise Expired(f"Kubernetes: {self._what}: {said}") from error
        if error.status == 409 or (error.status == 422 and self._method == "PATCH"):
            raise Conflict from error
        if error.status == 400 and self._method == FORWARD:
            raise UnavailableError(f"Kubernetes: {self._what}: the Pod does not run ({said}); run it again") from error
        if error.status == 401:
            raise Unauthorized(f"Kubernetes: {self._what}: {said}; log in to the cluster again") from error
        remedy = (
            "ask for the right (or for more quota), see the chart's README"
            if error.status == 403
            else "see the chart and its values"
        )
        raise ClusterError(f"Kubernetes: {self._what}: {said}; {remedy}") from error


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"
