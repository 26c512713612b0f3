from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.transfer import main
from shared.artifacts.s3 import S3Store
from shared.settings import Settings


@pytest.fixture
def environment(s3_server: Settings) -> dict[str, str]:
    assert s3_server.s3_endpoint
    assert s3_server.s3_access_key
    assert s3_server.s3_secret_key
    return {
        "AWS_ENDPOINT_URL_S3": s3_server.s3_endpoint,
        "AWS_ACCESS_KEY_ID": s3_server.s3_access_key.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": s3_server.s3_secret_key.get_secret_value(),
        "AWS_REGION": "us-east-1",
    }


def test_it_measures_both_and_leaves_nothing(tmp_path: Path, s3_store: S3Store, environment: dict[str, str]) -> None:
    figures = tmp_path / "figures.json"
    s3_store.put("another", b"1")
    arguments = ["--case", "3x1", "--case", "1x2", "--rounds", "2", "--json", str(figures), "--store", s3_store.url]
    result = CliRunner().invoke(main, arguments, env=environment)
    assert result.exit_code == 0, result.output
    assert re.search(r"\| 3 files, 1 MiB: upload \| [\d.]+ ± [\d.]+ \| [\d.]+ ± [\d.]+ \| [\d.]+ × \|", result.output)
    found = json.loads(figures.read_text())
    assert [len(speeds) for speeds in found["cases"].values()] == [3, 3]
    assert all(len(speed["boto3"]) == 2 for speeds in found["cases"].values() for speed in speeds)
    assert list(s3_store.list("")) == ["another"]


def test_a_server_is_started_if_none_is_named() -> None:
    result = CliRunner().invoke(main, ["--case", "1x1", "--rounds", "1"])
    assert result.exit_code == 0, result.output
    assert "SeaweedFS on this machine" in result.output


@pytest.mark.parametrize("case", ["3", "0x1", "3x", "axb", "3x1x2"])
def test_a_case_is_two_numbers(case: str) -> None:
    result = CliRunner().invoke(main, ["--case", case])
    assert result.exit_code == 1
    assert "--case: must be the number of files and of MiB, like 512x32" in result.output
