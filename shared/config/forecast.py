"""Defines the forecast that a run is begun with, so that its report can show it beside what happened."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shared.config.base import Section

Hours = Annotated[float, Field(ge=0, le=1e9)]


class RunForecast(Section):
    """Holds what was forecast when a run began. It is part of no key: a study is the same whatever was expected of it."""

    made: str
    """Gives the time in UTC, ISO 8601."""
    hours: dict[str, tuple[Hours, Hours, Hours]]
    """Maps each stage that was timed to its hours over all processes, low, middle and high, on a machine that does nothing else."""
    run_hours: tuple[Hours, Hours, Hours]
    """Gives the hours from the start of the run to its end: low, middle and high."""
    busy_cores: Annotated[float, Field(ge=0)]
    """Gives how many cores of the machine other programs used when the run began."""
    slowdown: Annotated[float, Field(ge=1)]
    """Says how many times as long it would take if the machine stayed as busy as it was then."""
    timed_busy_cores: Annotated[float, Field(ge=0)]
    """Gives how many they used at most when the work was timed."""
    processes: Annotated[int, Field(ge=1)]
    """Counts the processes that run at the same time."""
    not_timed: tuple[str, ...] = ()
    """Lists the stages that could not be timed, whose hours are in none of these."""
