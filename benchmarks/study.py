"""Measures how long a whole study takes at an earlier commit and now: the same small study, in turns.

python -m benchmarks.study STUDY.yaml FROM [--set PATH=VALUE] [--turns N] [--json FILE]

Most of a study of short trainings was start-up: a process imports for 10 to 15 seconds and trains for two. Both sides run the installed
libraries, each with its own code first on the path, and each turn begins with an empty work directory.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class StudyRun:
    """Describes one run of the study."""

    seconds: float
    load: float
    """Gives the machine's load average at its end."""
    stages: int
    """Counts the stages that were committed."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("study", type=click.Path(path_type=Path, exists=True), metavar="STUDY.yaml")
@click.argument("revision", metavar="FROM")
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Replace a value of the study.")
@click.option("--turns", type=click.IntRange(min=1), default=2, show_default=True, help="Runs of either side.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also writes every figure here.")
def main(study: Path, revision: str, sets: tuple[str, ...], turns: int, json_file: Path | None) -> None:
    """Run STUDY with the code of the commit FROM and with the working tree, in turns, and compare the times."""
    before: list[StudyRun] = []
    now: list[StudyRun] = []
    with worktree(revision) as code:
        for turn in range(turns):
            for side, folder, runs in (("before", code, before), ("now", ROOT, now)):
                runs.append(run_study(folder, study.resolve(), sets))
                click.echo(
                    f"turn {turn + 1}, {side}: {runs[-1].seconds:.0f} s, load average {runs[-1].load:.1f}", err=True
                )
    if json_file is not None:
        figures = {"before": [asdict(run) for run in before], "now": [asdict(run) for run in now]}
        json_file.write_text(json.dumps(figures, indent=1) + "\n")
    click.echo(summary(before, now))


def summary(before: list[StudyRun], now: list[StudyRun]) -> str:
    """Returns the means, and the ratio of each pair of neighbours."""
    ratios = [later.seconds / earlier.seconds for earlier, later in zip(before, now, strict=True)]
    means = [statistics.mean(run.seconds for run in runs) for runs in (before, now)]
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return f"before: {means[0]:.0f} s, now: {means[1]:.0f} s, {now[0].stages} stages; ratio {statistics.mean(ratios):.2f} ({each})"


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """Yields a folder with the code of a commit."""
    with tempfile.TemporaryDirectory(prefix="study-") as folder:
        code = Path(folder) / "code"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", code, revision], cwd=ROOT, check=True)
        try:
            yield code
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", code], cwd=ROOT, check=True)


def run_study(code: Path, study: Path, sets: tuple[str, ...]) -> StudyRun:
    """Runs the study with the code in a folder; raises ClickException with the end of its log if it fails."""
    settings = [part for setting in sets for part in ("--set", setting)]
    with tempfile.TemporaryDirectory(prefix="study-") as workdir:
        began = time.monotonic()
        ended = _command(code, "run", str(study), *settings, "--workdir", workdir)
        seconds = time.monotonic() - began
        if ended.returncode:
            raise click.ClickException(f"the study failed with the code in {code}:\n{ended.stderr[-3000:]}")
        load = os.getloadavg()[0]
        status = _command(code, "status", "--workdir", workdir, "--json")
        return StudyRun(seconds, load, sum(row["state"] == "committed" for row in json.loads(status.stdout)))


def _command(code: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(code)}
    command = [sys.executable, "-m", "jobs", *arguments]
    return subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    main()
