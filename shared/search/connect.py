"""Connects to PostgreSQL, and tells which of its errors no retry can correct."""

from __future__ import annotations

CONNECT = {
    "connect_timeout": 5,  # seconds, as all below but the last
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds that sent data may stay unacknowledged
    "application_name": "tailfill",
}
REFUSED = {
    "28000",  # invalid authorization
    "28P01",  # invalid password
    "3D000",  # no such database
    "42501",  # no privilege
}
"""Lists the SQLSTATE codes that mean a refusal."""
_REFUSALS = (
    "password authentication failed",
    "no password supplied",
    "does not exist",
    "pg_hba.conf",
    "permission denied",
)


def is_refusal(error: Exception) -> bool:
    """Returns whether the driver's error means that no retry can succeed.

    The error's code decides. An error of connecting has none, since psycopg2 does not pass on what libpq knows; then the
    server's words decide.
    """
    code = getattr(error, "pgcode", None)
    if code is not None:
        return code in REFUSED
    message = str(error)
    return any(refusal in message for refusal in _REFUSALS) and "starting up" not in message


def refusal(label: str, message: str) -> str:
    """Returns the message about a refusal; `label` is the server and database, without the password."""
    return f"DATABASE_URL: PostgreSQL at {label} refuses us ({message}); check user, password and database"
