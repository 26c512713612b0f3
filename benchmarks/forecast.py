"""Measures how near a forecast comes: `python -m benchmarks.forecast HOURS WORKDIR DATA...`, on a machine that does nothing else.

For each data set it has `init` write a study that takes so many hours, runs that study, and prints the forecast beside what it took.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import click

from benchmarks.size import command


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("hours", type=click.FloatRange(min=0, min_open=True))
@click.argument("workdir", type=click.Path(path_type=Path))
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="DATA...")
def main(hours: float, workdir: Path, data: tuple[Path, ...]) -> None:
    """Measure studies of so many HOURS of each of the data sets; WORKDIR keeps the studies and their results."""
    for root in data:
        folder = workdir / root.name
        folder.mkdir(parents=True)
        load = os.getloadavg()[0]
        study, work = str(folder / "study.yaml"), str(folder / "work")
        tailfill("init", str(root.resolve()), "--hours", str(hours), "--out", study)
        began = time.monotonic()
        tailfill("run", study, "--workdir", work)
        passed = time.monotonic() - began
        found = json.loads(tailfill("report", "--workdir", work, "--json"))["forecast"]
        click.echo(
            f"{root.name}: load average {load:.1f} before; asked {hours * 3600:.0f} s, forecast {found['run_hours'] * 3600:.0f} s, "
            f"took {passed:.0f} s, {passed / 3600 / hours:.2f} of what was asked"
        )
        click.echo("| stage | forecast, s | took, s | ratio |\n|---|---|---|---|")
        for row in found["rows"]:
            seconds, spent = row["forecast"] * 3600, row["hours"] * 3600
            click.echo(f"| {row['stage']} | {seconds:.0f} | {spent:.0f} | {spent / seconds:.2f} |")


def tailfill(*arguments: str) -> str:
    """Returns what the command prints; raises CalledProcessError if it fails."""
    return subprocess.run(command(*arguments), check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
