"""Tests the version of our tables: databases of earlier versions are migrated, and those of later ones are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy import inspect, text
from sqlalchemy.exc import DataError, ProgrammingError

from shared.errors import ConfigError
from shared.search import schema, tables
from shared.search.coordinator import Outcome
from shared.search.identity import settings_digest
from shared.search.intermediate_values import read_values
from shared.search.monitor import read_searches
from shared.search.search_state import SearchStep
from shared.search.storage import Database
from tests.support.search.drill import Drill, DrillObjective
from tests.support.search.in_threads import coordinated, new_worker

TABLES_OF_E21FC39 = """
CREATE TABLE IF NOT EXISTS tailfill_leases (
  trial_id integer PRIMARY KEY REFERENCES trials (trial_id) ON DELETE CASCADE,
  study_id integer NOT NULL,
  state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'held', 'done', 'withdrawn')),
  owner text,                                       -- token of the claim that holds it: the fence
  worker text,                                      -- host and process, for people
  device text,
  expires_at timestamptz,
  claimed_at timestamptz,
  claims integer NOT NULL DEFAULT 0,                -- times it was taken up
  epochs integer NOT NULL DEFAULT 0,                -- done in its last checkpoint
  checkpoint text,                                  -- where that checkpoint is: task key/name
  checkpoint_at timestamptz,
  retries integer NOT NULL DEFAULT 0,               -- workers lost since that checkpoint
  losses integer NOT NULL DEFAULT 0,                -- workers lost in all
  used_seconds double precision NOT NULL DEFAULT 0, -- held, in all
  lost_seconds double precision NOT NULL DEFAULT 0, -- of these, work that was lost with a worker
  gpu_seconds double precision NOT NULL DEFAULT 0   -- of the used ones, on a GPU
);
CREATE INDEX IF NOT EXISTS tailfill_leases_by_state ON tailfill_leases (study_id, state);
CREATE TABLE IF NOT EXISTS tailfill_searches (
  name text PRIMARY KEY,
  study_id integer NOT NULL,                        -- Optuna study of the step that is searched now
  step text NOT NULL,                               -- that step, as JSON
  settings text NOT NULL,                           -- digest of the search settings of the coordinator that wrote last
  began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  closed text,                                      -- why no trial is handed out any more; null while open
  ticked_at timestamptz                             -- last sign of a coordinator
);
-- for whoever looks on; columns of their own statement, as tables made before have none
ALTER TABLE tailfill_searches ADD COLUMN IF NOT EXISTS experiment text;
ALTER TABLE tailfill_searches ADD COLUMN IF NOT EXISTS wanted integer NOT NULL DEFAULT 0;       -- finished trials of the step
ALTER TABLE tailfill_searches ADD COLUMN IF NOT EXISTS position integer NOT NULL DEFAULT 1;     -- of the step, from 1
ALTER TABLE tailfill_searches ADD COLUMN IF NOT EXISTS steps integer NOT NULL DEFAULT 1;
ALTER TABLE tailfill_searches ADD COLUMN IF NOT EXISTS lease_seconds double precision NOT NULL DEFAULT 90;
CREATE TABLE IF NOT EXISTS tailfill_workers (
  worker text PRIMARY KEY,                          -- as in the leases
  search text NOT NULL,
  device text NOT NULL,
  seen_at timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS tailfill_idle (          -- made last: where it is, all tables are
  process uuid PRIMARY KEY,                         -- of a worker, alive or not; never removed
  search text NOT NULL,
  gpu_seconds double precision NOT NULL             -- for which it had a GPU and no trial
);
"""
"""The tables of commit e21fc39, the last before they had a version, as its `shared/search/tables.py` created them."""

ADDS_A_COLUMN = "ALTER TABLE tailfill_workers ADD COLUMN note text"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Yields an empty database for this test alone."""
    opened = Database(database_url, patience=30)
    yield opened
    opened.close()


@pytest.fixture
def old(database: Database, database_url: str) -> Database:
    """Returns the same database with the tables of e21fc39."""
    storage = optuna.storages.RDBStorage(database_url.replace("postgresql:", "postgresql+psycopg2:"))
    storage.remove_session()
    storage.engine.dispose()
    execute(database, TABLES_OF_E21FC39)
    return database


def execute(database: Database, sql: str, **values: Any) -> None:
    with database.transaction() as connection:
        connection.execute(text(sql), values)


def rows(database: Database, sql: str) -> list[Any]:
    with database.transaction() as connection:
        return [tuple(row) for row in connection.execute(text(sql))]


def half_finished(database: Database, drill: Drill) -> None:
    """Writes a search of eight trials as e21fc39 could have left it, with trials in every state.

    0 is complete. 1 is held by a worker that has died, and 2 was given back; both have a checkpoint of one epoch. 3 waits. 4 failed, and 5
    was withdrawn. The worker of 6 died between recording the result and ending the lease. 7 has no lease yet.
    """
    space = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)}
    study = optuna.create_study(study_name=drill.name, storage=database.storage, direction="minimize")

    def add(state: TrialState, number: int, epochs: int, **values: Any) -> None:
        parameters = {"x": number / 10, "y": 0.5}
        curve = [value for (value,) in drill.curve(parameters, epochs)]
        kept: dict[str, Any] = {
            "params": parameters,
            "distributions": space,
            "intermediate_values": dict(enumerate(curve)),
        }
        value = curve[-1] if state == TrialState.COMPLETE else None
        study.add_trial(create_trial(state=state, value=value, **(kept if epochs else {}), **values))
        if 0 < epochs < drill.search.epochs:
            (drill.folder / f"trial-{number}-1-1.json").write_text(json.dumps([[value] for value in curve]))

    add(TrialState.COMPLETE, 0, 3)
    add(TrialState.RUNNING, 1, 1)
    add(TrialState.WAITING, 2, 1)
    add(TrialState.WAITING, 3, 0)
    add(TrialState.FAIL, 4, 0, user_attrs={"failure": "diverged: the objective is nan"})
    add(TrialState.FAIL, 5, 0)
    add(TrialState.COMPLETE, 6, 3)
    add(TrialState.WAITING, 7, 0)
    first = study.trials[0]._trial_id
    gone = "'token', 'host/1', 'H100', clock_timestamp() - interval '2 m', clock_timestamp() - interval '10 m', 1"
    execute(
        database,
        f"""INSERT INTO tailfill_leases (trial_id, study_id, state, owner, worker, device, expires_at, claimed_at, claims, epochs,
              checkpoint, used_seconds, gpu_seconds) VALUES
            ({first}, :study, 'done', NULL, 'host/1', 'H100', NULL, NULL, 1, 0, NULL, 100, 100),
            ({first + 1}, :study, 'held', {gone}, 1, 'folder/trial-1-1-1', 0, 0),
            ({first + 2}, :study, 'queued', NULL, 'host/2', 'cpu', NULL, NULL, 1, 1, 'folder/trial-2-1-1', 7, 0),
            ({first + 3}, :study, 'queued', NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0),
            ({first + 4}, :study, 'done', NULL, 'host/2', 'cpu', NULL, NULL, 1, 0, NULL, 5, 0),
            ({first + 5}, :study, 'withdrawn', NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0),
            ({first + 6}, :study, 'held', {gone}, 0, NULL, 0, 0)""",
        study=study._study_id,
    )
    execute(
        database,
        """INSERT INTO tailfill_searches (name, study_id, step, settings, ticked_at, experiment, wanted, lease_seconds)
           VALUES (:name, :study, :step, :settings, clock_timestamp() - interval '5 m', 'real', 8, 4)""",
        name=drill.name,
        study=study._study_id,
        step=json.dumps(asdict(SearchStep(drill.name, "", ("x", "y"), {}))),
        settings=settings_digest(drill.search),
    )
    execute(
        database,
        "INSERT INTO tailfill_workers VALUES ('host/1', :name, 'H100', clock_timestamp() - interval '5 m')",
        name=drill.name,
    )
    execute(database, "INSERT INTO tailfill_idle VALUES (gen_random_uuid(), :name, 33)", name=drill.name)


def test_a_search_of_an_earlier_version_goes_on_to_its_exact_end(
    old: Database, database_url: str, make_drill: Callable[..., Drill]
) -> None:
    drill = replace(make_drill(trials=8, lease_seconds=1.0, max_retries=3, first_defaults=False), url=database_url)
    half_finished(old, drill)
    (before,) = read_searches(database_url, drill.name)  # as `tailfill status` does before the study is continued
    assert (before.complete, before.failed, before.queued, before.stale) == (2, 1, 2, 1)
    assert before.gpu_seconds == pytest.approx(100 + 480 + 480 + 33, abs=1)
    old.create_tables()
    assert rows(old, "SELECT version FROM tailfill_schema") == [(len(schema.MIGRATIONS),)]

    with coordinated(drill) as ended:
        new_worker(old, drill).run(DrillObjective(drill))
    (outcome,) = ended
    assert isinstance(outcome, Outcome), outcome
    assert outcome.ended == "complete"
    trials = optuna.load_study(study_name=drill.name, storage=old.storage).trials
    assert Counter(trial.state for trial in trials) == {TrialState.COMPLETE: 8, TrialState.FAIL: 2}
    assert [trial.number for trial in trials if trial.state == TrialState.FAIL] == [4, 5]
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            assert read_values(trial) == dict(enumerate(drill.curve(trial.params, 3)))
    assert [trial.params["x"] for trial in trials[:3]] == [0.0, 0.1, 0.2]
    begun = [json.loads(line) for line in (drill.folder / "begun.jsonl").read_text().splitlines()]
    assert {line["number"]: line["epochs"] for line in begun} == {1: 1, 2: 1, 3: 0, 7: 0, 8: 0, 9: 0}
    assert len(begun) == 6
    assert Counter(rows(old, "SELECT state FROM tailfill_leases")) == {("done",): 9, ("withdrawn",): 1}
    retaken = (
        "SELECT claims, losses, retries FROM tailfill_leases WHERE checkpoint IS NOT NULL ORDER BY trial_id LIMIT 2"
    )
    assert rows(old, retaken) == [(2, 1, 0), (2, 0, 0)]
    (after,) = read_searches(database_url, drill.name)
    assert (after.complete, after.failed, after.losses, after.closed) == (8, 1, 1, "complete")
    assert after.gpu_seconds == pytest.approx(100 + 480 + 600 + 33, abs=20)


VERSION_1 = f"{TABLES_OF_E21FC39}{schema.WRITE_DOWN}UPDATE tailfill_schema SET version = 1;"


@pytest.mark.parametrize("tables_before", [TABLES_OF_E21FC39, VERSION_1, None], ids=["e21fc39", "version 1", "none"])
def test_sixteen_racers_migrate_once(
    old: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, tables_before: str | None
) -> None:
    """The new version adds a column: adding it a second time would fail."""
    if tables_before is None:
        execute(old, "DROP TABLE tailfill_leases, tailfill_searches, tailfill_workers, tailfill_idle")
    else:
        execute(old, tables_before)
    newer = len(schema.MIGRATIONS) + 1
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ADDS_A_COLUMN))
    assert not old.has_tables()  # workers wait for a coordinator to migrate it
    assert read_searches(database_url, ".*") == []
    racers = [Database(database_url, patience=60) for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda racer: racer.create_tables(), racers))
    for racer in racers:
        assert racer.has_tables()
        racer.close()
    assert rows(old, "SELECT version FROM tailfill_schema") == [(newer,)]
    assert rows(old, "SELECT note FROM tailfill_workers") == []


def test_a_migration_that_fails_leaves_the_earlier_version_whole(
    old: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    old.create_tables()
    before = len(schema.MIGRATIONS)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ADDS_A_COLUMN, "SELECT 1 / 0"))
    with pytest.raises(DataError, match="division by zero"):
        old.create_tables()
    assert rows(old, "SELECT version FROM tailfill_schema") == [(before,)]
    monkeypatch.undo()
    assert old.has_tables()
    with pytest.raises(ProgrammingError, match="note"):
        rows(old, "SELECT note FROM tailfill_workers")


def test_tables_without_those_that_were_made_last_are_completed(old: Database) -> None:
    """Databases from before e21fc39 have such tables."""
    execute(
        old, "DROP TABLE tailfill_idle; ALTER TABLE tailfill_searches DROP COLUMN wanted, DROP COLUMN lease_seconds"
    )
    assert not old.has_tables()
    old.create_tables()
    assert old.has_tables()
    check_columns(old)


def test_tables_are_what_our_statements_take_them_for(database: Database) -> None:
    database.create_tables()
    check_columns(database)


def check_columns(database: Database) -> None:
    """Checks that the database has exactly the columns that `tables.py` declares, with their types."""
    with database.transaction() as connection:
        found = inspect(connection)
        assert {name for name in found.get_table_names() if name.startswith("tailfill_")} == set(tables.OURS.tables)
        for name, table in tables.OURS.tables.items():
            assert {c["name"]: (str(c["type"]), c["nullable"]) for c in found.get_columns(name)} == {
                c.name: (str(c.type.compile(connection.dialect)).partition(" WITH")[0], c.nullable) for c in table.c
            }
            assert found.get_pk_constraint(name)["constrained_columns"] == [c.name for c in table.primary_key]


def test_tables_whose_version_is_not_visible_yet_are_none(database: Database, database_url: str) -> None:
    """A reader's snapshot may be older than the tables whose names it already sees."""
    database.create_tables()
    execute(database, "DELETE FROM tailfill_schema")
    assert read_searches(database_url, ".*") == []


def test_a_newer_version_is_refused_by_everybody(database: Database, database_url: str) -> None:
    database.create_tables()
    execute(database, "UPDATE tailfill_schema SET version = 7")
    versions = f"its search tables have version 7, this tailfill knows version {len(schema.MIGRATIONS)}"
    message = (
        rf"PostgreSQL at 127\.0\.0\.1:\d+/test_\w+: {versions}; use the newer tailfill that made them, or name another"
    )
    fresh = Database(database_url)
    for refused in (database.create_tables, fresh.has_tables, lambda: read_searches(database_url, ".*")):
        with pytest.raises(ConfigError, match=message):
            refused()
    fresh.close()
    ended = subprocess.run(
        [sys.executable, "-m", "jobs", "tune", "simulate", "--workers", "1", "--trials", "1"],
        env={**os.environ, "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2
    assert f"{versions}; use the newer tailfill that made them" in ended.stderr
    assert rows(database, "SELECT version FROM tailfill_schema") == [(7,)]
