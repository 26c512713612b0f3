"""Answers what people ask of a release over HTTP: its status, its report, its requests, its metrics.

The endpoint listens on the loopback of control's Pod, so that only who may forward ports to the Pod reaches it (`pods/portforward`). It only tells; what
people want to change, they change in Kubernetes. No answer has a secret in it: what it tells is what logs and messages may hold.
"""

from __future__ import annotations

import json
import re
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import parse_qsl

from shared.artifacts.disk import disk_errors
from shared.errors import ConfigError, InputError, UnavailableError
from shared.kube.api import Cluster
from shared.log import Log
from shared.pipeline import status as step_status
from shared.pipeline.final_requests import FinalRequests, repeat_of
from shared.pipeline.release_status import Refusals, ReleaseSnapshot, describe_release
from shared.pipeline.session import Session
from shared.search.http_server import LOOPBACK, Application, listen, serving
from shared.settings import Settings

STATUS_PORT = 8081
"""Gives the port of the endpoint in control's Pod, which the chart sets as TAILFILL_STATUS_PORT."""
SECONDS = 600.0  # that an answer may take: a report through a slow tunnel, or a status while a store does not answer
AT_ONCE = 4  # answers that are put together at the same time
WAIT_SECONDS = 30.0  # for one of them to end
LONGEST = 2000  # characters of a request's path and query
FIELDS = 5  # of a query
CHUNK = 1 << 16

_log = Log("endpoint")


@dataclass(frozen=True)
class ControlState:
    """Holds what a control knows of its release at one moment."""

    session: Session | None = None
    """Holds the study; None until control has reached its services."""
    waiting: str = "control is starting"
    """Says what control waits for until then."""
    requests: FinalRequests | None = None
    refusals: Callable[[], Refusals] = Refusals
    """Returns what the cluster has refused by now."""


class Answer(NamedTuple):
    """Holds an answer: text, JSON or a file."""

    kind: str
    body: bytes | IO[bytes]
    size: int


class Endpoint:
    """Answers GET requests; a WSGI application."""

    def __init__(self, release: str, cluster: Cluster, state: Callable[[], ControlState], metrics: Application) -> None:
        self._release, self._cluster, self._state, self._metrics = release, cluster, state, metrics
        self._free = threading.BoundedSemaphore(AT_ONCE)
        self._paths: dict[str, tuple[Callable[[Mapping[str, str]], Answer], set[str]]] = {
            "/status": (self._status, {"why", "json"}),
            "/report": (self._report, set()),
            "/requests": (self._requests, {"results"}),
        }

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answers a request; every error is an answer too, whose status says which kind it is."""
        path = environ.get("PATH_INFO", "")
        if not re.fullmatch(
            rf"({'|'.join(map(re.escape, LOOPBACK))})(:[0-9]{{1,5}})?", environ.get("HTTP_HOST", "").lower()
        ):
            # a page from elsewhere could let its own name resolve to this machine, and so read what is told here
            return _refuse(start_response, "403 Forbidden", f"answers to {', '.join(LOOPBACK)} only")
        if environ["REQUEST_METHOD"] != "GET":
            return _refuse(start_response, "405 Method Not Allowed", "only tells, by GET")
        if len(path) + len(environ.get("QUERY_STRING", "")) > LONGEST:
            return _refuse(start_response, "414 URI Too Long", f"reads no more than {LONGEST} characters")
        if path == "/metrics":
            return self._metrics(environ, start_response)
        if path not in self._paths:
            return _refuse(start_response, "404 Not Found", f"has {', '.join([*self._paths, '/metrics'])}")
        if not self._free.acquire(timeout=WAIT_SECONDS):
            return _refuse(start_response, "503 Service Unavailable", "answers others; ask again")
        try:
            answer = self._answer(path, environ.get("QUERY_STRING", ""))
        except InputError as error:
            return _refuse(start_response, "400 Bad Request", str(error), begins="")
        except UnavailableError as error:
            return _refuse(start_response, "503 Service Unavailable", str(error), begins="")
        finally:
            self._free.release()
        return _give(environ, start_response, answer)

    def _answer(self, path: str, query: str) -> Answer:
        tell, known = self._paths[path]
        try:
            given = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=FIELDS, errors="strict"))
        except ValueError as error:  # too many fields, or no text
            raise ConfigError(f"{path}: the query cannot be read ({error})") from error
        if unknown := given.keys() - known:
            raise ConfigError(
                f"{path}: knows no {', '.join(sorted(unknown))}; it takes {', '.join(sorted(known)) or 'nothing'}"
            )
        return tell(given)

    def _status(self, query: Mapping[str, str]) -> Answer:
        state, as_json = self._state(), "json" in query
        if "why" in query:
            session = _opened(state)
            reasons = step_status.why(session.study, session.steps, session.artifacts, query["why"])
            return _text(json.dumps({"why": reasons.splitlines()}, ensure_ascii=False) if as_json else reasons)
        snapshot = ReleaseSnapshot.take(self._cluster, self._release)
        return _text(
            describe_release(snapshot, state.session, state.waiting, state.requests, state.refusals(), as_json)
        )

    def _report(self, _: Mapping[str, str]) -> Answer:
        """Returns the report's files as a tar archive; raises ConfigError if the report is not committed."""
        session = _opened(self._state())
        last = step_status.states(session.study, session.steps, session.artifacts)[-1]
        if last.manifest is None:
            raise ConfigError("its report is not committed yet; `tailfill status --release` shows its progress")
        with disk_errors(Path(tempfile.gettempdir())), ExitStack() as stack:
            file = stack.enter_context(tempfile.TemporaryFile())
            with tarfile.open(fileobj=file, mode="w:gz") as tar:
                for each in last.manifest.files:
                    tar.add(session.artifacts.fetch(each), arcname=each.name)
            size = file.tell()
            file.seek(0)
            stack.pop_all()  # the server closes it once it is sent
        return Answer("application/gzip", file, size)

    def _requests(self, query: Mapping[str, str]) -> Answer:
        """Returns the study's name and the state of each request, with the metrics of the one that `results` names."""
        state = self._state()
        session, requests = _opened(state), state.requests
        if requests is None:
            raise UnavailableError(state.waiting)
        found: dict[str, Any] = {
            "study": session.study.name,
            "problem": requests.problem or None,
            "requests": [each.as_json() for each in requests.states()],
        }
        if "results" in query:
            found["results"] = [
                {"experiment": task.experiment, "seed": repeat_of(task), "key": task.key, "metrics": manifest.summary}
                for task, manifest in requests.results(query["results"])
            ]
        return _text(json.dumps(found, indent=1))


def _opened(state: ControlState) -> Session:
    if state.session is None:
        raise UnavailableError(state.waiting)
    return state.session


def _text(text: str) -> Answer:
    body = f"{text}\n".encode(errors="replace")
    return Answer("text/plain; charset=utf-8", body, len(body))


def _give(environ: Mapping[str, Any], start_response: Any, answer: Answer, status: str = "200 OK") -> Iterable[bytes]:
    start_response(
        status,
        [
            ("Content-Type", answer.kind),
            ("Content-Length", str(answer.size)),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ],
    )
    if isinstance(answer.body, bytes):
        return [answer.body]
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](answer.body, CHUNK)
    return wrapped


def _refuse(start_response: Any, status: str, reason: str, begins: str = "control's endpoint ") -> Iterable[bytes]:
    return _give({}, start_response, _text(begins + reason), status)


@contextmanager
def endpoint_served(settings: Settings, endpoint: Callable[[], Application]) -> Iterator[int | None]:
    """Serves the endpoint on loopback while the block runs; yields the port, or None if `settings` name none and it is not made.

    Raises ConfigError if it cannot listen on the port.
    """
    if not settings.status_port:
        yield None
        return
    try:
        server = listen("127.0.0.1", settings.status_port, endpoint(), SECONDS)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"TAILFILL_STATUS_PORT: {settings.status_port} cannot be listened on ({error}); name another port"
        ) from error
    _log.info("status and report are served", address=f"http://127.0.0.1:{server.server_port}")
    with serving(server):
        yield server.server_port
