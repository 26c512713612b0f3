"""Implements the commands on a release, which a user's machine runs: the state of its Jobs and Pods, its report, and final trainings.

Only the Kubernetes API has to be reachable: what control knows, its Pod tells on loopback, to whoever may forward ports to it.
"""

from __future__ import annotations

import http.client
import io
import json
import shutil
import tarfile
import time
import zlib
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from jobs.submit import submit_final as submit
from jobs.submit import withdraw as withdraw_request
from shared.artifacts.disk import whole_file
from shared.config.plain_yaml import read_text
from shared.errors import ArtifactError, ConfigError, InputError, TailfillError, UnavailableError
from shared.kube.api import Cluster, Object
from shared.kube.requests import SubmitRequest, parse_parameters
from shared.kube.states import leaving
from shared.names import checked_part, path_below, shown
from shared.pipeline.local_session import WORK
from shared.pipeline.release_endpoint import STATUS_PORT
from shared.pipeline.release_status import ReleaseSnapshot, control_selector
from shared.terminal import shortened

REASON_SECONDS = 10.0  # for control to begin to answer, or for Kubernetes to say why its container ended
MOST_SENT = 1 << 28  # bytes; a report has some megabytes
MOST_UNPACKED = 4 << 30  # bytes
MOST_FILES = 10_000
LONGEST_WORDS = 4000  # characters of what control says in place of an answer


class _Received(NamedTuple):
    """Holds the bytes of an answer, as `http.client` reads them from a socket."""

    data: bytes

    def makefile(self, *_: object) -> io.BytesIO:
        """Returns the bytes as a file."""
        return io.BytesIO(self.data)


def ask_control(cluster: Cluster, release: str, path: str, **query: str) -> bytes:
    """Returns what the release's control answers to a GET request.

    Raises InputError if there is no such release or control refuses, and UnavailableError, with the state of its Pods, if control does not answer.
    """
    target = f"{path}?{urlencode(query)}" if query else path
    deadline = time.monotonic() + REASON_SECONDS
    while True:
        try:
            return _ask(cluster, _running_control(cluster, release), target)
        except _NoAnswer as error:
            # its container has ended or begins: Kubernetes may need some seconds until it says so
            snapshot = ReleaseSnapshot.take(cluster, release)
            if not snapshot.control_runs or time.monotonic() >= deadline:
                raise UnavailableError("\n".join([f"release {release}: {error}", *snapshot.lines()])) from error
            time.sleep(0.5)


class _NoAnswer(UnavailableError):
    """Says that nothing answered in control's Pod, as against an answer that a service is unavailable."""


def _ask(cluster: Cluster, pod: str, target: str) -> bytes:
    request = f"GET {target} HTTP/1.0\r\nHost: localhost:{STATUS_PORT}\r\n\r\n"
    try:
        received = cluster.exchange(pod, STATUS_PORT, request.encode("ascii"), MOST_SENT)
        answer = http.client.HTTPResponse(_Received(received))  # type: ignore[arg-type]
        answer.begin()
        body = answer.read()
    except UnavailableError as error:
        raise _NoAnswer(str(error)) from error
    except http.client.HTTPException as error:
        raise _NoAnswer(f"the connection to the Pod {pod} was cut before its answer ended; run it again") from error
    if answer.status == HTTPStatus.OK:
        return body
    said = "\n".join(
        shortened(line, LONGEST_WORDS) for line in body[:LONGEST_WORDS].decode(errors="replace").splitlines()
    )
    if answer.status == HTTPStatus.BAD_REQUEST:
        raise InputError(said)
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise UnavailableError(said)
    raise TailfillError(
        f"control answers {answer.status} to {target}: {said}; see its log, and that it is of the command's version"
    )


def _running_control(cluster: Cluster, release: str) -> str:
    """Returns the name of the release's control Pod that runs; raises the errors of `ask_control` if there is none."""
    control = cluster.list("pods", control_selector(release))
    running = [pod for pod in control if not leaving(pod) and _ready(pod)]
    if running:
        return str(running[0]["metadata"]["name"])
    snapshot = ReleaseSnapshot.take(cluster, release)
    if not (snapshot.control or snapshot.jobs or snapshot.workers):
        raise InputError(
            f"release {release}: there is none in the namespace {cluster.namespace}; name it with --release and --namespace, "
            "see `helm list -A`, or its fullnameOverride if it has one"
        )
    raise UnavailableError("\n".join([f"release {release}: its control Pod is not ready", *snapshot.lines()]))


def _ready(pod: Object) -> bool:
    """Returns whether control runs in the Pod, which needs no service to tell what it knows."""
    statuses = pod["status"].get("containerStatuses") or ()
    return any("running" in container.get("state", {}) for container in statuses)


def release_status(release: str, namespace: str | None, why: str | None, as_json: bool) -> str:
    """Returns the progress of the release's study, and why nothing moves if nothing does.

    With `why`, it returns what would make that stage run again.
    """
    query = {**({} if why is None else {"why": why}), **({"json": "1"} if as_json else {})}
    return (
        ask_control(Cluster.of_kubeconfig(namespace), release, "/status", **query)
        .decode(errors="replace")
        .removesuffix("\n")
    )


def submit_final(release: str, namespace: str | None, request: SubmitRequest, as_json: bool) -> str:
    """Requests final trainings, follows them, and returns their metrics; raises what `jobs.submit.submit_final` and `ask_control` raise."""

    cluster = Cluster.of_kubeconfig(namespace)
    return submit(cluster, release, partial(_ask_for_requests, cluster, release), request, as_json)


def withdraw(release: str, namespace: str | None, request: str) -> str:
    """Withdraws a request, and says so; raises what `jobs.submit.withdraw` and `ask_control` raise."""
    cluster = Cluster.of_kubeconfig(namespace)
    return withdraw_request(cluster, release, partial(_ask_for_requests, cluster, release), request)


def _ask_for_requests(cluster: Cluster, release: str, **query: str) -> Mapping[str, Any]:
    try:
        told: Mapping[str, Any] = json.loads(ask_control(cluster, release, "/requests", **query))
    except ValueError as error:
        raise ArtifactError(
            f"release {release}: control answers no JSON ({error}); see what runs in its Pod"
        ) from error
    return told


def print_release_report(release: str, namespace: str | None, workdir: Path | None, as_json: bool) -> str:
    """Copies a release's report into the work directory, `work/<release>` by default.

    Returns the path of its page or, with `as_json`, its results.json.
    """
    folder = workdir or WORK / checked_part(release, "--release", ConfigError)
    page = fetch_release_report(release, namespace, folder / "report")
    return (Path(page).parent / "results.json").read_text() if as_json else page


def fetch_release_report(release: str, namespace: str | None, folder: Path) -> str:
    """Copies the report of a release into a folder, and returns the path of its page.

    Raises ArtifactError if what control sent is damaged or would be written outside of the folder, and the errors of `ask_control`.
    """
    archive = ask_control(Cluster.of_kubeconfig(namespace), release, "/report")
    what = f"report of the release {release}"
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            unpacked = 0
            for number, member in enumerate(tar, 1):
                path = path_below(folder, member.name, what)
                unpacked += member.size
                if number > MOST_FILES or unpacked > MOST_UNPACKED:
                    raise ArtifactError(
                        f"{what}: unpacks to more than any report has; see what runs in its control Pod"
                    )
                content = tar.extractfile(member) if member.isfile() else None
                if content is None:
                    raise ArtifactError(f"{what}: {shown(member.name)} is not a regular file; run `report` again")
                with whole_file(path, private=False) as temporary, temporary.open("wb") as file:
                    shutil.copyfileobj(content, file)
    except (ValueError, EOFError, OSError, tarfile.TarError, zlib.error) as error:
        raise ArtifactError(f"{what}: control sent no archive ({error}); run the same command again") from error
    return str(folder / "index.html")


def read_parameters(given: str) -> Mapping[str, Any] | None:
    """Returns the parameters by path of `--params`, or None for `best`.

    `given` is a JSON or YAML file, which may be a search's best.json, or the JSON itself. Raises ConfigError if it is neither.
    """
    if given == "best":
        return None
    if given.lstrip().startswith("{"):
        return parse_parameters(given, "--params")
    name = f"--params {given}"
    return parse_parameters(read_text(Path(given), name, "give `best`, or a file with values by path"), name)
