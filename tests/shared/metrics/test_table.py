"""Tests that every metric of the table is complete, and that the lists which cannot be read from the table agree with it.

Other modules test that `final` commits each metric (tests/jobs/test_final.py), that the report shows each in its place
(tests/jobs/test_report.py), and that a verdict can rest on each that allows it (tests/shared/metrics/test_verdict.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any, get_args

import numpy as np
import pytest

from shared.config.search import ObjectiveName, Verdict
from shared.data.schema import LabelGroup, LabelSchema
from shared.metrics.classification import evaluate
from shared.metrics.table import COLUMNS, METRICS, Format, Metric, Place, metric_named

SCHEMA = LabelSchema(
    groups=(LabelGroup(name="g", classes=("a", "b", "c")), LabelGroup(name="t", kind="any", classes=("x", "y")))
)


def evaluated() -> dict[str, Any]:
    """Returns the scores of a classifier that guesses, on 60 images whose labels are all known."""
    random = np.random.default_rng(0)
    labels = np.zeros((60, 5), np.int8)
    labels[np.arange(60), random.integers(0, 3, 60)] = 1
    labels[:, 3:] = random.integers(0, 2, (60, 2))
    guessed, calibrated = random.random((2, 60, 5))
    return evaluate(SCHEMA, guessed, labels, np.array([2]), calibrated=calibrated)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_an_entry_is_whole(metric: Metric) -> None:
    assert metric.label
    assert all(metric.heading_lines)
    assert metric.format in get_args(Format)
    assert metric.place in get_args(Place)
    if metric.from_training is not None:
        assert isinstance(resolve_name(metric.from_training), Callable)  # type: ignore[arg-type]
    else:
        found = evaluated()
        assert isinstance(found[metric.name], float)
        assert all((metric.name in group) == (metric.by_group is not None) for group in found["groups"].values())


def test_entries_differ() -> None:
    for what in ("name", "label", "heading_lines"):
        said = [str(getattr(metric, what)) for metric in METRICS]
        assert len(set(said)) == len(said), what
    assert [metric.column for metric in COLUMNS] == list(range(len(METRICS)))


def test_the_study_s_lists_agree_with_the_table() -> None:
    """The types in `shared.config` repeat the names, as it cannot import the table."""
    allowed = get_args(Verdict.model_fields["metric"].annotation)
    assert set(allowed) == {metric.name for metric in METRICS if metric.verdict}
    for objective in get_args(ObjectiveName):
        assert metric_named(objective.removeprefix("val_"))


def test_a_metric_that_is_not_there_is_said_with_the_near_ones() -> None:
    with pytest.raises(ValueError, match=r"no metric 'macro-f1'; did you mean .*macro_f1"):
        metric_named("macro-f1")
    with pytest.raises(ValueError, match=r"no metric 'x'; there are accuracy, .*, rare_macro_f1"):
        metric_named("x")


def test_an_entry_that_could_not_be_used_is_refused() -> None:
    entry: dict[str, Any] = {"name": "m", "label": "m", "format": "share", "place": "files", "column": 0}
    with pytest.raises(ValueError, match="metric m: needs exactly one of"):
        Metric(**entry)
    with pytest.raises(ValueError, match="metric m: needs exactly one of"):
        Metric(**entry, from_evaluation=lambda seen: seen.exact_match, from_training="a.b")
    with pytest.raises(ValueError, match="metric m: a verdict needs from_counts"):
        Metric(**entry, from_evaluation=lambda seen: seen.exact_match, verdict=True)
    with pytest.raises(ValueError, match="metric m: a headline is read from the summary"):
        Metric(**entry, from_evaluation=lambda seen: seen.exact_match, summary=False, headline=True)
