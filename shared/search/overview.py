"""A look at searches from outside: plain SQL that writes nothing, on a connection of its own, without Optuna.

Every number of one look is of one moment (a repeatable read), every age by the server's clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from shared.errors import ConfigError, UnavailableError
from shared.search.connect import CONNECT, refusal, refused
from shared.search.tables import GPU_SECONDS, HELD_SECONDS, idle_gpu_seconds

ALIVE_SECONDS = 40.0  # since a worker's last sign of life, which comes every 15
STALE_SHARE = 0.5  # of a lease left, where a worker that lives renews it six times as it runs


@dataclass(frozen=True)
class SearchOverview:
    """One search, at the step that is searched now; seconds and losses are of all its steps."""

    name: str
    experiment: str | None
    settings: str
    """Digest of the settings that its coordinator has."""
    closed: str | None
    """Why no trial is handed out any more."""
    label: str
    """Of the step; empty for the one step of a whole search."""
    position: int
    """Of the step, from 1."""
    steps: int
    wanted: int
    """Finished trials that the step ends with."""
    complete: int
    pruned: int
    failed: int
    running: int
    """With a worker that renews its lease."""
    stale: int
    """With a worker that does not."""
    queued: int
    holders: list[str]
    """Workers (`host/process`) that hold a trial."""
    lost_worker: str | None
    """Of the stale lease that ends last."""
    reaped_in: float | None
    """Seconds until the last stale lease has run out and its trial is queued again."""
    bests: tuple[float, ...]
    """The best value of each objective, whichever trial has it; empty where no trial is complete."""
    front: int | None
    """Trials on the Pareto front of several objectives; None of one."""
    last_failure: str | None
    workers: int
    """That gave a sign of life or renewed a lease lately."""
    resumes: int
    """Claims of trials that had been begun before."""
    losses: int
    """Workers lost with a trial."""
    trial_seconds: float | None
    """Mean over the finished trials of the step, what was lost of them included."""
    running_seconds: float
    """Of the trials that are held now, since they were taken up."""
    used_seconds: float
    """For which workers held trials, on whatever device, or a GPU without one."""
    lost_seconds: float
    gpu_seconds: float
    """Of the used ones, those on a GPU."""
    gpu_lost_seconds: float
    wall_seconds: float
    """Since the search began."""
    ticked_seconds: float
    """Since a coordinator gave a sign of life."""

    @property
    def best(self) -> float | None:
        """Of the first objective."""
        return self.bests[0] if self.bests else None

    @property
    def finished(self) -> int:
        """What counts: complete and pruned."""
        return self.complete + self.pruned

    @property
    def left(self) -> int:
        """Trials of the step that are still to be finished."""
        return max(self.wanted - self.finished, 0)

    @property
    def seconds_left(self) -> float | None:
        """Until the search ends, from the finished trials' pace and the workers alive; None while there is no such pace."""
        if self.closed is not None or self.trial_seconds is None or not self.workers:
            return None
        later = (self.steps - self.position) * self.wanted
        work = (self.left + later) * self.trial_seconds
        begun = min(self.running_seconds, (self.running + self.stale) * self.trial_seconds)
        return max(work - begun, 0.0) / max(min(self.workers, self.left), 1)


def read_searches(url: str, names: str) -> list[SearchOverview]:
    """The searches whose name matches the regular expression `names`, in the order in which they began.

    Raises UnavailableError where the server is away, ConfigError where it refuses us.
    """
    with _reading(url) as ask:
        if ask("SELECT to_regclass('tailfill_idle') IS NULL AS missing", {})[0]["missing"]:
            return []
        return [_overview(row, ask) for row in ask(_SEARCHES, {"names": names})]


_SEARCHES = """
SELECT s.*, extract(epoch FROM clock_timestamp() - began_at) AS wall_seconds,
  extract(epoch FROM clock_timestamp() - ticked_at) AS ticked_seconds
FROM tailfill_searches s WHERE name ~ %(names)s ORDER BY began_at
"""
_FRESH = "l.expires_at > clock_timestamp() + %(lease)s * %(stale)s * interval '1 second'"
_OPEN = "t.state IN ('WAITING', 'RUNNING')"
_TRIALS = f"""
SELECT count(*) FILTER (WHERE t.state = 'COMPLETE') AS complete,
  count(*) FILTER (WHERE t.state = 'PRUNED') AS pruned,
  count(*) FILTER (WHERE t.state = 'FAIL' AND l.state <> 'withdrawn') AS failed,
  count(*) FILTER (WHERE {_OPEN} AND l.state = 'held' AND {_FRESH}) AS running,
  count(*) FILTER (WHERE {_OPEN} AND l.state = 'held' AND NOT {_FRESH}) AS stale,
  count(*) FILTER (WHERE {_OPEN} AND l.state = 'queued') AS queued,
  avg(l.used_seconds) FILTER (WHERE t.state IN ('COMPLETE', 'PRUNED') AND l.used_seconds > 0) AS trial_seconds,
  coalesce(sum({HELD_SECONDS}) FILTER (WHERE {_OPEN}), 0) AS running_seconds,
  coalesce(array_agg(l.worker) FILTER (WHERE {_OPEN} AND l.state = 'held' AND l.worker IS NOT NULL), '{{}}') AS holders,
  (array_agg(l.worker ORDER BY l.expires_at DESC) FILTER (WHERE {_OPEN} AND l.state = 'held' AND NOT {_FRESH}))[1] AS lost_worker,
  greatest(extract(epoch FROM max(greatest(l.expires_at, pg_postmaster_start_time() + %(lease)s * interval '1 second'))
    FILTER (WHERE {_OPEN} AND l.state = 'held' AND NOT {_FRESH}) - clock_timestamp()), 0) AS reaped_in
FROM trials t JOIN tailfill_leases l USING (trial_id) WHERE t.study_id = %(study)s
"""
_BESTS = """
SELECT CASE d.direction WHEN 'MINIMIZE' THEN min(v.value) ELSE max(v.value) END AS best
FROM trials t JOIN trial_values v USING (trial_id) JOIN study_directions d ON d.study_id = t.study_id AND d.objective = v.objective
WHERE t.study_id = %(study)s AND t.state = 'COMPLETE' AND v.value_type = 'FINITE' GROUP BY d.objective, d.direction ORDER BY d.objective
"""
_FRONT = """
WITH points AS (SELECT array_agg(CASE d.direction WHEN 'MINIMIZE' THEN v.value ELSE -v.value END ORDER BY d.objective) AS p
  FROM trials t JOIN trial_values v USING (trial_id) JOIN study_directions d ON d.study_id = t.study_id AND d.objective = v.objective
  WHERE t.study_id = %(study)s AND t.state = 'COMPLETE' AND v.value_type = 'FINITE' GROUP BY trial_id)
SELECT count(*) AS front FROM points a WHERE NOT EXISTS (
  SELECT FROM points b WHERE b.p <> a.p AND (SELECT bool_and(y <= x) FROM unnest(a.p, b.p) AS pair (x, y)))
"""
_FAILURE = """
SELECT a.value_json AS last_failure FROM trials t JOIN trial_user_attributes a USING (trial_id)
WHERE t.study_id = %(study)s AND t.state = 'FAIL' AND a.key = 'failure' ORDER BY t.trial_id DESC LIMIT 1
"""
_WORKERS = f"""
SELECT count(DISTINCT worker) AS workers FROM (
  SELECT worker FROM tailfill_workers WHERE search = %(name)s AND seen_at > clock_timestamp() - %(alive)s * interval '1 second'
  UNION SELECT l.worker FROM tailfill_leases l WHERE l.study_id = %(study)s AND l.state = 'held' AND {_FRESH}) AS alive
"""
_IDLE = idle_gpu_seconds("= %(name)s")
_COSTS = f"""
SELECT coalesce(sum(l.used_seconds + {HELD_SECONDS}), 0) + {_IDLE} AS used_seconds, coalesce(sum(l.lost_seconds), 0) AS lost_seconds,
  coalesce(sum({GPU_SECONDS}), 0) + {_IDLE} AS gpu_seconds, coalesce(sum(least(l.lost_seconds, {GPU_SECONDS})), 0) AS gpu_lost_seconds,
  coalesce(sum(greatest(l.claims - 1, 0)), 0) AS resumes, coalesce(sum(l.losses), 0) AS losses
FROM tailfill_leases l JOIN studies s USING (study_id) WHERE split_part(s.study_name, '/', 1) = %(name)s
"""


def _overview(search: Mapping[str, Any], ask: Any) -> SearchOverview:
    values = {
        "study": search["study_id"], "name": search["name"], "lease": search["lease_seconds"], "stale": STALE_SHARE, "alive": ALIVE_SECONDS,
    }  # fmt: skip
    trials, workers, costs = (ask(sql, values)[0] for sql in (_TRIALS, _WORKERS, _COSTS))
    bests, failure = ask(_BESTS, values), ask(_FAILURE, values)
    plain = ("name", "experiment", "settings", "closed", "position", "steps", "wanted")
    fields: dict[str, Any] = {name: search[name] for name in plain}
    fields |= {name: int(trials[name]) for name in ("complete", "pruned", "failed", "running", "stale", "queued")}
    fields |= {name: int(costs[name]) for name in ("resumes", "losses")}
    fields |= {name: float(costs[name]) for name in ("used_seconds", "lost_seconds", "gpu_seconds", "gpu_lost_seconds")}
    return SearchOverview(
        **fields,
        label=json.loads(search["step"])["label"],
        holders=list(trials["holders"]),
        lost_worker=trials["lost_worker"],
        reaped_in=_number(trials["reaped_in"]) if fields["stale"] else None,
        bests=tuple(float(row["best"]) for row in bests),
        front=int(ask(_FRONT, values)[0]["front"]) if len(bests) > 1 else None,
        last_failure=json.loads(failure[0]["last_failure"]) if failure else None,
        workers=int(workers["workers"]),
        trial_seconds=_number(trials["trial_seconds"]),
        running_seconds=float(trials["running_seconds"]),
        wall_seconds=float(search["wall_seconds"]),
        ticked_seconds=float(search["ticked_seconds"]),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


@contextmanager
def _reading(url: str) -> Iterator[Any]:
    """A function that asks in one read-only transaction and returns rows as mappings."""
    import psycopg2
    from psycopg2.extras import RealDictCursor

    try:
        with closing(_connected(url)) as connection:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            with connection.cursor(cursor_factory=RealDictCursor) as cursor:

                def ask(sql: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
                    cursor.execute(sql, values)
                    rows: list[dict[str, Any]] = cursor.fetchall()
                    return rows

                yield ask
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        parts = urlsplit(url)
        label = f"{parts.hostname}:{parts.port or 5432}{parts.path}"
        reason = " ".join(str(error).split())[:200]
        if refused(reason):
            raise ConfigError(refusal(label, reason)) from None
        raise UnavailableError(f"PostgreSQL at {label} is away ({reason}); see that it runs") from error


def _connected(url: str) -> Any:
    import psycopg2

    try:
        return psycopg2.connect(url, **CONNECT)
    except psycopg2.ProgrammingError:  # its message would repeat the password
        raise ConfigError(
            "DATABASE_URL: must be postgresql://user:password@host:port/database; got something else"
        ) from None
