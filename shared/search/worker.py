"""Runs trials as a worker, while there are any, and loses none when it is stopped, disconnected or killed.

When a signal comes, the objective writes a checkpoint and raises Stopped, the trial goes back to the queue, and the process exits with 143.
If the objective does not return within the grace period, the trial is given back with its last checkpoint, and the process ends. A worker
that is cut off from the database waits as long as its lease holds, and then drops the trial, which another worker may have.
"""

from __future__ import annotations

import math
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.pruners import NopPruner
from optuna.study import Study
from optuna.trial import Trial, TrialState

from shared.artifacts.checkpoints import Checkpoints
from shared.artifacts.disk import room_errors
from shared.errors import STOPPED, InputError, Stopped, TailfillError, UnavailableError
from shared.log import Log
from shared.search.heartbeat import worker_label
from shared.search.identity import settings_digest
from shared.search.intermediate_values import Values, as_values, read_values, write_values
from shared.search.leases import Claim, LeaseLost, Leases, fail
from shared.search.repetitions import REPETITION, RepetitionStudy
from shared.search.search_state import SearchRow, SearchSpec, SearchStep, read_search
from shared.search.space import distributions, make_pruner, make_sampler
from shared.search.storage import Database
from shared.search.trial_checkpoints import FencedCheckpoints, TrialCheckpoints, discard
from shared.stop import STOP_MARGIN_SECONDS, StopSignal

POLL_SECONDS = 1.0  # between looks at an empty queue
COORDINATOR_SECONDS = 600.0  # how long a worker waits for a coordinator to begin the search
SAME_ERROR = 3  # this many failures of one class in a row end the worker
RENEWALS_PER_LEASE = 6
CUDA_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation, the error_code of torch.AcceleratorError

_log = Log("tune")


class NotFinite(Exception):
    """Says that the objective is no longer a finite number."""


class Pruned(Exception):
    """Says that the pruner ends the trial."""


class Turn(Enum):
    """Says what a worker found in a search, and whether it ran a trial."""

    NOT_BEGUN = "no coordinator has begun it under these settings"
    EMPTY = "no trial waits for a worker"
    READY = "a trial waits for a worker"
    WORKED = "a trial was run"
    CLOSED = "the search is closed"


class Objective(Protocol):
    """Computes what a search minimises or maximises, by training a trial."""

    def prepare(self) -> None:
        """Builds what all trials share, before the first is claimed."""

    def __call__(self, trial: TrialHandle) -> float | Sequence[float]:
        """Trains one trial and returns its value, or one per objective; reports each epoch, and ends early at `trial.stop`."""


class TrialStop(StopSignal):
    """Signals a stop if the process is to stop, or if the trial is no longer ours."""

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
    """Gives an objective access to its trial."""

    def __init__(
        self,
        worker: Worker,
        claim: Claim,
        trial: Trial,
        step: SearchStep,
        parameters: dict[str, Any],
        reported: set[int],
    ) -> None:
        """Takes the epochs whose values are stored already as `reported`."""
        self.number = trial.number
        self.repetition: int | None = trial.user_attrs.get(REPETITION)
        """Gives the repetition that the trial belongs to; None if the search is not repeated."""
        self.parameters = parameters
        """Holds the values by path: those that are searched, and those with which earlier steps ended."""
        self.stop: StopSignal = TrialStop(worker.stop, claim)
        self.checkpoints: Checkpoints = FencedCheckpoints(
            worker.checkpoints,
            claim,
            step.checkpoint_name(trial.number),
            lambda epochs, place, age: worker.note_checkpoint(claim, epochs, place, age),
        )
        self._worker, self._claim, self._trial, self._reported = worker, claim, trial, reported

    def report(self, epoch: int, value: float | Sequence[float]) -> None:
        """Records the value of an epoch (counted from 0), or one value per objective; a value that is recorded already stays.

        Raises NotFinite for a value that is no finite number, LeaseLost, and Pruned if the pruner ends the trial.
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
        spec: SearchSpec,
        checkpoints: TrialCheckpoints,
        stop: StopSignal,
        device: str = "cpu",
        patience: float = COORDINATOR_SECONDS,
    ) -> None:
        """Takes the `patience`: for how many seconds it waits until a coordinator begins the search."""
        self.database, self.stop, self.checkpoints = database, stop, checkpoints
        self.leases = Leases(database, spec.search.lease_seconds)
        self._spec, self._search, self._device, self._patience = spec, spec.search, device, patience
        self._settings = settings_digest(spec.search)
        self._label = worker_label()
        self._study: Study | None = None
        self._failures: list[type[Exception]] = []
        self.done = 0
        """Counts the trials that this worker finished."""
        self._held_seconds, self._held_since = 0.0, math.inf
        self.claim_seconds: list[float] = []
        """Lists how many seconds each claim took."""

    def run(self, objective: Objective) -> None:
        """Runs trials until the search is closed. Raises Stopped, UnavailableError, or what failed three trials in a row."""
        waited_since = time.monotonic()
        while (turn := self.turn(objective)) is not Turn.CLOSED:
            if turn is not Turn.NOT_BEGUN:
                waited_since = time.monotonic()
            self.check_patience(waited_since)
            if turn is not Turn.WORKED:
                self.pause()

    def turn(self, objective: Objective) -> Turn:
        """Runs a trial if one waits; returns at once if none does. Raises the same as `run`."""
        row = self._read()
        turn = self._judge(row)
        if turn is Turn.READY:
            assert row is not None
            return Turn.WORKED if self._work_once(row, objective) else Turn.EMPTY
        if turn is Turn.CLOSED:
            assert row is not None
            _log.info("search is closed", reason=row.closed, trials=self.done)
        return turn

    def look(self) -> tuple[Turn, int]:
        """Returns the state of the search, and how many workers it has."""
        row = self._read()
        return self._judge(row), 0 if row is None else row.workers

    def check_patience(self, waited_since: float) -> None:
        """Raises UnavailableError if no coordinator has begun the search although the worker has waited since `since` (monotonic) for too long."""
        if time.monotonic() - waited_since > self._patience:
            raise UnavailableError(
                f"search {self._spec.name}: no coordinator has begun it for {self._patience:.0f} s; see that one runs"
            )

    def pause(self) -> None:
        """Waits before the next look at an empty queue."""
        self.stop.wait(POLL_SECONDS * random.uniform(0.5, 1.5))

    def _read(self) -> SearchRow | None:
        self.stop.raise_if_set()
        row: SearchRow | None = self._call("reading the search", lambda: read_search(self.database, self._spec.name))
        return row

    def _judge(self, row: SearchRow | None) -> Turn:
        if row is None or (row.closed is not None and row.settings != self._settings):
            return Turn.NOT_BEGUN  # or closed under another budget
        if row.closed is not None:
            return Turn.CLOSED
        return Turn.READY if row.queued else Turn.EMPTY

    def _work_once(self, row: SearchRow, objective: Objective) -> bool:
        objective.prepare()
        self._call(
            "opening the storage", lambda: self.database.storage
        )  # before a lease runs, as it is slow the first time
        asked = time.monotonic()
        claim = self._call(
            "claiming a trial", lambda: self.leases.claim(self._spec.name, row.study_id, self._label, self._device)
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
        """Counts the seconds from before the claim until after its end, so that no second is counted both by the lease and as idle."""
        self._held_since = since
        try:
            yield
        finally:
            self._held_since = math.inf  # first: another thread reads both, and may see too little but not too much
            self._held_seconds += time.monotonic() - since

    def held_seconds(self) -> float:
        """Returns for how many seconds it has held trials."""
        return self._held_seconds + max(time.monotonic() - self._held_since, 0.0)

    def _run_trial(self, claim: Claim, step: SearchStep, objective: Objective) -> None:
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
            with room_errors(Path(tempfile.gettempdir())):  # a full disk is no fault of the parameters
                values = _finite(objective(handle))
        except Pruned:
            self._tell(claim, trial, step, TrialState.PRUNED, None)
        except (Stopped, UnavailableError):
            self.give_back(claim)
            raise
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001 - whatever an objective raises fails its trial, with the reason
            claim.check()  # an error is no failure if the trial is being taken away
            self._fail(claim, error)
        else:
            self._tell(claim, trial, step, TrialState.COMPLETE, values)

    def _suggest(self, claim: Claim, step: SearchStep) -> tuple[TrialHandle, Trial]:
        """Gives the trial its parameters: it keeps those that it has from an earlier claim, and the sampler suggests the missing ones."""
        repetition = self.database.storage.get_trial(claim.trial_id).user_attrs.get(REPETITION)
        study = self._load(step, repetition)
        with self.database.guarded(self.leases.guard(claim)):
            study.get_trials(deepcopy=False)  # as `ask` does: the storage's cache must know the trial
            stored = self.database.storage.get_trial(claim.trial_id)
            study.sampler = make_sampler(self._search, self._spec.seed, stored.number)
            trial = Trial(study, claim.trial_id)
            space = distributions({path: self._search.space[path] for path in step.parameters})
            values = {path: _suggest(trial, path, distribution) for path, distribution in space.items()}
        parameters = {**step.fixed, **values}
        return TrialHandle(self, claim, trial, step, parameters, set(read_values(stored))), trial

    def _load(self, step: SearchStep, repetition: int | None) -> Study:
        """Reloads the study each time, so that the sampler sees the newest trials; the storage's cache keeps the finished ones.

        A trial of a repetition sees those of its own repetition only.
        """
        storage = self._study._storage if self._study is not None else self.database.storage
        pruner = make_pruner(self._search)
        if repetition is None:
            self._study = optuna.load_study(study_name=step.study, storage=storage, pruner=pruner)
        else:
            self._study = RepetitionStudy.load(step.study, storage, pruner, repetition)
        return self._study

    def report(self, claim: Claim, trial: Trial, epoch: int, values: Values | None) -> bool:
        """Records the values of an epoch, unless they are None; returns whether the pruner ends the trial."""

        def write() -> bool:
            with self.database.guarded(self.leases.guard(claim)):
                if values is not None:
                    write_values(trial, epoch, values)
                return self._may_prune(trial, epoch) and trial.should_prune()

        return bool(self._call("reporting an epoch", write, claim))

    def note_checkpoint(self, claim: Claim, epochs: int, place: str, age: float) -> None:
        """Records in the lease a checkpoint whose state is `age` seconds old; raises LeaseLost."""
        self._call("noting a checkpoint", lambda: self.leases.checkpointed(claim, epochs, place, age), claim)

    def _may_prune(self, trial: Trial, epoch: int) -> bool:
        # after the last epoch, pruning would save nothing
        if isinstance(trial.study.pruner, NopPruner) or not self._search.prune_after <= epoch < self._search.epochs - 1:
            return False
        complete = trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return len(complete) >= self._search.startup_trials

    def _tell(self, claim: Claim, trial: Trial, step: SearchStep, state: TrialState, values: Values | None) -> None:
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
        _log.error("trial failed", trial_id=claim.trial_id, reason=reason)

        def write() -> None:
            if self.database.storage.get_trial(claim.trial_id).state == TrialState.RUNNING:
                fail(self.database, self.leases.guard(claim), claim.trial_id, reason)
            self.leases.finish(claim)

        self._call("telling a failure", write, claim)
        discard(self.checkpoints, claim.checkpoint)
        kind = type(error)
        self._failures = [*self._failures, kind] if self._failures[-1:] == [kind] else [kind]
        if len(self._failures) >= SAME_ERROR:
            if isinstance(error, TailfillError | NotFinite) or _is_out_of_memory(error):
                raise InputError(f"worker stops: {SAME_ERROR} trials in a row failed alike: {reason}") from error
            raise error

    def give_back(self, claim: Claim) -> None:
        """Queues the trial again, to continue from its last checkpoint."""
        if not claim.lost:
            self.database.call(
                "giving a trial back", lambda: self.leases.give_back(claim), patience=STOP_MARGIN_SECONDS
            )
            _log.info("trial given back", trial_id=claim.trial_id, epochs_done=claim.epochs)

    def leave(self, claim: Claim) -> None:
        """Ends the process if an objective does not return within the grace period; called from another thread."""
        try:
            self.give_back(claim)
        finally:
            _log.warning("objective did not stop in time; its last checkpoint stands", trial_id=claim.trial_id)
            os._exit(STOPPED)

    def _call(self, what: str, operation: Callable[[], Any], claim: Claim | None = None) -> Any:
        """Calls the database; while a trial is held, it retries for as long as the lease holds."""
        if claim is None:
            return self.database.call(what, operation, check=self.stop.raise_if_set)
        return self.database.call(what, operation, patience=float("inf"), check=claim.check)


class _Renewal:
    """Renews a lease from a thread beside the objective, and ends the process if a stopped objective does not return."""

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
        due = time.monotonic() + leases.seconds / RENEWALS_PER_LEASE
        while not self._over.wait(min(0.5, leases.seconds / RENEWALS_PER_LEASE / 2)):
            now = time.monotonic()
            if self._worker.stop.seconds_left() <= 0:
                self._worker.leave(claim)
            if now < due or claim.revoked:
                continue
            try:
                self._worker.database.call("renewing a lease", lambda: leases.renew(claim), patience=0)
                due = now + leases.seconds / RENEWALS_PER_LEASE
            except LeaseLost:
                return
            except TailfillError as error:
                due = now + 1.0
                _log.warning(
                    "lease not renewed", trial_id=claim.trial_id, reason=str(error), seconds_left=claim.deadline - now
                )


def _finite(value: float | Sequence[float], when: str = "") -> Values:
    values = as_values(value)
    if bad := [number for number in values if not math.isfinite(number)]:
        raise NotFinite(f"the objective is {bad[0]}{when}")
    return values


def describe(error: Exception) -> str:
    """Returns one line that says why a trial failed."""
    kind = type(error).__name__
    if _is_out_of_memory(error):
        kind = "out of memory"
    elif isinstance(error, NotFinite):
        kind = "diverged"
    return f"{kind}: {' '.join(str(error).split())}"[:500]


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Returns whether memory ran out, by the class of the error and of its causes. torch's classes are compared by name, as torch is not imported."""
    while error is not None:
        named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
        if named or isinstance(error, MemoryError) or getattr(error, "error_code", None) == CUDA_OUT_OF_MEMORY:
            return True
        error = error.__cause__
    return False


def _suggest(trial: Trial, path: str, distribution: optuna.distributions.BaseDistribution) -> Any:
    match distribution:
        case optuna.distributions.FloatDistribution():
            return trial.suggest_float(path, distribution.low, distribution.high, log=distribution.log)
        case optuna.distributions.IntDistribution():
            return trial.suggest_int(path, distribution.low, distribution.high, log=distribution.log)
        case optuna.distributions.CategoricalDistribution():
            return trial.suggest_categorical(path, distribution.choices)
    raise TypeError(f"no way to suggest from {distribution!r}")
