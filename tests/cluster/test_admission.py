"""Tests that the API server accepts what both versions of Helm render from the chart, and each stage's Job as control makes it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import yaml

from tests.support.cluster_release import ROOT, Release
from tests.support.rendered import CI, PROGRAMS, program

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

# with the cluster's Secrets; Helm 3 takes the version of Kubernetes that it was built for, not the cluster's
RENDERED = ("template", "study", str(ROOT / "helm"), "--dry-run=server", "--kube-version=1.34.0")


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("values", [None, *CI], ids=lambda path: path.stem if path else "defaults")
def test_a_dry_run_on_the_server(release: Release, name: str, values: Path | None) -> None:
    files = ["-f", str(values)] if values else []
    release.helm("install", "study", str(ROOT / "helm"), "--dry-run=server", *files, program=program(name))


@pytest.mark.parametrize("values", [None, *CI], ids=lambda path: path.stem if path else "defaults")
def test_every_stage_s_job_is_accepted(release: Release, values: Path | None) -> None:
    files = ["-f", str(values)] if values else []
    rendered = yaml.safe_load_all(release.helm(*RENDERED, *files))
    (manifests,) = [o for o in rendered if o and o["kind"] == "ConfigMap" and o["metadata"]["name"] == "study-stages"]
    for stage, text in manifests["data"].items():
        job = json.loads(text)
        job["metadata"]["name"] = f"study-{stage.removesuffix('.json')}-01234567"
        # a warning counts as a refusal: an unknown field, or a Pod that the namespace's `restricted` would not admit
        said = release.kubectl(
            "create", "--dry-run=server", "--validate=strict", "-f", "-", text=json.dumps(job), check=False
        )
        assert "created (server dry run)" in said, said
        assert "Warning" not in said, said


def test_no_password_stands_outside_its_secret(release: Release) -> None:
    """Nothing is rendered without a cluster, whose Secrets have the passwords of an earlier release."""
    rendered = release.helm(*RENDERED)
    objects = [found for found in yaml.safe_load_all(rendered) if found]
    (secret,) = [found for found in objects if found["kind"] == "Secret"]
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    passwords = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "POSTGRES_PASSWORD"}
    assert set(secret["data"]) == passwords | {"tls.crt", "tls.key"}
    elsewhere = json.dumps([found for found in objects if found is not secret])
    for value in secret["data"].values():
        assert value not in elsewhere
        assert base64.b64decode(value).decode() not in elsewhere
