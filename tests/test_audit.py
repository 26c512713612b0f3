"""Tests what `make audit` says, with pip-audit itself at a stand-in for PyPI."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.audit import main

HOST = "pypi.org"


def certificate(folder: Path) -> tuple[Path, Path]:
    """Writes a certificate of PyPI's name, which signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    pem = serialization.Encoding.PEM
    paths[0].write_bytes(made.public_bytes(pem))
    paths[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return paths


@contextmanager
def pypi(folder: Path, answers: dict[str, tuple[int, Any]]) -> Iterator[str]:
    """Yields the address of a proxy that answers in place of PyPI, over TLS, by the path that is asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(folder))

    class Proxy(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with (
                suppress(OSError),
                context.wrap_socket(self.connection, server_side=True) as secured,
                secured.makefile("rb") as asked,
            ):
                while path := asked.readline().decode().split(" ")[1:2]:
                    while asked.readline().strip():
                        pass
                    status, value = answers.get(path[0], (404, {"message": "Not Found"}))
                    body = json.dumps(value).encode()
                    secured.sendall(b"HTTP/1.1 %d x\r\nContent-Type: application/json\r\n" % status)
                    secured.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def advisory(name: str, *fixed: str, withdrawn: str | None = None) -> dict[str, Any]:
    """Returns an advisory as PyPI's JSON API gives it."""
    return {
        "id": name, "aliases": [f"CVE-{name}"], "details": "It is bad.", "summary": None, "fixed_in": list(fixed),
        "link": f"https://osv.dev/vulnerability/{name}", "source": "osv", "withdrawn": withdrawn,
    }  # fmt: skip


CLEAN = (200, {"info": {}, "vulnerabilities": []})
LOCK = "numpy==2.4.0\npillow==11.0.0 ; python_version >= '3'\n"
PILLOW, NUMPY = "/pypi/pillow/11.0.0/json", "/pypi/numpy/2.4.0/json"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answers", "code", "says"),
    [
        ({NUMPY: CLEAN, PILLOW: CLEAN}, 0, "no known advisory on its 2 packages"),
        ({NUMPY: CLEAN, PILLOW: (200, {"vulnerabilities": [advisory("PYSEC-1", "11.1.0")]})}, 2, "pillow 11.0.0: PYSEC-1, fixed in 11.1.0"),
        ({NUMPY: CLEAN, PILLOW: (200, {"vulnerabilities": [advisory("PYSEC-2")]})}, 2, "PYSEC-2, fixed in no version yet"),
        ({NUMPY: CLEAN, PILLOW: (200, {"vulnerabilities": [advisory("X", withdrawn="2026-01-01T00:00:00Z")]})}, 0, "no known advisory"),
        ({NUMPY: CLEAN}, 75, "1 of 2 packages were not looked up"),
        ({PILLOW: (200, {"vulnerabilities": [advisory("PYSEC-1", "11.1.0")]})}, 2, "PYSEC-1"),
        ({NUMPY: CLEAN, PILLOW: (503, {})}, 75, "could not be reached"),
        (None, 75, "could not be reached"),
    ],
    ids=["clean", "vulnerable", "not fixed", "withdrawn", "unknown", "vulnerable and unknown", "failing", "away"],
)  # fmt: skip
def test_what_pip_audit_finds_at_pypi(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    answers: dict[str, tuple[int, Any]] | None,
    code: int,
    says: str,
) -> None:
    (tmp_path / "a.lock").write_text(LOCK)
    with pypi(tmp_path, answers or {}) as proxy:
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1" if answers is None else proxy)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert main([str(tmp_path / "a.lock")]) == code
    assert says in capsys.readouterr().out
