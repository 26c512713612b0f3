"""Tests whom a store trusts, at TLS servers with certificates of authorities that are made here."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shared.artifacts.authorities import joined_authorities
from shared.artifacts.s3 import S3Store
from shared.errors import ConfigError
from shared.settings import Settings
from tests.support.authority import HOST, Authority

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
STS = (
    '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>'
    "<Credentials><AccessKeyId>role</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
    "<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
)


@pytest.fixture
def mine(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "mine")


@pytest.fixture
def system(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "system")


@contextmanager
def server(authority: Authority, seen: list[str] | None = None) -> Iterator[str]:
    """Yields the address of a server that has every object, and gives everybody credentials of a role."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"found")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(STS.encode())

        def _answer(self, body: bytes) -> None:
            if seen is not None:
                seen.append(f"{self.command} {self.headers.get('Authorization', '').partition('/')[0]}")
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Says nothing of a client that hangs up, as one does that refuses the certificate."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("server"))
    with Server((HOST, 0), Handler) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"https://{HOST}:{listening.server_port}"
        listening.shutdown()
        thread.join()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Returns a function that reads an object from a server with more variables in the environment."""

    def reading(endpoint: str, **variables: str | Path) -> bytes:
        for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "TAILFILL_CA_FILE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {**KEYS, "AWS_ENDPOINT_URL_S3": endpoint, **variables}.items():
            monkeypatch.setenv(name, str(value))
        joined_authorities.cache_clear()
        return S3Store("bucket", "p", Settings.from_environment(), attempts=1).get("a")

    return reading


def test_a_server_of_the_machines_authority_is_trusted_beside_ones_own(
    mine: Authority, system: Authority, read: Callable[..., bytes]
) -> None:
    with server(mine) as own, server(system) as public:
        both = {"TAILFILL_CA_FILE": mine.file, "SSL_CERT_FILE": system.file}
        assert read(own, **both) == read(public, **both) == b"found"
        mine.file.write_text(f"# Zertifizierungsstelle für alle\n{mine.file.read_text()}", encoding="utf-8")
        assert read(own, **both) == b"found"
        for endpoint, variables in ((own, {}), (public, {"TAILFILL_CA_FILE": mine.file})):
            with pytest.raises(ConfigError, match=r"certificate cannot be checked .* in TAILFILL_CA_FILE"):
                read(endpoint, **variables)


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_a_bundle_still_replaces_the_machines_authorities(
    mine: Authority, system: Authority, read: Callable[..., bytes], variable: str
) -> None:
    with server(mine) as own, server(system) as public:
        alone: dict[str, str | Path] = {variable: mine.file, "SSL_CERT_FILE": system.file}
        assert read(own, **alone) == b"found"
        with pytest.raises(ConfigError, match="certificate cannot be checked"):
            read(public, **alone)
        assert read(public, **alone, TAILFILL_CA_FILE=system.file) == b"found"
        assert read(own, **alone, TAILFILL_CA_FILE=system.file) == b"found"


def test_the_credentials_of_a_role_come_from_a_server_of_either_authority(
    mine: Authority, system: Authority, read: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/r")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    no_keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "")
    for of_sts in (mine, system):
        seen: list[str] = []
        with server(of_sts, seen) as sts, server(mine, seen) as own:
            both = {"TAILFILL_CA_FILE": mine.file, "SSL_CERT_FILE": system.file, "AWS_ENDPOINT_URL_STS": sts}
            assert read(own, **both, **no_keys) == b"found"
        assert seen == ["POST ", "GET AWS4-HMAC-SHA256 Credential=role"]


def test_the_joined_file_holds_both_once_per_process(mine: Authority, tmp_path: Path) -> None:
    joined_authorities.cache_clear()
    path = Path(joined_authorities(mine.file, None))
    assert path.stat().st_mode & 0o777 == 0o600
    assert mine.file.read_bytes() in path.read_bytes()
    assert path.read_bytes().count(b"BEGIN CERTIFICATE") > 50  # the public ones
    assert joined_authorities(mine.file, None) == str(path)


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n"]
)
def test_a_file_without_certificates_is_refused(tmp_path: Path, read: Callable[..., bytes], text: str) -> None:
    file = tmp_path / "ca.crt"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"^TAILFILL_CA_FILE: .*ca.crt holds no certificates in PEM"):
        read("https://127.0.0.1:1", TAILFILL_CA_FILE=file)
