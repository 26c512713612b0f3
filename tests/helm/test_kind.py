"""Tests the commands that `make kind-*` and CI send to docker, kind, kubectl and Helm, with fakes that record them; there is no cluster."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAKE = shutil.which("make") or "make"
STAND_IN = """#!/bin/sh
echo "${0##*/} $*" >>"$ASKED"
case "${0##*/} $*" in
  "docker images"*) echo kindest/node:v1 ;;
  "docker run"*) exit "${RUN_ENDS:-0}" ;;
  make*) echo "$KIND_CLUSTER $REGISTRY_PORT $REGISTRY" >>"$ASKED" ;;
  helm*) cat >"$ASKED.values" ;;
  *"get secret"*) exit 1 ;;
  *"create secret"*) cat >"$ASKED.keys" ;;
  *"-f -") cat >/dev/null ;;
esac
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the file in which the fakes write one line per call."""
    for name in ("docker", "kind", "kubectl", "helm", "chromium", "pgbouncer", "make"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    for name in ("KIND_CLUSTER", "REGISTRY_PORT", "REGISTRY", "HELM", "MAKEFLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    return tmp_path / "asked"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_only_its_own_registry_is_made_and_removed(asked: Path) -> None:
    """A registry `kind-registry` on port 5001 is that of kind's own recipe, and so belongs to another project."""
    for target in ("kind-up", "kind-down"):
        ended = run(MAKE, target, "KIND_CLUSTER=mine", "REGISTRY_PORT=5002")
        assert ended.returncode == 0, ended.stderr
    lines = asked.read_text().splitlines()
    assert "docker rm -fv mine-registry" in lines
    (made,) = (line for line in lines if line.startswith("docker run"))
    assert "-p 127.0.0.1:5002:5000 --name mine-registry" in made
    assert "kind-registry" not in asked.read_text()


def test_a_taken_port_is_said(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN_ENDS", "125")
    ended = run(MAKE, "kind-up")
    assert ended.returncode != 0
    assert "REGISTRY_PORT=5002" in ended.stderr


@pytest.mark.parametrize("port", [None, "5002"])
def test_images_come_from_the_registry_beside_the_cluster(asked: Path, port: str | None) -> None:
    ended = run(MAKE, "kind-install", *([f"REGISTRY_PORT={port}"] if port else []))
    assert ended.returncode == 0, ended.stderr
    values = yaml.safe_load(Path(f"{asked}.values").read_text())
    image = {"registry": f"localhost:{port or 5001}", "tag": "dev", "pullPolicy": "Always"}
    assert values == {"image": image, "minio": {"enabled": True}, "gpu": {"emulated": True}}
    assert f"REGISTRY=localhost:{port or 5001}" in run(MAKE, "-n", "kind-load", f"REGISTRY_PORT={port or 5001}").stdout
    if port is None:
        assert values == yaml.safe_load((ROOT / "k8s" / "kind-values.yaml").read_text())


def test_no_key_is_an_argument(asked: Path) -> None:
    """Every user of a machine can read the arguments of all its processes."""
    ended = run(MAKE, "kind-services")
    assert ended.returncode == 0, ended.stderr
    keys = dict(line.split("=", 1) for line in Path(f"{asked}.keys").read_text().splitlines())
    assert keys.keys() == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "POSTGRES_PASSWORD", "DATABASE_URL"}
    assert keys["POSTGRES_PASSWORD"] in keys["DATABASE_URL"]
    said = asked.read_text()
    assert "create secret" in said
    for name in ("AWS_SECRET_ACCESS_KEY", "POSTGRES_PASSWORD"):
        assert len(keys[name]) == 32
        assert keys[name] not in said


@pytest.mark.parametrize(
    "file", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md")), "helm/README.md"]
)
def test_no_document_puts_a_key_into_an_argument(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert "--from-literal" not in text
    assert not re.findall(r"--(?:set(?:-string|-json)?|password|token)[= ]\S*(?:KEY|PASSWORD|password|token)\S*=", text)


def test_ci_leaves_a_developers_cluster_alone(asked: Path) -> None:
    ended = run(".ci/run")
    assert ended.returncode == 0, ended.stderr
    lines = asked.read_text().splitlines()
    used = {lines[at + 1] for at, line in enumerate(lines) if line.startswith("make ") and line != "make test"}
    assert used == {"tailfill-ci 5002 localhost:5002"}  # tests/cluster takes its images from REGISTRY
