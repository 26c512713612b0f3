"""Provides a namespace for a module's tests, on the cluster that KUBECONFIG names."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.cluster_release import Release

LABELS = ("enforce", "warn")


@pytest.fixture(scope="module")
def release(request: pytest.FixtureRequest) -> Iterator[Release]:
    for program in ("kubectl", os.environ.get("HELM", "helm")):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is not on PATH; see helm/README.md")
    made = Release(f"tailfill-{request.module.__name__.rsplit('.', 1)[-1].replace('_', '-')}")
    made.kubectl("delete", "namespace", made.namespace, "--ignore-not-found", "--wait")
    made.kubectl("create", "namespace", made.namespace)
    for mode in LABELS:
        made.kubectl("label", "namespace", made.namespace, f"pod-security.kubernetes.io/{mode}=restricted")
    yield made
    if request.session.testsfailed:
        _show(made)
    made.kubectl("delete", "namespace", made.namespace, "--wait=false")


def _show(release: Release) -> None:
    """Prints what a user would look at first after a failure."""
    for command in (
        ["get", "jobs,pods", "-o", "wide"],
        ["get", "events", "--sort-by=.lastTimestamp"],
        ["logs", f"deployment/{release.name}-control", "--tail=100"],
    ):
        done = subprocess.run(
            ["kubectl", "-n", release.namespace, *command], capture_output=True, text=True, check=False
        )
        print(f"\n$ kubectl {' '.join(command)}\n{done.stdout[-6000:]}{done.stderr[-500:]}")
