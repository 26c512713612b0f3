"""Tests which addresses are accepted, and that no message shows what is secret in one."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from shared.errors import ConfigError
from shared.tracking.urls import read_address

QUOTED = "p%40w"


@pytest.mark.parametrize(
    ("value", "bare", "user", "password", "shown"),
    [
        ("https://h/a/b?c=d", "https://h/a/b?c=d", None, None, "https://h"),
        (f"http://u:{QUOTED}@h:5000/x", "http://h:5000/x", "u", "p@w", "http://h:5000"),
        ("https://[::1]:80/x", "https://[::1]:80/x", None, None, "https://[::1]:80"),
        ("HTTPS://Host.Example", "https://host.example", None, None, "https://host.example"),
    ],
)
def test_addresses(value: str, bare: str, user: str | None, password: str | None, shown: str) -> None:
    address = read_address("X", SecretStr(value))
    assert address.secret.get_secret_value() == bare
    assert (address.user, address.password and address.password.get_secret_value()) == (user, password)
    assert address.shown == shown
    assert "a/b" not in repr(address)
    assert "p@w" not in repr(address)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("hooks.example/SECRET", "must begin with http"), ("file:///SECRET", "must begin"), ("sqlite:///SECRET.db", "must begin"),
        ("SECRET", "must begin"), ("https:///SECRET", "names no host"), ("https://h:99999/SECRET", "is no URL"), ("http://h:x/SECRET", "is no URL"),
        ("http://[SECRET", "is no URL"), ("http://h:0/SECRET", "has port 0"), ("https://h/#SECRET", "has a #"), ("javascript:SECRET", "must begin"),
    ],
)  # fmt: skip
def test_what_is_no_address(value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"^environment variable X: .*{words}.*or unset it$") as caught:
        read_address("X", SecretStr(value))
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None
