"""Provides MLflow's own server, which starts when a test first needs it, and a small study whose every step is committed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.local_commands import commit_all
from tests.support.mlflow_server import mlflow_server
from tests.support.tracked_study import files_of

VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
             "TAILFILL_TENSORBOARD", "TAILFILL_WEBHOOK", "TAILFILL_METRICS_PORT")  # fmt: skip


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yields the address of a running MLflow server, which all tests of the session share."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


@pytest.fixture
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the current folder, with a study in a folder store whose every step is committed; nothing follows it yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAILFILL_STORE", "store")
    monkeypatch.setenv("TAILFILL_CACHE", "cache")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:p@127.0.0.1:1/d")
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    commit_all(files=files_of)
    return tmp_path
