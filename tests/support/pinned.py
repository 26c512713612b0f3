"""The manifests that the demo committed when keys last changed: today's code must still read them, and continue from them."""

from __future__ import annotations

import json
from pathlib import Path

from shared.artifacts.manifest import Manifest

PINNED = Path(__file__).parents[1] / "pinned"
DEMO = PINNED / "manifests.json"


def demo_manifests() -> dict[str, Manifest]:
    """Returns them by the label of their step."""
    return {
        label: Manifest.model_validate_json(json.dumps(tree)) for label, tree in json.loads(DEMO.read_bytes()).items()
    }
