"""Holds the statements that are clearer as SQL text: those that lock, those that aggregate, and those of the monitor.

Everything else is an expression over `shared.search.tables`. SQLAlchemy's statements spell a parameter `:name`. The monitor does without
SQLAlchemy, whose import takes longer than its whole query, so its statements spell a parameter `%(name)s`, as psycopg2 does.

In all of them `l` is a lease, `t` the Optuna trial that it belongs to, and `s` a search or an Optuna study.
"""

from __future__ import annotations

# -- how long a worker has had a trial, and a GPU

_HELD_SECONDS = (
    "CASE WHEN l.state = 'held' THEN extract(epoch FROM "
    "greatest(least(clock_timestamp(), l.expires_at) - l.claimed_at, interval '0')) ELSE 0 END"
)
"""Counts the seconds for which the lease has been held beyond what `used_seconds` counts: until its end at most, as a reaper would count."""
_GPU_SECONDS = f"(l.gpu_seconds + CASE WHEN l.device = 'cpu' THEN 0 ELSE {_HELD_SECONDS} END)"
"""Counts the seconds for which the trial of the lease has had a GPU."""


def _idle_gpu_seconds(condition: str) -> str:
    """Returns the seconds in which workers had a GPU but no trial, as when they start or build features, in searches that satisfy the condition."""
    return f"(SELECT coalesce(sum(i.gpu_seconds), 0) FROM tailfill_idle i WHERE i.search {condition})"


# -- locks and the connection

TRY_LOCK_TABLES = "SELECT pg_try_advisory_xact_lock(1952541036)"  # "tail" in ASCII
"""Lets one process at a time create or migrate tables, until its transaction ends; returns whether it is this one.

Whoever waits for it holds no connection meanwhile: with a pooler, the one that creates tables needs two more of the same few.
"""

LOCK_BUDGET = "SELECT pg_advisory_xact_lock(7627116, :study)"  # "tal" in ASCII
"""Lets one process at a time count and change the trials of a study, until its transaction ends."""

LIMIT_IDLE_TRANSACTIONS = "SET idle_in_transaction_session_timeout = 20000"  # milliseconds
"""Lets the server end a transaction whose client is silent, so that its row locks are released."""

TABLES = (
    "SELECT to_regclass('tailfill_idle') IS NOT NULL AS made, to_regclass('tailfill_schema') IS NOT NULL AS versioned"
)
"""Says whether our tables exist (`tailfill_idle` is created last), and whether their version is recorded."""

# -- the budget and the leases

COUNT_TRIALS = """
SELECT r.value_json AS repetition, count(*) FILTER (WHERE t.state = 'COMPLETE') AS complete,
  count(*) FILTER (WHERE t.state = 'PRUNED') AS pruned,
  count(*) FILTER (WHERE t.state = 'FAIL' AND l.state <> 'withdrawn') AS failed,
  count(*) FILTER (WHERE t.state IN ('WAITING', 'RUNNING') AND l.state = 'held') AS held,
  count(*) FILTER (WHERE t.state IN ('WAITING', 'RUNNING') AND l.state <> 'held') AS queued,
  count(*) FILTER (WHERE t.state IN ('WAITING', 'RUNNING') AND l.state <> 'held' AND l.claims > 0) AS begun,
  coalesce(sum(l.losses), 0) AS losses
FROM trials t JOIN tailfill_leases l USING (trial_id)
  LEFT JOIN trial_user_attributes r ON r.trial_id = t.trial_id AND r.key = 'repetition'
WHERE t.study_id = :study GROUP BY r.value_json
"""

CLAIM = """
UPDATE tailfill_leases SET state = 'held', owner = :owner, worker = :worker, device = :device, claims = claims + 1,
  claimed_at = clock_timestamp(), expires_at = clock_timestamp() + :seconds * interval '1 second'
WHERE trial_id = (
  SELECT trial_id FROM tailfill_leases WHERE study_id = :study AND state = 'queued'
    AND EXISTS (SELECT 1 FROM tailfill_searches WHERE name = :search AND study_id = :study AND closed IS NULL FOR SHARE)
  ORDER BY epochs > 0 DESC, trial_id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING trial_id, claims, epochs, checkpoint
"""
"""Takes a queued trial that no other claim has locked, and locks the row of the search, so that closing the search waits for it."""

# -- what has been spent

_IDLE_OF_SEARCH = _idle_gpu_seconds("= :name")
USAGE = f"""
SELECT coalesce(sum({_GPU_SECONDS}), 0) + {_IDLE_OF_SEARCH} AS gpu,
  coalesce(sum(used_seconds + {_HELD_SECONDS}), 0) + {_IDLE_OF_SEARCH} AS used,
  coalesce(sum(lost_seconds), 0) AS lost, coalesce(sum(least(lost_seconds, {_GPU_SECONDS})), 0) AS gpu_lost,
  coalesce((SELECT extract(epoch FROM clock_timestamp() - began_at) FROM tailfill_searches WHERE name = :name), 0) AS wall
FROM tailfill_leases l JOIN studies s USING (study_id) WHERE study_name = :name OR study_name LIKE :steps
"""

STUDY_GPU_SECONDS = f"""
SELECT coalesce(sum({_GPU_SECONDS}), 0) + {_idle_gpu_seconds("~ :searches")}
FROM tailfill_leases l JOIN studies s USING (study_id) WHERE split_part(s.study_name, '/', 1) ~ :searches
"""

# -- the server's connections

CONNECTION_LIMITS = """
SELECT pg_backend_pid(),
  current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true)::int, 0),
  (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
  (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())
"""
"""Gives the process of this session, and the limits of the server, of the role and of the database; NULL if there is none."""

COUNT_CONNECTIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = current_database()"
)

# -- the monitor; parameters as psycopg2 spells them

MONITOR_VERSION = "SELECT version FROM tailfill_schema"

MONITOR_SEARCHES = """
SELECT s.*, extract(epoch FROM clock_timestamp() - began_at) AS wall_seconds,
  extract(epoch FROM clock_timestamp() - ticked_at) AS ticked_seconds
FROM tailfill_searches s WHERE name ~ %(names)s ORDER BY began_at
"""

_FRESH = "l.expires_at > clock_timestamp() + %(lease)s * %(stale)s * interval '1 second'"
_OPEN = "t.state IN ('WAITING', 'RUNNING')"
MONITOR_TRIALS = f"""
SELECT count(*) FILTER (WHERE t.state = 'COMPLETE') AS complete,
  count(*) FILTER (WHERE t.state = 'PRUNED') AS pruned,
  count(*) FILTER (WHERE t.state = 'FAIL' AND l.state <> 'withdrawn') AS failed,
  count(*) FILTER (WHERE {_OPEN} AND l.state = 'held' AND {_FRESH}) AS running,
  count(*) FILTER (WHERE {_OPEN} AND l.state = 'held' AND NOT {_FRESH}) AS stale,
  count(*) FILTER (WHERE {_OPEN} AND l.state = 'queued') AS queued,
  avg(l.used_seconds) FILTER (WHERE t.state IN ('COMPLETE', 'PRUNED') AND l.used_seconds > 0) AS trial_seconds,
  coalesce(sum({_HELD_SECONDS}) FILTER (WHERE {_OPEN}), 0) AS running_seconds,
  coalesce(array_agg(l.worker) FILTER (WHERE {_OPEN} AND l.state = 'held' AND l.worker IS NOT NULL), '{{}}') AS holders,
  (array_agg(l.worker ORDER BY l.expires_at DESC) FILTER (WHERE {_OPEN} AND l.state = 'held' AND NOT {_FRESH}))[1] AS lost_worker,
  greatest(extract(epoch FROM max(greatest(l.expires_at, pg_postmaster_start_time() + %(lease)s * interval '1 second'))
    FILTER (WHERE {_OPEN} AND l.state = 'held' AND NOT {_FRESH}) - clock_timestamp()), 0) AS reaped_in
FROM trials t JOIN tailfill_leases l USING (trial_id) WHERE t.study_id = %(study)s
"""

MONITOR_BESTS = """
SELECT CASE d.direction WHEN 'MINIMIZE' THEN min(v.value) ELSE max(v.value) END AS best
FROM trials t JOIN trial_values v USING (trial_id) JOIN study_directions d ON d.study_id = t.study_id AND d.objective = v.objective
WHERE t.study_id = %(study)s AND t.state = 'COMPLETE' AND v.value_type = 'FINITE' GROUP BY d.objective, d.direction ORDER BY d.objective
"""

MONITOR_FRONT = """
WITH points AS (SELECT array_agg(CASE d.direction WHEN 'MINIMIZE' THEN v.value ELSE -v.value END ORDER BY d.objective) AS p
  FROM trials t JOIN trial_values v USING (trial_id) JOIN study_directions d ON d.study_id = t.study_id AND d.objective = v.objective
  WHERE t.study_id = %(study)s AND t.state = 'COMPLETE' AND v.value_type = 'FINITE' GROUP BY trial_id)
SELECT count(*) AS front FROM points a WHERE NOT EXISTS (
  SELECT FROM points b WHERE b.p <> a.p AND (SELECT bool_and(y <= x) FROM unnest(a.p, b.p) AS pair (x, y)))
"""

MONITOR_FAILURE = """
SELECT a.value_json AS last_failure FROM trials t JOIN trial_user_attributes a USING (trial_id)
WHERE t.study_id = %(study)s AND t.state = 'FAIL' AND a.key = 'failure' ORDER BY t.trial_id DESC LIMIT 1
"""

MONITOR_WORKERS = f"""
SELECT count(DISTINCT worker) AS workers FROM (
  SELECT worker FROM tailfill_workers WHERE search = %(name)s AND seen_at > clock_timestamp() - %(alive)s * interval '1 second'
  UNION SELECT l.worker FROM tailfill_leases l WHERE l.study_id = %(study)s AND l.state = 'held' AND {_FRESH}) AS alive
"""

_MONITOR_IDLE = _idle_gpu_seconds("= %(name)s")
MONITOR_COSTS = f"""
SELECT coalesce(sum(l.used_seconds + {_HELD_SECONDS}), 0) + {_MONITOR_IDLE} AS used_seconds,
  coalesce(sum(l.lost_seconds), 0) AS lost_seconds,
  coalesce(sum({_GPU_SECONDS}), 0) + {_MONITOR_IDLE} AS gpu_seconds,
  coalesce(sum(least(l.lost_seconds, {_GPU_SECONDS})), 0) AS gpu_lost_seconds,
  coalesce(sum(greatest(l.claims - 1, 0)), 0) AS resumes, coalesce(sum(l.losses), 0) AS losses
FROM tailfill_leases l JOIN studies s USING (study_id) WHERE split_part(s.study_name, '/', 1) = %(name)s
"""
