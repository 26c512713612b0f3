"""Reads the addresses of trackers and webhooks, which may contain secrets: messages show the scheme, host and port of one alone."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import SecretStr

from shared.errors import ConfigError


@dataclass(frozen=True)
class Address:
    """Holds an address of which only `shown` may be printed."""

    secret: SecretStr
    """Holds the address without user and password."""
    user: str | None
    password: SecretStr | None
    shown: str
    """Says scheme, host and port, for messages."""


def read_address(variable: str, value: SecretStr) -> Address:
    """Returns the address that an environment variable holds; raises ConfigError, without its value, if it is none of HTTP."""
    try:
        parts = urlsplit(value.get_secret_value())
        fault = _fault(parts)
    except ValueError:  # brackets without an IPv6 address, a port that is no number
        parts, fault = urlsplit(""), "is no URL"
    if fault is not None:
        raise ConfigError(
            f"environment variable {variable}: {fault} (its value is not shown); set it to https://host[:port]/path, or unset it"
        )
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    place = f"{host}:{parts.port}" if parts.port is not None else host
    bare = parts._replace(netloc=place).geturl()
    password = None if parts.password is None else SecretStr(unquote(parts.password))
    user = None if parts.username is None else unquote(parts.username)
    return Address(SecretStr(bare), user, password, f"{parts.scheme}://{place}")


def _fault(parts: SplitResult) -> str | None:
    """Returns why an address is none of HTTP, or None; raises ValueError for a port that is no number below 65536."""
    if parts.scheme not in ("http", "https"):
        return "must begin with http:// or https://"
    if not parts.hostname:
        return "names no host"
    if parts.port == 0:
        return "has port 0"
    if parts.fragment:
        return "has a # inside"
    return None
