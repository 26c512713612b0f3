"""Tests what `tailfill tune simulate` prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.hostile import HostileFolder


def test_it_counts_and_shows_progress_only(database_url: str, tmp_path: Path) -> None:
    hostile = HostileFolder(tmp_path / "user")  # the user's current folder
    command = str(Path(sys.executable).with_name("tailfill"))
    ended = subprocess.run(
        [command, "tune", "simulate", "--workers", "2", "--trials", "20", "--json"],
        cwd=hostile.folder,
        env={**os.environ, "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["trials"], found["finished"], found["failed"]) == (20, 20, 0)
    # two per worker, one of the coordinator, and one that counts them
    assert 2 <= found["connections_peak"] <= 2 * 2 + 2
    assert found["seconds"] > 0
    assert found["trials_a_second"] > 0
    assert 0 < found["claim_ms_median"] <= found["claim_ms_p99"]
    lines = ended.stderr.splitlines()
    assert lines[-1].partition("tune: search ")[2].startswith("20/20 trials")
    assert all(" tune: search " in line for line in lines), ended.stderr  # no line per trial
    assert hostile.imported == []
