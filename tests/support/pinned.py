"""The manifests that the demo of commit e21fc39 committed: what today's code must still read, and go on from."""

from __future__ import annotations

from pathlib import Path

from shared.artifacts.manifest import Manifest

PINNED = Path(__file__).parents[1] / "pinned"


def demo_manifests() -> dict[str, Manifest]:
    """Returns them by the label of their step."""
    found = {path.stem: path.read_bytes() for path in sorted((PINNED / "demo").glob("*.json"))}
    return {name.replace("-", " "): Manifest.model_validate_json(text) for name, text in found.items()}
