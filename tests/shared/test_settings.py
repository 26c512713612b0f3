from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.settings import Settings

SECRETS = {
    "AWS_ACCESS_KEY_ID": "the-access-key",
    "AWS_SECRET_ACCESS_KEY": "the-secret-key",
    "AWS_SESSION_TOKEN": "the-session-token",
    "DATABASE_URL": "postgresql://user:the-password@host/db",
    "HF_TOKEN": "the-token",
}


def test_everything_named() -> None:
    settings = Settings.from_environment(
        SECRETS
        | {
            "TAILFILL_STORE": "s3://bucket/prefix",
            "AWS_ENDPOINT_URL_S3": "http://host:9000",
            "AWS_REGION": "eu-west-1",
            "TAILFILL_CACHE": "/cache",
            "JOB_COMPLETION_INDEX": "3",
            "TAILFILL_COUNT": "8",
            "TAILFILL_DEVICE": "cuda",
            "TAILFILL_MEMORY": "4096",
            "TAILFILL_GRACE_SECONDS": "60",
            "TAILFILL_METRICS_PORT": "9464",
            "TAILFILL_METRICS_HOST": "0.0.0.0",
        }
    )
    assert (settings.store, settings.s3_endpoint, settings.s3_region) == (
        "s3://bucket/prefix", "http://host:9000", "eu-west-1",
    )  # fmt: skip
    assert settings.cache == Path("/cache")
    assert (settings.index, settings.count, settings.memory, settings.grace_seconds) == (3, 8, 4096, 60.0)
    assert settings.device == "cuda"
    assert (settings.metrics_port, settings.metrics_host) == (9464, "0.0.0.0")
    assert settings.s3_secret_key is not None
    assert settings.s3_secret_key.get_secret_value() == "the-secret-key"


def test_nothing_named() -> None:
    settings = Settings.from_environment({"TAILFILL_STORE": "", "XDG_CACHE_HOME": "/xdg"})
    assert settings.store is settings.s3_endpoint is settings.database_url is settings.hub_token is None
    assert settings.s3_region is None
    assert settings.cache == Path("/xdg/tailfill")
    assert (settings.index, settings.count, settings.memory, settings.grace_seconds) == (0, 1, None, 30.0)
    assert (settings.metrics_port, settings.metrics_host) == (0, "127.0.0.1")


def test_secrets_mask_themselves() -> None:
    settings = Settings.from_environment(SECRETS)
    for shown in (repr(settings), str(settings), f"{settings}"):
        assert "the-" not in shown


@pytest.mark.parametrize(
    "name", ["JOB_COMPLETION_INDEX", "TAILFILL_COUNT", "TAILFILL_GRACE_SECONDS", "TAILFILL_METRICS_PORT"]
)
@pytest.mark.parametrize("value", ["x", "-1", "1.5", " 1"])
def test_numbers_that_are_none(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f'environment variable {name}: must be a whole number, got "{value}"'):
        Settings.from_environment({name: value})


def test_a_job_has_at_least_one_index() -> None:
    with pytest.raises(ConfigError, match="environment variable TAILFILL_COUNT: must be at least 1, got 0"):
        Settings.from_environment({"TAILFILL_COUNT": "0"})


def test_a_device_that_is_none() -> None:
    with pytest.raises(ConfigError, match='environment variable TAILFILL_DEVICE: must be cpu or cuda, got "gpu"'):
        Settings.from_environment({"TAILFILL_DEVICE": "gpu"})


def test_a_user_without_a_home_names_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(user: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert Settings.from_environment({"TAILFILL_CACHE": "/cache"}).cache == Path("/cache")
    assert Settings.from_environment({"XDG_CACHE_HOME": "/xdg"}).cache == Path("/xdg/tailfill")
    with pytest.raises(ConfigError, match="TAILFILL_CACHE: is not set, and this user has no home folder; set it"):
        Settings.from_environment({})


def test_the_region_has_two_names() -> None:
    assert Settings.from_environment({"AWS_DEFAULT_REGION": "eu-west-1"}).s3_region == "eu-west-1"
    assert Settings.from_environment({"AWS_DEFAULT_REGION": "a-b-1", "AWS_REGION": "c-d-1"}).s3_region == "c-d-1"


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(("before", "after"), [("", "\n"), (" ", ""), ("", "\r\n"), ("\t", " ")])
def test_white_space_around_a_secret_is_no_part_of_it(name: str, before: str, after: str) -> None:
    found = Settings.from_environment({name: before + SECRETS[name] + after})
    assert found == Settings.from_environment({name: SECRETS[name]})


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("inside", ["\n", "\r", "\0", "\x7f"])
def test_a_secret_with_a_line_break_inside_is_refused_and_not_shown(name: str, inside: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: has a line break or another control character") as caught:
        Settings.from_environment({name: f"the-{inside}key"})
    assert "the-" not in str(caught.value)
    assert caught.value.__cause__ is None
