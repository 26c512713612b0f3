"""Records every change of a trial by triggers on Optuna's tables and ours, so that a value that is written twice is found."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from shared.search.storage import Database
from tests.support.search.drill import BEGUN, Drill

TABLE = """
CREATE TABLE ledger (
  id bigserial PRIMARY KEY,
  at double precision NOT NULL DEFAULT extract(epoch FROM clock_timestamp()),
  source text NOT NULL,
  trial_id integer NOT NULL,
  was jsonb,
  now jsonb
);
CREATE FUNCTION ledger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO ledger (source, trial_id, was, now)
  VALUES (TG_TABLE_NAME, coalesce(NEW.trial_id, OLD.trial_id), to_jsonb(OLD), to_jsonb(NEW));
  RETURN NULL;
END $$;
CREATE TRIGGER claims AFTER UPDATE ON tailfill_leases FOR EACH ROW WHEN (NEW.claims > OLD.claims) EXECUTE FUNCTION ledger();
"""
WATCHED = ("trials", "trial_values", "trial_intermediate_values", "trial_user_attributes")
FINISHED = ("COMPLETE", "PRUNED", "FAIL")


@dataclass(frozen=True)
class Change:
    """Holds a row before and after it was written."""

    at: float
    trial_id: int
    was: dict[str, Any] | None
    now: dict[str, Any] | None


@dataclass(frozen=True)
class Attempt:
    """Describes one time that a worker began or resumed a trial."""

    claim: Change
    """The change of the lease by which the trial was claimed."""
    epochs: int
    """The number of epochs that were finished before, as the worker recorded it."""
    parameters: dict[str, Any]

    @property
    def trial_id(self) -> int:
        """Optuna's id of the trial."""
        return self.claim.trial_id

    @property
    def lease(self) -> dict[str, Any]:
        """The row of the lease after the claim."""
        assert self.claim.now is not None
        return self.claim.now


class Ledger:
    """Keeps all changes in a test's own database, from the creation of its tables. It is a context manager."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = Database(url)

    def __enter__(self) -> Ledger:
        """Creates the tables and triggers."""
        self.database.create_tables()
        with self.database.transaction() as connection:
            connection.execute(text(TABLE))
            for table in WATCHED:
                connection.execute(
                    text(
                        f"CREATE TRIGGER ledger AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION ledger()"
                    )
                )
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()

    def changes(self, table: str) -> list[Change]:
        """Returns the changes of one table, in order."""
        sql = text("SELECT at, trial_id, was, now FROM ledger WHERE source = :table ORDER BY id")
        with self.database.transaction() as connection:
            return [Change(**row._mapping) for row in connection.execute(sql, {"table": table})]

    def ends(self) -> list[Change]:
        """Returns each write of a trial's row that left it finished."""
        return [c for c in self.changes("trials") if c.now is not None and c.now["state"] in FINISHED]

    def claims(self) -> list[Change]:
        """Returns each change by which a lease was taken."""
        return self.changes("tailfill_leases")

    def attempts(self, drill: Drill) -> list[Attempt]:
        """Returns the attempts that the workers recorded, each with its claim: a worker has one trial at a time."""
        claims, attempts = self.claims(), []
        for line in (drill.folder / BEGUN).read_text().splitlines():
            said = json.loads(line)
            worker = f"{socket.gethostname()}/{said['worker']}"
            earlier = [c for c in claims if c.now and c.now["worker"] == worker and c.at <= said["at"]]
            attempts.append(Attempt(earlier[-1], said["epochs"], said["parameters"]))
        return attempts

    def check_told_once(self, objectives: int = 1) -> None:
        """Checks that one write ended each trial, with one value per objective, and that no value was replaced by another."""
        ends = [end.trial_id for end in self.ends()]
        assert len(ends) == len(set(ends)), ends
        open_ = {change.trial_id for change in self.changes("trials")}.difference(ends)
        assert not open_, open_
        told = self.changes("trial_values")
        again = [change for change in told if change.was is not None]
        assert not again, again
        assert sorted(change.trial_id for change in told) == sorted(ends * objectives), told
        for table, value in (
            ("trial_intermediate_values", "intermediate_value"),
            ("trial_user_attributes", "value_json"),
        ):
            for change in self.changes(table):
                assert change.now is not None
                assert change.was is None or change.was[value] == change.now[value], change

    def check_resumed(self, drill: Drill) -> list[Attempt]:
        """Checks that every attempt continued from the checkpoint that its claim named; returns those that continued from one."""
        attempts = self.attempts(drill)
        wrong = [a for a in attempts if a.epochs != a.lease["epochs"] or (a.epochs > 0) != bool(a.lease["checkpoint"])]
        assert not wrong, wrong
        for attempt in attempts:
            before = [a.epochs for a in attempts if a.trial_id == attempt.trial_id and a.claim.at < attempt.claim.at]
            assert attempt.epochs >= max(before, default=0), (attempt, before)
        return [attempt for attempt in attempts if attempt.epochs > 0]
