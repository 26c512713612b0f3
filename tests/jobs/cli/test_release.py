"""Tests how a user's machine asks control, on a server that has the API and forwards to a real HTTP server. `tests/cluster` tests a real Pod."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import release
from shared.errors import ArtifactError, ConfigError, InputError, TailfillError, UnavailableError
from shared.pipeline.release_endpoint import STATUS_PORT
from shared.search.http_server import listen, serving
from tests.support.kube_objects import pod
from tests.support.kube_server import KubeServer, kube_server

LABELS = {"app.kubernetes.io/instance": "study", "app.kubernetes.io/component": "control"}


def control_pod() -> dict[str, Any]:
    found = pod("study-control-a", state={"running": {}}, more={"ready": True})
    found["metadata"]["labels"] = LABELS
    return found


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    """Provides an API server with a release whose control runs."""
    monkeypatch.setattr(release, "REASON_SECONDS", 1.0)
    with kube_server() as (found, cluster):
        found.add("pods", control_pod())
        monkeypatch.setattr(release.Cluster, "of_kubeconfig", lambda _: cluster)
        yield found


@contextmanager
def answering(server: KubeServer, status: str, body: bytes, asked: list[str] | None = None) -> Iterator[None]:
    """Lets control's Pod give an answer to every request, whose targets `asked` takes."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if asked is not None:
            asked.append(f"{environ['HTTP_HOST']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}")
        start_response(status, [("Content-Length", str(len(body)))])
        return [body]

    with ExitStack() as stack:
        found = listen("127.0.0.1", 0, application)
        stack.enter_context(serving(found))
        server.forwarded[STATUS_PORT] = found.server_port
        yield


def test_the_status_comes_from_control_s_own_port(server: KubeServer) -> None:
    asked: list[str] = []
    with answering(server, "200 OK", "all is well \N{SNOWMAN}\n".encode(), asked):
        assert release.release_status("study", None, "tune", True) == "all is well \N{SNOWMAN}"
        release.release_status("study", None, None, False)
    assert asked == ["localhost:8081 /status?why=tune&json=1", "localhost:8081 /status?"]
    assert (
        server.requests == ["GET pods", "GET pods"] * 2
    )  # it lists Pods and forwards a port, and needs no other right


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        ("400 Bad Request", InputError, "^no such stage$"),
        ("503 Service Unavailable", UnavailableError, "^no such stage$"),
        ("500 Internal Server Error", TailfillError, "control answers 500 to /status: no such stage; see its log"),
        ("404 Not Found", TailfillError, "that it is of the command's version"),
    ],
)
def test_what_control_refuses_keeps_its_kind(
    server: KubeServer, status: str, error: type[TailfillError], said: str
) -> None:
    with answering(server, status, b"no such stage\n"), pytest.raises(error, match=said) as raised:
        release.release_status("study", None, None, False)
    assert raised.value.exit_code == error.exit_code


def test_what_control_says_is_no_order_to_a_terminal(server: KubeServer) -> None:
    with answering(server, "400 Bad Request", b"a\x1b[2Jb\nc\n"), pytest.raises(InputError, match=r"a\\u001b\[2Jb\nc"):
        release.release_status("study", None, None, False)


def test_a_container_that_ends_says_why(server: KubeServer) -> None:
    ended = {"terminated": {"exitCode": 2, "message": '{"level": "error", "event": "no such study"}'}}
    found = control_pod()
    found["status"]["containerStatuses"][0] |= {"lastState": ended, "ready": False}
    server.add("pods", found)  # it has begun again, and does not listen yet
    with pytest.raises(UnavailableError, match="port 8081 of the Pod study-control-a: nothing answers there") as raised:
        release.release_status("study", None, None, False)
    assert "control: it ended and is started again: exit 2: no such study" in str(raised.value)


def test_a_control_that_begins_is_waited_for(server: KubeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        monkeypatch.setattr(
            "jobs.cli.release.time.sleep", lambda _: stack.enter_context(answering(server, "200 OK", b"here"))
        )
        assert release.release_status("study", None, None, False) == "here"


def test_an_answer_that_is_cut_is_no_answer(server: KubeServer) -> None:
    def application(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "100")])
        return [b"half"]

    found = listen("127.0.0.1", 0, application)
    with serving(found):
        server.forwarded[STATUS_PORT] = found.server_port
        with pytest.raises(UnavailableError, match="was cut before its answer ended"):
            release.release_status("study", None, None, False)


def test_a_right_that_is_missing_is_named(server: KubeServer) -> None:
    server.refusals["GET", "pods"] = 403
    with pytest.raises(InputError, match=r"Kubernetes: GET .*/pods: no; ask for the right"):
        release.release_status("study", None, None, False)


def test_a_release_that_is_not_there_may_have_another_name(server: KubeServer) -> None:
    with pytest.raises(
        InputError, match=r"release other: there is none in the namespace ns; .* or its fullnameOverride"
    ):
        release.release_status("other", None, None, False)


def test_parameters_come_as_best_a_file_or_json(tmp_path: Path) -> None:
    assert release.read_parameters("best") is None
    assert release.read_parameters('{"training.lr": 1e-05}') == {"training.lr": 1e-05}
    (tmp_path / "best.json").write_text('{"parameters": {"training.lr": 0.1}, "value": 0.5}')
    assert release.read_parameters(str(tmp_path / "best.json")) == {"training.lr": 0.1}
    for bad in ("nowhere.yaml", "{", "{}", '{"parameters": 1}', '{"training.lr": 2026-01-31}', '{"training.lr": .inf}'):
        with pytest.raises(ConfigError, match="--params"):
            release.read_parameters(bad)


def packed(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, to, 3 * (kind == tarfile.REGTYPE)
    return info


PAGE = member("index.html")
Fetch = Callable[[bytes, Path], str]


@pytest.fixture
def fetch(server: KubeServer) -> Fetch:
    def fetched(archive: bytes, folder: Path) -> str:
        with answering(server, "200 OK", archive):
            return release.fetch_release_report("study", None, folder)

    return fetched


def test_a_report_is_unpacked(tmp_path: Path, fetch: Fetch) -> None:
    page = Path(fetch(packed(PAGE, member("plots/a.png")), tmp_path / "report"))
    assert page.read_bytes() == (tmp_path / "report/plots/a.png").read_bytes() == b"xxx"


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (packed(PAGE, member("../x")), "names are relative and normal"),
        (packed(PAGE, member("/etc/x")), "names are relative and normal"),
        (packed(member("a", tarfile.SYMTYPE, "/etc"), member("a/x")), "is not a regular file"),
        (packed(member("a", tarfile.LNKTYPE, "nowhere")), "is not a regular file"),
        (packed(member("a", tarfile.FIFOTYPE)), "is not a regular file"),
        (packed(member("a"), member("a/b")), "cannot be written"),
        (b"no archive", "control sent no archive"),
        (packed(PAGE)[:40], "control sent no archive"),
    ],
    ids=["parent", "absolute", "link", "hard-link", "pipe", "file-as-folder", "text", "cut-short"],
)
def test_an_archive_that_is_no_report(tmp_path: Path, fetch: Fetch, archive: bytes, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        fetch(archive, tmp_path / "report")
    assert [path.name for path in tmp_path.iterdir()] in ([], ["report"])


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("MOST_SENT", "sends more than 4 bytes"),
        ("MOST_UNPACKED", "unpacks to more"),
        ("MOST_FILES", "unpacks to more"),
    ],
)
def test_an_archive_that_is_too_large(
    tmp_path: Path, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, limit: str, said: str
) -> None:
    monkeypatch.setattr(release, limit, 4 if limit != "MOST_FILES" else 1)
    with pytest.raises(InputError, match=said):
        fetch(packed(PAGE, member("a"), member("b")), tmp_path / "report")
    assert sum(path.is_file() for path in tmp_path.rglob("*")) <= 1


def test_a_large_report_arrives_whole(tmp_path: Path, fetch: Fetch) -> None:
    large = member("index.html")
    large.size = 20 << 20
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=0) as tar:
        tar.addfile(large, io.BytesIO(bytes(large.size)))
    assert Path(fetch(buffer.getvalue(), tmp_path)).stat().st_size == 20 << 20


def test_a_member_that_claims_to_be_immense_is_refused_before_it_is_written(tmp_path: Path, fetch: Fetch) -> None:
    claim = member("index.html")
    claim.size = 1 << 40
    with pytest.raises(ArtifactError, match="unpacks to more than any report has"):
        fetch(gzip.compress(claim.tobuf()), tmp_path / "report")
    assert not (tmp_path / "report").exists()
