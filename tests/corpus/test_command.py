"""Tries inputs through the command itself, with its exit code, its one line on stderr, and nothing secret in its output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.corpus.case import PLANTED
from tests.corpus.config import STUDY

ROOT = Path(__file__).parents[2]
SIMULATE = ("tune", "simulate", "--workers", "1", "--trials", "1")
STATUS = ("status", "study.yaml", "--workdir", "work")
BUCKET = {
    "DATABASE_URL": f"postgresql://u:{PLANTED}@127.0.0.1:1/d",
    "TAILFILL_STORE": "s3://bucket",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": PLANTED,
}
INPUTS = {
    "unknown parameter": (SIMULATE, {"DATABASE_URL": f"postgresql://u:{PLANTED}@h/d?pgbouncer=true"}, "pgbouncer"),
    "wrong sslmode": (SIMULATE, {"DATABASE_URL": f"postgresql://u:{PLANTED}@127.0.0.1:1/d?sslmode=required"}, "verify-full"),
    "wrong PGSSLMODE": (SIMULATE, {"DATABASE_URL": f"postgresql://u:{PLANTED}@127.0.0.1:1/d", "PGSSLMODE": "yes"}, "verify-full"),
    "unencoded @": (SIMULATE, {"DATABASE_URL": f"postgresql://u:x@{PLANTED}@127.0.0.1:1/d"}, "%40"),
    "port": (SIMULATE, {"DATABASE_URL": f"postgresql://u:{PLANTED}@127.0.0.1:99999/d"}, "65535"),
    "quotes": (SIMULATE, {"DATABASE_URL": f'"postgresql://u:{PLANTED}@127.0.0.1:1/d"'}, "quotes"),
    "line break in a key": (STATUS, BUCKET | {"AWS_ACCESS_KEY_ID": f"{PLANTED}\nx"}, "AWS_ACCESS_KEY_ID"),
    "line break in a token": (STATUS, BUCKET | {"HF_TOKEN": f"{PLANTED}\nx"}, "HF_TOKEN"),
    "profile": (STATUS, BUCKET | {"AWS_PROFILE": "nobody"}, "AWS_PROFILE"),
    "keys in the endpoint": (STATUS, BUCKET | {"AWS_ENDPOINT_URL_S3": f"http://key:{PLANTED}@127.0.0.1:1"}, "without keys"),
    "keys in the store": (STATUS, BUCKET | {"TAILFILL_STORE": f"s3://key:{PLANTED}@bucket"}, "without keys"),
}  # fmt: skip


def _run(folder: Path, command: tuple[str, ...], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    (folder / "study.yaml").write_text(STUDY)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PG", "TAILFILL_"))}
    environment = kept | {"PYTHONPATH": str(ROOT), "HOME": str(folder), "AWS_EC2_METADATA_DISABLED": "true"} | variables
    return subprocess.run(
        [sys.executable, "-m", "jobs", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("name", INPUTS)
def test_the_command_refuses_it_with_one_line(name: str, tmp_path: Path) -> None:
    command, variables, words = INPUTS[name]
    done = _run(tmp_path, command, variables)
    output = done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert (done.returncode, len(errors)) == (2, 1), output.replace(PLANTED, "…")
    assert words in errors[0]
    assert "Traceback" not in output
    assert PLANTED not in output


def test_a_wrong_password_and_a_missing_database(tmp_path: Path, database_url: str) -> None:
    scheme, _, place = database_url.partition("@")
    elsewhere = database_url.rpartition("/")[0] + "/nothing-here"
    for url, words in {
        f"{scheme.rpartition(':')[0]}:{PLANTED}@{place}": "check user, password",
        elsewhere: "create that database",
    }.items():
        done = _run(tmp_path, SIMULATE, {"DATABASE_URL": url})
        assert done.returncode == 2, done.stderr.replace(url, "…")
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert PLANTED not in done.stdout + done.stderr
