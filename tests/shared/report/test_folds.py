"""Tests a report of repetitions that test on a fold of their own each."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import report as job
from shared.errors import DataError
from shared.metrics.classification import evaluate
from shared.report.inputs import StageResult, StudyInputs, read_study
from shared.report.scores import StudyScores, score_study
from tests.support.browser import check_page
from tests.support.report_study import MULTI_LABEL, three_arms

FOLDS = 8


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("folds")
    config, results = three_arms(folder / "in", seeds=FOLDS, gain=4.0, folds=FOLDS)
    return job.report(config, results, folder)


@pytest.fixture(scope="module")
def tree(full: dict[str, Path]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(full["results.json"].read_text())
    return found


def scored(tmp_path: Path, **options: Any) -> tuple[StudyInputs, StudyScores]:
    config, results = three_arms(tmp_path, seeds=6, folds=6, **options)
    study = read_study(config, results)
    return study, score_study(study)


@pytest.mark.parametrize("options", [{}, {"schema": MULTI_LABEL}], ids=("several groups", "multi-label"))
def test_the_mean_of_the_pseudo_values_is_the_metric_of_all_images(tmp_path: Path, options: dict[str, Any]) -> None:
    study, scores = scored(tmp_path, **options)
    read = [scores.predictions["synthetic", repeat] for repeat in range(6)]
    assert sum(len(p.paths) for p in read) == len({path for p in read for path in p.paths}) == 1100
    together = evaluate(
        study.schema,
        np.concatenate([p.probabilities for p in read]),
        np.concatenate([p.labels for p in read]),
        study.rare,
    )
    for metric in ("accuracy", "macro_f1", "rare_macro_f1", "balanced_accuracy"):
        mean = scores.spread("synthetic", metric).mean
        assert mean == (None if together[metric] is None else pytest.approx(together[metric], abs=1e-12))
    group, name = study.schema.groups[0].name, study.schema.class_names[-1]
    for metric in ("accuracy", "macro_f1", "balanced_accuracy"):
        assert scores.group_spread("synthetic", group, metric).mean == pytest.approx(together["groups"][group][metric])
    for metric in ("f1", "precision", "recall"):
        assert scores.class_spread("synthetic", name, metric).mean == pytest.approx(together["classes"][name][metric])
    exact = [evaluate(study.schema, p.probabilities, p.labels, study.rare)["exact_match"] for p in read]
    assert scores.spread("synthetic", "exact_match").mean == pytest.approx(np.mean(exact))  # no metric of counts


def test_a_class_with_one_image_per_fold_is_scored(tmp_path: Path) -> None:
    study, scores = scored(tmp_path)
    counts = dict(zip(study.schema.class_names, scores.unit_counts().tolist(), strict=True))
    assert min(counts.values()) < 20
    assert counts == study.test_counts
    assert counts == {
        name: sum(info.counts[split][name] for split in ("train", "val", "test"))
        for info in [study.info]
        for name in study.schema.class_names
    }
    assert all(scores.class_spread("real", name, "f1").mean is not None for name in counts)


def test_the_error_is_that_of_nadeau_and_bengio(tree: dict[str, Any]) -> None:
    (verdict,) = tree["verdict"]["arms"]
    against = verdict["against_baseline"]
    assert verdict["outcome"] == "images help"
    assert against["difference"] == pytest.approx(np.mean(against["differences"]))
    spread = np.var(against["differences"], ddof=1)
    assert against["standard_error"] == pytest.approx(math.sqrt((1 / FOLDS + 1 / (FOLDS - 1)) * spread))
    assert (against["freedom"], against["test_units"], against["p"]) == (
        FOLDS - 1,
        1100,
        max(against["p_units"], against["p_repetitions"]),
    )
    low, high = against["interval"]
    assert low < against["difference"] < high


def test_the_page_says_what_was_tested(browser: Any, full: dict[str, Path], tree: dict[str, Any]) -> None:
    page = full["index.html"].read_text()
    check_page(browser, full["index.html"], 390, "light")
    assert "on this data set, with every image tested once" in tree["answer"]["sentence"]
    assert "this training set" not in page
    for said in (
        "Nadeau and Bengio (2003)",
        "Results on the test folds",
        "of which each of 8 repetitions tests on a fold",
    ):
        assert said in page
    assert tree["test_design"] == "folds"


def test_images_that_two_folds_test_are_an_error(tmp_path: Path) -> None:
    config, results = three_arms(tmp_path, seeds=2, folds=2)
    wrong: dict[str, StageResult] = {
        role: replace(
            result, files={**result.files, "predictions.parquet": results[f"{role[:-1]}0"].files["predictions.parquet"]}
        )
        for role, result in results.items()
        if role.startswith("final/") and role.endswith("/1")
    }
    with pytest.raises(DataError, match=r"final/\*/1: was tested on images of fold 0, too"):
        score_study(read_study(config, {**results, **wrong}))
