"""Holds locations for `tailfill verify` and `tailfill gc`, and what hostile objects in a store make of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.cli.gc import gc
from jobs.cli.verify import verify
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import Manifest, Run
from shared.pipeline.lineage import _key
from tests.corpus.case import PLANTED, Case

RUN = Run(created="2026", seconds=0, device="cpu", device_seconds=0, code="", libraries={})


def _of(change: Callable[[FolderStore, dict[str, Any]], object] = lambda store, tree: None) -> Callable[[Path], object]:
    """Returns an attempt that verifies a store with one report and one file, after a change of the store or of the report's manifest."""

    def attempt(folder: Path) -> object:
        store = FolderStore(folder / "store")
        (folder / "page").write_text("page")
        file = Artifacts(store, "s", folder / "cache").upload("index.html", folder / "page")
        manifest = Manifest(study="s", stage="report", key="k", version=1, config={}, inputs={}, files=(file,), summary={}, run=RUN)  # fmt: skip
        tree = json.loads(manifest.model_dump_json())
        tree["key"] = _key(manifest)
        change(store, tree)
        store.put(f"s/report/{_key(manifest)}/manifest.json", json.dumps(tree).encode())
        return verify(str(folder / "store"), None, False)

    return attempt


def _location(location: str) -> Callable[[Path], object]:
    return lambda _: (verify(location, None, False), gc(location, None, False, False))


def _gc(key: str) -> Callable[[Path], object]:
    """Returns an attempt that removes the garbage of a store with one odd object, and tells what is left."""

    def attempt(folder: Path) -> object:
        store = FolderStore(folder / "store")
        store.put(key, b"data")
        store.put("blobs/sha256/" + "a" * 64, b"data")
        gc(str(folder / "store"), None, True, False)
        return list(store.list(""))

    return attempt


def _inputs(**source: str) -> Callable[[FolderStore, dict[str, Any]], object]:
    return lambda _, tree: tree.update(
        inputs={"prepare": {"stage": "prepare", "key": "k", "digest": "d" * 64} | source}
    )


LOCATIONS = {
    "nothing of ours": (".", "is no work directory"),
    "no folder": ("nowhere", "is no work directory"),
    "NUL": ("a\0b", "NUL"),
    "no home folder": ("~nobody-here/x", "no home folder"),
    "no bucket": ("s3://", "names no bucket"),
    "keys in the URL": (f"s3://key:{PLANTED}@bucket", "without keys"),
    "up": ("s3://bucket/../x", "names are relative"),
    "a line break": ("s3://bucket/a\nb", "names are relative"),
    "another scheme": ("gs://bucket/x", "is no work directory"),
    "nothing": ("", "is no work directory"),
}
CASES = [
    *(Case(f"location: {what}", _location(location), 2, (said,)) for what, (location, said) in LOCATIONS.items()),
    Case("verify: whole", _of(), 0, ("s: whole: 1 results", "True")),
    Case("verify: a file gone", _of(lambda store, tree: store.delete(f"blobs/sha256/{tree['files'][0]['digest']}")), 0, ("missing", "False")),
    Case("verify: another size", _of(lambda _, tree: tree["files"][0].update(size=1 << 40)), 0, ("changed", "expected 1099511627776", "False")),
    Case("verify: an input gone", _of(_inputs()), 0, ("missing", "s/prepare/k/manifest.json", "False")),
    Case("verify: an input with a path", _of(_inputs(key="../../x")), 0, ("changed", "not a manifest", "False")),
    Case("verify: a file with a path", _of(lambda _, tree: tree["files"][0].update(name="../x")), 0, ("changed", "False")),
    Case("verify: a digest with a path", _of(lambda _, tree: tree["files"][0].update(digest="../x")), 0, ("changed", "False")),
    Case("verify: experiments that are none", _of(lambda _, tree: tree.update(config={"experiments": 1, "verdict": []})), 0, ("changed", "False")),
    Case("verify: a store without results", _of(lambda store, tree: tree.update(study="other")), 0, ("unlinked", "other/report", "False")),
    Case("gc: an object of others", _gc("blobs/sha256/readme"), 0, ("readme", "a" * 64)),
    Case("gc: a manifest that is none", _gc("x/manifest.json"), 0, ("x/manifest.json", "a" * 64)),
    Case("gc: a study named blobs", _gc("blobs/prepare/k/manifest.json"), 0, ("blobs/prepare/k",)),
]  # fmt: skip
