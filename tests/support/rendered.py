"""The chart as Helm renders it, with every Helm program that is there."""

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
OLDEST = "1.31.0"  # Kubernetes that the chart admits; a Helm built from source names none that does


def ci(name: str) -> tuple[str, str]:
    """The arguments that name one of the example files."""
    return "-f", str(CHART / "ci" / f"{name}-values.yaml")


def program(name: str) -> str:
    """Path of a Helm; skips the test where there is none."""
    found = shutil.which(PROGRAMS[name])
    if found is None:
        pytest.skip(f"no {PROGRAMS[name]} on PATH: `make chart` says how to get it")
    return found


def any_program() -> str:
    """Path of whichever Helm there is."""
    return program(next((name for name, path in PROGRAMS.items() if shutil.which(path)), "helm"))


def run_helm(helm: str, command: str, *arguments: str, release: str = "study") -> subprocess.CompletedProcess[str]:
    """`helm lint` or `helm template` of the chart with more arguments."""
    name = [release] if command == "template" else []
    line = [helm, command, *name, str(CHART), "--kube-version", OLDEST, *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@functools.cache
def rendered(helm: str, *arguments: str) -> tuple[dict[str, Any], ...]:
    """The objects of `helm template` with more arguments."""
    ended = run_helm(helm, "template", "--namespace", "here", *arguments)
    assert ended.returncode == 0, ended.stderr
    return tuple(found for found in yaml.safe_load_all(ended.stdout) if found)


def one(objects: tuple[dict[str, Any], ...], kind: str, name: str) -> dict[str, Any]:
    """The object of a kind with a name."""
    (found,) = (each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def jobs(objects: tuple[dict[str, Any], ...]) -> dict[str, dict[str, Any]]:
    """The Job manifests that control reads, by stage."""
    data = one(objects, "ConfigMap", "study-stages")["data"]
    return {name.removesuffix(".json"): json.loads(text) for name, text in data.items()}


def pods(objects: tuple[dict[str, Any], ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every Pod's spec that can come of it, with a name."""
    for each in (*objects, *jobs(objects).values()):
        if "template" in each.get("spec", {}):
            labels = each["spec"]["template"]["metadata"]["labels"]
            name = f"{each['kind']} {labels['app.kubernetes.io/component']}"
            yield name, each["spec"]["template"]["spec"]


def environment(spec: dict[str, Any]) -> dict[str, Any]:
    """The variables of a Pod's one container: a value, or where it comes from."""
    (container,) = spec["containers"]
    names = [each["name"] for each in container.get("env", [])]
    assert len(names) == len(set(names)), "server-side apply refuses a name twice"
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container.get("env", [])}
