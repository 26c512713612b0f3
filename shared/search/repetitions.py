"""Repeats a search: each trial belongs to one repetition, which tries the same points in all arms, and is compared only with
trials of its own repetition.
"""

from __future__ import annotations

from collections.abc import Container

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from shared.config.search import Search
from shared.config.seeds import hashed_seed
from shared.config.stages import Repetitions
from shared.search.space import Parameters, sobol_points

REPETITION = "repetition"
"""Names the user attribute of a trial that holds the number of its repetition; a trial of a search that is not repeated has none."""


def repetition_points(
    search: Search, repetitions: Repetitions, repetition: int, first: Parameters, number: int
) -> list[Parameters]:
    """Returns the first `number` points of a repetition, the same in all arms of a study as far as their spaces are the same.

    The arm's own values `first` come first, if there are any. Paths that only some arms search are the last dimensions, so that they do
    not change the others.
    """
    order = [*repetitions.shared, *(path for path in search.space if path not in repetitions.shared)]
    space = {path: search.space[path] for path in order}
    points = sobol_points(space, hashed_seed("points", repetitions.seed, repetition), number)
    points = [{path: point[path] for path in search.space} for point in points]
    own = [first] if first else []
    return [*own, *(point for point in points if point not in own)][:number]


class RepetitionStudy(Study):
    """Restricts an Optuna study to the trials of one repetition, so that its pruner compares a trial only with those."""

    repetition: int

    @classmethod
    def load(
        cls, name: str, storage: optuna.storages.BaseStorage, pruner: optuna.pruners.BasePruner, repetition: int
    ) -> RepetitionStudy:
        """Loads the study of that name; raises KeyError if there is none."""
        study = cls(name, storage, pruner=pruner)
        study.repetition = repetition
        return study

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = super()._get_trials(deepcopy, states, use_cache)
        return [trial for trial in trials if trial.user_attrs.get(REPETITION) == self.repetition]
