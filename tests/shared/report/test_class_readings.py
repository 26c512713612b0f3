"""Tests the readings of classes against the verdict's own estimator, and what has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.config.dataset import Rare
from shared.config.search import Verdict
from shared.config.stages import ReportConfig
from shared.metrics.statistics import sign_flip_p
from shared.report.class_readings import ClassReadings, Estimate, read_classes
from shared.report.inputs import Results, read_study
from shared.report.scores import StudyScores, judge, score_study
from tests.support.report_study import MULTI_LABEL, StudyMaker, report_config, three_arms


def readings(config: ReportConfig, results: Results) -> tuple[ClassReadings, StudyScores]:
    study = read_study(config, results)
    scores = score_study(study)
    return read_classes(study, scores), scores


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportConfig, Results]:
    return three_arms(tmp_path_factory.mktemp("study"), seeds=7, gain=0.7)


@pytest.mark.parametrize("name", ["pattern/striped", "fabric/faux", "neckline/square"])
def test_the_gain_of_a_class_is_the_verdict_on_that_class_alone(study: tuple[ReportConfig, Results], name: str) -> None:
    config = study[0].model_copy(update={"rare": Rare(below=None, classes=(name,)), "verdict": Verdict(alpha=0.1)})
    found, scores = readings(config, study[1])
    assert isinstance(config.verdict, Verdict)
    comparison = judge(config.verdict, config.experiments, scores).verdicts[0].against_baseline
    gain = found.of(name).gain["synthetic"]
    assert comparison.interval is not None
    assert gain.mean == pytest.approx(comparison.difference, abs=1e-12)
    assert gain.interval == pytest.approx(comparison.interval, abs=1e-12)
    assert (gain.sd, gain.n) == (pytest.approx(comparison.sd, abs=1e-12), 7)
    assert [r.name for r in found.judged] == [name]
    assert sign_flip_p(comparison.differences) <= 1


def test_f1_and_its_worst_are_those_of_the_page(study: tuple[ReportConfig, Results]) -> None:
    found, scores = readings(*study)
    assert found.baseline == "real"
    assert list(found.arms) == ["synthetic", "placebo"]
    for reading in found.classes:
        for arm, estimate in reading.f1.items():
            spread = scores.class_spread(arm, reading.name, "f1")
            assert (estimate.mean, estimate.sd) == (pytest.approx(spread.mean), pytest.approx(spread.sd))
            assert estimate.interval is not None
            assert 0 <= estimate.interval[0] < spread.mean < estimate.interval[1] <= 1  # type: ignore[operator]
    for worst in found.worst:
        means = {r.name: r.f1[worst.experiment].mean or 0 for r in found.classes}
        assert worst.of_all is not None
        assert worst.of_all.name == min(means, key=lambda name: means[name])
        for group, of_group in worst.by_group.items():
            inside = {name: mean for name, mean in means.items() if name.startswith(f"{group}/")}
            assert of_group.name == min(inside, key=lambda name: inside[name])
        groups = {g.name: scores.group_spread(worst.experiment, g.name, "macro_f1") for g in scores.schema.groups}
        assert worst.group is not None
        lowest = min(groups, key=lambda name: groups[name].mean or 0)
        assert (worst.group.name, worst.group.score.mean) == (lowest, pytest.approx(groups[lowest].mean))
        assert worst.group.score.interval is not None


def test_which_classes_the_verdict_counts(study: tuple[ReportConfig, Results]) -> None:
    config, results = study
    everything = config.model_copy(update={"verdict": Verdict(metric="macro_f1")})
    images = config.model_copy(update={"verdict": Verdict(metric="accuracy")})
    assert len(readings(everything, results)[0].judged) == 20
    assert readings(images, results)[0].judged == []
    none, _ = readings(config.model_copy(update={"verdict": "none"}), results)
    assert (none.baseline, list(none.arms), none.alpha, none.judged) == (None, [], 0.05, [])
    assert none.worst[0].of_all is not None


def test_groups_of_images_are_the_units(tmp_path: Path) -> None:
    maker = StudyMaker(tmp_path, train=120, test=400)
    for name in ("real", "other"):
        for repeat in range(3):
            maker.final(name, "real", repeat, 2.0, 2.0, ())
            path = maker.results[f"final/{name}/{repeat}"].files["predictions.parquet"]
            pq.write_table(
                pq.read_table(path).append_column("unit", pa.array([f"p{i // 10}" for i in range(400)])), path
            )
    found, scores = readings(report_config([("real", "real"), ("other", "real")]), maker.results)
    reading = found.of("pattern/solid")
    assert reading.test_images > 100
    assert reading.test_units == scores.unit_counts()[scores.schema.column("pattern/solid")] <= 40
    assert reading.few == (reading.test_units < 20)


def test_what_no_training_tells_has_no_interval(tmp_path: Path) -> None:
    """A class that is never recognised, one without a test image, and a single repetition."""
    maker = StudyMaker(tmp_path, train=200, test=60, weights={"sleeve": (10, 10, 0)} | {
        "pattern": (1,) * 7, "neckline": (1,) * 4, "fabric": (1,) * 6,
    })  # fmt: skip
    for repeat in range(3):
        for name in ("real", "other"):
            maker.final(name, "real", repeat, 3.0, -60.0, ("fabric/knit",))
    found, _ = readings(report_config([("real", "real"), ("other", "real")]), maker.results)
    never, absent = found.of("fabric/knit"), found.of("sleeve/sleeveless")
    assert never.f1["real"] == Estimate(0.0, 0.0, None, 3)
    assert never.gain["other"] == Estimate(0.0, 0.0, None, 3)
    assert absent.f1["real"] == absent.gain["other"] == Estimate(None, None, None, 0)
    assert (absent.test_units, absent.train_images) == (0, 0)
    assert {w.by_group["fabric"].name for w in found.worst} == {"fabric/knit"}
    assert all("sleeveless" not in w.by_group["sleeve"].name for w in found.worst)
    alone = {role: r for role, r in maker.results.items() if not role.endswith(("/1", "/2"))}
    single, _ = readings(report_config([("real", "real"), ("other", "real")]), alone)
    estimate = single.of("pattern/solid").gain["other"]
    assert (estimate.sd, estimate.interval, estimate.n) == (None, None, 1)


def test_labels_that_are_unknown_count_nowhere(tmp_path: Path) -> None:
    maker = StudyMaker(tmp_path, schema=MULTI_LABEL, train=120, test=200)
    for repeat in range(6):
        maker.final("real", "real", repeat, 2.0, 2.0, ())
        maker.final("other", "real", repeat, 3.0, 3.0, ())
    found, scores = readings(
        report_config([("real", "real"), ("other", "real")], rare=Rare(below=None, classes=("tags/worn",))),
        maker.results,
    )
    reading = found.of("tags/worn")
    values = [scores.metrics[name, r]["classes"]["tags/worn"]["f1"] for name in ("other", "real") for r in range(6)]
    assert reading.gain["other"].mean == pytest.approx(np.mean(values[:6]) - np.mean(values[6:]))
