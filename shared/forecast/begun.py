"""Keeps the forecast that a run is begun with in its work directory, for the report."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from shared.artifacts.disk import whole_file
from shared.artifacts.keys import canonical_digest
from shared.artifacts.open import is_s3
from shared.config.base import Section
from shared.config.forecast import RunForecast
from shared.config.resolve import ResolvedStudy
from shared.config.stages import ReportConfig
from shared.errors import TailfillError
from shared.forecast.timings import FOLDER
from shared.log import Log
from shared.pipeline.plan import Step
from shared.settings import Settings

FILE = "forecast.json"
"""Names the file in the work directory."""
NEVER = "such work was never timed on this machine; `tailfill validate STUDY.yaml --plan` times it"
"""Says why there is no forecast if no timing is kept."""

log = Log("forecast")


class _Kept(Section):
    """Holds the content of the file."""

    plan: str
    """Identifies the plan that the forecast is about."""
    forecast: RunForecast


def begin_with_forecast(
    study: ResolvedStudy, steps: list[Step], workdir: Path, settings: Settings, workers: int | None = None
) -> RunForecast | str:
    """Gives the forecast of a run to the last of its steps, the report, and returns it; if there is none, returns why.

    `workers` replaces the study's number per search. The forecast of the first start is kept, as long as the plan stays the same.
    Nothing is timed now: a run should begin.
    """
    plan = canonical_digest([step.id for step in steps])
    forecast = _read(workdir / FILE, plan) or _make(study, settings, workers)
    if isinstance(forecast, str):
        return forecast
    with whole_file(workdir / FILE, private=False) as temporary:
        temporary.write_text(_Kept(plan=plan, forecast=forecast).model_dump_json(indent=1))
    report = steps[-1]
    assert isinstance(report.config, ReportConfig)
    steps[-1] = replace(report, config=report.config.model_copy(update={"forecast": forecast}))
    return forecast


def _read(path: Path, plan: str) -> RunForecast | None:
    try:
        kept = _Kept.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("the kept forecast cannot be read and is made again", path=path, reason=str(error).splitlines()[0])
        return None
    return kept.forecast if kept.plan == plan else None


def _make(study: ResolvedStudy, settings: Settings, workers: int | None) -> RunForecast | str:
    from shared.forecast.forecast import forecast_study

    root = study.dataset.root
    if not (settings.cache / FOLDER).is_dir():
        return NEVER
    if root is not None and is_s3(root):  # the images would be fetched, which prepare does anyway
        return "the data are in a bucket; `tailfill validate STUDY.yaml --plan` reads them for one"
    try:
        found = forecast_study(study, measures=False, workers=workers)
    except TailfillError as error:
        return str(error)  # the stage that meets it ends the run
    if not set(found.hours) - {"prepare", "report"}:
        return NEVER
    return RunForecast(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        hours={
            stage: (found.hours_range[stage][0], hours, found.hours_range[stage][1])
            for stage, hours in found.hours.items()
        },
        run_hours=found.run_hours,
        busy_cores=found.busy_cores,
        slowdown=found.slowdown,
        timed_busy_cores=found.timed_busy_cores,
        processes=found.processes,
        not_timed=found.not_timed,
    )
