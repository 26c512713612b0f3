"""Keeps leases, which say who works on which trial. Each trial has a lease row that is claimed, renewed, given back, finished, or
reaped when its worker is lost.

A claim's owner token is a fencing token. Every write of Optuna for a trial begins with `guard`, in the same transaction: it renews the
lease if the row still has the token, and otherwise forbids the write. Expiry only tells the reaper which leases it may take: an expired
lease that nobody took is renewed like any other. All times are the server's `clock_timestamp()`; a worker judges by its own monotonic
clock, counted from the last renewal that it *sent*.

A trial is finished exactly if its Optuna row has a final state, which Optuna never changes again; so every reap looks there first.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Update,
    and_,
    bindparam,
    case,
    extract,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from shared.log import Log
from shared.search import statements
from shared.search.storage import Database, Guard
from shared.search.tables import FINISHED, NOW, SECOND, leases, trials

_log = Log("search")

# -- statements, built once: building one anew for each report would cost 0.2 ms


def _seconds(interval: ColumnElement[Any]) -> ColumnElement[Any]:
    return extract("epoch", func.greatest(interval, 0 * SECOND))


def _released(end: ColumnElement[Any], lost: bool) -> dict[str, Any]:
    """Returns the new values of a lease row whose claim ends at the moment `end`, with its seconds added.

    `lost` says whether work since the last checkpoint is lost with it.
    """
    held = _seconds(end - leases.c.claimed_at)
    values = {
        "owner": None,
        "expires_at": None,
        "claimed_at": None,
        "used_seconds": leases.c.used_seconds + held,
        "gpu_seconds": leases.c.gpu_seconds + case((leases.c.device == "cpu", 0), else_=held),
    }
    if lost:
        since = func.greatest(leases.c.claimed_at, leases.c.checkpoint_at)
        values["lost_seconds"] = leases.c.lost_seconds + _seconds(end - since)
    return values


_TRIAL = leases.c.trial_id == bindparam("trial")
_HELD = and_(_TRIAL, leases.c.state == "held", leases.c.owner == bindparam("token"))
_EXPIRY = NOW + bindparam("seconds", type_=Double) * SECOND

# a worker's
_RENEW = update(leases).where(_HELD).values(expires_at=_EXPIRY)
_CHECKPOINTED = (
    update(leases)
    .where(_TRIAL)
    .values(
        retries=case((leases.c.epochs < bindparam("done"), 0), else_=leases.c.retries),
        epochs=bindparam("done"),
        checkpoint=bindparam("place"),
        checkpoint_at=NOW - bindparam("age", type_=Double) * SECOND,
    )
)
_GIVE_BACK = update(leases).where(_HELD).values(state="queued", **_released(NOW, lost=True))
_FINISH = update(leases).where(_HELD).values(state="done", **_released(NOW, lost=False))

# the coordinator's
_MISSING = select(
    trials.c.trial_id, trials.c.study_id, case((trials.c.state.in_(FINISHED), "done"), else_="queued")
).where(
    trials.c.study_id == bindparam("study"),
    ~select(leases.c.trial_id).where(leases.c.trial_id == trials.c.trial_id).exists(),
)
_ADOPT = insert(leases).from_select(["trial_id", "study_id", "state"], _MISSING).on_conflict_do_nothing()
_RECONCILE = (
    update(leases)
    .where(
        leases.c.study_id == bindparam("study"),
        leases.c.state.in_(("held", "queued")),
        trials.c.trial_id == leases.c.trial_id,
        trials.c.state.in_(FINISHED),
    )
    .values(state="done", **_released(NOW, lost=False))
)
_EXPIRED = (
    select(*leases.c["trial_id", "owner", "retries", "worker"])
    .where(
        leases.c.study_id == bindparam("study"),
        leases.c.state == "held",
        leases.c.expires_at < NOW,
        func.pg_postmaster_start_time() + bindparam("seconds", type_=Double) * SECOND < NOW,
    )
    .order_by(leases.c.trial_id)
)
_TAKE = (
    update(leases)
    .where(_HELD, leases.c.expires_at < NOW)  # unless its worker has renewed it meanwhile
    .values(losses=leases.c.losses + 1, **_released(func.least(leases.c.expires_at, NOW), lost=True))
)
_REQUEUE = _TAKE.values(state="queued", retries=leases.c.retries + 1)
_HOLD = (
    update(leases)
    .where(_TRIAL)
    .values(owner=bindparam("token"), worker="coordinator", device="cpu", claimed_at=NOW, expires_at=_EXPIRY)
)


class LeaseLost(Exception):
    """Says that another worker may have the trial now: stop working on it, and report nothing."""


class Raced(Exception):
    """Says that another process changed the row before our write, so that there is nothing to do."""


@dataclass
class Claim:
    """Describes one worker's hold on one trial."""

    trial_id: int
    owner: str
    number: int
    """Says which claim of this trial it is, from 1: no two have the same."""
    epochs: int
    """Counts the epochs that are done in its last checkpoint; 0 if it has none."""
    checkpoint: str | None
    """Names the place of that checkpoint: `<task key>/<name>`."""
    deadline: float
    """Gives the moment of time.monotonic() until which no other worker takes the trial."""
    revoked: bool = field(default=False)
    """Says whether the server told us that the trial is no longer ours."""

    @property
    def lost(self) -> bool:
        """Returns whether another worker may have the trial."""
        return self.revoked or time.monotonic() >= self.deadline

    def check(self) -> None:
        """Raises LeaseLost if another worker may have the trial."""
        if self.lost:
            raise LeaseLost(f"trial {self.trial_id}: its lease ran out while the database was unavailable")


class Leases:
    """Reads and writes the lease table, for workers and for the coordinator."""

    def __init__(self, database: Database, seconds: float, max_retries: int = 0) -> None:
        """Takes how many `seconds` a silent worker keeps its trial, and how often a trial may lose its worker without progress (`max_retries`)."""
        self._database = database
        self.seconds = seconds
        self._max_retries = max_retries

    # -- a worker's side

    def claim(self, search: str, study_id: int, worker: str, device: str) -> Claim | None:
        """Takes a queued trial, preferring one that was begun; returns None if there is none or the search is closed.

        It locks the search's row, so that whoever closes the search waits for running claims and then counts them. A claim whose answer was
        lost is reaped when it expires.
        """
        owner, sent = uuid.uuid4().hex, time.monotonic()
        values = {"owner": owner, "worker": worker, "device": device, "study": study_id, "search": search}
        with self._database.transaction() as connection:
            row = connection.execute(text(statements.CLAIM), {**values, "seconds": self.seconds}).one_or_none()
        if row is None:
            return None
        return Claim(row.trial_id, owner, row.claims, row.epochs, row.checkpoint, sent + self.seconds)

    def start(self, claim: Claim) -> bool:
        """Makes Optuna's row RUNNING; returns False if it is finished already. Raises LeaseLost."""
        with self._database.guarded(self.guard(claim)):
            try:
                self._database.storage.set_trial_state_values(claim.trial_id, TrialState.RUNNING)
            except UpdateFinishedTrialError:
                return False
        return True

    def renew(self, claim: Claim) -> None:
        """Extends the lease; raises LeaseLost if the trial was taken from us."""
        with self._database.transaction() as connection:
            self.guard(claim)(connection)

    def guard(self, claim: Claim) -> Guard:
        """Returns a guard that renews the lease and locks its row until the transaction ends, or raises LeaseLost if it is lost."""

        def check(connection: Connection) -> None:
            sent = time.monotonic()
            if connection.execute(_RENEW, {**_held(claim), "seconds": self.seconds}).rowcount == 0:
                claim.revoked = True
                raise LeaseLost(f"trial {claim.trial_id}: another worker has it now")
            claim.deadline = sent + self.seconds

        return check

    def checkpointed(self, claim: Claim, epochs: int, place: str, age: float = 0.0) -> None:
        """Records that the checkpoint at `place` holds the trial's state after this many epochs, `age` seconds ago; raises LeaseLost."""
        with self._database.transaction() as connection:
            self.guard(claim)(connection)
            values = {"trial": claim.trial_id, "done": epochs, "place": place, "age": age}
            connection.execute(_CHECKPOINTED, values)
        claim.epochs, claim.checkpoint = epochs, place

    def give_back(self, claim: Claim) -> None:
        """Queues the same trial again with its number, parameters and reported values; does nothing if it is no longer ours."""
        try:
            with self._database.guarded(only_if_changed(_GIVE_BACK, **_held(claim))):
                self._database.storage.set_trial_state_values(claim.trial_id, TrialState.WAITING)
        except Raced:
            _log.warning("trial was taken before it was given back", trial_id=claim.trial_id)
        claim.revoked = True

    def finish(self, claim: Claim) -> None:
        """Ends the lease of a trial that is finished in Optuna."""
        with self._database.transaction() as connection:
            connection.execute(_FINISH, _held(claim))
        claim.revoked = True

    # -- the coordinator's side

    def adopt(self, study_id: int) -> None:
        """Creates missing lease rows for Optuna's trials. A RUNNING trial without a lease has no known worker, so it is queued."""
        with self._database.transaction() as connection:
            connection.execute(_ADOPT, {"study": study_id})

    def reconcile(self, study_id: int) -> None:
        """Ends the leases of trials that are finished in Optuna: their worker was lost between the two writes."""
        with self._database.transaction() as connection:
            connection.execute(_RECONCILE, {"study": study_id})

    def reap(self, study_id: int) -> int:
        """Queues the trials of silent workers from their last checkpoint, or fails them after `max_retries`; returns how many.

        Nothing is taken until one lease has passed since the server restarted, as workers could not renew while it was down. The caller
        waits equally long after it lost its own connection.
        """
        with self._database.transaction() as connection:
            rows = connection.execute(_EXPIRED, {"study": study_id, "seconds": self.seconds}).all()
        taken = 0
        for row in rows:
            if self._database.storage.get_trial(row.trial_id).state.is_finished():
                continue  # reconcile ends it
            try:
                if row.retries < self._max_retries:
                    self._requeue(row.trial_id, row.owner)
                else:
                    self._give_up(row.trial_id, row.owner, row.retries)
            except Raced:
                continue  # renewed or finished in between
            taken += 1
            _log.warning("worker lost", worker=row.worker, trial_id=row.trial_id, retries=row.retries)
        return taken

    def _requeue(self, trial_id: int, owner: str) -> None:
        with self._database.guarded(only_if_changed(_REQUEUE, trial=trial_id, token=owner)):
            self._database.storage.set_trial_state_values(trial_id, TrialState.WAITING)

    def _give_up(self, trial_id: int, owner: str, retries: int) -> None:
        # ours from here on: the reason and the state are two transactions of Optuna
        claim = Claim(trial_id, uuid.uuid4().hex, 0, 0, None, float("inf"))
        with self._database.transaction() as connection:
            only_if_changed(_TAKE, trial=trial_id, token=owner)(connection)
            connection.execute(_HOLD, {**_held(claim), "seconds": self.seconds})
        fail(self._database, self.guard(claim), trial_id, f"lost with its worker {retries + 1} times without progress")
        self.finish(claim)


def fail(database: Database, guard: Guard, trial_id: int, reason: str) -> None:
    """Sets the trial's state to FAIL, and its user attribute `failure` to the reason."""
    with database.guarded(guard):
        database.storage.set_trial_user_attr(trial_id, "failure", reason)
        database.storage.set_trial_state_values(trial_id, TrialState.FAIL)


def only_if_changed(statement: Update, **values: object) -> Guard:
    """Returns a guard that runs a statement which must change a row; it raises Raced if none was changed."""

    def run(connection: Connection) -> None:
        if connection.execute(statement, values).rowcount == 0:
            raise Raced

    return run


def _held(claim: Claim) -> dict[str, object]:
    return {"trial": claim.trial_id, "token": claim.owner}
