from __future__ import annotations

from pathlib import Path

import pytest

from shared.diffusion.generator import BaseSource
from shared.settings import Settings


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion; not to be written to."""
    from tests.support.tiny_pipeline import tiny_pipeline  # diffusers is imported by the tests that need it only

    return tiny_pipeline(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def source(tmp_path: Path) -> BaseSource:
    """Where a base is found by its name, in no bucket."""
    return BaseSource(Settings.from_environment({"TAILFILL_CACHE": str(tmp_path / "cache")}), tmp_path)
