"""Tests `tailfill run` on a study whose stages are committed: its checks, its work directory and its report."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from jobs.cli.report import print_report
from jobs.cli.run import run_study
from shared.config.load import load_study
from shared.errors import ArtifactError, ConfigError, Stopped, UnavailableError
from shared.pipeline.local_session import last_study, local_session
from tests.support.local_commands import SMALL_STUDY, commit_all, run, status

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_a_run_with_all_committed_fetches_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    commit_all()
    page = Path(run())
    assert page == Path("work/demo/report/index.html")
    assert page.read_text() == "<html>page</html>"
    assert "0 stages run, 15 found committed" in capsys.readouterr().err
    assert json.loads(run(as_json=True))["report"] == str(page)
    assert print_report(None, False) == str(page)
    assert json.loads(print_report(Path("work/demo"), True)) == {"answer": 1}


def test_a_link_in_the_report_is_not_followed(tmp_path: Path) -> None:
    commit_all()
    (tmp_path / "outside").write_text("mine")
    Path("work/demo/report").mkdir(parents=True)
    Path("work/demo/report/index.html").symlink_to(tmp_path / "outside")
    with pytest.raises(ArtifactError, match="a link that leaves the folder"):
        run()
    assert (tmp_path / "outside").read_text() == "mine"


def test_a_bucket_needs_a_store_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAILFILL_STORE")
    for setting in ("classifier.pretrained=s3://b/w", "dataset={source: folder, root: s3://b/d, resolution: 32}"):
        with pytest.raises(ConfigError, match=r"s3://b/. is in a bucket, but no store is named"):
            run(setting)


def test_a_work_directory_inside_of_the_data(tmp_path: Path) -> None:
    sets = [f"dataset={{source: folder, root: {tmp_path}}}"]
    with pytest.raises(ConfigError, match=r"work/demo: lies inside of the data, .*; name a work directory elsewhere"):
        run_study(SMALL_STUDY, sets, None, None, [], "text", False)
    assert not Path("work").exists()


def test_an_unknown_stage_to_rerun() -> None:
    with pytest.raises(ConfigError, match="--rerun train: there is no such stage"):
        run_study(SMALL_STUDY, (), None, None, ("train",), "json", False)


def test_a_second_command_is_kept_out_and_may_look(tmp_path: Path) -> None:
    commit_all()
    run()
    study, found = last_study(Path("work/demo"))
    with local_session(study, found, Path("work/demo")):
        with pytest.raises(UnavailableError, match="uses this work directory"):
            run()
        assert "15 of 15 stages committed" in status()


def test_a_signal_before_the_first_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    load = load_study

    def load_and_stop(*arguments: object) -> object:
        signal.raise_signal(signal.SIGTERM)
        return load(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("jobs.cli.run.load_study", load_and_stop)
    with pytest.raises(Stopped):
        run()
