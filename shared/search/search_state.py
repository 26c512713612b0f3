"""Describes what workers and coordinators share about a search: its definition, its row in PostgreSQL, and the step that is searched now."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

import optuna
from optuna.study import Study
from pydantic import FiniteFloat, TypeAdapter, ValidationError
from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import insert

from shared.config.search import Search
from shared.config.stages import Repetitions
from shared.search.identity import settings_digest
from shared.search.monitor import ALIVE_SECONDS, damaged
from shared.search.storage import Database
from shared.search.tables import NOW, SECOND, leases, searches, workers

Direction: TypeAlias = Literal["minimize", "maximize"]

_QUEUED = select(1).where(leases.c.study_id == searches.c.study_id, leases.c.state == "queued").exists()
_WORKERS = (
    select(func.count())
    .where(workers.c.search == searches.c.name, workers.c.seen_at > NOW - ALIVE_SECONDS * SECOND)
    .scalar_subquery()
)
_READ = select(
    *searches.c["study_id", "step", "settings", "closed"], _QUEUED.label("queued"), _WORKERS.label("workers")
).where(searches.c.name == bindparam("search"))
_INSERT = insert(searches).values(
    {column.name: bindparam(column.name) for column in searches.c if column.name not in ("began_at", "ticked_at")}
    | {"ticked_at": NOW}
)
_WRITE = _INSERT.on_conflict_do_update(
    index_elements=[searches.c.name],
    set_={column.name: column for column in _INSERT.excluded if column.name not in ("name", "began_at")},
)


@dataclass(frozen=True)
class SearchSpec:
    """Defines a search; its coordinator and its workers have the same definition."""

    name: str
    """Names the search in PostgreSQL (`identity.search_name`)."""
    search: Search
    seed: int
    experiment: str | None = None
    """Names the experiment for the monitor."""
    repetitions: Repetitions | None = None
    """Describes the repetitions that have a search each; None if there is one search for all."""

    @property
    def budgets(self) -> list[int | None]:
        """Lists the repetitions that have a budget of trials of their own; `[None]` if the search is not repeated."""
        return [None] if self.repetitions is None else list(range(self.repetitions.count))


@dataclass(frozen=True)
class SearchStep:
    """Describes one Optuna study: the whole search, or one parameter's turn in a sequential one."""

    study: str
    """Names the study in Optuna."""
    label: str
    """Names it in checkpoints and tables; empty if the search has only one step."""
    parameters: tuple[str, ...]
    """Lists the paths that are searched."""
    fixed: dict[str, bool | int | FiniteFloat | str]
    """Holds the values with which earlier steps ended, by path."""

    def checkpoint_name(self, number: int) -> str:
        """Returns the prefix of the names of a trial's checkpoints in the store."""
        return f"trial-{self.label}-{number}" if self.label else f"trial-{number}"


_STEP = TypeAdapter(SearchStep)


@dataclass(frozen=True)
class SearchProgress:
    """Says where a search stands, for the monitor; its coordinator writes it."""

    experiment: str | None = None
    wanted: int = 0
    """Tells how many finished trials end the step."""
    position: int = 1
    """Gives the number of the step, from 1."""
    steps: int = 1


@dataclass(frozen=True)
class SearchRow:
    """Holds what a worker must know of a search before it claims a trial."""

    study_id: int
    step: SearchStep
    settings: str
    """Gives the digest of the settings with which it is searched, including its budget."""
    closed: str | None
    """Says why no trial is handed out any more under these settings; None while the search is open."""
    queued: bool
    """Says whether a trial waits for a worker."""
    workers: int
    """Counts the workers that had a heartbeat lately."""


def directions(search: Search) -> list[Direction]:
    """Returns the direction of each objective: `minimize` for the loss, `maximize` for the scores."""
    return ["minimize" if name == "val_loss" else "maximize" for name in search.objectives]


def make_study(database: Database, name: str, search: Search) -> Study:
    """Creates the Optuna study, or loads it if it exists; any number of processes may do it at once (its name is unique)."""
    return optuna.create_study(
        study_name=name, storage=database.storage, directions=directions(search), load_if_exists=True
    )


def read_search(database: Database, name: str) -> SearchRow | None:
    """Returns the row of a search, or None before a coordinator has begun it."""
    if not database.has_tables():
        return None
    with database.transaction() as connection:
        row = connection.execute(_READ, {"search": name}).one_or_none()
    if row is None:
        return None
    try:
        step = _STEP.validate_json(row.step)
    except ValidationError as error:
        raise damaged(name, f"its step: {error.errors()[0]['msg']}") from None
    return SearchRow(row.study_id, step, row.settings, row.closed, row.queued, row.workers)


def write_search(
    database: Database,
    name: str,
    study_id: int,
    step: SearchStep,
    search: Search,
    closed: str | None,
    progress: SearchProgress = SearchProgress(),
) -> None:
    """Records which step is searched now, under which settings, and why the search is closed if it is."""
    values = {
        "name": name,
        "study_id": study_id,
        "step": json.dumps(asdict(step)),
        "settings": settings_digest(search),
        "closed": closed,
        "lease_seconds": search.lease_seconds,
        **asdict(progress),
    }
    with database.transaction() as connection:
        connection.execute(_WRITE, values)
