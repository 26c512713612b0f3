"""Tests that settings meant for other servers do not reach our own, in the process that starts them and in its children."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.services.own_settings import own_settings

NOBODY = "http://127.0.0.1:9"
FOREIGN = {
    "PGSSLMODE": "verify-full",
    "PGOPTIONS": "-c nonsense=1",
    "PGTARGETSESSIONATTRS": "standby",
    "PGCHANNELBINDING": "require",
    "PGTZ": "Mars/Olympus",
    "PGDATESTYLE": "nonsense",
    "PGSERVICE": "elsewhere",
    "PGPASSFILE": "/nowhere",
    "PGHOSTADDR": "192.0.2.1",
    "PGSSLROOTCERT": "/nowhere",
    "PGREQUIREAUTH": "gss",
    "PGGSSENCMODE": "require",
    "PGCLIENTENCODING": "nonsense",
    "HTTP_PROXY": NOBODY,
    "http_proxy": NOBODY,
    "HTTPS_PROXY": NOBODY,
    "ALL_PROXY": NOBODY,
    "all_proxy": NOBODY,
    "NO_PROXY": "example.org",
    "AWS_ENDPOINT_URL": NOBODY,
    "AWS_CA_BUNDLE": "/nowhere",
    "TAILFILL_CA_FILE": "/nowhere",
    "TAILFILL_S3_ADDRESSING": "virtual",
    "AWS_PROFILE": "nobody",
    "AWS_REQUEST_CHECKSUM_CALCULATION": "nonsense",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "AWS_USE_DUALSTACK_ENDPOINT": "true",
}
CHILD = """
import os
import psycopg2
from shared.artifacts.open import open_store
from shared.settings import Settings

settings = Settings.from_environment()
connection = psycopg2.connect(settings.database_url.get_secret_value())
with connection.cursor() as cursor:
    cursor.execute("SELECT 42")
    (number,) = cursor.fetchone()
connection.close()
store = open_store(settings)
store.put("object", b"data")
print(number, store.get("object").decode(), os.environ["HTTPS_PROXY"])
"""
PARENT = f"""
import os, subprocess, sys
from pathlib import Path
from shared.services.services import joined_services, services
from shared.settings import Settings

CHILD = {CHILD!r}
before, folder = dict(os.environ), Path(sys.argv[1])

def use(environment):
    assert "PGTZ" not in os.environ
    variables = {{**os.environ, **environment}}
    subprocess.run([sys.executable, "-c", CHILD], env=variables, check=True)
    kept = dict(os.environ)
    os.environ.update(environment)
    exec(CHILD, {{}})
    for name in environment:
        os.environ.pop(name)
    os.environ.update(kept)

with services(folder, Settings.from_environment()) as environment:
    use(environment)
    hidden = dict(os.environ)
    for name in hidden:
        os.environ.pop(name)
    os.environ.update(before)  # as in the process of another command
    with joined_services(folder, Settings.from_environment()) as joined:
        use(joined)
    os.environ.clear()
    os.environ.update(hidden)
assert dict(os.environ) == before
"""


def test_our_own_servers_are_reached_with_our_settings_alone(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("[default]\nregion = eu-west-1\ns3 =\n  addressing_style = virtual\n")
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True)
    (home / ".aws" / "config").write_text("[default\nthis is no configuration")
    environment = os.environ | FOREIGN | {"AWS_CONFIG_FILE": str(config), "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", PARENT, str(tmp_path / "work")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"42 data {NOBODY}"] * 4


def test_the_settings_of_a_users_own_servers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGSSLMODE": "require", "AWS_PROFILE": "mine", "NO_PROXY": "*"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("no_proxy", raising=False)
    before = dict(os.environ)
    with own_settings(database=False, store=False):
        assert dict(os.environ) == before
    with own_settings(database=True, store=False):
        assert {**os.environ, "PGSSLMODE": "require"} == before
    with own_settings(database=False, store=True):
        assert os.environ["PGSSLMODE"] == "require"
        assert os.environ["NO_PROXY"] == "*"
        assert "AWS_PROFILE" not in os.environ
    assert dict(os.environ) == before
