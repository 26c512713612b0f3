"""Reads `DATABASE_URL` as libpq does, and refuses what libpq would take apart at another place than its author meant.

No message repeats the value: a password that is not percent-encoded may be anywhere in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from shared.errors import ConfigError
from shared.names import has_control_character

FORM = "postgresql://user:password@host:port/database"
LAST_PORT = 65535
_SCHEME = re.compile(r"postgres(?:ql)?(?:\+\w+)?://")  # SQLAlchemy writes its driver after a plus
_KEYWORD = re.compile(r"\w+\s*=")


def connection_arguments(url: str) -> tuple[dict[str, str], str]:
    """Returns libpq's parameters by name, and a label without the password: `host:port/database`.

    `url` is a URL or a string `host=… dbname=…`; it may name several hosts, or a folder of sockets. White space around it is ignored.
    Raises ConfigError.
    """
    text = url.strip()
    if text[:1] in ("'", '"'):
        raise _wrong("has quotes around it; remove them")
    if has_control_character(text):
        raise _wrong("has a line break or another control character inside; remove it")
    scheme = _SCHEME.match(text)
    if scheme is None:
        if "://" in text or not _KEYWORD.match(text):
            raise _wrong("got something else")
        arguments = _parsed(text)
    else:
        rest = text[scheme.end() :]
        if any(character.isspace() for character in rest):
            raise _wrong("has white space inside; remove it, or write it as %20")
        _check_encoding(rest)
        arguments = _parsed(f"postgresql://{rest}")
    for port in arguments.get("port", "").split(","):
        if port and not (port.isdecimal() and 1 <= int(port) <= LAST_PORT):
            raise _wrong(f"its port must be a number from 1 to {LAST_PORT}")
    return arguments, _label(arguments)


def _check_encoding(rest: str) -> None:
    """Refuses a user or password with an unencoded character that would end it early; `rest` is what follows the scheme."""
    body, _, query = rest.partition("?")
    user, _, host = body.rpartition("@")
    if "@" in user or "/" in user or ("@" in query and "/" not in host):
        raise _wrong(
            "its user or password holds an unencoded @, / or ?; write it percent-encoded: @ as %40, / as %2F, ? as %3F, # as %23, : as %3A, % as %25"
        )
    items = [item for item in query.split("&") if item]
    if any("=" not in item for item in items):
        raise _wrong("its part after ? must be like sslmode=require&connect_timeout=5")
    unknown = [name for name in (item.partition("=")[0] for item in items) if not _known(name)]
    if unknown:
        named = _listed(unknown) if "@" not in query else "that libpq does not know"
        raise ConfigError(
            f"DATABASE_URL: unknown parameter{'s' if len(unknown) > 1 else ''} {named}; remove what PostgreSQL's own libpq does not know"
        )


def _known(name: str) -> bool:
    import psycopg2
    from psycopg2.extensions import parse_dsn

    try:
        parse_dsn(f"postgresql:///?{name}=true")
    except psycopg2.ProgrammingError:
        return False
    return True


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name[:40] for name in names[:10])


def _parsed(text: str) -> dict[str, str]:
    import psycopg2
    from psycopg2.extensions import parse_dsn

    try:
        return dict(parse_dsn(text))
    except (psycopg2.ProgrammingError, UnicodeError):  # its message would repeat the password
        raise _wrong("got something else; a % that begins no code is written %25") from None


def _label(arguments: dict[str, str]) -> str:
    hosts = arguments.get("host", arguments.get("hostaddr", "")).split(",")
    ports = arguments.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    named = [
        host if host.startswith(("/", "@")) or not host else f"{host}:{port or 5432}"
        for host, port in zip(hosts, ports, strict=False)
    ]
    database = arguments.get("dbname") or arguments.get("user") or ""
    return f"{','.join(named) or 'local socket'}/{database}"


def _wrong(reason: str) -> ConfigError:
    return ConfigError(f"DATABASE_URL: must be {FORM}; {reason}")
