"""Checks what a study with a verdict must have: enough repetitions, a search in each, and arms that differ only in their images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from shared.config.explain import Path, append_place, path_text, place_text
from shared.config.paths import is_under
from shared.config.search import FloatRange, IntRange, Search, Verdict
from shared.config.stages import STAGES
from shared.config.study import LEAST_REPETITIONS, least_seeds
from shared.errors import ConfigError

if TYPE_CHECKING:
    from shared.config.resolve import ResolvedExperiment

EQUAL_BUDGETS = (
    "search.trials", "search.epochs", "search.strategy", "search.objective", "search.sampler", "search.pruner",
    "search.prune_after", "search.startup_trials", "search.max_failures", "search.budget.gpu_hours", "search.budget.wall_hours",
    "final.epochs",
)  # fmt: skip
"""Lists the paths that must be equal in the baseline and in all arms with generated images or copies, whatever a verdict compares."""
OPERATIONAL = frozenset(path for kind in STAGES.values() for path in kind.operational)
"""Lists the paths in which arms may always differ, since they do not influence a result."""
GENERATED_SECTIONS = ("images", "finetune", "generate", "score", "accept", "synthetic")
"""Lists the sections in which an arm with generated images or copies may differ from the baseline, so that a verdict is about the images."""
SEARCHABLE_OF_IMAGES = ("generate", "accept", "synthetic")
"""Lists the sections whose paths such an arm may search in addition to those of the baseline."""
OF_AN_EXPERIMENT = ("seed", "parameters_from")
"""Lists the compared paths that a study does not set for all experiments; others that an experiment sets itself are in its `pinned`."""
LEAST_TRIALS_PER_REPETITION = 2
LEAST_FOLDS = 2


@dataclass(frozen=True)
class _Arm:
    """Holds an experiment and its place in the study file, so that an error names that place."""

    experiment: ResolvedExperiment
    index: int
    places: Mapping[Path, str]

    def refuse(self, path: str, required: str, got: object, remedy: str) -> NoReturn:
        """Raises ConfigError for the value at a path of the experiment."""
        keys = tuple(path.split("."))
        own = path in OF_AN_EXPERIMENT or is_under(path, self.experiment.pinned)
        with append_place(keys, self.places, self.index):
            written = path_text(("experiments", self.index, *keys)) if own else path
            raise ConfigError(f"{written}: {required}, got {json.dumps(got)}; {remedy}, or set verdict: none")


def check_verdict(verdict: Verdict, experiments: Sequence[ResolvedExperiment], places: Mapping[Path, str]) -> None:
    """Raises ConfigError for a study whose verdict would not be about its images, or would rest on too little."""
    arms = [_Arm(experiment, index, places) for index, experiment in enumerate(experiments)]
    baseline = next(arm for arm in arms if arm.experiment.name == verdict.baseline)
    _check_repetitions(verdict, arms, baseline)
    for arm in arms:
        _check_own_search(arm)
        if arm.experiment.images != "real" and arm is not baseline:
            _check_comparable(verdict, arm, baseline.experiment)


def check_folds(verdict: Verdict | Literal["none"], repetitions: int, places: Mapping[Path, str]) -> None:
    """Raises ConfigError for `dataset.split.test: folds` in a study whose repetitions cannot test on a fold each."""
    if not isinstance(verdict, Verdict):
        lacks, remedy = "a verdict, whose repetitions test on a fold each, got verdict: none", "take that out"
    elif verdict.generators != "each":
        lacks = (
            "verdict.generators: each, since one generator would have seen the test images of all repetitions, got one"
        )
        remedy = "set it to each"
    elif repetitions < LEAST_FOLDS:
        lacks, remedy = f"at least {LEAST_FOLDS} repetitions (final.seeds), got {repetitions}", "raise it"
    else:
        return
    place = place_text(("dataset", "split", "test"), places)
    raise ConfigError(
        f"dataset.split.test: folds needs {lacks}; {remedy}, or set dataset.split.test to a share such as 0.15{place}"
    )


def _check_repetitions(verdict: Verdict, arms: Sequence[_Arm], baseline: _Arm) -> None:
    seeds = baseline.experiment.final.seeds
    judged = sum(arm.experiment.images == "real+synthetic" and arm is not baseline for arm in arms)
    least = least_seeds(judged, verdict.alpha)
    if len(arms) > 1 and not verdict.provisional and seeds < least:
        over = f" over {judged} arms with generated images" if judged > 1 else ""
        required = f"must be >= {least} for a verdict{over} (2/2^n <= alpha/m, and at least {LEAST_REPETITIONS})"
        baseline.refuse("final.seeds", required, seeds, "raise it, set verdict.provisional: true")
    for arm in arms:
        if (own := arm.experiment.final.seeds) != seeds:
            required = f"must equal that of the baseline {verdict.baseline} ({seeds}), since repetitions are paired"
            arm.refuse("final.seeds", required, own, "make them equal")


def _check_own_search(arm: _Arm) -> None:
    """Raises ConfigError unless each repetition can have a search of its own, with as many trials as the others."""
    search, seeds = arm.experiment.search, arm.experiment.final.seeds
    if (source := arm.experiment.parameters_from) is not None:
        arm.refuse("parameters_from", "an arm with a verdict runs its own search", source, "remove it")
    if not search.trials:
        return
    same_points = "in a repetition all arms try the same points"
    rules: dict[str, tuple[str | None, tuple[str | None, ...], str]] = {
        "strategy": (search.strategy, ("joint",), same_points),
        "sampler": (search.sampler, ("qmc",), same_points),
        "pruner": (search.pruner, ("none", "median", "halving"), "a repetition has too few trials for brackets"),
        "warm_start_from": (search.warm_start_from, (None,), "repetitions would share what another search found"),
    }
    for name, (value, allowed, why) in rules.items():
        if value not in allowed:
            required = " or ".join(map(str, filter(None, allowed))) or "unset"
            arm.refuse(f"search.{name}", f"must be {required} with a verdict ({why})", value, "change it")
    each, rest = divmod(search.trials, seeds)
    if rest or each < LEAST_TRIALS_PER_REPETITION:
        near = dict.fromkeys(max(n, LEAST_TRIALS_PER_REPETITION) * seeds for n in (each, each + 1))
        required = f"must be a multiple of final.seeds ({seeds}) and at least {LEAST_TRIALS_PER_REPETITION} per repetition with a verdict"
        arm.refuse("search.trials", required, search.trials, f"set it to {' or '.join(map(str, near))}")
    points = _points(search)
    if points is not None and each > points:
        required = f"must be at most {points * seeds}, since search.space has {points} points for each of the {seeds} repetitions"
        arm.refuse("search.trials", required, search.trials, "lower it")


def _points(search: Search) -> int | None:
    """Returns how many points the space has; None if it has a range of real numbers."""
    sizes = []
    for values in search.space.values():
        if isinstance(values, FloatRange):
            return None
        sizes.append(values.high - values.low + 1 if isinstance(values, IntRange) else len(values.values))
    return math.prod(sizes)


def _check_comparable(verdict: Verdict, arm: _Arm, baseline: ResolvedExperiment) -> None:
    """Raises ConfigError if an arm with generated images or copies differs from the baseline in what a verdict is not about."""
    images_only = verdict.compares == "images"
    own, expected = _values(arm.experiment), _values(baseline)
    for path, value in own.items():
        budget = path in EQUAL_BUDGETS
        allowed = path.split(".")[0] in GENERATED_SECTIONS or path in OPERATIONAL
        if value == expected.get(path) or (not budget and (allowed or not images_only)):
            continue
        required = f"must equal that of the baseline {verdict.baseline} ({json.dumps(expected.get(path))}), since the verdict is about the images"
        arm.refuse(
            path, required, value, "make them equal" if budget else "make them equal, set verdict.compares: recipes"
        )
    if not arm.experiment.search.trials:
        return
    space, shared = arm.experiment.search.space, baseline.search.space
    repeat = f"repeat the paths of the baseline in it and add only those of {', '.join(SEARCHABLE_OF_IMAGES)}"
    if differs := [path for path, values in shared.items() if space.get(path) != values]:
        arm.refuse(
            "search.space", f"must search {differs[0]} as the baseline {verdict.baseline} does", list(space), repeat
        )
    if images_only and (
        foreign := [path for path in space if path not in shared and path.split(".")[0] not in SEARCHABLE_OF_IMAGES]
    ):
        required = f"must not search {foreign[0]}, which the baseline {verdict.baseline} does not"
        arm.refuse("search.space", required, list(space), f"{repeat}, set verdict.compares: recipes")


def _values(experiment: ResolvedExperiment) -> dict[str, Any]:
    """Returns an experiment's values by path, without its search space and what only names it."""
    tree = experiment.model_dump(mode="json", exclude={"name", "title", "paper_row", "parameters_from", "pinned"})
    tree["search"].pop("space")
    return _flat(tree)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return flat
