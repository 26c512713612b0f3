"""`tailfill run`: runs a study on this machine to its report, or goes on with it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from jobs.cli.report import fetch_report
from shared.config.load import load_study, study_tree
from shared.config.stages import stage_named
from shared.pipeline.console import open_console, summary
from shared.pipeline.local_executor import LocalExecutor
from shared.pipeline.local_session import (
    STUDY_FILE,
    WORK,
    current_fingerprints,
    local_session,
)
from shared.pipeline.scheduler import Scheduler
from shared.search.identity import searches_of
from shared.search.metrics_server import metrics_served
from shared.stop import StopSignal


def _scratch(workdir: Path) -> dict[str, str]:
    """The stages' folder for files on their way: emptied first, since a stage that was killed leaves some."""
    folder = (workdir / "scratch").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return {"TMPDIR": str(folder)}


def run_study(
    file: Path,
    sets: Sequence[str],
    workdir: Path | None,
    workers: int | None,
    rerun: Sequence[str],
    log: str,
    as_json: bool,
) -> str:
    """Runs the study to its report; returns what goes to stdout: the page's path, or JSON."""
    for stage in rerun:
        stage_named(stage, f"--rerun {stage}")
    stop = StopSignal()
    stop.install()
    start = time.monotonic()
    study = load_study(file, sets)
    workdir = workdir or WORK / study.name
    found = current_fingerprints(study, workdir)
    with open_console(log) as console, local_session(study, found, workdir) as local:
        session = local.session
        stop.raise_if_set()
        for step in session.steps:
            if step.earlier is not None:
                step.earlier.committed()  # to be told now, not when its turn comes
        console.say(f"study {study.name}: {len(session.steps)} stages; work directory {workdir}")
        # one port for the whole run: coordinators of several experiments are at work at once
        environment = {**local.environment, **_scratch(workdir), "TAILFILL_METRICS_PORT": ""}
        (workdir / STUDY_FILE).write_text(json.dumps({"study": study_tree(study), **asdict(found)}, indent=1))
        executor = LocalExecutor(study, session.steps, workdir, environment, console, workers)
        control = Scheduler(study, session.steps, session.artifacts, executor, console.say, stop)
        with metrics_served(session.settings, study.name, searches_of(study.name)):
            report = control.run(frozenset(rerun))
        page = fetch_report(session.artifacts, report, workdir / "report")
        console.say(summary(len(control.committed) - control.reused, control.reused, time.monotonic() - start))
    return json.dumps({"report": str(page), "digest": report.digest, **report.summary}) if as_json else str(page)
