"""Tests how many workers a server is said to have connections for."""

from __future__ import annotations

import psycopg2
import pytest

from shared.errors import ConfigError, UnavailableError
from shared.search.connections import PER_SEARCH, SPARE, workers_limit
from shared.search.simulate import simulate
from shared.services.postgres import CONNECTIONS

RESERVED = 3  # superuser_reserved_connections of a server that nobody has configured


def test_the_server_s_limit_less_what_others_need(database_url: str) -> None:
    assert workers_limit(database_url, 0) == CONNECTIONS - RESERVED - SPARE
    assert workers_limit(database_url, 4) == CONNECTIONS - RESERVED - SPARE - 4 * PER_SEARCH


def limit(url: str, connections: int) -> None:
    """Limits the connections to the database of this URL, which its role owns."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {url.rpartition('/')[2]} CONNECTION LIMIT {connections}")
    connection.close()


def test_a_limit_of_the_database_counts_too(database_url: str) -> None:
    limit(database_url, 30)
    assert workers_limit(database_url, 2) == 30 - SPARE - 2 * PER_SEARCH
    with pytest.raises(ConfigError, match=r"--workers 24: .* has connections for 23 workers"):
        simulate(database_url, 24, 24)


def test_one_worker_is_always_allowed(database_url: str) -> None:
    limit(database_url, 5)
    assert workers_limit(database_url, 10) == 1


def test_an_unavailable_server_is_said() -> None:
    with pytest.raises(UnavailableError, match="is unavailable"):
        workers_limit("postgresql://u:p@127.0.0.1:1/d", 1)
