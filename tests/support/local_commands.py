"""Runs commands on the demo study in the current folder, with a folder as the store, so that no service is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jobs.cli.run import run_study
from jobs.cli.status import status as status_of
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.load import load_study
from shared.data.review import review_digests
from shared.pipeline.plan import Step, plan
from shared.settings import Settings
from tests.support.committed import commit_steps
from tests.support.small_study import SMALL_STUDY


def commit_all(*sets: str, files: Callable[[Step], dict[str, Path]] | None = None) -> None:
    """Commits every step of the study, the report with a page; `files` returns what another step commits."""
    study = load_study(SMALL_STUDY, sets)
    artifacts = Artifacts(FolderStore(Path("store")), study.name, Path("cache"))

    def step_files(step: Step) -> dict[str, Path]:
        if step.stage != "report":
            return files(step) if files else {}
        Path("index.html").write_text("<html>page</html>")
        Path("results.json").write_text('{"answer": 1}')
        return {"index.html": Path("index.html"), "results.json": Path("results.json")}

    commit_steps(
        study, plan(study, weights=review_digests(study, Settings.from_environment({}))), artifacts, step_files
    )


def run(*sets: str, as_json: bool = False) -> str:
    """Runs the study, and returns what the command prints."""
    return run_study(SMALL_STUDY, sets, None, None, (), "json", as_json)


def status(*sets: str, file: Path | None = None, why: str | None = None) -> str:
    """Returns the status of the study as text."""
    return status_of(file, sets, None, why, False)
