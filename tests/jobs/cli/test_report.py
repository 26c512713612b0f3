"""Tests what `tailfill report` copies, and what it refuses to write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.cli.report import print_report
from shared.errors import ArtifactError, ConfigError
from tests.support.local_commands import SMALL_STUDY, commit_all, run, status

pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "../../../home/x/.bashrc"),
        ("name", "/absolute/.bashrc"),
        ("name", "..\\..\\.bashrc"),
        ("name", "index.html\0"),
        ("digest", "../../y"),
    ],
)
def test_a_bucket_chooses_no_place_for_the_report(tmp_path: Path, field: str, value: str) -> None:
    """`run` and `report` refuse a manifest with other paths, and write nothing outside of the work directory."""
    commit_all()
    run()
    (manifest,) = Path("store/demo/report").glob("*/manifest.json")
    tree = json.loads(manifest.read_bytes())
    tree["files"][0][field] = value.replace("/absolute", str(tmp_path / "absolute"))
    manifest.write_text(json.dumps(tree))
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "work")}
    for command in (run, lambda: print_report(None, False), lambda: status(file=SMALL_STUDY)):
        with pytest.raises(ArtifactError, match=rf"manifest\.json: not a manifest .*files\.0\.{field}") as caught:
            command()
        assert caught.value.exit_code == 2
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "work")} == before


def test_a_report_that_is_not_there_yet() -> None:
    commit_all()
    run()
    (Path("store/demo/report").rename("gone"))
    with pytest.raises(ConfigError, match="its report is not committed; `tailfill run` continues the study"):
        print_report(None, False)


def test_no_report_of_a_study_that_was_never_run() -> None:
    with pytest.raises(ConfigError, match="work: holds no study that was run; name one with --workdir"):
        print_report(None, False)
