"""Tests the contract of a store with every implementation and server."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.artifacts.folder import FolderStore
from shared.artifacts.s3 import BIGGEST_PUT, S3Store
from shared.artifacts.s3_bucket import make_bucket
from shared.artifacts.store import NotFound, Store
from shared.services.process import free_ports, start
from shared.services.s3 import BUCKET
from shared.settings import Settings


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    import signal

    from pydantic import SecretStr

    program = shutil.which("minio")
    if program is None:
        pytest.skip("the program `minio` is not on PATH")
    folder, (port, console) = tmp_path_factory.mktemp("minio"), free_ports(2)
    keys = {"MINIO_ROOT_USER": "tailfill", "MINIO_ROOT_PASSWORD": uuid.uuid4().hex}
    command = [program, "server", folder, "--address", f"127.0.0.1:{port}", "--console-address", f"127.0.0.1:{console}"]
    server = start("MinIO", command, folder, folder / "log", {**keys, "HOME": str(folder)}, signal.SIGKILL)
    endpoint = f"http://127.0.0.1:{port}"
    user, password = keys.values()

    def ready() -> bool:
        from shared.errors import UnavailableError

        try:
            make_bucket(BUCKET, endpoint, "us-east-1", SecretStr(user), SecretStr(password))
        except UnavailableError:
            return False
        return True

    server.wait_ready(ready, 30)
    environment = {"AWS_ENDPOINT_URL_S3": endpoint, "AWS_ACCESS_KEY_ID": user, "AWS_SECRET_ACCESS_KEY": password}
    yield Settings.from_environment(environment)
    server.stop()


@pytest.fixture(params=["folder", "seaweedfs", "minio"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    settings = request.getfixturevalue("s3_server" if request.param == "seaweedfs" else "minio")
    return S3Store(BUCKET, f"test-{uuid.uuid4().hex}", settings)


def test_put_get_overwrite(store: Store) -> None:
    store.put("a/b/c", b"one")
    assert store.get("a/b/c") == b"one"
    store.put("a/b/c", b"two")
    assert store.get("a/b/c") == b"two"
    store.put("empty", b"")
    assert store.get("empty") == b""


def test_files_of_any_size(store: Store, tmp_path: Path) -> None:
    for size in (0, 1000, BIGGEST_PUT + 12345):  # the last goes up in parts
        source = tmp_path / f"source-{size}"
        source.write_bytes(b"0123456789abcdef" * (size // 16) + b"x" * (size % 16))
        store.put_file("some/file", source)
        store.get_file("some/file", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_missing_objects(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        store.get("nothing")
    with pytest.raises(NotFound):
        store.get_file("nothing", tmp_path / "copy")
    assert not store.exists("nothing")
    store.put("a/b", b"")
    assert store.exists("a/b")
    assert not store.exists("a")
    store.delete("nothing")
    store.delete("a/b")
    assert not store.exists("a/b")


def test_list_is_in_order_and_by_prefix(store: Store) -> None:
    keys = ["a/1", "a/10", "a/2/x", "a-b", "ab/1", "b"]
    for key in keys:
        store.put(key, b"")
    assert list(store.list("")) == sorted(keys)
    assert list(store.list("a/")) == ["a/1", "a/10", "a/2/x"]
    assert list(store.list("a/1")) == ["a/1", "a/10"]
    assert list(store.list("a")) == ["a-b", "a/1", "a/10", "a/2/x", "ab/1"]
    assert list(store.list("c/")) == []


def test_list_pages(store: Store) -> None:
    names = [f"many/{i:04d}" for i in range(1005)]  # S3 returns 1,000 keys per page
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: store.put(name, b""), names))
    assert list(store.list("many/")) == names


def test_create_only_once(store: Store) -> None:
    assert store.create("commit", b"first")
    assert not store.create("commit", b"second")
    assert store.get("commit") == b"first"
    store.put("other", b"")
    assert not store.create("other", b"third")


def test_of_eight_racing_threads_one_creates(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        for race in range(2):
            won = list(pool.map(lambda i, race=race: store.create(f"race-{race}", b"%d" % i), range(8)))
            assert won.count(True) == 1
            assert store.get(f"race-{race}") == b"%d" % won.index(True)


def test_of_racing_processes_one_creates(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from shared.artifacts.folder import FolderStore\n"
        "s = FolderStore(Path(sys.argv[1])); input()\n"
        "print(sum(s.create(f'race-{i}', sys.argv[2].encode()) for i in range(200)))"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path, str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for i in range(4)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(b"\n")
        racer.stdin.flush()
    assert sum(int(racer.communicate()[0]) for racer in racers) == 200


def test_a_url_names_the_place_and_no_secret(store: Store) -> None:
    assert store.url.startswith(("s3://tailfill/test-", "/"))
