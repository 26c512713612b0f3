"""Tests that the API server accepts what both versions of Helm render from the chart, and each stage's Job as control makes it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from tests.support.cluster_release import ROOT, Release

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

CI = sorted((ROOT / "helm" / "ci").glob("*-values.yaml"))
PROGRAMS = {"helm": os.environ.get("HELM", "helm"), "helm4": os.environ.get("HELM4", "helm4")}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("values", [None, *CI], ids=lambda path: path.stem if path else "defaults")
def test_a_dry_run_on_the_server(release: Release, name: str, values: Path | None) -> None:
    if shutil.which(PROGRAMS[name]) is None:
        pytest.skip(f"{name} is not on PATH; or say {name.upper()}=/path/to/it")
    files = ["-f", str(values)] if values else []
    release.helm("install", "study", str(ROOT / "helm"), "--dry-run=server", *files, program=PROGRAMS[name])


@pytest.mark.parametrize("values", [None, *CI], ids=lambda path: path.stem if path else "defaults")
def test_every_stage_s_job_is_accepted(release: Release, values: Path | None) -> None:
    files = ["-f", str(values)] if values else []
    rendered = yaml.safe_load_all(
        release.helm("template", "study", str(ROOT / "helm"), "--kube-version=1.34.0", *files)
    )
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
