"""Who works on which trial: one lease row a trial, taken, renewed, given back, finished, and reaped when its worker is gone.

A claim's owner token is the fence. Every write of Optuna on a trial's behalf begins with `guard`, in the same transaction: it renews the
lease where the token still stands, and forbids the write where it does not. Expiry only tells the reaper whom to take: an expired lease
that nobody took is renewed like any other. All times are the server's `clock_timestamp()`; a worker judges by its own monotonic clock,
counted from the last renewal that it *sent*.

A trial is finished exactly when Optuna's row is terminal, which Optuna makes absorbing; so every reap looks there first.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy import Connection, text

from shared.log import Log
from shared.search.storage import Database, Guard

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_FINISHED_SQL = "('COMPLETE', 'PRUNED', 'FAIL')"
_HELD = "extract(epoch FROM greatest({end} - claimed_at, interval '0'))"
_RELEASE = f"""
  owner = NULL, expires_at = NULL, claimed_at = NULL,
  used_seconds = used_seconds + {_HELD},
  gpu_seconds = gpu_seconds + CASE WHEN device = 'cpu' THEN 0 ELSE {_HELD} END,
  lost_seconds = lost_seconds + CASE WHEN {{lost}} THEN
    extract(epoch FROM greatest({{end}} - greatest(claimed_at, checkpoint_at), interval '0')) ELSE 0 END
"""
_NOW = "clock_timestamp()"

_log = Log("search")


class LeaseLost(Exception):
    """Another worker may have the trial now: stop working on it, and report nothing."""


class Raced(Exception):
    """The row changed before our write: someone else was faster, and there is nothing to do."""


@dataclass
class Claim:
    """One worker's hold on one trial."""

    trial_id: int
    owner: str
    number: int
    """Which claim of this trial it is, from 1: no two have the same."""
    epochs: int
    """Done in its last checkpoint; 0 without one."""
    checkpoint: str | None
    """Where that checkpoint is: `<task key>/<name>`."""
    deadline: float
    """time.monotonic() until which nobody else takes the trial."""
    revoked: bool = field(default=False)
    """The server said that the trial is no longer ours."""

    @property
    def lost(self) -> bool:
        """Whether someone else may have the trial."""
        return self.revoked or time.monotonic() >= self.deadline

    def check(self) -> None:
        """Raises LeaseLost where someone else may have the trial."""
        if self.lost:
            raise LeaseLost(f"trial {self.trial_id}: its lease ran out while the database was away")


class Leases:
    """The lease table."""

    def __init__(self, database: Database, seconds: float, max_retries: int = 0) -> None:
        """`seconds`: how long a worker that is not heard of keeps its trial."""
        self._database = database
        self.seconds = seconds
        self._max_retries = max_retries

    # -- a worker's side

    def claim(self, search: str, study_id: int, worker: str, device: str) -> Claim | None:
        """Takes a queued trial, one that has been begun before a new one; None where there is none or the search is closed.

        It locks the search's row, so that whoever closes the search waits for claims under way and then counts them. A claim whose answer
        was lost on the way is reaped when it expires.
        """
        owner, sent = uuid.uuid4().hex, time.monotonic()
        with self._database.transaction() as connection:
            row = connection.execute(
                text(
                    """UPDATE tailfill_leases SET state = 'held', owner = :owner, worker = :worker, device = :device, claims = claims + 1,
                         claimed_at = clock_timestamp(), expires_at = clock_timestamp() + :seconds * interval '1 second'
                       WHERE trial_id = (
                         SELECT trial_id FROM tailfill_leases WHERE study_id = :study AND state = 'queued'
                           AND EXISTS (SELECT 1 FROM tailfill_searches WHERE name = :search AND study_id = :study AND closed IS NULL
                             FOR SHARE)
                         ORDER BY epochs > 0 DESC, trial_id LIMIT 1 FOR UPDATE SKIP LOCKED)
                       RETURNING trial_id, claims, epochs, checkpoint"""
                ),
                {
                    "owner": owner,
                    "worker": worker,
                    "device": device,
                    "seconds": self.seconds,
                    "study": study_id,
                    "search": search,
                },
            ).one_or_none()
        if row is None:
            return None
        return Claim(row.trial_id, owner, row.claims, row.epochs, row.checkpoint, sent + self.seconds)

    def start(self, claim: Claim) -> bool:
        """Makes Optuna's row RUNNING; False where it is finished already. Raises LeaseLost."""
        with self._database.guarded(self.guard(claim)):
            try:
                self._database.storage.set_trial_state_values(claim.trial_id, TrialState.RUNNING)
            except UpdateFinishedTrialError:
                return False
        return True

    def renew(self, claim: Claim) -> None:
        """Moves the expiry on; raises LeaseLost where the trial was taken from us."""
        with self._database.transaction() as connection:
            self.guard(claim)(connection)

    def guard(self, claim: Claim) -> Guard:
        """For `Database.guarded`: renews the lease and locks its row until the transaction ends, or raises LeaseLost."""

        def check(connection: Connection) -> None:
            sent = time.monotonic()
            renewed = connection.execute(
                text(
                    """UPDATE tailfill_leases SET expires_at = clock_timestamp() + :seconds * interval '1 second'
                       WHERE trial_id = :trial AND state = 'held' AND owner = :owner"""
                ),
                {"seconds": self.seconds, "trial": claim.trial_id, "owner": claim.owner},
            )
            if renewed.rowcount == 0:
                claim.revoked = True
                raise LeaseLost(f"trial {claim.trial_id}: another worker has it now")
            claim.deadline = sent + self.seconds

        return check

    def checkpointed(self, claim: Claim, epochs: int, place: str, age: float = 0.0) -> None:
        """Records that the store holds the trial's state of `age` seconds ago, after so many epochs, at `place`; raises LeaseLost."""
        with self._database.transaction() as connection:
            self.guard(claim)(connection)
            connection.execute(
                text(
                    """UPDATE tailfill_leases SET retries = CASE WHEN :epochs > epochs THEN 0 ELSE retries END,
                         epochs = :epochs, checkpoint = :place, checkpoint_at = clock_timestamp() - make_interval(secs => :age)
                       WHERE trial_id = :trial"""
                ),
                {"epochs": epochs, "place": place, "age": age, "trial": claim.trial_id},
            )
        claim.epochs, claim.checkpoint = epochs, place

    def give_back(self, claim: Claim) -> None:
        """Queues the same trial again, its number, parameters and reported values kept; nothing where it is no longer ours."""
        statement = (
            f"UPDATE tailfill_leases SET state = 'queued', {_RELEASE.format(end=_NOW, lost='true')} "
            "WHERE trial_id = :trial AND state = 'held' AND owner = :owner"
        )
        try:
            with self._database.guarded(only_if_changed(statement, trial=claim.trial_id, owner=claim.owner)):
                self._database.storage.set_trial_state_values(claim.trial_id, TrialState.WAITING)
        except Raced:
            _log.warning("trial was taken before it was given back", trial_id=claim.trial_id)
        claim.revoked = True

    def finish(self, claim: Claim) -> None:
        """Ends the lease of a trial that Optuna holds as finished."""
        statement = (
            f"UPDATE tailfill_leases SET state = 'done', {_RELEASE.format(end=_NOW, lost='false')} "
            "WHERE trial_id = :trial AND state = 'held' AND owner = :owner"
        )
        with self._database.transaction() as connection:
            connection.execute(text(statement), {"trial": claim.trial_id, "owner": claim.owner})
        claim.revoked = True

    # -- the coordinator's side

    def adopt(self, study_id: int) -> None:
        """Makes the missing lease rows of Optuna's trials. One found RUNNING has no worker that we know: it is queued."""
        with self._database.transaction() as connection:
            connection.execute(
                text(
                    f"""INSERT INTO tailfill_leases (trial_id, study_id, state)
                        SELECT trial_id, study_id, CASE WHEN t.state IN {_FINISHED_SQL} THEN 'done' ELSE 'queued' END FROM trials t
                        WHERE study_id = :study AND NOT EXISTS (SELECT 1 FROM tailfill_leases l WHERE l.trial_id = t.trial_id)
                        ON CONFLICT DO NOTHING"""
                ),
                {"study": study_id},
            )

    def reconcile(self, study_id: int) -> None:
        """Ends the leases of trials that Optuna holds as finished: their worker went between the two writes."""
        with self._database.transaction() as connection:
            connection.execute(
                text(
                    f"""UPDATE tailfill_leases l SET state = 'done', {_RELEASE.format(end=_NOW, lost="false")} FROM trials t
                        WHERE l.study_id = :study AND l.state IN ('held', 'queued') AND t.trial_id = l.trial_id
                          AND t.state IN {_FINISHED_SQL}"""
                ),
                {"study": study_id},
            )

    def reap(self, study_id: int) -> int:
        """Queues the trials whose worker is not heard of, from their last checkpoint, or fails them after `max_retries`; how many.

        Nothing is taken within one lease of a restart of the server, as workers could not renew while it was away; the caller says the
        same of its own reconnects.
        """
        with self._database.transaction() as connection:
            rows = connection.execute(
                text(
                    """SELECT trial_id, owner, retries, worker FROM tailfill_leases
                       WHERE study_id = :study AND state = 'held' AND expires_at < clock_timestamp()
                         AND clock_timestamp() > pg_postmaster_start_time() + :seconds * interval '1 second'
                       ORDER BY trial_id"""
                ),
                {"study": study_id, "seconds": self.seconds},
            ).all()
        taken = 0
        for row in rows:
            if self._database.storage.get_trial(row.trial_id).state in FINISHED:
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
        end = "least(expires_at, clock_timestamp())"
        statement = (
            f"UPDATE tailfill_leases SET state = 'queued', retries = retries + 1, losses = losses + 1, {_RELEASE.format(end=end, lost='true')} "
            "WHERE trial_id = :trial AND state = 'held' AND owner = :owner AND expires_at < clock_timestamp()"
        )
        with self._database.guarded(only_if_changed(statement, trial=trial_id, owner=owner)):
            self._database.storage.set_trial_state_values(trial_id, TrialState.WAITING)

    def _give_up(self, trial_id: int, owner: str, retries: int) -> None:
        token = uuid.uuid4().hex  # ours from here on: the reason and the state are two transactions of Optuna
        end = "least(expires_at, clock_timestamp())"
        take = (
            f"UPDATE tailfill_leases SET losses = losses + 1, {_RELEASE.format(end=end, lost='true')} "
            "WHERE trial_id = :trial AND state = 'held' AND owner = :owner AND expires_at < clock_timestamp()"
        )
        with self._database.transaction() as connection:
            only_if_changed(take, trial=trial_id, owner=owner)(connection)
            connection.execute(
                text(
                    """UPDATE tailfill_leases SET owner = :token, worker = 'coordinator', device = 'cpu', claimed_at = clock_timestamp(),
                         expires_at = clock_timestamp() + :seconds * interval '1 second' WHERE trial_id = :trial"""
                ),
                {"token": token, "trial": trial_id, "seconds": self.seconds},
            )
        claim = Claim(trial_id, token, 0, 0, None, float("inf"))
        fail(self._database, self.guard(claim), trial_id, f"lost with its worker {retries + 1} times without progress")
        self.finish(claim)


def fail(database: Database, guard: Guard, trial_id: int, reason: str) -> None:
    """Makes the trial FAIL, with the reason where people look (user attribute `failure`)."""
    with database.guarded(guard):
        database.storage.set_trial_user_attr(trial_id, "failure", reason)
        database.storage.set_trial_state_values(trial_id, TrialState.FAIL)


def only_if_changed(statement: str, **values: object) -> Guard:
    """Runs a statement that must change a row; raises Raced where it changed none."""

    def run(connection: Connection) -> None:
        if connection.execute(text(statement), values).rowcount == 0:
            raise Raced

    return run
