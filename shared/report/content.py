"""Holds all content of a report, from which its page and its results.json are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.report.answer import Answer
from shared.report.class_readings import ClassReadings
from shared.report.figures import Figures
from shared.report.generation import GeneratedSet
from shared.report.inputs import StudyInputs
from shared.report.lineage import LineageEntry, StageCost
from shared.report.money import Cost
from shared.report.next_steps import NextStep
from shared.report.recommended import Recommended
from shared.report.scores import Comparisons, StudyScores


@dataclass(frozen=True)
class Report:
    """Holds all content of a report."""

    study: StudyInputs
    scores: StudyScores
    judged: Comparisons | None
    answer: Answer
    recommended: Recommended | None
    """Names the model to use; None if nothing recommends one."""
    steps: Sequence[NextStep]
    classes: ClassReadings
    generated: list[GeneratedSet]
    figures: Figures
    entries: list[LineageEntry]
    costs: list[StageCost]
    money: Cost | None
    """Holds the cost in money; None without prices."""
