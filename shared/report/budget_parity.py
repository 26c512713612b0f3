"""Checks whether the arms of the verdict had equal search budgets."""

from __future__ import annotations

from dataclasses import dataclass

from shared.report.inputs import Experiment, StudyInputs
from shared.report.scores import Comparisons


@dataclass(frozen=True)
class IncompleteSearch:
    """Describes a search that ended before it had run all its trials."""

    experiment: str
    """Gives the label of the experiment."""
    trials: int
    """Counts the finished trials."""
    reason: str


def incomplete_searches(study: StudyInputs) -> list[IncompleteSearch]:
    """Returns the searches that ended early, and why."""
    found = []
    for experiment in study.experiments:
        summary = experiment.tune.manifest.summary if experiment.tune else {}
        if (reason := summary.get("ended", "complete")) != "complete":
            found.append(IncompleteSearch(experiment.label, int(summary["trials"]), reason))
    return found


def unequal_tuning_warning(study: StudyInputs, judged: Comparisons | None) -> str | None:
    """Returns a warning if the arms of the verdict did not have equal numbers of finished trials, else None."""
    if judged is None or not judged.verdicts:
        return None
    names = [judged.rule.baseline, *(c.arm for c in judged.with_baseline if c not in judged.others)]
    counts = {name: finished_trials(study, name) for name in names}
    if len(set(counts.values())) == 1:
        return None
    reasons = {short.experiment: short.reason for short in incomplete_searches(study)}
    arms = []
    for name, count in counts.items():
        label = study.experiment(name).label
        arms.append(f"“{label}” {count}" + (f" ({reasons[label]})" if label in reasons else ""))
    return (
        f"Not tuned alike: finished trials behind the arms are {', '.join(arms)}. An arm that was tuned less looks worse than it is; "
        "read the differences with that in mind, or give every arm the same search and run the study again."
    )


def finished_trials(study: StudyInputs, name: str) -> int:
    """Returns the number of finished trials of all searches that gave an arm its parameters.

    These are its own search, and those of the experiments whose parameters it inherits.
    """
    total = 0
    following: str | None = name
    while following is not None:
        experiment: Experiment = study.experiment(following)
        if experiment.tune is not None:
            total += int(experiment.tune.manifest.summary.get("trials", 0))
        following = experiment.config.parameters_from
    return total
