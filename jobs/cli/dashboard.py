"""Implements `tailfill dashboard`: shows the searches of the study that was run last in Optuna's dashboard."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from shared.pipeline.local_session import (
    last_study,
    latest_workdir,
    local_session,
)
from shared.stop import StopSignal


def dashboard(workdir: Path | None, port: int, ready: Callable[[str], None]) -> None:
    """Serves Optuna's dashboard on the study's database until Ctrl-C, after `ready` was called with its address."""
    from shared.search.dashboard import serve_dashboard

    stop = StopSignal()
    stop.install()
    with ExitStack() as stack:
        with stop.interrupting():
            folder = latest_workdir(workdir)
            local = stack.enter_context(local_session(*last_study(folder), folder, join=True))
        serve_dashboard(local.session.database_url, port, stop, ready)
