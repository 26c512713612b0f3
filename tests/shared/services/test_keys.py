"""Tests that the servers refuse clients without keys: other users of this machine can reach every port of loopback."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import itertools
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest

from shared.artifacts.open import open_store
from shared.artifacts.store import Store
from shared.services import postgres, s3
from shared.services.postgres import start_postgres
from shared.services.process import Server, free_ports, start, unprivileged_user
from shared.services.s3 import SeaweedFS, ready_seaweedfs, start_seaweedfs
from shared.services.secret import Certificate, kept_certificate, kept_secret
from shared.services.services import services
from shared.settings import Settings

CONTENT = os.urandom(20_000_000)
PATHS = (
    "/", "/kept", "/tailfill/kept", "/buckets/", "/buckets/?pretty=y", "/buckets/tailfill/", "/buckets/tailfill/kept",
    "/buckets/tailfill/?recursive=true", "/topics/", "/.tus/buckets/tailfill/new", "/dir/assign", "/dir/assign?collection=tailfill",
    "/dir/lookup?volumeId=1", "/dir/status", "/vol/status", "/vol/grow?count=1&collection=tailfill", "/vol/vacuum",
    "/col/delete?collection=tailfill", "/submit", "/status", "/ui/index.html", "/stats/disk", "/cluster/status", "/metrics", "/debug/pprof/",
)  # fmt: skip
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS = b"\x04"  # the kind of frame that a gRPC server answers with


def opened(seaweedfs: SeaweedFS) -> Store:
    return open_store(Settings.from_environment(seaweedfs.environment()))


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    folder = tmp_path_factory.mktemp("keys") / "s3"
    found = ready_seaweedfs(folder, start_seaweedfs(folder))
    assert opened(found).create("kept", CONTENT)
    yield found
    found.server.stop()


@pytest.fixture
def unharmed(seaweedfs: SeaweedFS) -> Iterator[None]:
    """Checks that the bucket holds the same objects after the test, and no others."""
    yield
    store = opened(seaweedfs)
    assert list(store.list("")) == ["kept"]
    assert store.get("kept") == CONTENT


def ports(server: Server) -> list[int]:
    """Returns all ports that the server listens on."""
    found = psutil.Process(server.process.pid).net_connections("tcp")
    listening = sorted(each.laddr.port for each in found if each.status == psutil.CONN_LISTEN)
    assert len(listening) == 2 * len(s3.ROLES)
    return listening


def port(server: Server, name: str) -> str:
    (found,) = [part for part in server.process.args if part.startswith(f"-{name}=")]  # type: ignore[union-attr,arg-type,str-bytes-safe]
    return str(found).partition("=")[2]


def shell(server: Server, command: str, certificate: Certificate | None = None) -> str:
    """Returns the output of a command of `weed shell`; without the right certificate it retries until it is ended."""
    environment = {"PATH": "", "HOME": "/nowhere"}
    if certificate is not None:
        environment["WEED_GRPC_CA"] = str(certificate.certificate)
        environment |= {
            "WEED_GRPC_CLIENT_CERT": str(certificate.certificate),
            "WEED_GRPC_CLIENT_KEY": str(certificate.key),
        }
    places = [
        f"-{role}=127.0.0.1:{port(server, f'{role}.port')}.{port(server, f'{role}.port.grpc')}"
        for role in ("master", "filer")
    ]
    try:
        done = subprocess.run(
            [s3._binary(), "shell", *places],
            input=f"{command}\n".encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd="/",
            timeout=4,
        )
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode()
    return done.stdout.decode()


@pytest.fixture(scope="module")
def fid(seaweedfs: SeaweedFS) -> str:
    """Returns the place of the object's first part on the volume server; also checks that `shell` reaches it with the keys."""
    own = kept_certificate(seaweedfs.server.log.parent / "tls")
    assert "kept" in shell(seaweedfs.server, "fs.ls /buckets/tailfill", own).split()
    found = re.search(r'"fileId": *"(\d+,\w+)"', shell(seaweedfs.server, "fs.meta.cat /buckets/tailfill/kept", own))
    assert found is not None
    return found[1]


@pytest.mark.usefixtures("unharmed")
def test_no_port_does_anything_by_http(seaweedfs: SeaweedFS, fid: str) -> None:
    answered: set[str] = set()
    for number in ports(seaweedfs.server):
        for method, path in itertools.product(METHODS, (*PATHS, f"/{fid}")):
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", number, timeout=5)) as connection:
                try:
                    connection.request(method, path, body=b"other content" if method in ("PUT", "POST") else None)
                    answer = connection.getresponse()
                    body = answer.read()
                except (OSError, http.client.HTTPException):
                    continue  # it speaks gRPC
            assert CONTENT[:64] not in body
            if answer.status < 400:
                answered.add(path)
                assert b"kept" not in body
                assert b'"fid"' not in body
    # these describe the server, for any method, and nothing of its content
    assert answered <= {"/", "/ui/index.html", "/status", "/cluster/status", "/metrics"}


@pytest.mark.parametrize("whose", ["none", "another's"])
def test_no_port_speaks_grpc_without_the_certificate(seaweedfs: SeaweedFS, tmp_path: Path, whose: str) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if whose != "none":
        context.load_cert_chain(*dataclasses.astuple(kept_certificate(tmp_path / "another")))
    refusals = []
    for number in ports(seaweedfs.server):
        with socket.create_connection(("127.0.0.1", number), timeout=5) as plain, contextlib.suppress(OSError):
            plain.sendall(HTTP2_PREFACE)
            assert plain.recv(9)[3:4] != SETTINGS
        with socket.create_connection(("127.0.0.1", number), timeout=5) as plain:
            try:
                with context.wrap_socket(plain) as encrypted:
                    encrypted.sendall(HTTP2_PREFACE)
                    assert encrypted.recv(9) == b""
            except OSError as error:  # most often an ssl.SSLError
                refusals.append(str(error))
    certified = [each for each in refusals if "CERTIFICATE" in each or "UNKNOWN_CA" in each]
    assert len(certified) == len(s3.ROLES), refusals  # one port each; the others speak plain HTTP


@pytest.mark.usefixtures("unharmed", "fid")  # fid has checked that the shell can do this with the certificate
def test_a_shell_without_the_certificate_gets_nowhere(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    commands = "fs.ls /buckets/tailfill\nfs.rm /buckets/tailfill/kept\nvolume.list"
    for certificate in (None, kept_certificate(tmp_path / "another")):
        said = shell(seaweedfs.server, commands, certificate)
        assert "kept" not in said
        assert "DataNode" not in said


def test_its_sockets_are_its_users_only(seaweedfs: SeaweedFS) -> None:
    found = psutil.Process(seaweedfs.server.process.pid).net_connections("unix")
    paths = {Path(each.laddr) for each in found if each.laddr}
    assert len(paths) >= len(s3.ROLES)
    assert {path.stat().st_mode & 0o077 for path in paths} == {0}


def test_no_secret_is_an_argument(tmp_path: Path) -> None:
    """Every user of the machine can read the arguments of all processes, also of those that run for a moment."""
    seen, ended = set[str](), threading.Event()

    def watch() -> None:
        while not ended.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with services(tmp_path, Settings.from_environment({})) as environment:
            held = [environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL")]
            running = psutil.Process().children(recursive=True)
            made = [dict(each.environ()) for each in running if "weed" in each.name()]
    finally:
        ended.set()
        watcher.join()
    files = [
        (tmp_path / name).read_text()
        for name in ("postgres/password", "s3/access-key", "s3/secret-key", "s3/tls/key.pem")
    ]
    tokens = [value for each in made for name, value in each.items() if name.endswith("SIGNING_KEY")]
    assert tokens
    for program in ("initdb", "postgres -D", "weed"):
        assert any(program in each for each in seen), program
    for secret in (*held, *files, *tokens, held[2].split(":")[2].split("@")[0]):
        assert not [each for each in seen if secret in each]


def test_with_the_keys_an_object_is_still_made_once(seaweedfs: SeaweedFS) -> None:
    assert not opened(seaweedfs).create("kept", b"other content")
    assert opened(seaweedfs).get("kept") == CONTENT


def start_as_it_was(folder: Path) -> SeaweedFS:
    """Starts SeaweedFS as earlier versions did, which required keys for S3 only."""
    data = folder / "data"
    data.mkdir(parents=True)
    access, secret = kept_secret(folder / "access-key"), kept_secret(folder / "secret-key")
    numbers = free_ports(2 * len(s3.ROLES))
    command: list[str | Path] = [
        s3._binary(), "-logtostderr=true", "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
        "-s3.autoCreateBucket=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
    ]  # fmt: skip
    for role, number, grpc in zip(s3.ROLES, numbers[::2], numbers[1::2], strict=True):
        command += [f"-{role}.port={number}", f"-{role}.port.grpc={grpc}"]
    environment = {
        "HOME": str(data),
        "AWS_ACCESS_KEY_ID": access.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": secret.get_secret_value(),
    }
    log = folder / "seaweedfs.log"
    server = start(
        "SeaweedFS", command, data, log, environment, signal.SIGKILL, clean_up=lambda: s3._remove_sockets(numbers)
    )
    return SeaweedFS(server, f"http://127.0.0.1:{numbers[2 * s3.ROLES.index('s3')]}", access, secret)


def test_objects_of_an_earlier_version_are_still_there(tmp_path: Path) -> None:
    before = start_as_it_was(tmp_path)
    s3._make_bucket(before)
    assert opened(before).create("small", b"data")
    assert opened(before).create("large", CONTENT)
    with urllib.request.urlopen(  # the subject of this test
        f"http://127.0.0.1:{port(before.server, 'filer.port')}/buckets/tailfill/small", timeout=5
    ) as answer:
        assert answer.read() == b"data"
    before.server.stop()
    (tmp_path / "data").chmod(0o755)
    now = ready_seaweedfs(tmp_path, start_seaweedfs(tmp_path))
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert opened(now).get("small") == b"data"
    assert opened(now).get("large") == CONTENT
    assert not opened(now).create("small", b"other content")
    assert opened(now).create("new", b"data")
    now.server.stop()


def test_a_certificate_is_made_whole_once_and_for_all(tmp_path: Path) -> None:
    from cryptography import x509

    (tmp_path / "tls.new").mkdir()  # what a process leaves that is killed at this point
    (tmp_path / "tls.new" / "certificate.pem").write_text("half")
    found = kept_certificate(tmp_path / "tls")
    contents = [path.read_bytes() for path in dataclasses.astuple(found)]
    assert [path.name for path in tmp_path.iterdir()] == ["tls"]
    assert kept_certificate(tmp_path / "tls") == found
    assert [path.read_bytes() for path in dataclasses.astuple(found)] == contents
    ssl.create_default_context().load_cert_chain(*dataclasses.astuple(found))  # they belong together
    made = x509.load_pem_x509_certificate(contents[0])
    assert (made.not_valid_before_utc.year, made.not_valid_after_utc.year) == (2000, 9999)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_ls_dir('/')",
        "COPY lines FROM '/etc/passwd'",
        "COPY lines TO '/tmp/tailfill-test'",
        "COPY lines FROM PROGRAM 'id'",
        "COPY lines TO PROGRAM 'cat'",
        "SELECT lo_import('/etc/passwd')",
        "SELECT lo_export(lo_creat(-1), '/tmp/tailfill-test')",
        "CREATE FUNCTION f() RETURNS int LANGUAGE c AS '/tmp/f.so', 'f'",
        "CREATE EXTENSION file_fdw",
        "ALTER SYSTEM SET archive_command = 'id'",
        "ALTER ROLE tailfill SUPERUSER",
        "CREATE ROLE other",
        "SET ROLE postgres",
    ],
)
def test_the_database_reads_no_files_and_runs_no_programs(database_url: str, statement: str) -> None:
    with contextlib.closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE lines (line text)")
        connection.commit()
        connection.autocommit = True
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute(statement)


def test_nobody_logs_in_as_the_database_s_superuser(postgres_url: str) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(postgres_url.replace("//tailfill:", "//postgres:"))


def test_a_database_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    user = unprivileged_user()
    data, password = tmp_path / "data", tmp_path / "initdb-password"
    data.mkdir(mode=0o700)
    password.write_text(kept_secret(tmp_path / "password").get_secret_value())
    if user is not None:
        for path in (data, password):
            os.chown(path, user.uid, user.gid)
    initdb: list[str | Path] = [
        postgres._binary("initdb"), "-D", data, "-U", "tailfill", "--pwfile", password, "--auth=scram-sha-256", "-E", "UTF8",
        "--locale=C", "--no-sync",
    ]  # fmt: skip
    postgres._run(initdb, data, tmp_path / "initdb.log", user)
    (tmp_path / "initialised").touch()
    started = start_postgres(tmp_path)
    with (
        contextlib.closing(psycopg2.connect(started.url.get_secret_value())) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        assert cursor.fetchone() == (True,)
        cursor.execute("CREATE TABLE made (now int)")
    started.server.stop()
