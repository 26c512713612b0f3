"""Repeated searches: each repetition has its own exact budget, the points of all arms, and no other repetition's trials to be compared with."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.pruners import MedianPruner

from shared.config.search import Budget, Choice, FloatRange, IntRange, Range, Search
from shared.config.stages import Repetitions
from shared.search import budget
from shared.search.coordinator import Coordinator, Outcome
from shared.search.leases import Leases
from shared.search.repetitions import REPETITION, RepetitionStudy, repetition_points
from shared.search.search_state import make_study
from shared.search.space import inside, sobol_points
from shared.search.storage import Database
from shared.search.worker import TrialHandle
from shared.stop import StopSignal
from tests.shared.search.test_coordinator import outcome_of, run
from tests.support.search.drill import Drill, DrillObjective, Place

SPACE: dict[str, Range] = {"x": FloatRange(low=0, high=1), "y": FloatRange(low=0.001, high=1, log=True)}


def repeated(make_drill: Callable[..., Drill], count: int, trials: int, **values: Any) -> Drill:
    drill = make_drill(trials=trials, sampler="qmc", first_defaults=False, **values)
    return dataclasses.replace(drill, repetitions=Repetitions(count=count, seed=3, shared=("x", "y")))


def with_budget(drill: Drill, count: int, trials: int) -> Drill:
    assert drill.repetitions is not None
    return dataclasses.replace(
        drill,
        search=drill.search.model_copy(update={"trials": trials}),
        repetitions=drill.repetitions.model_copy(update={"count": count}),
    )


def by_repetition(outcome: Outcome) -> Counter[int | None]:
    return Counter(trial.repetition for trial in outcome.steps[0].trials if trial.state != "failed")


def found(outcome: Outcome) -> list[Any]:
    return [(trial.number, trial.repetition, trial.parameters, trial.values) for trial in outcome.steps[0].trials]


def test_each_repetition_has_its_share_and_its_winner(make_drill: Callable[..., Drill]) -> None:
    drill = repeated(make_drill, 3, 6)
    outcome = outcome_of(run(drill))
    assert by_repetition(outcome) == {0: 2, 1: 2, 2: 2}
    for repetition, winner in enumerate(outcome.winners):
        assert winner is not None
        own = [trial for trial in outcome.steps[0].trials if trial.repetition == repetition]
        assert winner.value == min(trial.values[0] for trial in own)
        assert drill.repetitions is not None
        points = repetition_points(drill.search, drill.repetitions, repetition, {}, 2)
        assert [trial.parameters for trial in own] == points
    assert outcome.value == min(winner.values[0] for winner in outcome.winners if winner is not None)


def test_more_trials_and_repetitions_append(make_drill: Callable[..., Drill]) -> None:
    drill = repeated(make_drill, 2, 4)
    before = outcome_of(run(drill))
    after = outcome_of(run(with_budget(drill, 3, 9)))
    assert by_repetition(after) == {0: 3, 1: 3, 2: 3}
    assert found(after)[:4] == found(before)


def test_fewer_trials_and_repetitions_choose_among_as_many_in_each(make_drill: Callable[..., Drill]) -> None:
    drill = repeated(make_drill, 3, 9)
    many = outcome_of(run(drill))
    few = outcome_of(run(with_budget(drill, 2, 4)))
    assert found(few) == found(many)  # what is finished stays
    assert len(few.winners) == 2
    for repetition, winner in enumerate(few.winners):
        own = [trial for trial in many.steps[0].trials if trial.repetition == repetition]
        assert winner is not None
        assert winner.value == min(trial.values[0] for trial in own[:2])


class FailsOnce(DrillObjective):
    """Fails the first trial that it is given."""

    failed = False

    def __call__(self, trial: TrialHandle) -> Any:
        if not self.failed:
            self.failed = True
            raise ValueError("the first one fails")
        return super().__call__(trial)


def test_a_failed_trial_is_replaced_in_its_own_repetition(
    make_drill: Callable[..., Drill], monkeypatch: pytest.MonkeyPatch
) -> None:
    drill = repeated(make_drill, 2, 4)
    monkeypatch.setattr("tests.shared.search.test_coordinator.DrillObjective", FailsOnce)
    outcome = outcome_of(run(drill))
    trials = outcome.steps[0].trials
    assert [(trial.repetition, trial.state) for trial in trials if trial.state == "failed"] == [(0, "failed")]
    assert by_repetition(outcome) == {0: 2, 1: 2}
    assert drill.repetitions is not None
    points = repetition_points(drill.search, drill.repetitions, 0, {}, 3)
    assert [trial.parameters for trial in trials if trial.repetition == 0 and trial.state != "failed"] == points[1:]


def test_a_repetition_without_a_complete_trial_has_no_winner(
    database: Database, make_drill: Callable[..., Drill]
) -> None:
    """The budget is spent when only the first repetition has a trial."""
    drill = repeated(make_drill, 2, 4, budget=Budget(gpu_hours=1.0))
    study = make_study(database, drill.name, drill.search)
    budget.fill(database, study, 1, [{"x": 0.1, "y": 0.2}], False, 0)
    study.tell(study.ask(), 1.0)
    outcome = Coordinator(database, drill.spec, Place(), StopSignal(), study_gpu_seconds=lambda: 1e9).run()
    assert outcome.ended.startswith("search.budget.gpu_hours")
    first, second = outcome.winners
    assert first is not None
    assert second is None


def test_budgets_of_repetitions_do_not_touch_each_other(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = repeated(make_drill, 2, 4)
    study = make_study(database, drill.name, drill.search)
    same = [{"x": 0.1, "y": 0.5}, {"x": 0.2, "y": 0.5}]
    assert [budget.fill(database, study, 2, same, False, repetition) for repetition in (0, 1, 0)] == [2, 2, 0]
    Leases(database, 60).adopt(study._study_id)
    assert {r: counts.live for r, counts in budget.count(database, study._study_id).items()} == {0: 2, 1: 2}
    assert budget.trim(database, study._study_id, 0, 1) == 2
    assert {r: counts.live for r, counts in budget.count(database, study._study_id).items()} == {0: 2, 1: 0}


def test_a_pruner_compares_trials_of_one_repetition(database: Database, make_drill: Callable[..., Drill]) -> None:
    study = make_study(database, make_drill().name, Search(objective="val_loss"))
    for repetition, value in ((0, 1.0), (0, 1.0), (1, 9.0), (1, 9.0)):
        study.enqueue_trial({"x": 0.5}, user_attrs={REPETITION: repetition})
        trial = study.ask()
        trial.report(value, 0)
        study.tell(trial, value)
    for repetition, pruned in ((0, True), (1, False)):
        study.enqueue_trial({"x": 0.6}, user_attrs={REPETITION: repetition})
        trial_id = study.ask()._trial_id
        seen = RepetitionStudy.load(study.study_name, database.storage, MedianPruner(1, 0), repetition)
        trial = optuna.trial.Trial(seen, trial_id)
        trial.report(5.0, 0)  # worse than all of repetition 0, better than all of 1
        assert trial.should_prune() == pruned
        study.tell(trial.number, 5.0)


# -- points


def points_of(space: dict[str, Range], repetition: int, number: int, **values: Any) -> list[dict[str, Any]]:
    repetitions = Repetitions(count=9, seed=0, shared=("x", "y"))
    return repetition_points(Search(space=space), repetitions, repetition, values, number)


def test_arms_try_the_same_points_whatever_else_they_search() -> None:
    own: dict[str, Range] = {"share": FloatRange(low=0, high=1), **SPACE}  # its own path is written first
    for repetition in range(5):
        shared, wider = points_of(SPACE, repetition, 4), points_of(own, repetition, 4)
        assert [{path: point[path] for path in SPACE} for point in wider] == shared
        assert len({point["share"] for point in wider}) == 4


def test_points_differ_between_repetitions_and_more_of_them_append() -> None:
    assert not {str(p) for p in points_of(SPACE, 0, 8)} & {str(p) for p in points_of(SPACE, 1, 8)}
    assert points_of(SPACE, 0, 9)[:4] == points_of(SPACE, 0, 4)


def test_the_study_s_own_values_come_first_and_once() -> None:
    assert points_of(SPACE, 0, 3, x=0.5, y=0.5) == [{"x": 0.5, "y": 0.5}, *points_of(SPACE, 0, 2)]


def test_few_points_are_spread_over_the_space() -> None:
    """Of four points each is in a quarter of its own, in each dimension."""
    for repetition in range(20):
        points = points_of({"x": FloatRange(low=0, high=1), "y": FloatRange(low=0, high=1)}, repetition, 4)
        for path in ("x", "y"):
            assert sorted(int(4 * point[path]) for point in points) == [0, 1, 2, 3]


@given(
    low=st.integers(1, 50),
    width=st.integers(1, 5),
    log=st.booleans(),
    choices=st.integers(2, 4),
    number=st.integers(1, 30),
)
def test_points_lie_inside_and_a_small_space_is_used_up(
    low: int, width: int, log: bool, choices: int, number: int
) -> None:
    space: dict[str, Range] = {
        "i": IntRange(kind="int", low=low, high=low + width, log=log),
        "c": Choice(values=tuple(range(choices))),
    }
    points = sobol_points(space, 7, number)
    assert all(inside(space[path], value) for point in points for path, value in point.items())
    assert len({str(point) for point in points}) == len(points) == min(number, (width + 1) * choices)
