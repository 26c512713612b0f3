"""Tests what the chart lets people do: who looks, and who changes what runs. `tests/cluster/test_people.py` tries it."""

from __future__ import annotations

from typing import Any

import pytest

from shared.pipeline.release_endpoint import STATUS_PORT
from tests.support.rendered import any_program, environment, one, pods, rendered

Rule = tuple[str, ...]


def rules(objects: tuple[dict[str, Any], ...], name: str) -> dict[Rule, list[str]]:
    """Returns the verbs of a Role by resource and names."""
    found: dict[Rule, list[str]] = {}
    for rule in one(objects, "Role", name)["rules"]:
        for resource in rule["resources"]:
            found.setdefault((resource, *rule.get("resourceNames", ())), []).extend(rule["verbs"])
    return {resource: sorted(verbs) for resource, verbs in found.items()}


VIEWER = {
    ("pods",): ["get", "list", "watch"],
    ("pods/portforward",): ["create", "get"],
    ("pods/log",): ["get"],
    ("events",): ["list"],
    ("jobs",): ["get", "list", "watch"],
    ("deployments", "study-control", "study-tune"): ["get"],
    ("deployments/scale", "study-tune"): ["get"],
}


def test_a_viewer_only_looks() -> None:
    assert rules(rendered(any_program()), "study-viewer") == VIEWER


def test_an_editor_requests_and_scales_and_changes_no_object_of_the_chart() -> None:
    found = rules(rendered(any_program()), "study-editor")
    assert found.pop(("deployments/scale", "study-tune")) == ["get", "patch", "update"]
    assert found.pop(("configmaps",)) == ["create", "get", "list"]
    # RBAC knows no labels: who may delete any ConfigMap may delete what owns the Jobs, and put another one in its place
    assert found == {resource: verbs for resource, verbs in VIEWER.items() if resource[0] != "deployments/scale"}


def test_names_follow_the_installation_s() -> None:
    objects = rendered(any_program(), "--set", "fullnameOverride=other")
    assert ("deployments/scale", "other-tune") in rules(objects, "other-editor")
    assert ("deployments/scale", "other-tune") in rules(objects, "other-viewer")


def test_nobody_needs_exec_and_nobody_reads_a_secret() -> None:
    for role in (each for each in rendered(any_program()) if each["kind"] == "Role"):
        resources = {resource for rule in role["rules"] for resource in rule["resources"]}
        assert not resources & {"pods/exec", "pods/attach", "secrets", "*"}
        assert "*" not in {verb for rule in role["rules"] for verb in rule["verbs"]}


def test_a_role_alone_gives_nobody_a_right() -> None:
    bound = [each["roleRef"]["name"] for each in rendered(any_program()) if each["kind"] == "RoleBinding"]
    assert bound == ["study-control"]


@pytest.mark.parametrize("value", ["rbac.people=false", "rbac.create=false"])
def test_the_roles_can_be_left_out(value: str) -> None:
    roles = {each["metadata"]["name"] for each in rendered(any_program(), "--set", value) if each["kind"] == "Role"}
    assert not roles & {"study-viewer", "study-editor"}


def test_control_tells_its_status_at_the_port_that_the_command_asks() -> None:
    spec = dict(pods(rendered(any_program())))["Deployment control"]
    assert environment(spec)["TAILFILL_STATUS_PORT"] == str(STATUS_PORT)
    ports = {port["name"]: port["containerPort"] for port in spec["containers"][0]["ports"]}
    assert ports["status"] == STATUS_PORT
    policy = one(rendered(any_program()), "NetworkPolicy", "study-control")["spec"]["ingress"]
    assert policy == [{"ports": [{"port": "metrics"}]}]  # the status port is on loopback
