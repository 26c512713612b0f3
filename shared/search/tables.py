"""Declares the tables of a search for SQLAlchemy: ours in their present version (`schema.py` has the migrations), and the columns of Optuna's
tables that our statements read.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    DateTime,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    literal_column,
)

OURS, OPTUNAS = MetaData(), MetaData()

# -- Optuna's

studies = Table("studies", OPTUNAS, Column("study_id", Integer, primary_key=True), Column("study_name", Text))
trials = Table(
    "trials",
    OPTUNAS,
    Column("trial_id", Integer, primary_key=True),
    Column("study_id", Integer),
    Column("state", Text),  # an enum on the server
)
trial_system_attributes = Table(
    "trial_system_attributes",
    OPTUNAS,
    Column("trial_id", Integer),
    Column("key", Text),
    Column("value_json", Text),
)
trial_user_attributes = Table(
    "trial_user_attributes",
    OPTUNAS,
    Column("trial_id", Integer),
    Column("key", Text),
    Column("value_json", Text),
)
FINISHED = ("COMPLETE", "PRUNED", "FAIL")
"""Lists the states of a trial that Optuna never changes again."""

# -- ours

leases = Table(
    "tailfill_leases",
    OURS,
    Column("trial_id", Integer, ForeignKey(trials.c.trial_id), primary_key=True, autoincrement=False),
    Column("study_id", Integer, nullable=False),
    Column("state", Text, nullable=False),  # queued, held, done or withdrawn
    Column("owner", Text),  # token of the claim that holds it: the fence
    Column("worker", Text),  # host and process, for people
    Column("device", Text),
    Column("expires_at", DateTime(timezone=True)),
    Column("claimed_at", DateTime(timezone=True)),
    Column("claims", Integer, nullable=False),  # how often a worker took it up
    Column("epochs", Integer, nullable=False),  # done in its last checkpoint
    Column("checkpoint", Text),  # where that checkpoint is: task key/name
    Column("checkpoint_at", DateTime(timezone=True)),
    Column("retries", Integer, nullable=False),  # workers lost since that checkpoint
    Column("losses", Integer, nullable=False),  # workers lost in all
    Column("used_seconds", Double, nullable=False),  # held, in all
    Column("lost_seconds", Double, nullable=False),  # of these, work that was lost with a worker
    Column("gpu_seconds", Double, nullable=False),  # of the used seconds, those on a GPU
)
searches = Table(
    "tailfill_searches",
    OURS,
    Column("name", Text, primary_key=True),
    Column("study_id", Integer, nullable=False),  # Optuna study of the step that is searched now
    Column("step", Text, nullable=False),  # that step, as JSON
    Column("settings", Text, nullable=False),  # digest of the search settings of the coordinator that wrote last
    Column("began_at", DateTime(timezone=True), nullable=False),
    Column("closed", Text),  # why no trial is handed out any more; null while the search is open
    Column("ticked_at", DateTime(timezone=True)),  # last heartbeat of a coordinator
    Column("experiment", Text),  # this and what follows is for the monitor
    Column("wanted", Integer, nullable=False),  # finished trials with which the step ends
    Column("position", Integer, nullable=False),  # of the step, from 1
    Column("steps", Integer, nullable=False),
    Column("lease_seconds", Double, nullable=False),
)
workers = Table(
    "tailfill_workers",
    OURS,
    Column("worker", Text, primary_key=True),  # as in the leases
    Column("search", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("seen_at", DateTime(timezone=True), nullable=False),
)
idle = Table(
    "tailfill_idle",
    OURS,
    Column("process", Uuid, primary_key=True),  # of a worker, alive or not; never removed
    Column("search", Text, nullable=False),
    Column("gpu_seconds", Double, nullable=False),  # while it had a GPU and no trial
)
schema_version = Table("tailfill_schema", OURS, Column("version", Integer, nullable=False))  # one row

# -- time, by the server's clock alone

NOW = func.clock_timestamp(type_=DateTime(timezone=True))
"""Gives the server's time, which advances within a transaction, unlike that of `now()`."""
SECOND: ColumnElement[Any] = literal_column("interval '1 second'")
"""Stands for an interval of a second, for multiplication. It has no type, since SQLAlchemy does not multiply intervals."""
