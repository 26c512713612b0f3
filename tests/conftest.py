"""Provides real services for the tests: each session (each xdist worker) starts its own when a test first needs one."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings as hypothesis_settings

from shared.artifacts.folder import FolderStore
from shared.artifacts.s3 import S3Store
from shared.services.postgres import start_postgres
from shared.services.s3 import BUCKET, ready_seaweedfs, start_seaweedfs
from shared.settings import Settings

if TYPE_CHECKING:
    import torch

hypothesis_settings.register_profile("tailfill", deadline=None)  # a busy machine is no fault of an example
hypothesis_settings.load_profile("tailfill")


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Returns the device that a test computes on: it runs on a CPU, and again on a GPU if there is one. `make test-gpu` needs one."""
    import torch  # here, as few tests need it

    from shared.device import pick_device

    if request.param == "cuda" and not torch.cuda.is_available() and "gpu" not in request.config.getoption("markexpr"):
        pytest.skip("no GPU")
    return pick_device(request.param)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yields the URL of a running PostgreSQL, whose database all tests of the session share."""
    postgres = start_postgres(tmp_path_factory.mktemp("postgres"))
    yield postgres.url.get_secret_value()
    postgres.server.stop()


@pytest.fixture
def database_url(postgres_url: str) -> str:
    """Returns the URL of an empty database for this test alone."""
    import psycopg2

    name = f"test_{uuid.uuid4().hex}"
    connection = psycopg2.connect(postgres_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    connection.close()
    return f"{postgres_url.rpartition('/')[0]}/{name}"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Yields settings that name a running SeaweedFS, which has the bucket `tailfill`."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    seaweedfs = ready_seaweedfs(folder, start_seaweedfs(folder))
    yield Settings.from_environment(seaweedfs.environment())
    seaweedfs.server.stop()


@pytest.fixture
def s3_store(s3_server: Settings) -> S3Store:
    """Returns a store under an empty prefix of the session's SeaweedFS."""
    return S3Store(BUCKET, f"test-{uuid.uuid4().hex}", s3_server, attempts=2)


@pytest.fixture
def folder_store(tmp_path: Path) -> FolderStore:
    """Returns an empty folder store."""
    return FolderStore(tmp_path / "store")


@pytest.fixture(scope="session")
def trained_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a study that was run to its final trainings, and whose report names no arm that helps."""
    from tests.support.trained_study import commit_report, run_study

    root = tmp_path_factory.mktemp("trained")
    run_study(root)
    commit_report(root, {})
    return root


@pytest.fixture
def trained(trained_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns that folder, which is the current one, and whose store is named in the environment, so that no service is started."""
    monkeypatch.chdir(trained_root)
    monkeypatch.setenv("TAILFILL_STORE", str(trained_root / "store"))
    monkeypatch.setenv("TAILFILL_CACHE", str(trained_root / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return trained_root


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Yields the system's Chromium, started by playwright. If there is none, the test fails in CI, and is skipped elsewhere."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    program = os.environ.get("CHROMIUM") or next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        message = "no Chromium on PATH: `apt install chromium`, or set CHROMIUM to its program"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
    ]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=flags)
        yield chromium
        chromium.close()
