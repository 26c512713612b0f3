"""Tests that idle releases ask nothing of the Kubernetes API, and that a release lists its Jobs once, however many they are."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks import kube_requests
from benchmarks.kube_requests import chart_manifests, measure_idle, measure_many
from tests.support.rendered import any_program


@pytest.fixture(autouse=True)
def helm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELM", any_program())


def test_idle_releases_ask_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.pipeline.kube_executor.PODS_SECONDS", 1.0)
    monkeypatch.setattr("shared.kube.workers.IDLE_SECONDS", 0.0)
    monkeypatch.setattr(kube_requests, "DONE_SECONDS", 0.1)
    first, idle = measure_idle(chart_manifests(), 3, 3.0, 10.0)
    watches = {f"WATCH {kind}": 3 for kind in ("jobs", "pods", "deployments", "configmaps")}
    assert {kind: number for kind, number in first.requests.items() if kind.startswith("WATCH")} == watches
    assert first.requests["DELETE jobs"] == 3  # of the workers, for which nothing is left to do
    assert first.connections <= 3 * (4 + 1)
    assert (idle.requests, idle.connections) == (Counter(), 0)


def test_many_jobs_are_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.kube.api.PAGE", 100)
    asked, size = measure_many(chart_manifests(), 250, 7.0)
    assert asked.requests["GET jobs"] == 3  # in pages
    assert asked.requests["WATCH jobs"] == 1
    assert asked.requests.keys() <= {
        "GET jobs",
        "WATCH jobs",
        "GET deployments",
        "GET replicasets",
        "GET configmaps",
        "WATCH configmaps",
    }
    assert size < 4000
