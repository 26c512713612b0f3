"""Tests the chart as a dependency of a parent chart."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.rendered import CHART, OLDEST, jobs, one, pods, program

SECRETS = {"s3": {"existingSecret": "s3"}, "database": {"existingSecret": "db"}}


def of_parent(
    helm: str, folder: Path, dependencies: list[dict[str, Any]], values: dict[str, Any]
) -> tuple[dict[str, Any], ...]:
    """Returns what a parent chart with these dependencies renders."""
    parent = folder / "parent"
    (parent / "templates").mkdir(parents=True)
    common = {"name": "tailfill", "version": "0.2.0", "repository": f"file://{CHART}"}
    chart = {
        "apiVersion": "v2",
        "name": "parent",
        "version": "1.0.0",
        "dependencies": [common | each for each in dependencies],
    }
    (parent / "Chart.yaml").write_text(yaml.safe_dump(chart))
    (parent / "values.yaml").write_text(yaml.safe_dump(values))
    for command in (["dependency", "build", parent], ["lint", parent, "--kube-version", OLDEST]):
        ended = subprocess.run([helm, *command], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    line = [helm, "template", "app", parent, "--namespace", "here", "--kube-version", OLDEST]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "tailfill status" not in ended.stdout  # the parent has notes of its own
    return tuple(found for found in yaml.safe_load_all(ended.stdout) if found)


@pytest.mark.parametrize("name", ["helm", "helm4"])
def test_a_parent_gives_values_and_may_leave_it_out(name: str, tmp_path: Path) -> None:
    values = {
        "global": {"imageRegistry": "mirror.example.org", "imagePullSecrets": ["mine"], "storageClass": "fast"},
        "tailfill": {"enabled": True, "gpu": {"enabled": True}, "workers": {"podMetadata": {"annotations": {"karpenter.sh/do-not-disrupt": None}}}, **SECRETS},
    }  # fmt: skip
    objects = of_parent(program(name), tmp_path, [{"condition": "tailfill.enabled"}], values)
    control = one(objects, "Deployment", "app-control")
    assert control["metadata"]["labels"]["app.kubernetes.io/instance"] == "app"
    assert control["spec"]["template"]["spec"]["containers"][0]["image"] == "mirror.example.org/tailfill/control:0.1.0"
    assert all(spec["imagePullSecrets"] == [{"name": "mine"}] for _, spec in pods(objects, "app"))
    found = jobs(objects, "app")
    assert found["finetune"]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] == {
        "nvidia.com/gpu": 1
    }
    assert "karpenter.sh/do-not-disrupt" not in found["worker"]["spec"]["template"]["metadata"]["annotations"]
    off = {"tailfill": {"enabled": False}}
    assert of_parent(program(name), tmp_path / "off", [{"condition": "tailfill.enabled"}], off) == ()


def test_two_studies_in_one_release_have_names_of_their_own(tmp_path: Path) -> None:
    values = {alias: {"fullnameOverride": f"app-{alias}", **SECRETS} for alias in ("one", "two")}
    objects = of_parent(program("helm"), tmp_path, [{"alias": alias} for alias in values], values)
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(names) == len(set(names))
    for alias in values:
        full = f"app-{alias}"
        own = [each for each in objects if each["metadata"]["labels"]["app.kubernetes.io/instance"] == full]
        assert len(own) * 2 == len(objects)
        assert all(each["metadata"]["name"].startswith(f"{full}-") for each in own)
        env = one(objects, "Deployment", f"{full}-control")["spec"]["template"]["spec"]["containers"][0]["env"]
        assert {"name": "TAILFILL_RELEASE", "value": full} in env  # so that `tailfill status --release` finds it
        assert {"name": "AWS_ENDPOINT_URL_S3", "value": f"http://{full}-seaweedfs:9000"} in env


def test_every_name_begins_with_the_one_that_may_be_overridden() -> None:
    for path in (CHART / "templates").rglob("*.*"):
        lines = [
            line for line in path.read_text(encoding="utf-8").splitlines() if re.search(r"\.Release\.Name\b", line)
        ]
        allowed = ("| default .Release.Name", "`helm uninstall {{ .Release.Name }}")
        assert [line for line in lines if not any(each in line for each in allowed)] == [], path
