"""Tests `tailfill verify` and `tailfill gc` as a user calls them."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from jobs.__main__ import main
from shared.artifacts.folder import FolderStore
from shared.artifacts.s3 import S3Store
from shared.pipeline.plan import Step
from shared.services.process import free_ports
from shared.settings import Settings
from tests.support.local_commands import commit_all, run

pytestmark = pytest.mark.usefixtures("empty_folder")


def own_file(step: Step) -> dict[str, Path]:
    Path("file").write_text(step.id)
    return {"file": Path("file")}


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Runs the command, and returns its exit code, stdout and stderr."""
    capsys.readouterr()
    try:
        main(list(words))
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, *capsys.readouterr()


def blob_of(text: str) -> Path:
    return next(path for path in Path("store/blobs/sha256").iterdir() if path.read_text() == text)


def test_verify(capsys: pytest.CaptureFixture[str]) -> None:
    commit_all(files=own_file)
    run()
    for words in ((), ("work/demo",), ("store",), ("--workdir", "work/demo")):
        code, out, _ = command(capsys, "verify", *words)
        assert code == 0
        assert "demo: whole: " in out
        assert re.search("^demo: digest of the report: [0-9a-f]{64}$", out, re.MULTILINE)
    blob_of('{"answer": 1}').write_text('{"answer": 2}')
    blob_of("<html>page</html>").unlink()
    code, out, _ = command(capsys, "verify")
    assert code == 2
    assert out.splitlines()[-1].startswith("demo: not whole: 1 missing, 1 changed")
    code, out, _ = command(capsys, "verify", "--json")
    assert code == 2
    assert [p["kind"] for p in json.loads(out)["studies"][0]["problems"]] == ["missing", "changed"]


def test_verify_of_a_bucket(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, s3_store: S3Store, s3_server: Settings
) -> None:
    commit_all(files=own_file)
    here = FolderStore(Path("store"))
    for key in here.list(""):
        s3_store.put(key, here.get(key))
    assert s3_server.s3_access_key is not None
    assert s3_server.s3_secret_key is not None
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", str(s3_server.s3_endpoint))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.s3_access_key.get_secret_value())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.s3_secret_key.get_secret_value())
    assert command(capsys, "verify", s3_store.url)[0] == 0
    assert command(capsys, "gc", s3_store.url, "--delete")[0] == 0
    s3_store.delete(next(iter(s3_store.list("blobs/"))))
    code, out, _ = command(capsys, "verify", s3_store.url)
    assert (code, out.split(":")[0]) == (2, "missing")
    code, _, err = command(capsys, "verify", f"{s3_store.url}/nothing")
    assert code == 2
    assert "nothing of any study is committed there" in err


@pytest.mark.parametrize("name", ["verify", "gc"])
def test_a_store_that_does_not_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(S3Store.__init__, "__defaults__", (1,))  # one attempt, as more would take seconds
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "a-key-that-is-long-enough")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_ports(1)[0]}")
    code, out, err = command(capsys, name, "s3://bucket/prefix")
    assert (code, out) == (75, "")
    assert "does not answer" in err


def test_what_is_no_store(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("store", ignore_errors=True)
    for words, said in (
        ("nowhere", "is no work directory"),
        (".", "is no work directory"),
        ("s3://", "names no bucket"),
    ):
        for name in ("verify", "gc"):
            code, _, err = command(capsys, name, words)
            assert code == 2
            assert said in err
    assert not Path(".incoming").exists()


@pytest.mark.parametrize("name", ["verify", "gc"])
def test_the_work_directory_is_named_as_other_commands_name_it(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, _, err = command(capsys, name)
    assert (code, "name one with --workdir" in err) == (2, True)
    assert command(capsys, name, "--workdir", "nowhere")[0] == 2
    code, _, err = command(capsys, name, "store", "--workdir", "work/demo")
    assert (code, "--workdir: excludes 'store'" in err) == (2, True)


def test_gc(capsys: pytest.CaptureFixture[str]) -> None:
    commit_all(files=own_file)
    store = FolderStore(Path("store"))
    for digit, age in (("a", 90_000), ("b", 100)):
        store.put(f"blobs/sha256/{digit * 64}", b"waste")
        os.utime(f"store/blobs/sha256/{digit * 64}", (time.time() - age,) * 2)
    code, out, _ = command(capsys, "gc", "store")
    assert code == 0
    assert f"{'a' * 64}: 5 bytes, 25h00m old" in out
    assert "1 blobs (0.0 MiB) that no result names, and 0 unfinished writes; --delete removes them" in out
    assert json.loads(command(capsys, "gc", "store", "--json")[1])["removed"] is None
    assert "removed 1 of 1 blobs" in command(capsys, "gc", "store", "--delete")[1]
    assert not store.exists(f"blobs/sha256/{'a' * 64}")
    assert store.exists(f"blobs/sha256/{'b' * 64}")
    assert json.loads(command(capsys, "gc", "store", "--delete", "--json")[1])["removed"] == 0
    assert command(capsys, "verify", "store")[0] == 0


def test_names_in_a_bucket_do_not_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    commit_all(files=own_file)
    manifest = next(Path("store/demo/report").glob("*/manifest.json"))
    tree = json.loads(manifest.read_text())
    tree["files"] = [{"name": "a\u202eb", "digest": "c" * 64, "size": 1}]
    manifest.write_text(json.dumps(tree))
    code, out, _ = command(capsys, "verify", "store")
    assert code == 2
    assert "\u202e" not in out
