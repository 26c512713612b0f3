"""Reads the manifests that the demo of commit e21fc39 committed, which today's code must still read and continue from."""

from __future__ import annotations

from pathlib import Path

from shared.artifacts.manifest import Manifest

PINNED = Path(__file__).parents[1] / "pinned"


def demo_manifests() -> dict[str, Manifest]:
    """Returns the manifests by the label of their step."""
    found = {path.stem: path.read_bytes() for path in sorted((PINNED / "demo").glob("*.json"))}
    return {name.replace("-", " "): Manifest.model_validate_json(text) for name, text in found.items()}
