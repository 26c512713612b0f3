from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from shared.config.search import Verdict
from shared.config.stages import ReportConfig
from shared.deploy.choose import choose
from shared.errors import ConfigError
from shared.metrics.classification import best_thresholds, fast_scores
from shared.pipeline.local_session import last_study, local_session
from shared.pipeline.session import Session
from shared.pipeline.status import states
from shared.report.inputs import StageResult, read_study
from shared.report.recommended import best_of, recommend
from shared.report.scores import judge, score_study
from tests.support.trained_study import commit_report


@contextmanager
def session() -> Iterator[Session]:
    folder = Path("work/squares")
    with local_session(*last_study(folder), folder, join=True, database=False) as local:
        yield local.session


@pytest.mark.parametrize(
    ("outcomes", "experiment", "why"),
    [
        ({}, "real", "the verdict recommends no other"),
        ({"other": "no effect found"}, "real", "other: no effect found"),
        ({"other": "hurts"}, "real", "other: hurts"),
        ({"other": "too few repetitions"}, "real", "too few"),
        ({"other": "recipe helps"}, "other", "the verdict is “recipe helps”"),
        ({"other": "images help"}, "other", "the verdict is “images help”"),
    ],
)
def test_the_verdict_says_which_arm_is_used(trained: Path, outcomes: dict[str, str], experiment: str, why: str) -> None:
    try:
        commit_report(trained, outcomes)
        with session() as opened:
            chosen = choose(opened, None)
    finally:
        commit_report(trained, {})
    assert chosen.experiment == experiment
    assert why in chosen.why


@pytest.mark.usefixtures("trained")
def test_the_repetition_is_the_best_of_the_validation_split() -> None:
    with session() as opened:
        chosen = choose(opened, "other")
        assert set(chosen.repetitions) == {0, 1}
        for number, repetition in chosen.repetitions.items():
            logits, labels = repetition.validation
            assert len(labels) == chosen.info.sizes["val"]
            p = np.concatenate([_softmax(logits[:, :3]), 1 / (1 + np.exp(-logits[:, 3:]))], axis=1).astype(np.float32)
            thresholds = best_thresholds(chosen.info.schema_, p, labels)
            expected = fast_scores(chosen.info.schema_, p, labels, np.array([4]), thresholds)["macro_f1"]
            assert chosen.scores.by_repetition[number] == pytest.approx(expected)
        assert chosen.scores.by_repetition[chosen.best.number] == max(chosen.scores.by_repetition.values())


def test_the_report_recommends_what_is_used(trained: Path) -> None:
    commit_report(trained, {})
    with session() as opened:
        rows = {row.step.id: row.manifest for row in states(opened.study, opened.steps, opened.artifacts)}
        needs = {role: rows[step.id] for role, step in opened.steps[-1].needs.items()}
        results = {
            role: StageResult(manifest, {file.name: opened.artifacts.fetch(file) for file in manifest.files})
            for role, manifest in needs.items()
            if manifest is not None
        }
        config = opened.steps[-1].config
        assert isinstance(config, ReportConfig)
        assert isinstance(config.verdict, Verdict)
        study = read_study(config, results)
        validation = {e.config.name: best_of(study, e) for e in study.experiments}
        assert validation == {name: choose(opened, name).scores for name in validation}
        found = recommend(config, validation, judge(config.verdict, config.experiments, score_study(study)))
        used = choose(opened, None)
        assert found is not None
        assert (found.experiment, found.repeat) == (used.experiment, used.best.number)
        assert found.validation == used.scores.by_repetition[used.best.number]


def test_of_several_arms_that_help_the_best_in_validation_is_used(trained: Path) -> None:
    try:
        commit_report(trained, {"real": "images help", "other": "images help"})
        with session() as opened:
            means = {
                name: np.mean(list(choose(opened, name).scores.by_repetition.values())) for name in ("real", "other")
            }
            chosen = choose(opened, None)
    finally:
        commit_report(trained, {})
    assert means["real"] != means["other"]
    assert chosen.experiment == max(means, key=lambda name: means[name])


@pytest.mark.usefixtures("trained")
def test_what_cannot_be_chosen_is_said() -> None:
    with session() as opened, pytest.raises(ConfigError, match="no such experiment; did you mean real"):
        choose(opened, "rael")


def _softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))
