"""Reads the state of a study's searches from outside: by plain SQL that writes nothing, on a connection of its own, without Optuna.

All numbers of a snapshot are of one moment (a repeatable read), and all ages are by the server's clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from shared.errors import ConfigError, InputError, UnavailableError
from shared.names import shown
from shared.search import statements
from shared.search.connect import CONNECT, LONGEST, is_refusal, refusal
from shared.search.database_url import connection_arguments
from shared.search.schema import check_version, version_of
from shared.terminal import shortened

ALIVE_SECONDS = 40.0  # since a worker's last heartbeat, which comes every 15
STALE_SHARE = 0.5  # a lease is stale with less than this share left: a live worker renews it six times while it runs


@dataclass(frozen=True)
class SearchSnapshot:
    """Holds the state of a search at one moment: of its current step, but seconds and losses are summed over all steps."""

    name: str
    experiment: str | None
    settings: str
    """Gives the digest of its coordinator's settings."""
    closed: str | None
    """Says why no trial is handed out any more; None while the search is open."""
    label: str
    """Names the step; empty if the search has only one."""
    position: int
    """Gives the number of the step, from 1."""
    steps: int
    wanted: int
    """Tells how many finished trials end the step."""
    complete: int
    pruned: int
    failed: int
    running: int
    """Counts the trials whose worker renews its lease."""
    stale: int
    """Counts the trials whose worker does not."""
    queued: int
    holders: list[str]
    """Names the workers (`host/process`) that hold a trial."""
    lost_worker: str | None
    """Names the worker whose stale lease ends last."""
    reaped_in: float | None
    """Tells in how many seconds the last stale lease runs out and its trial is queued again."""
    bests: tuple[float, ...]
    """Holds the best value of each objective, whichever trial reached it; empty if no trial is complete."""
    front: int | None
    """Counts the trials on the Pareto front of several objectives; None if there is one objective."""
    last_failure: str | None
    workers: int
    """Counts the workers that had a heartbeat or renewed a lease lately."""
    resumes: int
    """Counts the claims of trials that had been begun before."""
    losses: int
    """Counts how often a worker was lost with a trial."""
    trial_seconds: float | None
    """Gives the mean number of seconds of the step's finished trials, including what was lost."""
    running_seconds: float
    """Counts the seconds for which the trials that are held now have been held."""
    used_seconds: float
    """Counts the seconds for which workers held trials on any device, or a GPU without a trial."""
    lost_seconds: float
    gpu_seconds: float
    """Counts those of `used_seconds` that were on a GPU."""
    gpu_lost_seconds: float
    wall_seconds: float
    """Counts the seconds since the search began."""
    ticked_seconds: float
    """Counts the seconds since a coordinator last wrote to the search."""

    @property
    def best(self) -> float | None:
        """Returns the best value of the first objective."""
        return self.bests[0] if self.bests else None

    @property
    def finished(self) -> int:
        """Returns how many trials count for the budget: complete and pruned ones."""
        return self.complete + self.pruned

    @property
    def left(self) -> int:
        """Returns how many trials of the step are still to be finished."""
        return max(self.wanted - self.finished, 0)

    @property
    def seconds_left(self) -> float | None:
        """Returns the seconds until the search ends, by the pace of the finished trials and the workers that are alive; None if
        there is no pace yet.
        """
        if self.closed is not None or self.trial_seconds is None or not self.workers:
            return None
        later = (self.steps - self.position) * self.wanted
        work = (self.left + later) * self.trial_seconds
        begun = min(self.running_seconds, (self.running + self.stale) * self.trial_seconds)
        return max(work - begun, 0.0) / max(min(self.workers, self.left), 1)


def read_searches(url: str, names: str) -> list[SearchSnapshot]:
    """Returns the searches whose name matches the regular expression `names`, in the order in which they began.

    Raises UnavailableError if the server is unavailable, ConfigError if it refuses us or a newer tailfill made the tables.
    """
    with _reading(url) as ask:
        tables = ask(statements.TABLES, {})[0]
        # the tables may be committed after this transaction's snapshot was taken: then they exist, and their rows do not
        rows = ask(statements.MONITOR_VERSION, {}) if tables["versioned"] else []
        written = rows[0]["version"] if rows else None
        if not check_version(version_of(tables["made"], written), connection_arguments(url)[1]):
            return []
        return [_snapshot(row, ask) for row in ask(statements.MONITOR_SEARCHES, {"names": names})]


def _snapshot(search: Mapping[str, Any], ask: Any) -> SearchSnapshot:
    values = {
        "study": search["study_id"], "name": search["name"], "lease": search["lease_seconds"], "stale": STALE_SHARE, "alive": ALIVE_SECONDS,
    }  # fmt: skip
    trials, workers, costs = (
        ask(statement, values)[0]
        for statement in (statements.MONITOR_TRIALS, statements.MONITOR_WORKERS, statements.MONITOR_COSTS)
    )
    bests, failure = ask(statements.MONITOR_BESTS, values), ask(statements.MONITOR_FAILURE, values)
    plain = ("name", "experiment", "settings", "closed", "position", "steps", "wanted")
    fields: dict[str, Any] = {name: search[name] for name in plain}
    fields |= {name: int(trials[name]) for name in ("complete", "pruned", "failed", "running", "stale", "queued")}
    fields |= {name: int(costs[name]) for name in ("resumes", "losses")}
    fields |= {name: float(costs[name]) for name in ("used_seconds", "lost_seconds", "gpu_seconds", "gpu_lost_seconds")}
    return SearchSnapshot(
        **fields,
        label=_label_of(search),
        holders=list(trials["holders"]),
        lost_worker=trials["lost_worker"],
        reaped_in=_number(trials["reaped_in"]) if fields["stale"] else None,
        bests=tuple(float(row["best"]) for row in bests),
        front=int(ask(statements.MONITOR_FRONT, values)[0]["front"]) if len(bests) > 1 else None,
        last_failure=_text(failure[0]["last_failure"]) if failure else None,
        workers=int(workers["workers"]),
        trial_seconds=_number(trials["trial_seconds"]),
        running_seconds=float(trials["running_seconds"]),
        wall_seconds=float(search["wall_seconds"]),
        ticked_seconds=float(search["ticked_seconds"]),
    )


def _label_of(search: Mapping[str, Any]) -> str:
    """Returns the name of the step of a search; raises InputError if its row holds no step, as everybody who may write to the database can do."""
    try:
        return str(json.loads(search["step"])["label"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise damaged(search["name"], f"its step is {search['step']}") from None


def damaged(name: str, reason: str) -> InputError:
    """Returns the error of a search whose rows say what we cannot have written."""
    return InputError(
        f"PostgreSQL: the search {shown(name)} is damaged ({shortened(reason, 200)}); restore the database, or begin the search anew: "
        "`--rerun tune`"
    )


def _text(value: str) -> str:
    """Returns a text that Optuna wrote as JSON, or the JSON itself if it is something else."""
    try:
        text = json.loads(value)
    except (ValueError, RecursionError):
        text = None
    return text if isinstance(text, str) else value


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


@contextmanager
def _reading(url: str) -> Iterator[Any]:
    """Yields a function that queries in one read-only transaction and returns rows as mappings."""
    from psycopg2.extras import RealDictCursor

    with connected(url) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor(cursor_factory=RealDictCursor) as cursor:

            def ask(sql: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
                cursor.execute(sql, values)
                rows: list[dict[str, Any]] = cursor.fetchall()
                return rows

            yield ask


@contextmanager
def connected(url: str) -> Iterator[Any]:
    """Yields a connection of psycopg2; raises the errors of `read_searches`."""
    import psycopg2

    arguments, label = connection_arguments(url)
    settings: dict[str, Any] = {**CONNECT, **arguments}
    try:
        with closing(psycopg2.connect(**settings)) as connection:
            yield connection
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        reason = " ".join(str(error).split())[:LONGEST]
        if is_refusal(error):
            raise ConfigError(refusal(label, reason, getattr(error, "pgcode", None))) from None
        raise UnavailableError(f"PostgreSQL at {label} is unavailable ({reason}); see that it runs") from error
