"""A worker: takes trials while there are any, and loses none when it is stopped, cut off or killed.

A signal: the objective writes a checkpoint and raises Stopped, the trial goes back to the queue, exit 143. An objective that does not come
back within the grace period is left where it is: the trial is given back from the last checkpoint, and the process ends.
Cut off from the database: waits as long as its lease holds, then drops the trial, which someone else may have.
"""

from __future__ import annotations

import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import optuna
from optuna.pruners import NopPruner
from optuna.study import Study
from optuna.trial import Trial, TrialState

from shared.artifacts.checkpoints import Checkpoints
from shared.config.search import Search
from shared.errors import STOPPED, InputError, Stopped, TailfillError, UnavailableError
from shared.log import Log
from shared.search.identity import settings_digest
from shared.search.leases import Claim, LeaseLost, Leases, fail
from shared.search.presence import worker_label
from shared.search.reported import Values, numbers, record, reported
from shared.search.searches import SearchRow, Step, read_search
from shared.search.space import distributions, make_pruner, make_sampler
from shared.search.storage import Database
from shared.search.trial_checkpoints import FencedCheckpoints, TrialCheckpoints, discard
from shared.stop import STOP_MARGIN_SECONDS, StopSignal

POLL_SECONDS = 1.0  # between looks at an empty queue
COORDINATOR_SECONDS = 600.0  # how long a worker waits for a coordinator to begin the search
SAME_ERROR = 3  # so many failures of one kind in a row end the worker
RENEWALS_A_LEASE = 6

_log = Log("tune")


class Diverged(Exception):
    """The objective is not a number any more."""


class Pruned(Exception):
    """The pruner ends the trial."""


class Objective(Protocol):
    """What is searched."""

    def prepare(self) -> None:
        """Builds what all trials share, before the first is claimed."""

    def __call__(self, trial: TrialHandle) -> float | Sequence[float]:
        """Trains one trial and returns its value, or one an objective; reports each epoch, honours `trial.stop`."""


class TrialStop(StopSignal):
    """Set by the process's signal, or when the trial is no longer ours."""

    def __init__(self, outer: StopSignal, claim: Claim) -> None:
        super().__init__()
        self._outer, self._claim = outer, claim

    def __bool__(self) -> bool:
        return bool(self._outer) or self._claim.lost

    def wait(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not self and (left := end - time.monotonic()) > 0:
            self._outer.wait(min(left, 0.2))
        return bool(self)

    def seconds_left(self) -> float:
        return self._outer.seconds_left()

    def raise_if_set(self) -> None:
        self._claim.check()
        self._outer.raise_if_set()


class TrialHandle:
    """What an objective sees of its trial."""

    def __init__(
        self, worker: Worker, claim: Claim, trial: Trial, step: Step, parameters: dict[str, Any], reported: set[int]
    ) -> None:
        self.number = trial.number
        self.parameters = parameters
        """Values by path: those that are searched, and those that earlier steps fixed."""
        self.stop: StopSignal = TrialStop(worker.stop, claim)
        self.checkpoints: Checkpoints = FencedCheckpoints(
            worker.checkpoints,
            claim,
            step.checkpoint_name(trial.number),
            lambda epochs, place, age: worker.note_checkpoint(claim, epochs, place, age),
        )
        self._worker, self._claim, self._trial, self._reported = worker, claim, trial, reported

    def report(self, epoch: int, value: float | Sequence[float]) -> None:
        """Records the value of an epoch (counted from 0), or one an objective; what is recorded already is kept.

        Raises Diverged for a value that is no number, LeaseLost, and Pruned where the trial is not worth going on with.
        """
        values = _finite(value, f" in epoch {epoch}")
        self._claim.check()
        if self._worker.report(self._claim, self._trial, epoch, None if epoch in self._reported else values):
            raise Pruned
        self._reported.add(epoch)


class Worker:
    """Works on one search until its budget is closed."""

    def __init__(
        self,
        database: Database,
        name: str,
        search: Search,
        seed: int,
        checkpoints: TrialCheckpoints,
        stop: StopSignal,
        device: str = "cpu",
    ) -> None:
        self.database, self.stop, self.checkpoints = database, stop, checkpoints
        self.leases = Leases(database, search.lease_seconds)
        self._name, self._search, self._seed, self._device = name, search, seed, device
        self._settings = settings_digest(search)
        self._label = worker_label()
        self._study: Study | None = None
        self._failures: list[str] = []
        self.done = 0
        """Trials that this worker finished."""
        self._held_seconds, self._held_since = 0.0, math.inf
        self.claim_seconds: list[float] = []
        """How long each claim took."""

    def run(self, objective: Objective) -> None:
        """Returns when the search is closed. Raises Stopped, UnavailableError, or what failed three trials in a row."""
        waited_since = time.monotonic()
        while True:
            self.stop.raise_if_set()
            row = self._call("reading the search", lambda: read_search(self.database, self._name))
            if row is not None and row.closed is not None and row.settings == self._settings:
                _log.info("search is closed", reason=row.closed, trials=self.done)
                return
            if row is not None and row.closed is None:
                waited_since = time.monotonic()
                if self._work_once(row, objective):
                    continue
            elif time.monotonic() - waited_since > COORDINATOR_SECONDS:  # none, or one closed under another budget
                raise UnavailableError(
                    f"search {self._name}: no coordinator has begun it for {COORDINATOR_SECONDS:.0f} s; see that one runs"
                )
            self.stop.wait(POLL_SECONDS * random.uniform(0.5, 1.5))

    def _work_once(self, row: SearchRow, objective: Objective) -> bool:
        if not row.queued:
            return False
        objective.prepare()
        self._call(
            "opening the storage", lambda: self.database.storage
        )  # slow the first time, and not while a lease runs
        asked = time.monotonic()
        claim = self._call(
            "claiming a trial", lambda: self.leases.claim(self._name, row.study_id, self._label, self._device)
        )
        self.claim_seconds.append(time.monotonic() - asked)
        if claim is None:
            return False
        with _Renewal(self, claim), self._holding(asked):
            try:
                self._run_trial(claim, row.step, objective)
            except LeaseLost as lost:
                _log.warning("trial dropped", trial_id=claim.trial_id, reason=str(lost))
        return True

    @contextmanager
    def _holding(self, since: float) -> Iterator[None]:
        """From before the claim until after its end: what leases count is never counted as idle, too."""
        self._held_since = since
        try:
            yield
        finally:
            self._held_since = math.inf  # first: another thread reads both, and may see too little, not too much
            self._held_seconds += time.monotonic() - since

    def held_seconds(self) -> float:
        """For which it has held trials."""
        return self._held_seconds + max(time.monotonic() - self._held_since, 0.0)

    def _run_trial(self, claim: Claim, step: Step, objective: Objective) -> None:
        if not self._call("starting a trial", lambda: self.leases.start(claim), claim):
            self.leases.finish(claim)
            return
        try:
            handle, trial = self._call("suggesting parameters", lambda: self._suggest(claim, step), claim)
            _log.info(
                "trial begins",
                number=trial.number,
                step=step.label,
                epochs_done=claim.epochs,
                parameters=handle.parameters,
            )
            values = _finite(objective(handle))
        except Pruned:
            self._tell(claim, trial, step, TrialState.PRUNED, None)
        except (Stopped, UnavailableError):
            self.give_back(claim)
            raise
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001 - whatever an objective raises fails its trial, with the reason
            claim.check()  # what fails because the trial is being taken away is no failure
            self._fail(claim, error)
        else:
            self._tell(claim, trial, step, TrialState.COMPLETE, values)

    def _suggest(self, claim: Claim, step: Step) -> tuple[TrialHandle, Trial]:
        """A trial that was begun before gives its old values; a half-suggested one is completed."""
        study = self._load(step)
        with self.database.guarded(self.leases.guard(claim)):
            study.get_trials(deepcopy=False)  # as `ask` does: the storage's cache must know the trial
            stored = self.database.storage.get_trial(claim.trial_id)
            study.sampler = make_sampler(self._search, self._seed, stored.number)
            trial = Trial(study, claim.trial_id)
            space = distributions({path: self._search.space[path] for path in step.parameters})
            values = {path: _suggest(trial, path, distribution) for path, distribution in space.items()}
        parameters = {**step.fixed, **values}
        return TrialHandle(self, claim, trial, step, parameters, set(reported(stored))), trial

    def _load(self, step: Step) -> Study:
        """A fresh Study each time, so that the sampler sees the newest trials; finished ones are kept in the storage's cache."""
        storage = self._study._storage if self._study is not None else self.database.storage
        self._study = optuna.load_study(study_name=step.study, storage=storage, pruner=make_pruner(self._search))
        return self._study

    def report(self, claim: Claim, trial: Trial, epoch: int, values: Values | None) -> bool:
        """Records the values of an epoch, unless it is None; whether the trial is to be pruned."""

        def write() -> bool:
            with self.database.guarded(self.leases.guard(claim)):
                if values is not None:
                    record(trial, epoch, values)
                return self._may_prune(trial, epoch) and trial.should_prune()

        return bool(self._call("reporting an epoch", write, claim))

    def note_checkpoint(self, claim: Claim, epochs: int, place: str, age: float) -> None:
        """Has the lease name a checkpoint of a state that is `age` seconds old; raises LeaseLost."""
        self._call("noting a checkpoint", lambda: self.leases.checkpointed(claim, epochs, place, age), claim)

    def _may_prune(self, trial: Trial, epoch: int) -> bool:
        # after its last epoch a trial has cost what it costs
        if isinstance(trial.study.pruner, NopPruner) or not self._search.prune_after <= epoch < self._search.epochs - 1:
            return False
        complete = trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return len(complete) >= self._search.startup_trials

    def _tell(self, claim: Claim, trial: Trial, step: Step, state: TrialState, values: Values | None) -> None:
        def write() -> None:
            try:
                with self.database.guarded(self.leases.guard(claim)):
                    if self.database.storage.get_trial(claim.trial_id).state == TrialState.RUNNING:
                        trial.study.tell(trial, values, state)
            except LeaseLost:
                # `tell` is several transactions: once the result stands, the coordinator may end the lease before the last of them
                stored = self.database.storage.get_trial(claim.trial_id)
                if stored.state != state or (values is not None and stored.values != list(values)):
                    raise
            self.leases.finish(claim)

        claim.check()
        self._call("telling a result", write, claim)
        discard(self.checkpoints, claim.checkpoint)
        self.done += 1
        self._failures.clear()
        _log.info("trial ends", number=trial.number, step=step.label, state=state.name.lower(), values=values)

    def _fail(self, claim: Claim, error: Exception) -> None:
        reason = describe(error)
        kind = re.sub(r"[\d.]+", "#", reason)  # "nan in epoch 3" and "nan in epoch 4" are one error
        _log.error("trial failed", trial_id=claim.trial_id, reason=reason)

        def write() -> None:
            if self.database.storage.get_trial(claim.trial_id).state == TrialState.RUNNING:
                fail(self.database, self.leases.guard(claim), claim.trial_id, reason)
            self.leases.finish(claim)

        self._call("telling a failure", write, claim)
        discard(self.checkpoints, claim.checkpoint)
        self._failures = [*self._failures, kind] if self._failures[-1:] == [kind] else [kind]
        if len(self._failures) >= SAME_ERROR:
            if isinstance(error, TailfillError | Diverged | MemoryError) or "out of memory" in reason:
                raise InputError(f"worker stops: {SAME_ERROR} trials in a row failed alike: {reason}") from error
            raise error

    def give_back(self, claim: Claim) -> None:
        """Queues the trial again, from its last checkpoint."""
        if not claim.lost:
            self.database.call(
                "giving a trial back", lambda: self.leases.give_back(claim), patience=STOP_MARGIN_SECONDS
            )
            _log.info("trial given back", trial_id=claim.trial_id, epochs_done=claim.epochs)

    def leave(self, claim: Claim) -> None:
        """Ends the process from beside an objective that does not come back within the grace period."""
        try:
            self.give_back(claim)
        finally:
            _log.warning("objective did not stop in time; its last checkpoint stands", trial_id=claim.trial_id)
            os._exit(STOPPED)

    def _call(self, what: str, operation: Callable[[], Any], claim: Claim | None = None) -> Any:
        """While a trial is held, patience lasts as long as its lease."""
        if claim is None:
            return self.database.call(what, operation, check=self.stop.raise_if_set)
        return self.database.call(what, operation, patience=float("inf"), check=claim.check)


class _Renewal:
    """Renews a lease beside the objective, and ends the process where a stopped objective does not come back."""

    def __init__(self, worker: Worker, claim: Claim) -> None:
        self._worker, self._claim = worker, claim
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        leases, claim = self._worker.leases, self._claim
        due = time.monotonic() + leases.seconds / RENEWALS_A_LEASE
        while not self._over.wait(min(0.5, leases.seconds / RENEWALS_A_LEASE / 2)):
            now = time.monotonic()
            if self._worker.stop.seconds_left() <= 0:
                self._worker.leave(claim)
            if now < due or claim.revoked:
                continue
            try:
                self._worker.database.call("renewing a lease", lambda: leases.renew(claim), patience=0)
                due = now + leases.seconds / RENEWALS_A_LEASE
            except LeaseLost:
                return
            except TailfillError as error:
                due = now + 1.0
                _log.warning(
                    "lease not renewed", trial_id=claim.trial_id, reason=str(error), seconds_left=claim.deadline - now
                )


def _finite(value: float | Sequence[float], when: str = "") -> Values:
    values = numbers(value)
    if bad := [number for number in values if not math.isfinite(number)]:
        raise Diverged(f"the objective is {bad[0]}{when}")
    return values


def describe(error: Exception) -> str:
    """One line that says what failed a trial."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "out of memory" in text.lower():
        return f"out of memory: {text}"[:500]
    if isinstance(error, Diverged):
        return f"diverged: {text}"[:500]
    return f"{type(error).__name__}: {text}"[:500]


def _suggest(trial: Trial, path: str, distribution: optuna.distributions.BaseDistribution) -> Any:
    match distribution:
        case optuna.distributions.FloatDistribution():
            return trial.suggest_float(path, distribution.low, distribution.high, log=distribution.log)
        case optuna.distributions.IntDistribution():
            return trial.suggest_int(path, distribution.low, distribution.high, log=distribution.log)
        case optuna.distributions.CategoricalDistribution():
            return trial.suggest_categorical(path, distribution.choices)
    raise TypeError(f"no way to suggest from {distribution!r}")
