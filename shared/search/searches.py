"""What workers and coordinators share of a search: its row, and the step that is searched now."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import optuna
from optuna.study import Study
from sqlalchemy import text

from shared.config.search import Search
from shared.search.identity import settings_digest
from shared.search.storage import Database

Direction: TypeAlias = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Step:
    """One Optuna study: the whole search, or one parameter's turn in a sequential one."""

    study: str
    """Its name in Optuna."""
    label: str
    """For checkpoints and tables: empty for the one step of a whole search."""
    parameters: tuple[str, ...]
    """Paths that are searched."""
    fixed: dict[str, Any]
    """Values that earlier steps ended with, by path."""

    def checkpoint_name(self, number: int) -> str:
        """Beginning of the names of a trial's checkpoints in the store."""
        return f"trial-{self.label}-{number}" if self.label else f"trial-{number}"


@dataclass(frozen=True)
class SearchRow:
    """What a worker must know before it claims."""

    study_id: int
    step: Step
    settings: str
    """Digest of the settings that it is searched with, budget and all."""
    closed: str | None
    """Why no trial is handed out any more under these settings."""
    queued: bool
    """Whether a trial waits for a worker."""


def directions(search: Search) -> list[Direction]:
    """Of each objective: `minimize` for the loss, `maximize` for the scores."""
    return ["minimize" if name == "val_loss" else "maximize" for name in search.objectives]


def read_search(database: Database, name: str) -> SearchRow | None:
    """The row of a search; None before a coordinator has begun it."""
    if not database.has_tables():
        return None
    with database.transaction() as connection:
        row = connection.execute(
            text(
                """SELECT study_id, step, settings, closed,
                     EXISTS (SELECT 1 FROM tailfill_leases l WHERE l.study_id = s.study_id AND l.state = 'queued') AS queued
                   FROM tailfill_searches s WHERE name = :name"""
            ),
            {"name": name},
        ).one_or_none()
    if row is None:
        return None
    step = json.loads(row.step)
    step["parameters"] = tuple(step["parameters"])
    return SearchRow(row.study_id, Step(**step), row.settings, row.closed, row.queued)


def make_study(database: Database, name: str, search: Search) -> Study:
    """Creates the Optuna study, or loads it where it is there; any number of processes may do it at once (its name is unique)."""
    return optuna.create_study(
        study_name=name, storage=database.storage, directions=directions(search), load_if_exists=True
    )


@dataclass(frozen=True)
class Shown:
    """What a coordinator tells whoever looks on."""

    experiment: str | None = None
    wanted: int = 0
    """Finished trials that the step ends with."""
    position: int = 1
    """Of the step, from 1."""
    steps: int = 1


def write_search(
    database: Database,
    name: str,
    study_id: int,
    step: Step,
    search: Search,
    closed: str | None,
    shown: Shown = Shown(),
) -> None:
    """Says which step is searched now, under which settings, and whether it is closed."""
    with database.transaction() as connection:
        connection.execute(
            text(
                """INSERT INTO tailfill_searches
                     (name, study_id, step, settings, closed, ticked_at, experiment, wanted, position, steps, lease_seconds)
                   VALUES (:name, :study, :step, :settings, :closed, clock_timestamp(), :experiment, :wanted, :position, :steps, :lease)
                   ON CONFLICT (name) DO UPDATE SET study_id = :study, step = :step, settings = :settings, closed = :closed,
                     ticked_at = clock_timestamp(), experiment = :experiment, wanted = :wanted, position = :position, steps = :steps,
                     lease_seconds = :lease"""
            ),
            {
                "name": name,
                "study": study_id,
                "step": json.dumps(asdict(step)),
                "settings": settings_digest(search),
                "closed": closed,
                "lease": search.lease_seconds,
                **asdict(shown),
            },
        )
