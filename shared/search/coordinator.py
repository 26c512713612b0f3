"""Coordinates a search: creates the Optuna study, keeps its budget of trials, takes trials from lost workers, and decides when it ends.

All its state is in PostgreSQL. It may be killed at any moment and run again, and two coordinators at once do no harm: trials are counted
and created under a lock, a lease is taken by changing its owner, and a step is opened only while it lacks trials.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from optuna.study import Study
from sqlalchemy import or_, select, text

from shared.artifacts.keys import canonical_digest
from shared.config.base import Section
from shared.errors import ConfigError, InputError
from shared.log import Log
from shared.search import budget, statements
from shared.search.budget import TrialCounts
from shared.search.heartbeat import forget_old
from shared.search.leases import Leases
from shared.search.repetitions import repetition_points
from shared.search.results import StepResult, TrialRecord, read_step
from shared.search.search_state import (
    Direction,
    SearchProgress,
    SearchSpec,
    SearchStep,
    directions,
    make_study,
    write_search,
)
from shared.search.space import Parameters, own_values, planned_points, target
from shared.search.storage import Database
from shared.search.tables import leases, studies
from shared.stop import StopSignal

TICK_SECONDS = 1.0

Counts = Mapping[int | None, TrialCounts]
"""Maps each repetition to the counts of its trials; None is the key of a search that is not repeated."""
Shares = Mapping[int | None, int]
"""Maps each repetition to the number of finished trials with which it ends."""

_log = Log("tune")


@dataclass(frozen=True)
class Usage:
    """Sums up what a search has cost so far, including its running trials."""

    wall_seconds: float
    used_seconds: float
    """Counts the seconds for which workers held trials on any device, or a GPU without a trial."""
    lost_seconds: float
    """Counts the seconds of work that was lost with a worker."""
    gpu_seconds: float
    """Counts those of `used_seconds` that were on a GPU."""
    gpu_lost_seconds: float
    """Counts those of `lost_seconds` that were on a GPU."""


@dataclass
class Outcome:
    """Holds what a search ended with."""

    parameters: Parameters
    """Holds the best values that were found, by path; empty if no trial was completed."""
    value: float | None
    """Gives the value of the first objective in the best trial."""
    number: int | None
    """Gives the number of the best trial in its step."""
    ended: str
    """Says why the search ended: `complete`, or what ended it early."""
    steps: list[StepResult] = field(default_factory=list)
    winners: list[TrialRecord | None] = field(default_factory=list)
    """Holds the best trial of each repetition, None if the repetition has no complete trial; empty if the search is not repeated."""

    @property
    def front(self) -> list[TrialRecord]:
        """Returns the trials of the Pareto front: those than which no other trial is better."""
        return [trial for result in self.steps for trial in result.trials if trial.front]


class Coordinator:
    """Coordinates one search: calls `run` until it returns or raises."""

    def __init__(
        self,
        database: Database,
        spec: SearchSpec,
        section: Section,
        stop: StopSignal,
        warm: Sequence[Parameters] = (),
        study_gpu_seconds: Callable[[], float] | None = None,
    ) -> None:
        """Takes the `section` whose values the paths of the space name, and the points `warm` to try first.

        `study_gpu_seconds` returns what counts against `budget.gpu_hours`; if it is None, this search alone counts. Raises ConfigError if
        there is nothing to search, or if the section lacks a path of the space.
        """
        self._database, self._spec, self._search = database, spec, spec.search
        self._stop, self._warm = stop, list(warm)
        self._study_gpu_seconds = study_gpu_seconds or (lambda: self.usage().gpu_seconds)
        if not self._search.space:
            raise ConfigError("search.space: has no parameter to search; name some, or set search.trials: 0")
        self._own = own_values(section, self._search.space)  # also sees that the paths exist
        self._leases = Leases(database, self._search.lease_seconds, self._search.max_retries)
        self._spent: str | None = None
        self._ended: str | None = None

    def run(self) -> Outcome:
        """Runs the search until it is over. Raises Stopped, UnavailableError, and InputError if no trial could be completed."""
        self._database.create_tables()
        self._database.call("forgetting old workers", partial(forget_old, self._database))
        outcome = Outcome({}, None, None, "complete")
        turns = self._turns()
        for number, parameters in enumerate(turns):
            step = self._step(number, parameters, outcome.parameters)
            study = self._database.call(
                "making the study", partial(make_study, self._database, step.study, self._search)
            )
            self._drive(step, study)
            if self._ended is not None or number == len(turns) - 1:
                outcome.ended = self._ended or "complete"
                self._database.call("closing the search", partial(self._write, step, study, outcome.ended))
            result = self._database.call("reading the results", partial(read_step, self._database, study, step))
            outcome.steps.append(result)
            self._keep_best(outcome, result)
            if self._spec.repetitions is not None:
                outcome.winners = self._winners(result)
            if self._ended is not None:
                break
        if not any(trial.state == "complete" for result in outcome.steps for trial in result.trials):
            reasons = [t.failure for result in outcome.steps for t in result.trials if t.failure]
            last = f"; the last failure: {reasons[-1]}" if reasons else ""
            raise InputError(f"search {self._spec.name}: ended without a completed trial ({outcome.ended}){last}")
        return outcome

    def usage(self) -> Usage:
        """Returns what the search has cost, summed over the leases of all steps."""
        names = {"name": self._spec.name, "steps": f"{self._spec.name}/%"}
        with self._database.transaction() as connection:
            row = connection.execute(text(statements.USAGE), names).one()
        return Usage(float(row.wall), float(row.used), float(row.lost), float(row.gpu), float(row.gpu_lost))

    def unfinished_checkpoints(self) -> list[str]:
        """Returns the places of the checkpoints from which trials continue if the search continues with a larger budget."""
        ours = or_(studies.c.study_name == self._spec.name, studies.c.study_name.like(f"{self._spec.name}/%"))
        checkpoints = (
            select(leases.c.checkpoint)
            .join(studies, studies.c.study_id == leases.c.study_id)
            .where(ours, leases.c.state.in_(("queued", "held")), leases.c.checkpoint.is_not(None))
        )
        with self._database.transaction() as connection:
            return list(connection.scalars(checkpoints))

    # -- steps

    def _turns(self) -> list[tuple[str, ...]]:
        """Returns the groups of parameters that are searched together, in order."""
        paths = tuple(self._search.space)
        return [(path,) for path in paths] if self._search.strategy == "sequential" else [paths]

    def _step(self, number: int, parameters: tuple[str, ...], kept: Parameters) -> SearchStep:
        if self._search.strategy != "sequential":
            return SearchStep(self._spec.name, "", parameters, {})
        label = f"{number}-{re.sub(r'[^a-z0-9]+', '-', parameters[0].lower())}"
        # the step includes the values with which earlier steps ended: with more trials, an earlier step may end differently
        study = f"{self._spec.name}/{label}-{canonical_digest(kept)[:8]}"
        return SearchStep(study, label, parameters, dict(kept))

    def _keep_best(self, outcome: Outcome, result: StepResult) -> None:
        """Keeps the step's best trial in the outcome unless the one kept before is as good: a later step tries the kept values
        again only if told to.
        """
        best = result.best(self._search)
        if best is None or best.value is None:
            return
        if outcome.value is not None and not _better(best.value, outcome.value, directions(self._search)[0]):
            return
        outcome.parameters = {**outcome.parameters, **best.parameters}
        outcome.value, outcome.number = best.value, best.number

    def _winners(self, result: StepResult) -> list[TrialRecord | None]:
        """Returns the best trial of each repetition, and warns of one that has none."""
        repetitions = [number for number in self._spec.budgets if number is not None]
        each = self._search.trials // len(repetitions)
        winners = [result.best_of(repetition, each, self._search) for repetition in repetitions]
        for repetition, winner in zip(repetitions, winners, strict=True):
            if winner is None:
                _log.warning("a repetition has no complete trial; it uses the arm's own values", repetition=repetition)
        return winners

    # -- one step

    def _drive(self, step: SearchStep, study: Study) -> None:
        """Calls `_tick` until the step has its trials or the search has spent its budget."""
        wanted = target(self._search, {path: self._search.space[path] for path in step.parameters})
        budgets = self._spec.budgets
        # a repetition's trials count up to its own share
        each = dict.fromkeys(budgets, wanted // len(budgets))
        counts = self._database.call("counting trials", lambda: self._counts(study))
        done = _finished(counts, each)
        finished = self._finished(step, study, each, done)
        for _ in _log.progress(finished, f"search {step.label}".strip(), sum(each.values()), "trials", done):
            pass

    def _finished(self, step: SearchStep, study: Study, each: Shares, done: int) -> Iterator[int]:
        """Yields once per newly finished trial."""
        while True:
            self._stop.raise_if_set()
            finished, over = self._database.call(
                "coordinating", lambda: self._tick(step, study, each), check=self._stop.raise_if_set
            )
            yield from range(done, finished)
            done = max(done, finished)
            if over:
                return
            self._stop.wait(min(TICK_SECONDS, self._search.lease_seconds / 4) * random.uniform(0.5, 1.5))

    def _tick(self, step: SearchStep, study: Study, each: Shares) -> tuple[int, bool]:
        """Does one round of work, which may be repeated or run by several processes at once; returns how many trials are finished,
        and whether the step is over.

        If a budget is spent, the running trials are counted after the search is closed, because trials are claimed until then. A spent
        budget stays spent in later rounds, because workers have seen the search closed and have ended.
        """
        self._leases.adopt(study._study_id)
        self._leases.reconcile(study._study_id)
        if not self._database.back_within(self._search.lease_seconds):
            self._leases.reap(study._study_id)
        counts = self._counts(study)
        for repetition, own in counts.items():
            wanted = each.get(repetition, 0)  # 0 for a repetition that a smaller final.seeds has dropped
            if own.live > wanted:
                budget.trim(self._database, study._study_id, wanted, repetition)
        counts = self._counts(study)
        self._ended = None
        if _complete(counts, each):
            return _finished(counts, each), True
        self._spent = self._limit_reached(TrialCounts.total(counts.values())) or self._spent
        if self._spent is None:
            self._fill(step, study, each, counts)
        self._write(step, study, self._spent)
        counts = self._counts(study)
        finished = _finished(counts, each)
        if self._spent is None:
            return finished, _complete(counts, each)
        self._ended = self._spent if finished < sum(each.values()) else None
        return finished, TrialCounts.total(counts.values()).held == 0

    def _counts(self, study: Study) -> Counts:
        self._leases.adopt(study._study_id)
        return budget.count(self._database, study._study_id)

    def _fill(self, step: SearchStep, study: Study, each: Shares, counts: Counts) -> None:
        """Creates the trials that the budgets lack, repetition by repetition, so that a worker trains on one pool of images after the other."""
        space = {path: self._search.space[path] for path in step.parameters}
        first = {path: self._own[path] for path in step.parameters if path in self._own}
        first = first if self._search.first_defaults else {}
        warm = [point for w in self._warm if (point := {p: w[p] for p in step.parameters if p in w})]
        for repetition, wanted in each.items():
            own = counts.get(repetition)
            if own is not None and own.live >= wanted:
                continue
            number = wanted + (own.failed if own is not None else 0)
            if repetition is None or self._spec.repetitions is None:
                points = planned_points(self._search, space, self._spec.seed, first, warm, number)
            else:
                points = repetition_points(self._search, self._spec.repetitions, repetition, first, number)
            repeat_failed = self._search.strategy == "grid"
            budget.fill(self._database, study, wanted, points, repeat_failed, repetition)
        self._leases.adopt(study._study_id)

    def _limit_reached(self, counts: TrialCounts) -> str | None:
        """Returns why no more trials may begin, or None if they may."""
        limits = self._search.budget
        if counts.failed > self._search.max_failures:
            return f"{counts.failed} trials failed, search.max_failures is {self._search.max_failures}"
        if limits.wall_hours is not None and self.usage().wall_seconds >= limits.wall_hours * 3600:
            return f"search.budget.wall_hours of {limits.wall_hours} are over"
        if limits.gpu_hours is not None and self._study_gpu_seconds() >= limits.gpu_hours * 3600:
            return f"search.budget.gpu_hours of {limits.gpu_hours} are spent"
        return None

    def _write(self, step: SearchStep, study: Study, closed: str | None) -> None:
        space = {path: self._search.space[path] for path in step.parameters}
        turns = self._turns()
        position = turns.index(step.parameters) + 1
        progress = SearchProgress(self._spec.experiment, target(self._search, space), position, len(turns))
        write_search(self._database, self._spec.name, study._study_id, step, self._search, closed, progress)


def _finished(counts: Counts, each: Shares) -> int:
    return sum(min(counts[number].finished, wanted) for number, wanted in each.items() if number in counts)


def _complete(counts: Counts, each: Shares) -> bool:
    left = TrialCounts.total(counts.values())
    return _finished(counts, each) >= sum(each.values()) and left.held == 0 and left.queued == 0


def _better(new: float, old: float, towards: Direction) -> bool:
    return new < old if towards == "minimize" else new > old
