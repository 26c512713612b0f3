"""Implements `tailfill run`: runs a study on this machine up to its report, or continues it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from jobs.cli.report import fetch_report
from shared.artifacts.disk import full_disk_named, whole_file
from shared.config.forecast import RunForecast
from shared.config.load import load_study, study_tree
from shared.config.stages import stage_named
from shared.forecast.begun import begin_with_forecast
from shared.log import duration
from shared.pipeline.console import open_console, summary
from shared.pipeline.local_executor import LocalExecutor
from shared.pipeline.local_session import (
    STUDY_FILE,
    WORK,
    check_locations,
    current_fingerprints,
    local_session,
)
from shared.pipeline.scheduler import Scheduler
from shared.search.identity import searches_of
from shared.search.metrics_server import metrics_served
from shared.settings import Settings
from shared.stop import StopSignal
from shared.tracking.observers import UNTRACKED, check_trackers, observing
from shared.weights.check import check_files
from shared.weights.hub_data import ensure_data


def _scratch(workdir: Path) -> dict[str, str]:
    """Returns the variable that names the stages' folder for temporary files, which is emptied, as a killed stage may have left some."""
    folder = (workdir / "scratch").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return {"TMPDIR": str(folder)}


def _said(forecast: RunForecast | str) -> str:
    """Returns a line about how long the run will take, or why that is not known."""
    if isinstance(forecast, str):
        return f"forecast: none: {forecast}"
    low, middle, high = (duration(hours * 3600) for hours in forecast.run_hours)
    busy = (
        f"; {forecast.slowdown:.1f} times as long while the machine is as busy as now" if forecast.slowdown > 1 else ""
    )
    but = f", not counting {' and '.join(forecast.not_timed)}" if forecast.not_timed else ""
    return f"forecast: about {middle} ({low} to {high}) from the first stage to the report{but}{busy}"


def run_study(
    file: Path,
    sets: Sequence[str] = (),
    workdir: Path | None = None,
    workers: int | None = None,
    rerun: Sequence[str] = (),
    log: str = "text",
    as_json: bool = False,
) -> str:
    """Runs the study up to its report, and returns the text for stdout: the path of the page, or JSON. Call it in the main thread.

    Raises ConfigError for a wrong study, and the error of a stage that failed for good.
    """
    for stage in rerun:
        stage_named(stage, f"--rerun {stage}")
    stop = StopSignal()
    stop.install()
    start = time.monotonic()
    with ExitStack() as stack:
        stack.callback(stop.uninstall)
        with stop.interrupting():
            study = load_study(file, sets)
            workdir = workdir or WORK / study.name
            stack.enter_context(full_disk_named(workdir))
            check_locations(study, workdir)
            check_trackers(Settings.from_environment(), study.name)
            ensure_data(study.dataset.root, Settings.from_environment(), stop)
            check_files(study)  # before anything is computed, or weights are read whole for their digest
            fingerprints = current_fingerprints(study, workdir)
            console = stack.enter_context(open_console(log))
            local = stack.enter_context(local_session(study, fingerprints, workdir))
            session = local.session
            for step in session.steps:
                if step.warm_start is not None:
                    step.warm_start.committed()  # raises now if it is missing, not hours later
            forecast = begin_with_forecast(study, session.steps, workdir, Settings.from_environment(), workers)
        console.say(f"study {study.name}: {len(session.steps)} stages; work directory {workdir}")
        console.say(_said(forecast))
        # the metrics of the whole run have one port, over which the coordinators of several experiments would fight
        environment = {**local.environment, **_scratch(workdir), **UNTRACKED, "TAILFILL_METRICS_PORT": ""}
        with whole_file(workdir / STUDY_FILE, private=False) as temporary:
            temporary.write_text(json.dumps({"study": study_tree(study), **asdict(fingerprints)}, indent=1))
        executor = LocalExecutor(study, session.steps, workdir, environment, console, workers)
        observers = stack.enter_context(observing(session, stop))
        scheduler = Scheduler(study, session.steps, session.artifacts, executor, console.say, stop, observers)
        observers.watch(scheduler.rows)
        with metrics_served(session.settings, study.name, searches_of(study.name)):
            report = scheduler.run(frozenset(rerun))
        with stop.interrupting():
            page = fetch_report(session.artifacts, report, workdir / "report")
        console.say(summary(len(scheduler.committed) - scheduler.reused, scheduler.reused, time.monotonic() - start))
    return json.dumps({"report": str(page), "digest": report.digest, **report.summary}) if as_json else str(page)
