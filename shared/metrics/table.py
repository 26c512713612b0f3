"""Declares the table of metrics: all code that must know all of them loops over `METRICS`. CONTRIBUTING.md says how to add one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shared.config.near import near
from shared.data.schema import LabelSchema
from shared.metrics.counts import (
    DecisionCounts,
    Floats,
    class_f1,
    group_accuracy,
    group_balanced_accuracy,
    mean_defined,
)
from shared.metrics.evaluation import Evaluation

Format = Literal["share", "loss"]
"""Says how a metric is shown: a `share` in per cent and its differences in percentage points, a `loss` as it is."""
Place = Literal["results", "reference", "calibration", "files"]
"""Says where the page shows a metric: as a column of the table of results, in the row below that table, as a column of the table of
calibration, or not at all. The files `results.json` and `results.csv` have every metric."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Declares one number that scores a prediction as a whole. Exactly one `from_…` says how it is computed."""

    name: str
    """Identifies the metric in JSON and in study files. It never changes, as users and stored results refer to it."""
    label: str
    """Names the metric in sentences and figures."""
    format: Format
    place: Place
    column: int
    """Gives the position among the metrics of `results.csv` and `results.json`, from 0; a new metric comes last, so that no column moves."""
    heading: str = ""
    """Gives the heading of its column with line breaks, if that is not the label."""

    from_counts: Callable[[LabelSchema, DecisionCounts, NDArray[np.int64]], Floats] | None = None
    """Returns `[...]` for the schema, counts `[..., C]` and the columns of the rare classes; NaN if the metric is not defined. It is
    fast enough for each epoch, and its derivatives are the influences of test images: so it is a ratio of counts, or a mean of such, and
    uses no operation that complex numbers lack."""
    from_evaluation: Callable[[Evaluation], float] | None = None
    """Returns a metric that needs more than counts; NaN if it is not defined."""
    from_training: str | None = None
    """Gives the dotted path of a function of (schema, arm, data, logits, labels), for a metric that needs torch and the training's data. Only
    `final` computes and commits it."""
    by_group: Callable[[Evaluation], Floats] | None = None
    """Returns the metric per label group `[G]`, if it is defined for a group."""

    verdict: bool = False
    """Tells whether a verdict may use it: then it is a share, and is computed from counts, so that each test image has an influence on it."""
    by_class: bool = False
    """Tells whether each class counts equally, whatever the number of its test images."""
    larger_is_better: bool = True
    rare: bool = False
    """Tells whether it scores the rare classes only: it is not defined in a study without any."""
    summary: bool = True
    """Tells whether it is in the summary of `final`'s manifest."""
    headline: bool = False
    """Tells whether it is in short tables: that of `submit final`, and that of the label groups if it has `by_group`."""
    of_generated: str = ""
    """Names the metric on the page for a classifier that `score` trained on generated images alone; empty if it is not measured there."""

    def __post_init__(self) -> None:
        ways = (self.from_counts, self.from_evaluation, self.from_training)
        if sum(way is not None for way in ways) != 1:
            raise ValueError(f"metric {self.name}: needs exactly one of from_counts, from_evaluation and from_training")
        if self.verdict and (self.from_counts is None or self.format != "share"):
            raise ValueError(f"metric {self.name}: a verdict needs from_counts and the format share")
        if self.headline and not self.summary:
            raise ValueError(f"metric {self.name}: a headline is read from the summary, so it needs summary")

    @property
    def heading_lines(self) -> list[str]:
        """Lists the lines of the heading of its column."""
        return self.heading.split("\n") if self.heading else self.label.split(" ", 1)


def _calibrated(seen: Evaluation, name: Literal["calibration_errors", "log_losses"]) -> Floats:
    """Returns a number of each group, `[G]`, for the calibrated probabilities; NaN if there are none."""
    after = seen.after_calibration
    return np.full(len(seen.schema.groups), np.nan) if after is None else np.asarray(getattr(after, name))


METRICS = (
    Metric(
        name="accuracy",
        label="accuracy",
        format="share",
        place="results",
        column=0,
        heading="test\naccuracy",
        from_counts=lambda schema, counts, rare: mean_defined(group_accuracy(schema, counts)),
        by_group=lambda seen: group_accuracy(seen.schema, seen.counts),
        verdict=True,
        headline=True,
        of_generated="accuracy",
    ),
    Metric(
        name="macro_f1",
        label="macro-F1",
        format="share",
        place="results",
        column=1,
        from_counts=lambda schema, counts, rare: mean_defined(class_f1(counts)),
        by_group=lambda seen: seen.group_f1,
        verdict=True,
        by_class=True,
        headline=True,
        of_generated="macro-F1",
    ),
    Metric(
        name="rare_macro_f1",
        label="rare macro-F1",
        format="share",
        place="results",
        column=3,
        from_counts=lambda schema, counts, rare: mean_defined(class_f1(counts)[..., rare]),
        verdict=True,
        by_class=True,
        rare=True,
        headline=True,
        of_generated="macro-F1 of the filled classes",
    ),
    Metric(
        name="balanced_accuracy",
        label="balanced accuracy",
        format="share",
        place="results",
        column=4,
        from_counts=lambda schema, counts, rare: mean_defined(group_balanced_accuracy(schema, counts)),
        by_group=lambda seen: group_balanced_accuracy(seen.schema, seen.counts),
        verdict=True,
        by_class=True,
    ),
    Metric(
        name="majority_accuracy",
        label="majority accuracy",
        format="share",
        place="reference",
        column=10,
        from_evaluation=lambda seen: float(mean_defined(seen.majority_accuracies)),
        by_group=lambda seen: seen.majority_accuracies,
    ),
    Metric(
        name="ece",
        label="expected calibration error",
        format="share",
        place="calibration",
        column=9,
        heading="expected calibration\nerror, points",
        from_evaluation=lambda seen: float(mean_defined(seen.calibration_errors)),
        by_group=lambda seen: seen.calibration_errors,
        larger_is_better=False,
        summary=False,
    ),
    Metric(
        name="nll",
        label="negative log-likelihood",
        format="loss",
        place="calibration",
        column=8,
        from_evaluation=lambda seen: float(mean_defined(seen.log_losses)),
        by_group=lambda seen: seen.log_losses,
        larger_is_better=False,
        summary=False,
    ),
    Metric(
        name="group_macro_f1",
        label="macro-F1, mean of groups",
        format="share",
        place="files",
        column=2,
        from_evaluation=lambda seen: float(mean_defined(seen.group_f1)),
    ),
    Metric(
        name="exact_match",
        label="exact match",
        format="share",
        place="results",
        column=5,
        from_evaluation=lambda seen: seen.exact_match,
    ),
    Metric(
        name="mean_average_precision",
        label="mAP",
        format="share",
        place="results",
        column=6,
        from_evaluation=lambda seen: float(mean_defined(seen.average_precisions)),
    ),
    Metric(
        name="loss",
        label="test loss",
        format="loss",
        place="results",
        column=7,
        from_training="shared.classifier.fit.validation_loss",
        larger_is_better=False,
    ),
    Metric(
        name="calibrated_ece",
        label="expected calibration error after calibration",
        format="share",
        place="calibration",
        column=11,
        heading="calibration error, points,\nafter calibration",
        from_evaluation=lambda seen: float(mean_defined(_calibrated(seen, "calibration_errors"))),
        by_group=lambda seen: _calibrated(seen, "calibration_errors"),
        larger_is_better=False,
        summary=False,
    ),
    Metric(
        name="calibrated_nll",
        label="negative log-likelihood after calibration",
        format="loss",
        place="calibration",
        column=12,
        heading="negative log-likelihood\nafter calibration",
        from_evaluation=lambda seen: float(mean_defined(_calibrated(seen, "log_losses"))),
        by_group=lambda seen: _calibrated(seen, "log_losses"),
        larger_is_better=False,
        summary=False,
    ),
)
"""Lists the metrics in the order of `metrics.json`."""

COLUMNS = tuple(sorted(METRICS, key=lambda metric: metric.column))
"""Lists the metrics in the order of `results.csv`."""


def metric_named(name: str) -> Metric:
    """Returns the metric of that name; raises ValueError with similar names, or with all if none is similar."""
    for metric in METRICS:
        if metric.name == name:
            return metric
    raise ValueError(f"there is no metric {name!r}{near(name, [metric.name for metric in METRICS])}")
