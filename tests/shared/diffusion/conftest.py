from __future__ import annotations

from pathlib import Path

import pytest

from shared.settings import Settings


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion; not to be written to."""
    from tiny_pipeline import tiny_pipeline  # diffusers is imported by the tests that need it only

    return tiny_pipeline(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment({"TAILFILL_CACHE": str(tmp_path / "cache")})
