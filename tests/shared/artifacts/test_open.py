from __future__ import annotations

from pathlib import Path

import pytest

from shared.artifacts.open import open_store, split_s3
from shared.errors import ConfigError
from shared.settings import Settings


def test_the_store_that_the_environment_names(tmp_path: Path) -> None:
    assert open_store(Settings.from_environment({"TAILFILL_STORE": str(tmp_path)})).url == str(tmp_path)
    assert open_store(Settings.from_environment({"TAILFILL_STORE": "s3://bucket/a/b/"})).url == "s3://bucket/a/b"


@pytest.mark.parametrize("environment", [{}, {"TAILFILL_STORE": "gs://bucket"}, {"TAILFILL_STORE": "s3:///a"}])
def test_no_store(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        open_store(Settings.from_environment(environment))


def test_split() -> None:
    assert split_s3("s3://bucket") == ("bucket", "")
    assert split_s3("s3://bucket/a/b/") == ("bucket", "a/b")
