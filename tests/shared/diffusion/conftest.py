from __future__ import annotations

from pathlib import Path

import pytest

from shared.diffusion.generator import BaseSource
from shared.settings import Settings


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a tiny Stable Diffusion, which tests must not change."""
    # imported here, so that only tests that need diffusers import it
    from tests.support.tiny_pipeline import tiny_pipeline

    return tiny_pipeline(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def source(tmp_path: Path) -> BaseSource:
    """Returns a source that finds a base by its name, and has no bucket."""
    return BaseSource(Settings.from_environment({"TAILFILL_CACHE": str(tmp_path / "cache")}), tmp_path)
