"""The table of metrics: whatever must know all of them loops over `METRICS`. CONTRIBUTING.md says how to add one."""

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
"""A `share` is shown in per cent and its differences in points; a `loss` as it is."""
Place = Literal["results", "reference", "calibration", "files"]
"""Where the page shows it: as a column of the table of results, in the row below that, as a column of the table of calibration, or not
at all: `results.json` and `results.csv` have every metric."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number of a prediction as a whole. Exactly one `from_…` says how it comes about."""

    name: str
    """Its key in JSON and in study files, which users and stored results hold: it never changes."""
    label: str
    """What sentences and figures call it."""
    format: Format
    place: Place
    column: int
    """Its position among the metrics of `results.csv` and `results.json`, from 0; a new one comes last, so that no column moves."""
    heading: str = ""
    """The head of its column if that is not the label, with line breaks."""

    from_counts: Callable[[LabelSchema, DecisionCounts, NDArray[np.int64]], Floats] | None = None
    """Gives `[...]` for the schema, counts `[..., C]` and the columns of the rare classes: one formula for a prediction and for thousands
    of resampled ones, quick enough for each epoch. NaN if it is not defined."""
    from_evaluation: Callable[[Evaluation], float] | None = None
    """Gives it for what needs more than counts. NaN if it is not defined."""
    from_training: str | None = None
    """Dotted path of what gives it for (schema, arm, data, logits, labels), as it needs torch and the training's data: `final` alone
    computes and commits it."""
    by_group: Callable[[Evaluation], Floats] | None = None
    """Gives it for each label group `[G]`, if a group has such a number."""

    verdict: bool = False
    """Whether a verdict may rest on it: then it comes from counts, so that test images can be resampled, and is a share."""
    larger_is_better: bool = True
    rare: bool = False
    """Whether it is of the rare classes alone: it is not defined in a study without any."""
    summary: bool = True
    """Whether `final` puts it into its manifest's summary."""
    headline: bool = False
    """Whether it is one of the few of short tables: of `submit final`, and of the label groups if it has `by_group`."""
    of_generated: str = ""
    """What the page calls it of a classifier that `score` trained on generated images alone; empty if it is not measured there."""

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
        """The head of its column, line by line."""
        return self.heading.split("\n") if self.heading else self.label.split(" ", 1)


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
)
"""In the order of `metrics.json`."""

COLUMNS = tuple(sorted(METRICS, key=lambda metric: metric.column))
"""The same in the order of `results.csv`."""


def metric_named(name: str) -> Metric:
    """The metric of that name; raises ValueError with the near names, or with all if none is near."""
    for metric in METRICS:
        if metric.name == name:
            return metric
    raise ValueError(f"there is no metric {name!r}{near(name, [metric.name for metric in METRICS])}")
