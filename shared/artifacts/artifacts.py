"""What stages call: commit files under a manifest, fetch them checked, keep checkpoints.

Layout in the store::

    blobs/sha256/<digest>                              bytes, by their own hash
    <study>/<stage>/<key>/manifest.json                written last and once: the commit
    <study>/<stage>/<key>/checkpoints/<name>.json      points to blobs; replaced as work goes on, removed at the commit
    <study>/<stage>/<key>/parts/<index>.json           a shard of a stage that several processes make together
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from shared.artifacts.manifest import File, Manifest
from shared.artifacts.store import NotFound, Store
from shared.config.base import Section
from shared.config.task import Input, Stage
from shared.errors import ArtifactError

S = TypeVar("S", bound=Section)


class Pointer(Section):
    """A checkpoint or a part: names and the blobs that hold them, and a few values."""

    files: tuple[File, ...]
    values: dict[str, int | float | str]


class Artifacts:
    """One study's artifacts in a store, with a cache of blobs by digest on local disk."""

    def __init__(self, store: Store, study: str, cache: Path) -> None:
        self.store = store
        self.study = study
        self.cache = cache

    # -- committed results

    def find(self, stage: Stage, key: str) -> Manifest | None:
        """The manifest, or None where nothing is committed under that key."""
        location = f"{self._folder(stage, key)}/manifest.json"
        try:
            text = self.store.get(location)
        except NotFound:
            return None
        return _parse(Manifest, text, f"{self.store.url}/{location}")

    def open(self, source: Input) -> Manifest:
        """The manifest of an input; raises ArtifactError where it is missing or has another digest than the task says."""
        manifest = self.find(source.stage, source.key)
        where = f"{self.store.url}/{self._folder(source.stage, source.key)}/manifest.json"
        if manifest is None:
            raise ArtifactError(f"{where}: not found; run the stage {source.stage} first")
        if manifest.digest != source.digest:
            raise ArtifactError(
                f"{where}: has digest {manifest.digest}, expected {source.digest}; run the study again from `tailfill run`"
            )
        return manifest

    def commit(self, manifest: Manifest) -> Manifest:
        """Writes the manifest if the key has none; returns the committed one, which is another's where it was faster.

        Its checkpoints and parts are removed afterwards.
        """
        folder = self._folder(manifest.stage, manifest.key)
        self.store.create(f"{folder}/manifest.json", manifest.model_dump_json(indent=1).encode())
        for prefix in ("checkpoints", "parts"):
            for key in list(self.store.list(f"{folder}/{prefix}/")):
                self.store.delete(key)
        committed = self.find(manifest.stage, manifest.key)
        assert committed is not None
        return committed

    # -- blobs

    def upload(self, name: str, path: Path) -> File:
        """Puts a file's bytes under their digest (unless they are there) and returns the entry for a manifest or pointer."""
        digest, size = _digest(path), path.stat().st_size
        key = f"blobs/sha256/{digest}"
        if not self.store.exists(key):
            self.store.put_file(key, path)
        return File(name=name, digest=digest, size=size)

    def fetch(self, file: File) -> Path:
        """The file's bytes on local disk, checked against its digest; raises ArtifactError where they differ."""
        path = self.cache / "sha256" / file.digest[:2] / file.digest
        if path.exists() and path.stat().st_size == file.size:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        key = f"blobs/sha256/{file.digest}"
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        os.close(handle)
        try:
            try:
                self.store.get_file(key, Path(temporary))
            except NotFound:
                raise ArtifactError(
                    f"{self.store.url}/{key} ({file.name}): not found, though its manifest is; restore it or use --rerun"
                ) from None
            found = _digest(Path(temporary))
            if found != file.digest:
                raise ArtifactError(
                    f"{self.store.url}/{key} ({file.name}): has digest {found}, expected {file.digest}; it was changed or cut short"
                )
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        return path

    # -- checkpoints and parts: what makes interrupted work resumable

    def save_checkpoint(
        self, stage: Stage, key: str, name: str, files: Mapping[str, Path], values: Mapping[str, int | float | str]
    ) -> None:
        """Uploads the files, then replaces the pointer `name`: a reader sees the old checkpoint or the new one, whole."""
        self._save(f"{self._folder(stage, key)}/checkpoints/{name}.json", files, values)

    def load_checkpoint(
        self, stage: Stage, key: str, name: str
    ) -> tuple[dict[str, Path], dict[str, int | float | str]] | None:
        """Local, checked files by name, and the values; None where there is no such checkpoint."""
        pointer = self._pointer(f"{self._folder(stage, key)}/checkpoints/{name}.json")
        return None if pointer is None else ({f.name: self.fetch(f) for f in pointer.files}, dict(pointer.values))

    def save_part(
        self, stage: Stage, key: str, index: int, files: Mapping[str, Path], values: Mapping[str, int | float | str]
    ) -> None:
        """Like save_checkpoint, for one part of a stage that several processes make together."""
        self._save(f"{self._folder(stage, key)}/parts/{index:06d}.json", files, values)

    def parts(self, stage: Stage, key: str) -> dict[int, Pointer]:
        """The parts made so far, by index."""
        prefix = f"{self._folder(stage, key)}/parts/"
        found = {int(k.removeprefix(prefix).removesuffix(".json")): self._pointer(k) for k in self.store.list(prefix)}
        return {index: pointer for index, pointer in found.items() if pointer is not None}

    def _folder(self, stage: Stage, key: str) -> str:
        return f"{self.study}/{stage}/{key}"

    def _save(self, location: str, files: Mapping[str, Path], values: Mapping[str, int | float | str]) -> None:
        old = self._pointer(location)
        uploaded = tuple(self.upload(name, path) for name, path in files.items())
        self.store.put(location, Pointer(files=uploaded, values=dict(values)).model_dump_json().encode())
        kept = {file.digest for file in uploaded}
        for file in old.files if old else ():
            if file.digest not in kept:
                self.store.delete(f"blobs/sha256/{file.digest}")

    def _pointer(self, location: str) -> Pointer | None:
        try:
            return _parse(Pointer, self.store.get(location), f"{self.store.url}/{location}")
        except NotFound:
            return None


def _parse(kind: type[S], text: bytes, where: str) -> S:
    try:
        return kind.model_validate_json(text)
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise ArtifactError(
            f"{where}: not a {kind.__name__.lower()} that this version can read ({first}); use --rerun"
        ) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
