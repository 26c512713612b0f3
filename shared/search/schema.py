"""Holds the version of our tables, and the statements that migrate a database from each version to the next.

To change the tables, append a migration here and change `tables.py` alike. Databases are migrated by `Database.create_tables`. Workers and
the monitor never migrate: they wait until a coordinator migrates an older database. All refuse a newer one.

This module does not import SQLAlchemy, because the monitor does not.
"""

from __future__ import annotations

from shared.errors import ConfigError

UNVERSIONED = 1
"""Gives the version of tables that were created before versions were recorded."""

_VERSION_1 = """
CREATE TABLE IF NOT EXISTS tailfill_leases (
  trial_id integer PRIMARY KEY REFERENCES trials (trial_id) ON DELETE CASCADE,
  study_id integer NOT NULL,
  state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'held', 'done', 'withdrawn')),
  owner text,
  worker text,
  device text,
  expires_at timestamptz,
  claimed_at timestamptz,
  claims integer NOT NULL DEFAULT 0,
  epochs integer NOT NULL DEFAULT 0,
  checkpoint text,
  checkpoint_at timestamptz,
  retries integer NOT NULL DEFAULT 0,
  losses integer NOT NULL DEFAULT 0,
  used_seconds double precision NOT NULL DEFAULT 0,
  lost_seconds double precision NOT NULL DEFAULT 0,
  gpu_seconds double precision NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS tailfill_leases_by_state ON tailfill_leases (study_id, state);
CREATE TABLE IF NOT EXISTS tailfill_searches (
  name text PRIMARY KEY,
  study_id integer NOT NULL,
  step text NOT NULL,
  settings text NOT NULL,
  began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  closed text,
  ticked_at timestamptz
);
ALTER TABLE tailfill_searches ADD COLUMN IF NOT EXISTS experiment text;
ALTER TABLE tailfill_searches ADD COLUMN IF NOT EXISTS wanted integer NOT NULL DEFAULT 0;
ALTER TABLE tailfill_searches ADD COLUMN IF NOT EXISTS position integer NOT NULL DEFAULT 1;
ALTER TABLE tailfill_searches ADD COLUMN IF NOT EXISTS steps integer NOT NULL DEFAULT 1;
ALTER TABLE tailfill_searches ADD COLUMN IF NOT EXISTS lease_seconds double precision NOT NULL DEFAULT 90;
CREATE TABLE IF NOT EXISTS tailfill_workers (
  worker text PRIMARY KEY,
  search text NOT NULL,
  device text NOT NULL,
  seen_at timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS tailfill_idle (
  process uuid PRIMARY KEY,
  search text NOT NULL,
  gpu_seconds double precision NOT NULL
);
"""
# `IF NOT EXISTS` throughout: before versions were recorded, tables were created and completed by running this again

MIGRATIONS = (_VERSION_1,)
"""Lists the migrations: the first creates version 1 in an empty database, and each further one creates the version after."""

WRITE_DOWN = """
CREATE TABLE tailfill_schema (version integer NOT NULL);
CREATE UNIQUE INDEX tailfill_schema_one_row ON tailfill_schema ((true));
INSERT INTO tailfill_schema VALUES (0);
"""
"""Creates the table that records the version from then on."""


def version_of(made: bool, written: int | None) -> int:
    """Returns the version of a database's tables, 0 if it has none; `made` says whether they exist, and `written` is the version that is recorded."""
    return written if written is not None else UNVERSIONED if made else 0


def check_version(version: int, label: str) -> bool:
    """Returns whether our tables have the present version, False if they are older; raises ConfigError if they are newer.

    `label` names the server and database in the message.
    """
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"PostgreSQL at {label}: its search tables have version {version}, this tailfill knows version {len(MIGRATIONS)}; "
            "use the newer tailfill that made them, or name another database in DATABASE_URL"
        )
    return version == len(MIGRATIONS)
