"""Tests the forecast that a run begins with, and that it changes no key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared.config.forecast import RunForecast
from shared.config.load import load_study
from shared.config.resolve import ResolvedStudy
from shared.config.stages import ReportConfig
from shared.errors import ArtifactError
from shared.forecast.begun import FILE, NEVER, begin_with_forecast
from shared.forecast.forecast import forecast_study
from shared.pipeline.plan import plan
from shared.settings import Settings
from tests.support.small_study import SMALL_STUDY

SMALL = [
    "dataset.train=100", "dataset.val=50", "dataset.test=50", "dataset.rare_eval=2", "rare.below=4", "generate.fill_to=5",
    "training.batch_size=8", "finetune.width=8", "finetune.batch_size=4", "generate.batch_size=4", "generate.steps=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Returns settings with a cache that has the timings of the study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAILFILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("shared.benchmark.SECONDS", 0.05)
        forecast_study(study())
        return Settings.from_environment()


@pytest.fixture(autouse=True)
def cache(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILFILL_CACHE", str(settings.cache))


def study(*sets: str) -> ResolvedStudy:
    return load_study(SMALL_STUDY, [*SMALL, *sets])


def test_the_report_gets_the_forecast_and_keeps_its_key(tmp_path: Path, settings: Settings) -> None:
    steps = plan(study())
    before = steps[-1]
    found = begin_with_forecast(study(), steps, tmp_path, settings)
    assert isinstance(found, RunForecast)
    assert found.hours.keys() == {step.stage for step in steps}
    report = steps[-1].config
    assert isinstance(report, ReportConfig)
    assert report.forecast == found
    assert (steps[-1].id, steps[-1].needs) == (before.id, before.needs)


def test_a_continued_run_shows_the_first_forecast(tmp_path: Path, settings: Settings) -> None:
    first = begin_with_forecast(study(), plan(study()), tmp_path, settings)
    assert isinstance(first, RunForecast)
    kept = (tmp_path / FILE).read_text().replace(first.made, "2020-01-01T00:00:00+00:00")
    (tmp_path / FILE).write_text(kept)
    again = begin_with_forecast(study(), plan(study()), tmp_path, settings)
    assert isinstance(again, RunForecast)
    assert again.made == "2020-01-01T00:00:00+00:00"
    longer = study("search.epochs=50")
    other = begin_with_forecast(longer, plan(longer), tmp_path, settings)
    assert isinstance(other, RunForecast)
    assert other.made != again.made
    assert other.hours["tune"][1] > again.hours["tune"][1]


def test_a_damaged_forecast_is_made_again(tmp_path: Path, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_text("{")
    assert isinstance(begin_with_forecast(study(), plan(study()), tmp_path, settings), RunForecast)
    assert "the kept forecast cannot be read" in caplog.text


def test_what_has_the_name_of_a_forecast_and_is_no_file_is_one_error(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(ArtifactError, match=r"forecast\.json: cannot be written"):
        begin_with_forecast(study(), plan(study()), tmp_path, settings)


def test_a_run_times_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "timings").mkdir()
    monkeypatch.setenv("TAILFILL_CACHE", str(tmp_path))
    settings = Settings.from_environment(os.environ)
    assert begin_with_forecast(study(), plan(study()), tmp_path, settings) == NEVER
    assert list((tmp_path / "timings").iterdir()) == []


def test_a_run_says_why_it_has_no_forecast(tmp_path: Path, settings: Settings) -> None:
    bucket = study("dataset={source: folder, root: s3://images/all, resolution: 32}")
    said = begin_with_forecast(bucket, plan(bucket), tmp_path, settings)
    assert isinstance(said, str)
    assert said.startswith("the data are in a bucket; `tailfill validate STUDY.yaml --plan`")
    gone = study(f"dataset={{source: folder, root: {tmp_path}/gone, resolution: 32}}")
    said = begin_with_forecast(gone, plan(gone), tmp_path, settings)
    assert isinstance(said, str)
    assert "there is no such folder" in said
