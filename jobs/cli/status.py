"""`tailfill status`: where a study stands, or what would make a stage of it run again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from shared.config.load import changed_study, load_study
from shared.config.resolve import ResolvedStudy
from shared.pipeline import search_status as progress
from shared.pipeline import status as status_module
from shared.pipeline.local_executor import running_here
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
    """The state of each stage and search, or with `why` what would make a stage run again.

    Of the study as it was run last; with a study file or `--set`, of that one, as it would be run now.
    """
    study, found, folder = _asked(file, sets, workdir)
    with local_session(study, found, folder, look=True) as local:
        session = local.session
        if why is not None:
            said = status_module.why(session.study, session.steps, session.artifacts, why)
            return json.dumps({"why": said.splitlines()}, ensure_ascii=False) if as_json else said
        rows = status_module.states(session.study, session.steps, session.artifacts, running_here(folder))
        searches = progress.search_states(rows, session.artifacts, session.database_url)
        if as_json:
            return json.dumps(status_module.as_json(rows, progress.as_json(searches)), indent=1)
        return "\n".join(filter(None, [status_module.describe(rows), progress.describe(searches)]))


def _asked(file: Path | None, sets: Sequence[str], workdir: Path | None) -> tuple[ResolvedStudy, Fingerprints, Path]:
    if file is None:
        folder = latest_workdir(workdir)
        study, found = last_study(folder)
        if not sets:
            return study, found, folder
        study = changed_study(study, sets)
    else:
        study = load_study(file, sets)
        folder = workdir or WORK / study.name
        if Settings.from_environment().store is None:
            latest_workdir(folder)  # else servers would be started to say that nothing was ever run
    return study, current_fingerprints(study, folder), folder
