"""`tailfill report`: brings the report of the study that was run last to this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.disk import disk_errors
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
    """The path of the report's page, fetched anew; or its results.json."""
    folder = latest_workdir(workdir)
    with local_session(*last_study(folder), folder, look=True) as local:
        session = local.session
        last = status_module.states(session.study, session.steps, session.artifacts)[-1]
        if last.manifest is None:
            raise ConfigError(
                f"{folder}: its report is not committed; `tailfill run` goes on, `tailfill status` says where it stands"
            )
        page = fetch_report(session.artifacts, last.manifest, folder / "report")
    return (page.parent / "results.json").read_text() if as_json else str(page)


def fetch_report(artifacts: Artifacts, report: Manifest, folder: Path) -> Path:
    """Copies the report's files into a folder, and returns the path of its page; raises ArtifactError if one would lie outside."""
    for file in report.files:
        target = path_below(folder, file.name, f"report {report.key[:8]}")
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifacts.fetch(file), target)
    return folder / "index.html"
