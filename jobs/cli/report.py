"""Implements `tailfill report`: copies the report of the study that was run last into its work directory."""

from __future__ import annotations

import shutil
from pathlib import Path

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.disk import whole_file
from shared.artifacts.manifest import Manifest
from shared.errors import ConfigError
from shared.names import path_below
from shared.pipeline import status as status_module
from shared.pipeline.local_session import (
    last_study,
    latest_workdir,
    local_session,
)


def print_report(workdir: Path | None, as_json: bool) -> str:
    """Copies the report, and returns the path of its page or, with `as_json`, its results.json; raises ConfigError if it is not committed."""
    folder = latest_workdir(workdir)
    with local_session(*last_study(folder), folder, join=True) as local:
        session = local.session
        last = status_module.states(session.study, session.steps, session.artifacts)[-1]
        if last.manifest is None:
            raise ConfigError(
                f"{folder}: its report is not committed; `tailfill run` continues the study, `tailfill status` shows its progress"
            )
        page = fetch_report(session.artifacts, last.manifest, folder / "report")
    return (page.parent / "results.json").read_text() if as_json else str(page)


def fetch_report(artifacts: Artifacts, report: Manifest, folder: Path) -> Path:
    """Copies the report's files into a folder, and returns the path of its page; raises ArtifactError if a file would be outside of it."""
    for file in report.files:
        target = path_below(folder, file.name, f"report {report.key[:8]}")
        with whole_file(target, private=False) as temporary:
            shutil.copyfile(artifacts.fetch(file), temporary)
    return folder / "index.html"
