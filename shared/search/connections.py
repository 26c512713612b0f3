"""Tells how many tuning workers PostgreSQL has connections for, so that control makes no more."""

from __future__ import annotations

from shared.search import statements
from shared.search.monitor import connected

SPARE = 5  # connections for control, `tailfill status` and people
PER_SEARCH = 2  # a coordinator has a second one while it creates the tables


def workers_limit(url: str, searches: int) -> int | None:
    """Returns how many workers, of one connection each, the server has room for beside the coordinators of so many searches; at least 1.

    Returns None if a pooler such as PgBouncer is in between, which shares few connections among many clients. Raises UnavailableError if the
    server is unavailable, ConfigError if it refuses us.
    """
    with connected(url) as connection, connection.cursor() as cursor:
        cursor.execute(statements.CONNECTION_LIMITS)
        process, *limits = cursor.fetchone()
        if (
            process != connection.info.backend_pid
        ):  # a pooler tells its clients other numbers than those of the server's processes
            return None
    room = min(limit for limit in limits if limit is not None)
    return max(int(room) - SPARE - PER_SEARCH * searches, 1)
