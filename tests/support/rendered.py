"""Renders the chart with every Helm program that is installed."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "helm"
CI = sorted((CHART / "ci").glob("*-values.yaml"))
PROGRAMS = {"helm": os.environ.get("HELM", "helm"), "helm4": os.environ.get("HELM4", "helm4")}
SECRETS = ("-f", str(Path(__file__).parents[1] / "helm" / "existing-secrets.yaml"))
"""Holds the arguments that name the passwords' Secret, which the chart does not make without a cluster."""
OLDEST = "1.31.0"  # the oldest Kubernetes that the chart accepts; a Helm built from source assumes an older one


def ci(name: str) -> tuple[str, str]:
    """Returns the arguments that name one of the example files."""
    return "-f", str(CHART / "ci" / f"{name}-values.yaml")


def program(name: str) -> str:
    """Returns the path of a Helm program; skips the test if it is not installed."""
    found = shutil.which(PROGRAMS[name])
    if found is None:
        pytest.skip(f"no {PROGRAMS[name]} on PATH: `make chart` says how to get it")
    return found


def any_program() -> str:
    """Returns the path of any installed Helm program."""
    return program(next((name for name, path in PROGRAMS.items() if shutil.which(path)), "helm"))


def run_helm(helm: str, command: str, *arguments: str, release: str = "study") -> subprocess.CompletedProcess[str]:
    """Runs `helm lint` or `helm template` on the chart with more arguments."""
    name = [release] if command == "template" else []
    line = [helm, command, *name, str(CHART), "--kube-version", OLDEST, *SECRETS, *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@functools.cache
def rendered(helm: str, *arguments: str) -> tuple[dict[str, Any], ...]:
    """Returns the objects that `helm template` renders with more arguments."""
    ended = run_helm(helm, "template", "--namespace", "here", *arguments)
    assert ended.returncode == 0, ended.stderr
    return tuple(found for found in yaml.safe_load_all(ended.stdout) if found)


def one(objects: tuple[dict[str, Any], ...], kind: str, name: str) -> dict[str, Any]:
    """Returns the only object of a kind with a name."""
    (found,) = (each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def jobs(objects: tuple[dict[str, Any], ...], release: str = "study") -> dict[str, dict[str, Any]]:
    """Returns the Job manifests that control reads, by stage, and that of the workers as `worker`."""
    data = one(objects, "ConfigMap", f"{release}-stages")["data"]
    return {name.removesuffix(".json"): json.loads(text) for name, text in data.items()}


def pods(objects: tuple[dict[str, Any], ...], release: str = "study") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the spec of every Pod that the objects can create, with a name; a paused Deployment creates none."""
    for each in (*objects, *jobs(objects, release).values()):
        if "template" in each.get("spec", {}) and not each["spec"].get("paused"):
            labels = each["spec"]["template"]["metadata"]["labels"]
            role = labels.get("tailfill/role", labels["app.kubernetes.io/component"])
            name = f"{each['kind']} {role}"
            yield name, each["spec"]["template"]["spec"]


def environment(spec: dict[str, Any]) -> dict[str, Any]:
    """Returns the variables of a Pod's only container, each as its value or as the source of its value."""
    (container,) = spec["containers"]
    names = [each["name"] for each in container.get("env", [])]
    assert len(names) == len(set(names)), "server-side apply refuses a name twice"
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container.get("env", [])}
