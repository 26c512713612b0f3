"""Checks that this version continues a study of an earlier one: `make continue FROM=e21fc39`, about fifteen minutes on two cores.

It runs the demo with the code of FROM, kills it with SIGKILL when half of its stages are committed, and continues with the working tree.
It fails if a committed stage runs again, or if a second run has anything to do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HALF = 7  # of the demo's 14 stages


def command(code: Path, *arguments: str) -> dict[str, Any]:
    """Returns the arguments of `subprocess` that run a command with the code in a folder."""
    return {
        "args": [sys.executable, "-m", "jobs", *arguments],
        "cwd": code,
        "env": {**os.environ, "PYTHONPATH": str(code)},
        "text": True,
    }


def committed(workdir: Path) -> dict[str, str]:
    """Returns the digest of each step that is committed for this version, by the step's label."""
    said = subprocess.run(
        **command(ROOT, "status", "--workdir", str(workdir), "--json"), stdout=subprocess.PIPE, check=True
    )
    return {row["step"]: row["digest"] for row in json.loads(said.stdout) if row["digest"]}


def run_until_half(code: Path, workdir: Path, options: tuple[str, ...]) -> None:
    """Runs the demo with the earlier code, and kills it when half of it is done."""
    with tempfile.TemporaryFile("w+") as log:
        run = subprocess.Popen(
            **command(code, "run", "studies/demo.yaml", "--workdir", str(workdir), *options), stderr=log
        )
        while run.poll() is None:
            time.sleep(0.5)
            log.seek(0)
            if log.read().count(": committed (") >= HALF:
                run.kill()
                run.wait()
                time.sleep(3)  # its stages and servers end with the command
                return
        log.seek(0)
        sys.exit(f"the earlier version ended by itself:\n{log.read()[-3000:]}")


def run_to_the_end(workdir: Path, options: tuple[str, ...]) -> str:
    """Continues with this version, and returns the log."""
    ended = subprocess.run(
        **command(ROOT, "run", "studies/demo.yaml", "--workdir", str(workdir), *options),
        stderr=subprocess.PIPE,
        check=False,
    )
    if ended.returncode:
        sys.exit(f"this version failed:\n{ended.stderr[-3000:]}")
    return ended.stderr


def main(revision: str, *options: str) -> None:
    """Runs, kills, continues and compares. `options` are those of `tailfill run`, such as `--set` for a smaller demo."""
    with tempfile.TemporaryDirectory(prefix="continue-") as folder:
        code, workdir = Path(folder) / "code", Path(folder) / "work"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", code, revision], cwd=ROOT, check=True)
        try:
            run_until_half(code, workdir, options)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", code], cwd=ROOT, check=True)
        before = committed(workdir)
        log = run_to_the_end(workdir, options)
        after = committed(workdir)
        again = [label for label in before if f"{label}: committed already" not in log or before[label] != after[label]]
        if again or len(before) < HALF:
            sys.exit(f"these stages were committed and ran again: {again}; committed before: {sorted(before)}")
        last = run_to_the_end(workdir, options).splitlines()[-1]
        if not last.startswith(f"0 stages run, {len(after)} found committed"):
            sys.exit(f"the second run had something to do: {last}")
        print(f"{len(before)} stages of {revision} were found committed, {len(after) - len(before)} run; then: {last}")


if __name__ == "__main__":
    main(*sys.argv[1:])
