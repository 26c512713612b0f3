"""How we connect to PostgreSQL, and which of its refusals no retry mends."""

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
REFUSALS = (
    "password authentication failed",
    "no password supplied",
    "does not exist",
    "pg_hba.conf",
    "permission denied",
)


def refused(message: str) -> bool:
    """Whether the server's message says that asking again is of no use."""
    return any(refusal in message for refusal in REFUSALS) and "starting up" not in message


def refusal(label: str, message: str) -> str:
    """What a person reads then; `label` is the server and database, without the password."""
    return f"DATABASE_URL: PostgreSQL at {label} refuses us ({message}); check user, password and database"
