"""Tests what a user reads if the S3 server is unavailable, refuses a request, or ends a response early."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import SecretStr

from shared.artifacts import s3
from shared.artifacts.s3 import S3Store
from shared.errors import ArtifactError, ConfigError, UnavailableError
from shared.services.process import free_ports
from shared.services.s3 import BUCKET
from shared.settings import Settings


def test_wrong_secret_key(s3_server: Settings) -> None:
    store = S3Store(BUCKET, "p", dataclasses.replace(s3_server, s3_secret_key=SecretStr("not-the-secret")), attempts=2)
    for call in (
        lambda: store.put("a", b""),
        lambda: store.get("a"),
        lambda: store.exists("a"),
        lambda: store.create("a", b""),
    ):
        with pytest.raises(ArtifactError) as caught:
            call()
        message = str(caught.value)
        assert s3_server.s3_endpoint is not None
        assert s3_server.s3_endpoint in message
        assert BUCKET in message
        assert "AWS_SECRET_ACCESS_KEY" in message
        assert "not-the-secret" not in message
        assert "\n" not in message


def test_a_session_token_is_sent_with_the_keys(s3_server: Settings) -> None:
    store = S3Store(BUCKET, "p", dataclasses.replace(s3_server, s3_session_token=SecretStr("a-token")))
    sent = []

    def look(request: Any, **_: Any) -> None:
        sent.append(request.headers["X-Amz-Security-Token"])

    store._client.meta.events.register("before-send.s3", look)
    with suppress(ArtifactError):
        store.exists("a")
    assert sent[0] in ("a-token", b"a-token")


def test_unknown_access_key(s3_server: Settings) -> None:
    store = S3Store(BUCKET, "p", dataclasses.replace(s3_server, s3_access_key=SecretStr("nobody")), attempts=2)
    with pytest.raises(ArtifactError, match=r"access refused \(InvalidAccessKeyId\); check AWS_ACCESS_KEY_ID"):
        list(store.list(""))


def test_missing_bucket(s3_server: Settings, tmp_path: Path) -> None:
    store = S3Store("no-such-bucket", "p", s3_server, attempts=2)
    (tmp_path / "file").write_bytes(b"x" * 100)
    for call in (
        lambda: store.put("a", b""),
        lambda: store.put_file("a", tmp_path / "file"),
        lambda: store.create("a", b""),
        lambda: store.get("a"),
        lambda: store.exists("a"),
        lambda: list(store.list("")),
    ):
        with pytest.raises(ArtifactError, match="has no bucket 'no-such-bucket'; create it"):
            call()


def test_server_unavailable(s3_server: Settings, caplog: pytest.LogCaptureFixture) -> None:
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    store = S3Store(BUCKET, "p", dataclasses.replace(s3_server, s3_endpoint=endpoint), attempts=2)
    with caplog.at_level(logging.INFO), pytest.raises(UnavailableError, match="does not answer after 2 attempts"):
        store.get("a")
    assert [record.getMessage() for record in caplog.records if record.name == "tailfill.s3"] == ["retry"]


def test_malformed_endpoint(s3_server: Settings) -> None:
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL_S3: must be like http://host:port"):
        S3Store(BUCKET, "p", dataclasses.replace(s3_server, s3_endpoint="127.0.0.1"))


def test_no_credentials(s3_server: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    store = S3Store(BUCKET, "p", dataclasses.replace(s3_server, s3_access_key=None, s3_secret_key=None), attempts=1)
    with pytest.raises(ArtifactError, match="there are no credentials for it; set AWS_ACCESS_KEY_ID"):
        store.get("a")


@pytest.mark.parametrize(
    ("addressing", "asked"),
    [(None, "http://s3.example.test/bucket/p/a"), ("virtual", "http://bucket.s3.example.test/p/a")],
)
def test_the_bucket_is_in_the_path_or_in_the_host(
    s3_server: Settings, monkeypatch: pytest.MonkeyPatch, addressing: Literal["virtual"] | None, asked: str
) -> None:
    """A proxy sees the addresses, so that no name has to resolve."""
    seen: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"found")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.server_port}")
        settings = dataclasses.replace(s3_server, s3_endpoint="http://s3.example.test", s3_addressing=addressing)
        assert S3Store(BUCKET, "p", settings, attempts=1).get("a") == b"found"
        proxy.shutdown()
    assert seen == [asked.replace("bucket", BUCKET)]


class Proxy:
    """Forwards TCP connections, and closes the first `cuts` of them once the server has sent `limit` bytes."""

    def __init__(self, target: str, limit: int, cuts: int) -> None:
        host, port = target.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._limit, self._cuts = limit, cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            threading.Thread(target=self._pump, args=(client, server, None), daemon=True).start()
            limit = self._limit if self._cuts > 0 else None
            self._cuts -= 1
            threading.Thread(target=self._pump, args=(server, client, limit), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        sent = 0
        with suppress(OSError):
            while data := source.recv(65536):
                if limit is not None and sent + len(data) >= limit:
                    sink.sendall(data[: limit - sent])
                    break
                sink.sendall(data)
                sent += len(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextmanager
def cut_short(settings: Settings, limit: int, cuts: int) -> Iterator[Settings]:
    assert settings.s3_endpoint is not None
    proxy = Proxy(settings.s3_endpoint, limit, cuts)
    yield dataclasses.replace(settings, s3_endpoint=proxy.endpoint)
    proxy.close()


def test_a_body_that_is_always_cut_short(s3_server: Settings, tmp_path: Path) -> None:
    S3Store(BUCKET, "cut", s3_server).put("always", b"x" * 3_000_000)
    for read in ("get", "get_file"):
        with cut_short(s3_server, 100_000, 1000) as settings:
            store = S3Store(BUCKET, "cut", settings, attempts=2)
            with pytest.raises(UnavailableError, match=r"s3://tailfill/cut/always at .*: its body was cut short"):
                store.get("always") if read == "get" else store.get_file("always", tmp_path / "copy")


def test_a_body_that_is_cut_short_twice_arrives_whole(
    s3_server: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = bytes(range(256)) * 20_000
    S3Store(BUCKET, "cut", s3_server).put("twice", body)
    with cut_short(s3_server, 2_500_000, 2) as settings, caplog.at_level(logging.INFO):
        S3Store(BUCKET, "cut", settings).get_file("twice", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == body
    events = [record.getMessage() for record in caplog.records if record.name == "tailfill.s3"]
    assert events == ["retry of a body that was cut short"] * 2
    with cut_short(s3_server, 2_500_000, 1) as settings:
        assert S3Store(BUCKET, "cut", settings).get("twice") == body


@pytest.mark.parametrize("length", [0, 1, 999_999, 1_000_000, 1_000_001, 5_300_000])
def test_a_large_object_arrives_in_parts(
    s3_store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(s3, "PART_OF_READ", 1_000_000)
    body = os.urandom(length)
    s3_store.put("parts", body)
    (tmp_path / "copy").write_bytes(b"x" * 7_000_000)  # a longer file that was there before
    s3_store.get_file("parts", tmp_path / "copy", length)
    assert (tmp_path / "copy").read_bytes() == body


def test_parts_that_are_cut_short_go_on(s3_server: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_OF_READ", 3_000_000)
    body = os.urandom(20_000_000)
    S3Store(BUCKET, "cut", s3_server).put("parts", body)
    with cut_short(s3_server, 2_500_000, 6) as settings:
        S3Store(BUCKET, "cut", settings).get_file("parts", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == body


def test_an_object_that_is_replaced_between_its_parts(
    s3_store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART_OF_READ", 1_000_000)
    s3_store.put("replaced", b"a" * 3_000_000)
    get_part = S3Store._get_part

    def replaced(store: S3Store, key: str, path: Path, start: int, **options: Any) -> Any:
        if start:
            store.put(key, b"b" * 3_000_000)
        return get_part(store, key, path, start, **options)

    monkeypatch.setattr(S3Store, "_get_part", replaced)
    with pytest.raises(UnavailableError, match="replaced: was replaced while it was read; run the same command again"):
        s3_store.get_file("replaced", tmp_path / "copy")


class Endless(socketserver.StreamRequestHandler):
    """Answers each request with a body that does not end, whose length it gives as 5 bytes, or not at all."""

    length = b"Content-Length: 5\r\n"
    sent = 0

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        with suppress(OSError):
            self.wfile.write(
                b'HTTP/1.1 200 OK\r\nETag: "a"\r\nTransfer-Encoding: chunked\r\n' + self.length + b"\r\n5\r\nhello\r\n"
            )
            while True:
                self.wfile.write(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")
                type(self).sent += 1 << 20


class NoLength(Endless):
    length = b""


@contextmanager
def hostile(settings: Settings, handler: type[Endless]) -> Iterator[S3Store]:
    handler.sent = 0
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        yield S3Store(BUCKET, "p", dataclasses.replace(settings, s3_endpoint=endpoint), attempts=1)
        server.shutdown()


@pytest.mark.parametrize("size", [None, 5, 2_000_000])
def test_a_server_that_sends_more_than_it_says_is_not_read_on(
    s3_server: Settings, tmp_path: Path, size: int | None
) -> None:
    with hostile(s3_server, Endless) as store:
        for read in (
            lambda: store.get_file("a", tmp_path / "a", size),
            lambda: store.get("a"),
            lambda: store.digest("a"),
        ):
            with pytest.raises(ArtifactError, match="a: has more than the 5 bytes that were expected"):
                read()
        assert (tmp_path / "a").stat().st_size <= 5
        assert store.start("a", 9) == b"helloxxxx"
    assert Endless.sent < 100 << 20


def test_a_server_that_does_not_say_how_much_it_sends(s3_server: Settings, tmp_path: Path) -> None:
    with hostile(s3_server, NoLength) as store:
        for read in (lambda: store.get_file("a", tmp_path / "a", 5), lambda: store.get("a"), lambda: store.digest("a")):
            with pytest.raises(UnavailableError, match="a: what answers does not say how long it is"):
                read()
    assert not (tmp_path / "a").exists()


def test_a_listing_and_an_error_without_an_end(s3_server: Settings) -> None:
    with (
        hostile(s3_server, Endless) as store,
        pytest.raises(ArtifactError, match="more than 67,108,864 bytes, which no S3"),
    ):
        list(store.list(""))
    assert Endless.sent < 200 << 20


class Answer(Endless):
    """Gives the same answer to each request."""

    said = b""

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        with suppress(OSError):
            self.wfile.write(self.said)


def test_a_server_that_sends_another_part_than_was_asked_for(
    s3_server: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART_OF_READ", 2)
    Answer.said = b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: 5\r\n\r\nhello'
    with (
        hostile(s3_server, Answer) as store,
        pytest.raises(UnavailableError, match=r"p/a: the server was asked for bytes \d-\d/5, and sent 'None'; a proxy"),
    ):
        store.get_file("a", tmp_path / "a")


DATE = "Date: Sat, 28 Nov 2026 10:00:00 GMT"
ENTRY = "<Contents><Key>p/a</Key><Size>1</Size>{}</Contents>"
WRITTEN = "<LastModified>2026-01-01T00:00:00Z</LastModified>"


@pytest.mark.parametrize(
    ("read", "headers", "body", "said"),
    [
        ("list", [DATE], ENTRY.format(""), "does not speak S3 .*ETag"),
        ("list", [DATE], "<Contents><Size>1</Size></Contents>", "does not speak S3 .*Key"),
        ("list", [DATE], "<Contents><Key>p/a</Key><ETag>a</ETag><Size>few</Size></Contents>", "does not speak S3 .*'few'"),
        ("scan", [DATE], ENTRY.format(""), "does not speak S3 .*LastModified"),
        ("scan", [DATE], ENTRY.format("<LastModified>never</LastModified>"), "does not speak S3 .*never"),
        ("scan", [], ENTRY.format(WRITTEN), "its answers have no time"),
        ("scan", ["Date: Sat, 28 Nov 2026 10:00:00 -0000"], ENTRY.format(WRITTEN), "its answers have no time"),
        ("unfinished", [DATE], "<Upload><Key>p/a</Key></Upload>", "does not speak S3 .*UploadId"),
        ("stat", [DATE], "", "does not speak S3 .*LastModified"),
        ("exists", ["Last-Modified: never"], "", "does not speak S3 .*never"),
        ("get_file", [DATE], "hello", "does not speak S3 .*ETag"),
    ],
)  # fmt: skip
def test_answers_that_lack_what_s3_says(
    s3_server: Settings, tmp_path: Path, read: str, headers: list[str], body: str, said: str
) -> None:
    xml = f"<Result>{body}</Result>" if body.startswith("<") else body
    Answer.said = "\r\n".join(["HTTP/1.1 200 OK", *headers, f"Content-Length: {len(xml)}", "", xml]).encode()
    with hostile(s3_server, Answer) as store:
        reads: dict[str, Callable[[], object]] = {
            "list": lambda: list(store.list("")),
            "scan": lambda: list(store.scan("")),
            "unfinished": lambda: list(store.unfinished()),
            "stat": lambda: store.stat("a"),
            "exists": lambda: store.exists("a"),
            "get_file": lambda: store.get_file("a", tmp_path / "a"),
        }
        with pytest.raises((ArtifactError, UnavailableError), match=said):
            reads[read]()


def test_more_objects_than_are_listed(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "MOST_LISTED", 2)
    for key in "abc":
        s3_store.put(key, b"")
    with pytest.raises(ArtifactError, match="more than 2 objects are listed; name a prefix that holds fewer"):
        list(s3_store.list(""))


def test_an_upload_that_is_abandoned_while_it_is_under_way(s3_store: S3Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(s3.BIGGEST_PUT + 1))

    def abandon(**_: Any) -> None:
        for write in list(s3_store.unfinished()):
            s3_store.abandon(write)
            s3_store.abandon(write)  # which is gone already

    s3_store._client.meta.events.register("before-call.s3.CompleteMultipartUpload", abandon)
    with pytest.raises(
        UnavailableError, match=r"/file at .*: its parts were removed before it was whole, .* same command again"
    ):
        s3_store.put_file("file", tmp_path / "file")


def test_the_start_of_an_object(s3_store: S3Store) -> None:
    s3_store.put("a", b"0123456789" * 1000)
    assert s3_store.start("a", 12) == b"012345678901"
    assert len(s3_store.start("a", 99_999)) == 10_000


def test_secrets_are_not_in_reprs_and_errors(s3_server: Settings) -> None:
    assert s3_server.s3_secret_key is not None
    secret = s3_server.s3_secret_key.get_secret_value()
    store = S3Store("no-such-bucket", "p", s3_server, attempts=1)
    assert secret not in repr(s3_server) + repr(store) + str(vars(store))
    with pytest.raises(ArtifactError) as caught:
        store.get("a")
    assert secret not in str(caught.value)
