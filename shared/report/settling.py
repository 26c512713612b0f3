"""Says what would settle a comparison that found nothing, and what that costs: repetitions, test images of each class, hours and money."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shared.config.search import Verdict
from shared.metrics.forecast import MOST_REPETITIONS, times_as_many
from shared.metrics.outer_folds import OuterFolds
from shared.metrics.verdict import Comparison
from shared.report.class_readings import ClassReading
from shared.report.inputs import StudyInputs
from shared.report.lineage import LineageEntry
from shared.report.money import Cost, spent_text

OF_REPETITIONS = ("generate", "score", "tune", "final")
"""Lists the stages whose work grows with the number of repetitions; `finetune`, too, if each repetition has a generator of its own, and `judge`
if it has a data set of its own."""
MOST_NAMED = 6
"""Limits how many classes a sentence names."""


def to_settle(comparison: Comparison, classes: Sequence[ClassReading]) -> str:
    """Returns in a sentence what finds an effect of one point: repetitions, test images of these classes, or both; empty if it was settled."""
    design, table, forecast = comparison.to_settle, comparison.table, comparison.forecast
    if design is None or table is None or forecast is None:
        return ""
    alone = forecast.units_needed(comparison.n, table.units)
    kind = "images" if isinstance(table, OuterFolds) else "test images"
    ways = []
    if design.units == table.units and design.repetitions > comparison.n:
        ways.append(f"about {design.repetitions:,} repetitions in place of {comparison.n}")
    if alone is not None and alone > table.units:
        ways.append(f"with the same {comparison.n} repetitions {_more_images(alone / table.units, classes, kind)}")
    if not ways and design.units > table.units:
        more = _more_images(design.units / table.units, classes, kind)
        ways.append(f"both about {design.repetitions:,} repetitions and {more}")
    return f"To settle an effect of 1 point takes {', or '.join(ways)}." if ways else ""


def _more_images(factor: float, classes: Sequence[ClassReading], kind: str) -> str:
    """Returns how many images of this kind there are to be: `2.3 times as many test images (fabric/faux 12 → 28)`."""
    fewest = sorted(classes, key=lambda r: r.test_images)
    named = ", ".join(
        f"{r.name} {r.test_images:,} → {math.ceil(r.test_images * factor):,}" for r in fewest[:MOST_NAMED]
    )
    more = f", and {len(fewest) - MOST_NAMED} more classes alike" if len(fewest) > MOST_NAMED else ""
    return f"{times_as_many(factor)} {kind} ({named}{more})"


def repetitions_of(study: StudyInputs) -> int:
    """Returns the number of repetitions of the experiment that has the most."""
    return max((len(e.finals) for e in study.experiments), default=0)


def run_command(study: StudyInputs, repetitions: int) -> tuple[str, ...]:
    """Returns the command that runs the study with so many repetitions, and as many trials in each as now; none for more than are reasonable."""
    if repetitions >= MOST_REPETITIONS:
        return ()
    searches = [e.tune.manifest.config.get("search", {}) for e in study.experiments if e.tune]
    trials, have = {search.get("trials") for search in searches} - {None, 0}, repetitions_of(study)
    sets = f" --set final.seeds={repetitions}"
    if len(trials) == 1 and have and (each := trials.pop() // have):
        sets += f" --set search.trials={each * repetitions}"
    return (f"tailfill run {study.config.study}.yaml{sets}",)


def price_of_repetitions(study: StudyInputs, entries: Sequence[LineageEntry], cost: Cost | None, more: int) -> str:
    """Returns in a sentence what `more` repetitions take, if one takes as much as so far; empty if nothing is known of it."""
    have, rule = repetitions_of(study), study.config.verdict
    each = ("finetune",) if isinstance(rule, Verdict) and rule.generators == "each" else ()
    stages = (*OF_REPETITIONS, *each, *(("judge",) if study.folds else ()))
    if more <= 0 or not have or not (one := spent_text(entries, cost, stages, 1 / have)):
        return ""
    return (
        f"A repetition took about {one}, all arms together, so {more:,} more would take about "
        f"{spent_text(entries, cost, stages, more / have)}."
    )
