"""Holds objects as a bucket or a folder may hold them: manifests that point elsewhere, and blobs that are not what their name says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from tests.corpus.case import Case

KEY = "a" * 64
FOLDER = f"study/prepare/{KEY}"
VALID: dict[str, Any] = {
    "study": "study",
    "stage": "prepare",
    "key": KEY,
    "version": 1,
    "config": {},
    "inputs": {},
    "files": [{"name": "data.parquet", "digest": "b" * 64, "size": 4}],
    "summary": {},
    "run": {
        "created": "2026-11-24T08:00:00+00:00",
        "seconds": 1.0,
        "device": "cpu",
        "device_seconds": 0.0,
        "code": "c",
        "libraries": {},
    },
}


def _artifacts(folder: Path) -> tuple[FolderStore, Artifacts]:
    store = FolderStore(folder / "store")
    return store, Artifacts(store, "study", folder / "cache")


def _manifest(text: str | bytes) -> Callable[[Path], object]:
    """Returns an attempt that finds a stored manifest of these bytes, and tells the names of its files."""

    def attempt(folder: Path) -> object:
        store, artifacts = _artifacts(folder)
        store.put(f"{FOLDER}/manifest.json", text if isinstance(text, bytes) else text.encode())
        found = artifacts.find("prepare", KEY)
        return found and [file.name for file in found.files]

    return attempt


def _changed(**changes: object) -> Callable[[Path], object]:
    return _manifest(json.dumps(VALID | changes))


def _file(**changes: object) -> Callable[[Path], object]:
    return _changed(files=[VALID["files"][0] | changes])


def _blob(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """Returns an attempt that fetches a blob after a change of the file in which the store keeps it."""

    def attempt(folder: Path) -> object:
        store, artifacts = _artifacts(folder)
        (folder / "data").write_bytes(b"data")
        file = artifacts.upload("data.parquet", folder / "data")
        (blob,) = (path for path in store.root.rglob("*") if path.is_file())
        change(blob)
        return artifacts.fetch(file).read_bytes()

    return attempt


def _key(key: str) -> Callable[[Path], object]:
    """Returns an attempt that writes an object under a key, and tells the keys of the store."""

    def attempt(folder: Path) -> object:
        store, _ = _artifacts(folder)
        store.put(key, b"data")
        return list(store.list(""))

    return attempt


NAMES = {
    "up": "../../.bashrc",
    "up inside": "a/../../b",
    "absolute": "/etc/passwd",
    "a backslash": "..\\x",
    "NUL": "a\0b",
    "a line break": "a\nb",
    "a drive": "C:/x",
    "a dot": "./a",
    "a slash at the end": "a/",
    "two slashes": "a//b",
    "nothing": "",
    "too long a part": "x" * 256,
}
DIGESTS = {
    "a path": "../../y",
    "upper case": "B" * 64,
    "too short": "b" * 63,
    "a line break": "b" * 64 + "\n",
    "no digits": "z" * 64,
}
CASES = [
    Case("a valid manifest", _manifest(json.dumps(VALID)), 0, ("data.parquet",)),
    Case("a name in any script", _file(name="ärmel/水色 1.json"), 0, ("水色",)),
    *(Case(f"manifest: file named {what}", _file(name=name), 2, ("manifest.json",)) for what, name in NAMES.items()),
    *(Case(f"manifest: digest with {what}", _file(digest=digest), 2, ("manifest.json",)) for what, digest in DIGESTS.items()),
    Case("manifest: negative size", _file(size=-1), 2, ("manifest.json",)),
    Case("manifest: immense size", _file(size=1 << 60), 2, ("manifest.json",)),
    Case("manifest: size of text", _file(size="many"), 2, ("manifest.json",)),
    Case("manifest: key with a path", _changed(key="../x"), 2, ("manifest.json",)),
    Case("manifest: unknown stage", _changed(stage="train"), 2, ("manifest.json",)),
    Case("manifest: study with a path", _changed(study="../x"), 2, ("manifest.json",)),
    Case("manifest: no files", _manifest(json.dumps({k: v for k, v in VALID.items() if k != "files"})), 2, ("manifest.json",)),
    Case("manifest: a list", _manifest("[]"), 2, ("manifest.json",)),
    Case("manifest: empty", _manifest(""), 2, ("manifest.json",)),
    Case("manifest: cut short", _manifest(json.dumps(VALID)[:100]), 2, ("manifest.json",)),
    Case("manifest: a login page", _manifest("<html>Log in</html>"), 2, ("manifest.json",)),
    Case("manifest: no UTF-8", _manifest(b"\xff\xfe{}"), 2, ("manifest.json",)),
    Case("manifest: deep", _manifest("[" * 100_000), 2, ("manifest.json",)),
    Case("blob: whole", _blob(lambda blob: None), 0, ("data",)),
    Case("blob: cut short", _blob(lambda blob: blob.write_bytes(b"da")), 2, ("digest",)),
    Case("blob: empty", _blob(lambda blob: blob.write_bytes(b"")), 2, ("digest",)),
    Case("blob: other bytes", _blob(lambda blob: blob.write_bytes(b"tada")), 2, ("digest",)),
    Case("blob: longer", _blob(lambda blob: blob.write_bytes(b"data" * 1000)), 2, ("has more than the 4 bytes that were expected", "--rerun")),
    Case("blob: missing", _blob(lambda blob: blob.unlink()), 2, ()),
    *(Case(f"key: {what}", _key(name), 2, ("name",)) for what, name in NAMES.items() if what != "nothing"),
]  # fmt: skip
