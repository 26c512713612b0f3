"""Connects to PostgreSQL, and tells which of its errors no retry can correct."""

from __future__ import annotations

import re

LONGEST = 300  # characters of the server's own message

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
    "25006": "name a server that accepts writes, not a standby",
    "28000": "check user, password and database",  # invalid authorization
    "28P01": "check user, password and database",  # invalid password
    "3D000": "create that database, or name another",
    "42501": "let an owner GRANT this role CREATE and USAGE on the schema, or name another role",  # no privilege
}
"""Maps the SQLSTATE codes that mean a refusal to its remedy."""
ALLOWED = {
    "sslmode": "disable, allow, prefer, require, verify-ca or verify-full",
    "target_session_attrs": "any, read-write, read-only, primary, standby or prefer-standby",
    "channel_binding": "disable, prefer or require",
    "gssencmode": "disable, prefer or require",
    "load_balance_hosts": "disable or random",
    "sslcertmode": "disable, allow or require",
    "sslnegotiation": "postgres or direct",
}
"""Maps libpq's parameters to the values that they may have."""
_CREDENTIALS = "check user, password and database"
_TRANSPORT = "fix DATABASE_URL or the PG* variables of the environment"
_REFUSALS = {
    r"password authentication failed": _CREDENTIALS,
    r"no password supplied": _CREDENTIALS,
    r'database ".*" does not exist': REFUSED["3D000"],
    r"no such (database|user)": _CREDENTIALS,  # PgBouncer's words
    r"certificate file|private key|client certificate|certificate required|bad certificate|alert unknown ca": _TRANSPORT,
    r"does not exist": _CREDENTIALS,
    r"pg_hba\.conf": "let the server's owner allow this host, user and database",
    r"permission denied": _CREDENTIALS,
    r"is not permitted to log in": "name a role that may log in",
    r"not currently accepting connections": "name another database",
    r"invalid (\w+) value|invalid integer value|invalid port number|invalid value for parameter": _TRANSPORT,
    r"could not match \d+ \w+( \w+)? to \d+": "name as many ports as hosts, or one",
    r"service file|definition of service": _TRANSPORT,
    r"unrecognized configuration parameter|unsupported startup parameter": _TRANSPORT,
    r"does not support SSL|certificate verify failed|does not match host name|channel binding|authentication method requirement": _TRANSPORT,
}
"""Maps words of an error of connecting, which has no code, to their remedy. Their order counts."""


def is_refusal(error: Exception) -> bool:
    """Returns whether the driver's error means that no retry can succeed.

    The error's code decides. An error of connecting has none, since psycopg2 does not pass on what libpq knows; then the
    server's words decide.
    """
    return _remedy(getattr(error, "pgcode", None), str(error)) is not None


def refusal(label: str, message: str, code: str | None = None) -> str:
    """Returns the message about a refusal; `label` is the server and database, without the password."""
    remedy = _remedy(code, message) or _CREDENTIALS
    name = re.search(r"invalid (\w+) value", message)
    if name is not None and name[1] in ALLOWED:
        remedy = f"{name[1]} must be {ALLOWED[name[1]]}"
    return f"DATABASE_URL: PostgreSQL at {label} refuses us ({message[:LONGEST]}); {remedy}"


def _remedy(code: str | None, message: str) -> str | None:
    """Returns what helps against an error if it is a refusal, None if it is not."""
    if code is not None:
        return REFUSED.get(code)
    if "starting up" in message:
        return None
    return next((remedy for words, remedy in _REFUSALS.items() if re.search(words, message)), None)
