"""Gives tests files of earlier commits, and images of an earlier commit's code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.cluster_release import ROOT, registry, tag

IMAGES = ("control", "prepare", "finetune", "generate", "judge", "score", "tune", "final", "report")
PACKAGES = "/opt/tailfill/lib/python3.11/site-packages"


def earlier_files(commit: str, folder: Path, *paths: str) -> Path:
    """Writes an earlier commit's files into a folder, and returns it; skips the test if the clone is too shallow to have the commit."""
    archive = subprocess.run(["git", "archive", commit, *paths], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"the clone does not have the commit {commit}: `git fetch --unshallow` gets it")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def earlier_images(folder: Path) -> str:
    """Pushes images with the code in a folder, on the present images' packages, to their registry; returns their tag."""
    earlier = f"{tag()}-earlier"
    for image in IMAGES:
        name = f"{registry()}/tailfill/{image}"
        lines = [f"FROM {name}:{tag()}"]
        lines += [f"COPY {package} {PACKAGES}/{package}" for package in ("shared", "jobs")]
        for command in (
            ["docker", "build", "-q", "-t", f"{name}:{earlier}", "-f", "-", str(folder)],
            ["docker", "push", "-q", f"{name}:{earlier}"],
        ):
            subprocess.run(command, input="\n".join(lines), text=True, check=True, capture_output=True)
    return earlier
