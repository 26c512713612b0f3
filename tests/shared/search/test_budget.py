"""Tests that there are exactly N rows, whichever process creates them, whatever happens to them, and in any order."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from optuna.trial import TrialState
from sqlalchemy import text

from shared.config.search import Search
from shared.search import budget
from shared.search.leases import Claim, LeaseLost, Leases, fail
from shared.search.search_state import SearchStep, make_study, write_search
from shared.search.storage import Database
from tests.support.search.drill import Drill


@pytest.fixture
def study(database: Database, make_drill: Callable[..., Drill]) -> optuna.Study:
    """Returns an empty study."""
    drill = make_drill()
    return make_study(database, drill.name, drill.search)


def test_many_coordinators_make_exactly_the_budget(postgres_url: str, database: Database, study: optuna.Study) -> None:
    points = [{"x": i / 10} for i in range(10)]

    def fill(_: int) -> int:
        own = Database(postgres_url)
        try:
            return budget.fill(
                own, optuna.load_study(study_name=study.study_name, storage=own.storage), 15, points, False
            )
        finally:
            own.close()

    with ThreadPoolExecutor(6) as pool:
        created = sum(pool.map(fill, range(12)))
    trials = study.trials
    assert len(trials) == 15 == created
    fixed = [t.system_attrs["fixed_params"] for t in trials]
    assert [f for f in fixed if f] == points
    assert [t.number for t in trials] == list(range(15))


def test_failed_points_of_a_grid_come_again_after_the_others(database: Database, study: optuna.Study) -> None:
    points = [{"x": 0.1}, {"x": 0.2}]
    assert budget.fill(database, study, 1, points, True) == 1
    study.tell(study.ask(), state=TrialState.FAIL)
    assert budget.fill(database, study, 2, points, True) == 2
    assert [t.system_attrs["fixed_params"]["x"] for t in study.trials] == [0.1, 0.2, 0.1]


def test_lowered_budget_withdraws_what_nobody_began(database: Database, study: optuna.Study) -> None:
    leases = Leases(database, 60)
    budget.fill(database, study, 6, [], False)
    leases.adopt(study._study_id)
    write_search(
        database, study.study_name, study._study_id, SearchStep(study.study_name, "", ("x",), {}), Search(), None
    )
    begun = [leases.claim(study.study_name, study._study_id, "test", "cpu") for _ in range(3)]
    assert begun[0] is not None
    leases.start(begun[0])
    leases.give_back(begun[0])
    assert budget.trim(database, study._study_id, 2) == 3
    counts = budget.count(database, study._study_id)[None]
    assert (counts.held, counts.queued, counts.begun, counts.failed, counts.live) == (2, 1, 1, 0, 3)
    assert budget.trim(database, study._study_id, 2) == 0
    assert budget.fill(database, study, 5, [], False) == 2
    leases.adopt(study._study_id)
    assert budget.count(database, study._study_id)[None].live == 5


def test_rows_that_were_counted_too_early_make_none_too_many(
    database: Database, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget.fill(database, study, 3, [{"x": 0.1}], False)
    # as they were before another coordinator created them
    monkeypatch.setattr(budget, "_rows", lambda *_: (0, 0, set(), set()))
    assert budget.fill(database, study, 3, [], False) == 0
    assert budget.fill(database, study, 4, [{"x": 0.1}], False) == 0
    assert len(study.trials) == 3


def test_trial_that_was_begun_meanwhile_is_not_withdrawn(
    database: Database, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases, withdraw = Leases(database, 60), budget._may_withdraw
    budget.fill(database, study, 2, [], False)
    leases.adopt(study._study_id)
    write_search(
        database, study.study_name, study._study_id, SearchStep(study.study_name, "", ("x",), {}), Search(), None
    )

    def begun_before(*arguments: Any) -> Any:
        claims = [leases.claim(study.study_name, study._study_id, "test", "cpu") for _ in range(2)]
        for claim in filter(None, claims):
            leases.give_back(claim)
        return withdraw(*arguments)

    monkeypatch.setattr(budget, "_may_withdraw", begun_before)
    assert budget.trim(database, study._study_id, 1) == 0
    assert [trial.state for trial in study.trials] == [TrialState.WAITING] * 2


class BudgetMachine(RuleBasedStateMachine):
    """Makes claims, results, losses and budget changes in any order, and models the state of each trial."""

    database: Database

    def __init__(self) -> None:
        super().__init__()
        name = f"machine-{uuid.uuid4().hex[:12]}"
        self.study = make_study(self.database, name, Search(objective="val_loss"))
        self.id = self.study._study_id
        self.leases = Leases(self.database, 60)
        # its lease is shorter than the time since the server's start
        self.reaper = Leases(self.database, 0.001, max_retries=1)
        self.target = 2
        self.claims: list[Claim] = []
        self.stale: list[Claim] = []
        self.told: dict[int, float] = {}
        self.failed: set[int] = set()
        self.begun: set[int] = set()
        self._coordinate()

    def _coordinate(self) -> None:
        self.leases.adopt(self.id)
        self.leases.reconcile(self.id)
        write_search(self.database, self.study.study_name, self.id, SearchStep("s", "", ("x",), {}), Search(), None)
        counts = budget.TrialCounts.total(budget.count(self.database, self.id).values())
        if counts.live < self.target:
            budget.fill(self.database, self.study, self.target, [{"x": 0.5}], False)
        elif counts.live > self.target:
            budget.trim(self.database, self.id, self.target)
        self.leases.adopt(self.id)

    def _take(self, data: Any) -> Claim:
        claim: Claim = data.draw(st.sampled_from(self.claims))
        self.claims.remove(claim)
        return claim

    @rule()
    def claim(self) -> None:
        claim = self.leases.claim(self.study.study_name, self.id, "test", "cpu")
        if claim is not None:
            assert claim.trial_id not in {other.trial_id for other in self.claims}
            assert self.leases.start(claim)
            self.begun.add(claim.trial_id)
            self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), epochs=st.integers(0, 2))
    def give_back(self, data: Any, epochs: int) -> None:
        claim = self._take(data)
        if epochs > claim.epochs:
            self.leases.checkpointed(claim, epochs, "key")
        self.leases.give_back(claim)
        self.stale.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), state=st.sampled_from([TrialState.COMPLETE, TrialState.PRUNED]), crash=st.booleans())
    def finish(self, data: Any, state: TrialState, crash: bool) -> None:
        claim = self._take(data)
        value = float(len(self.told))
        with self.database.guarded(self.leases.guard(claim)):
            self.database.storage.set_trial_state_values(claim.trial_id, state, [value])
        self.told[claim.trial_id] = value
        if not crash:  # otherwise the worker is killed before it ends its lease
            self.leases.finish(claim)
        self.stale.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def fail(self, data: Any) -> None:
        claim = self._take(data)
        fail(self.database, self.leases.guard(claim), claim.trial_id, "tried")
        self.failed.add(claim.trial_id)
        self.leases.finish(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def lose(self, data: Any) -> None:
        claim = self._take(data)
        with self.database.transaction() as connection:
            connection.execute(
                text("UPDATE tailfill_leases SET expires_at = clock_timestamp() - interval '1 s' WHERE trial_id = :t"),
                {"t": claim.trial_id},
            )
        self.stale.append(claim)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def late(self, data: Any) -> None:
        """A worker returns that has lost its trial; another may have claimed the trial or not."""
        claim: Claim = data.draw(st.sampled_from(self.stale))
        try:
            with self.database.guarded(self.leases.guard(claim)):
                state = self.database.storage.get_trial(claim.trial_id).state
        except LeaseLost:
            self.stale.remove(claim)
        else:  # no other worker claimed it, so its lease is renewed and it continues, unless its result was recorded
            self.stale.remove(claim)
            if state == TrialState.RUNNING:
                self.claims.append(claim)

    @rule()
    def reap(self) -> None:
        self._reap()

    def _reap(self) -> None:
        self.reaper.reap(self.id)
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
            if "lost with its worker" in trial.user_attrs.get("failure", ""):
                self.failed.add(trial._trial_id)

    @rule(trials=st.integers(1, 5))
    def change_budget(self, trials: int) -> None:
        self.target = trials

    @rule()
    def coordinate(self) -> None:
        self._coordinate()
        counts = budget.TrialCounts.total(budget.count(self.database, self.id).values())
        assert counts.live >= self.target
        assert counts.live == self.target or counts.queued == counts.begun

    @invariant()
    def results_stand(self) -> None:
        trials = {t._trial_id: t for t in self.study.get_trials(deepcopy=False)}
        finished = {i for i, t in trials.items() if t.state in (TrialState.COMPLETE, TrialState.PRUNED)}
        assert finished == set(self.told)
        assert all(trials[i].values == [value] for i, value in self.told.items())
        counts = budget.TrialCounts.total(budget.count(self.database, self.id).values())
        assert counts.failed == len(self.failed)
        assert counts.finished == len(self.told)

    def teardown(self) -> None:
        """Runs to the end, and checks that exactly the budget is finished and nothing is left open.

        Trials that a worker has begun are finished; all others beyond the budget are withdrawn.
        """
        for claim in self.claims:
            self.leases.give_back(claim)
        self.claims = []
        with self.database.transaction() as connection:
            connection.execute(
                text(
                    "UPDATE tailfill_leases SET expires_at = clock_timestamp() - interval '1 s' WHERE state = 'held' AND study_id = :s"
                ),
                {"s": self.id},
            )
        self._reap()
        expected = max(self.target, len(self.begun - self.failed))
        for _ in range(30):
            self._coordinate()
            claim = self.leases.claim(self.study.study_name, self.id, "test", "cpu")
            if claim is None:
                break
            assert self.leases.start(claim)
            with self.database.guarded(self.leases.guard(claim)):
                self.database.storage.set_trial_state_values(claim.trial_id, TrialState.COMPLETE, [0.0])
            self.leases.finish(claim)
        counts = budget.TrialCounts.total(budget.count(self.database, self.id).values())
        assert (counts.held, counts.queued) == (0, 0)
        assert counts.finished == expected
        assert counts.failed == len(self.failed)


@pytest.fixture
def machine(database: Database) -> Iterator[type[BudgetMachine]]:
    """Returns the state machine on this database."""
    BudgetMachine.database = database
    yield BudgetMachine
    del BudgetMachine.database


def test_budget_in_any_order(machine: type[BudgetMachine]) -> None:
    """`BUDGET_EXAMPLES` sets a number of examples that is too large for every test run."""
    examples = int(os.environ.get("BUDGET_EXAMPLES", "12"))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            derandomize=examples <= 12,
            suppress_health_check=list(HealthCheck),
        ),
    )
