"""Implements `tailfill status`: shows the progress of a study, or what would make a stage of it run again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from shared.config.load import changed_study, load_study
from shared.config.resolve import ResolvedStudy
from shared.pipeline import search_status
from shared.pipeline import status as step_status
from shared.pipeline.local_executor import running_tasks
from shared.pipeline.local_session import (
    WORK,
    current_fingerprints,
    last_study,
    latest_workdir,
    local_session,
)
from shared.pipeline.session import Fingerprints
from shared.settings import Settings


def status(file: Path | None, sets: Sequence[str], workdir: Path | None, why: str | None, as_json: bool) -> str:
    """Returns the state of each step and search, or with `why` what would make that stage run again.

    The study is the one that was run last, with the data as it was then; or, with a study file or `sets`, that one, with the data as it is now.
    """
    study, fingerprints, folder = _find_study(file, sets, workdir)
    with local_session(study, fingerprints, folder, join=True) as local:
        session = local.session
        if why is not None:
            reasons = step_status.why(session.study, session.steps, session.artifacts, why)
            return json.dumps({"why": reasons.splitlines()}, ensure_ascii=False) if as_json else reasons
        running = running_tasks(folder, session.artifacts)
        rows = step_status.states(session.study, session.steps, session.artifacts, running)
        searches = search_status.search_states(rows, session.artifacts, session.database_url)
        if as_json:
            return json.dumps(step_status.as_json(rows, search_status.as_json(searches)), indent=1)
        return "\n".join(filter(None, [step_status.describe(rows), search_status.describe(searches)]))


def _find_study(
    file: Path | None, sets: Sequence[str], workdir: Path | None
) -> tuple[ResolvedStudy, Fingerprints, Path]:
    if file is None:
        folder = latest_workdir(workdir)
        study, fingerprints = last_study(folder)
        if not sets:
            return study, fingerprints, folder
        study = changed_study(study, sets)
    else:
        study = load_study(file, sets)
        folder = workdir or WORK / study.name
        if Settings.from_environment().store is None:
            latest_workdir(folder)  # raises if nothing was run there, before servers are started in vain
    return study, current_fingerprints(study, folder), folder
