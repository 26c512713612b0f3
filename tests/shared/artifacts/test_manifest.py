"""Tests which manifests are accepted, and that the checks change no digest."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import LARGEST_FILE, File, Manifest, Run
from shared.config.task import Input
from shared.errors import ArtifactError

KEY = "a" * 64


def valid() -> Manifest:
    """Returns a manifest with everything that manifests may hold: paths of the hub, roles with slashes, names with spaces and in any script."""
    return Manifest(
        study="demo",
        stage="weights",
        key=KEY,
        version=1,
        config={"kind": "stable-diffusion", "lr": 1e-05},
        inputs={
            "final/real/0": Input(stage="final", key="b" * 64, digest="c" * 64),
            "warm_start": Input(study="other", stage="tune", key="d" * 64, digest="e" * 64),
        },
        files=(
            File(name="unet/diffusion_pytorch_model.safetensors", digest="0" * 64, size=3_438_167_536),
            File(name="plots/curves-real.png", digest="1" * 64, size=0),
            File(name="a name with spaces/ärmel — 水色.json", digest="2" * 64, size=12),
        ),
        summary={"commit": "5" * 40, "bytes": 3},
        run=Run(
            created="2026-11-24T08:00:00+00:00",
            seconds=1.5,
            device="cpu",
            device_seconds=0.0,
            code="c0de",
            libraries={"torch": "2.14.1"},
        ),
    )


def test_a_valid_manifest_keeps_its_digest_and_its_bytes() -> None:
    """Both are the same as before names were checked, since stored studies depend on them."""
    text = valid().model_dump_json(indent=1)
    assert valid().digest == "593d739ee21c837800f38615c2adfc5601d1141e2e3b687a297803e08f81ad47"
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "1002529b66a2d4a0b305353af55177eb430454fa6ef2854e17cdfdb43b20d27b"
    )
    assert Manifest.model_validate_json(text).model_dump_json(indent=1) == text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((("files", 0, "name"), name) for name in ("../x", "/x", "a/../x", "a//x", "a/", "./a", "", "a\\b", "a\0b", "C:x", "a\nb")),
        *((("files", 0, "digest"), digest) for digest in ("../../y", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n", "")),
        *((("files", 0, "size"), size) for size in (-1, LARGEST_FILE + 1, 10**40)),
        *((("key",), key) for key in ("../x", "a/b", "", "..")),
        *((("study",), study) for study in ("../x", "a/b", "", "..")),
        (("stage",), "../x"),
        (("inputs", "warm_start", "key"), "../x"),
        (("inputs", "warm_start", "study"), "../x"),
        (("inputs", "warm_start", "digest"), "../x"),
    ],
)  # fmt: skip
def test_a_hostile_manifest_is_no_manifest(folder_store: FolderStore, path: tuple[Any, ...], value: object) -> None:
    tree = json.loads(valid().model_dump_json())
    place = tree
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    artifacts = Artifacts(folder_store, "demo", folder_store.root / "cache")
    folder_store.put(f"demo/weights/{KEY}/manifest.json", json.dumps(tree).encode())
    with pytest.raises(ArtifactError, match=r"manifest\.json: not a manifest that this version can read") as caught:
        artifacts.find("weights", KEY)
    assert caught.value.exit_code == 2
    assert ".".join(map(str, path)) in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_manifest_with_half_a_character(folder_store: FolderStore) -> None:
    text = valid().model_dump_json().replace("plots/curves-real.png", "plots/\\ud800")
    folder_store.put(f"demo/weights/{KEY}/manifest.json", text.encode())
    with pytest.raises(ArtifactError, match="not a manifest that this version can read"):
        Artifacts(folder_store, "demo", folder_store.root / "cache").find("weights", KEY)
