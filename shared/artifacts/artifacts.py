"""What stages call: commit files under a manifest, fetch them checked, keep checkpoints.

Layout in the store::

    blobs/sha256/<digest>                              committed bytes, by their own hash, shared by all manifests; never removed here
    <study>/<stage>/<key>/manifest.json                written last and once: the commit
    <study>/<stage>/<key>/checkpoints/<name>.json      names the files of the last checkpoint; replaced as work goes on
    <study>/<stage>/<key>/checkpoints/<name>/<save>/   those files, in a folder of each save
    <study>/<stage>/<key>/parts/<index>.json           a shard of a stage that several processes make together
    <study>/<stage>/<key>/parts/<index>/<save>/        its files
    <study>/<stage>/<key>/spent/<process>.json         the time that a process has spent on it (`shared.usage`)

Checkpoints and parts are no blobs, so that removing them can never take a file from under a manifest with the same bytes in it. What a
killed process leaves of them (files whose pointer was never written) goes with all the others at the commit; those named by
`commit` stay.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from shared.artifacts.disk import disk_errors, whole_file
from shared.artifacts.manifest import File, Manifest
from shared.artifacts.store import NotFound, Store
from shared.config.base import Section
from shared.config.stages import Stage
from shared.config.task import Input
from shared.errors import ArtifactError, UnavailableError
from shared.log import Log
from shared.names import FileName, checked_name, checked_part, path_below, shown

S = TypeVar("S", bound=Section)
log = Log("artifacts")

REMEDY = "remove that object from the store, and run again"


class PlacedFile(File):
    """A file of a checkpoint or a part: it has a place of its own instead of one among the blobs."""

    location: FileName
    """Its key in the store."""


class Pointer(Section):
    """A checkpoint or a part: its files, and a few values."""

    files: tuple[PlacedFile, ...]
    values: dict[str, int | float | str]


class Artifacts:
    """One study's artifacts in a store, with a cache of bytes by digest on local disk, shared by the processes of a node."""

    def __init__(self, store: Store, study: str, cache: Path) -> None:
        self.store = store
        self.study = study
        self.cache = cache
        self._verified: set[str] = set()

    # -- committed results

    def find(self, stage: Stage, key: str, study: str | None = None) -> Manifest | None:
        """The manifest, or None where nothing is committed under that key (of another `study` where one is named)."""
        location = f"{self._folder(stage, key, study)}/manifest.json"
        try:
            text = self.store.get(location)
        except NotFound:
            return None
        return _parse(Manifest, text, f"{self.store.url}/{location}")

    def open(self, source: Input) -> Manifest:
        """The manifest of an input; raises ArtifactError where it is missing or has another digest than the task says."""
        manifest = self.find(source.stage, source.key, source.study)
        where = f"{self.store.url}/{self._folder(source.stage, source.key, source.study)}/manifest.json"
        if manifest is None:
            raise ArtifactError(f"{where}: not found; run the stage {source.stage} first")
        if manifest.digest != source.digest:
            raise ArtifactError(
                f"{where}: has digest {manifest.digest}, expected {source.digest}; run the study again from `tailfill run`"
            )
        return manifest

    def commit(self, manifest: Manifest, unfinished: Sequence[str] = ()) -> Manifest:
        """Writes the manifest if the key has none; returns the committed one, which is another's where it was faster.

        Its checkpoints and parts are removed afterwards, but for the checkpoints named `unfinished`: work goes on from them under another key.
        """
        folder = self._folder(manifest.stage, manifest.key)
        self.store.create(f"{folder}/manifest.json", manifest.model_dump_json(indent=1).encode())
        committed = self.find(manifest.stage, manifest.key)
        if committed is None:
            raise ArtifactError(f"{self.store.url}/{folder}/manifest.json: vanished after it was written; run again")
        kept = [f"{folder}/checkpoints/{name}{end}" for name in unfinished for end in (".json", "/")]
        self.clean(manifest.stage, manifest.key, kept)
        return committed

    def forget(self, stage: Stage, key: str) -> None:
        """Removes the manifest, so that the stage runs again, from the start; its blobs stay, for whoever else names them."""
        folder = self._folder(stage, key)
        self.store.put(f"{folder}/generation", str(self.generation(stage, key) + 1).encode())
        self.clean(stage, key)
        self.store.delete(f"{folder}/manifest.json")

    def generation(self, stage: Stage, key: str) -> int:
        """How often the result was forgotten: what a search in PostgreSQL goes by, to begin anew."""
        try:
            return int(self.store.get(f"{self._folder(stage, key)}/generation"))
        except NotFound:
            return 0

    def manifests(self, stage: Stage) -> list[Manifest]:
        """All that is committed of a stage in this study, under whatever keys."""
        keys = [
            key.split("/")[-2] for key in self.store.list(f"{self.study}/{stage}/") if key.endswith("/manifest.json")
        ]
        return [manifest for key in keys if (manifest := self.find(stage, key)) is not None]

    def clean(self, stage: Stage, key: str, kept: Sequence[str] = ()) -> None:
        """Removes what is left of the checkpoints, parts and times spent of a committed stage, also those of killed processes.

        What begins with one of `kept` stays.
        """
        for prefix in ("checkpoints", "parts", "spent"):
            for location in list(self.store.list(f"{self._folder(stage, key)}/{prefix}/")):
                if not location.startswith(tuple(kept)):
                    self.store.delete(location)

    # -- blobs

    def upload(self, name: str, path: Path) -> File:
        """Puts a file's bytes under their digest and returns the entry for a manifest.

        Bytes that stand there already are written over with the same ones, which mends them where they were damaged.
        """
        file = _describe(name, path)
        self.store.put_file(_blob(file), path)
        return file

    def fetch(self, file: File) -> Path:
        """The file's bytes on local disk, checked against its digest once a process; raises ArtifactError where they differ."""
        path = path_below(self.cache, f"sha256/{file.digest[:2]}/{file.digest}", file.name)
        if file.digest in self._verified and path.exists():
            return path
        with disk_errors(path):
            cached = path.exists() and path.stat().st_size == file.size and _digest(path) == file.digest
            if path.exists() and not cached:
                log.warning("a cached file is damaged and is fetched again", path=path)
        if not cached:
            self._download(file, path)
        self._verified.add(file.digest)
        return path

    def _download(self, file: File, path: Path) -> None:
        key = file.location if isinstance(file, PlacedFile) else _blob(file)
        where = f"{self.store.url}/{key} ({file.name})"
        with whole_file(path) as temporary:
            try:
                self.store.get_file(key, temporary)
            except NotFound:
                if isinstance(file, PlacedFile):
                    raise UnavailableError(
                        f"{where}: was replaced or committed by another process meanwhile; run the same command again"
                    ) from None
                raise ArtifactError(
                    f"{where}: not found, though its manifest is; restore it, or make it again with --rerun"
                ) from None
            found = _digest(temporary)
            if found != file.digest:
                raise ArtifactError(
                    f"{where}: has digest {found}, expected {file.digest}; it was changed or cut short: "
                    "restore it, or make it again with --rerun"
                )

    # -- checkpoints and parts: what makes interrupted work resumable

    def save_checkpoint(
        self, stage: Stage, key: str, name: str, files: Mapping[str, Path], values: Mapping[str, int | float | str]
    ) -> None:
        """Uploads the files, then replaces the pointer `name`: a reader sees the old checkpoint or the new one, whole."""
        self._save(self._checkpoint(stage, key, name), files, values)

    def load_checkpoint(
        self, stage: Stage, key: str, name: str
    ) -> tuple[dict[str, Path], dict[str, int | float | str]] | None:
        """Local, checked files by name, and the values; None where there is no such checkpoint."""
        pointer = self._pointer(self._checkpoint(stage, key, name))
        return None if pointer is None else ({f.name: self.fetch(f) for f in pointer.files}, dict(pointer.values))

    def discard_checkpoint(self, stage: Stage, key: str, name: str) -> None:
        """Removes a checkpoint, its pointer first, so that no reader finds one without its files; nothing happens where there is none."""
        location = self._checkpoint(stage, key, name)
        pointer = self._pointer(location)
        self.store.delete(location)
        for file in pointer.files if pointer else ():
            self.store.delete(file.location)

    def save_part(
        self, stage: Stage, key: str, index: int, files: Mapping[str, Path], values: Mapping[str, int | float | str]
    ) -> None:
        """Like save_checkpoint, for one part of a stage that several processes make together."""
        self._save(f"{self._folder(stage, key)}/parts/{index:06d}.json", files, values)

    def has_part(self, stage: Stage, key: str, index: int) -> bool:
        """Whether that part is made."""
        return self.store.exists(f"{self._folder(stage, key)}/parts/{index:06d}.json")

    def parts(self, stage: Stage, key: str) -> dict[int, Pointer]:
        """The parts made so far, by index."""
        prefix = f"{self._folder(stage, key)}/parts/"
        names = (location.removeprefix(prefix) for location in self.store.list(prefix))
        indexes = [int(name.removesuffix(".json")) for name in names if re.fullmatch(r"[0-9]{6,}\.json", name)]
        found = {index: self._pointer(f"{prefix}{index:06d}.json") for index in indexes}
        return {index: pointer for index, pointer in found.items() if pointer is not None}

    def _folder(self, stage: Stage, key: str, study: str | None = None) -> str:
        study = checked_part(study or self.study, f"{self.store.url}: the study")
        return f"{study}/{stage}/{checked_part(key, f'{self.store.url}/{study}/{stage}')}"

    def _checkpoint(self, stage: Stage, key: str, name: str) -> str:
        """Key of the pointer of that name."""
        folder = f"{self._folder(stage, key)}/checkpoints"
        return f"{folder}/{checked_part(name, f'{self.store.url}/{folder}')}.json"

    def _save(self, location: str, files: Mapping[str, Path], values: Mapping[str, int | float | str]) -> None:
        old = self._pointer(location)
        folder = f"{location.removesuffix('.json')}/{uuid.uuid4().hex}"
        placed = []
        for name, path in files.items():
            file = _describe(name, path)
            placed.append(PlacedFile(name=name, digest=file.digest, size=file.size, location=f"{folder}/{name}"))
            self.store.put_file(placed[-1].location, path)
        self.store.put(location, Pointer(files=tuple(placed), values=dict(values)).model_dump_json().encode())
        for gone in old.files if old else ():
            self.store.delete(gone.location)

    def _pointer(self, location: str) -> Pointer | None:
        try:
            pointer = _parse(Pointer, self.store.get(location), f"{self.store.url}/{location}")
        except NotFound:
            return None
        folder = f"{location.removesuffix('.json')}/"
        for file in pointer.files:
            if not file.location.startswith(folder):  # else to discard it would remove another's objects
                raise ArtifactError(
                    f"{self.store.url}/{location}: names {shown(file.location)}, which is not below {folder}; {REMEDY}"
                )
        return pointer


def _parse(kind: type[S], text: bytes, where: str) -> S:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{step}: " for step in [".".join(map(str, first["loc"]))] if step)
        raise ArtifactError(
            f"{where}: not a {kind.__name__.lower()} that this version can read ({place}{first['msg']}, got "
            f"{shown(first['input'])}); {REMEDY}"
        ) from error


def _describe(name: str, path: Path) -> File:
    return File(name=checked_name(name, str(path)), digest=_digest(path), size=path.stat().st_size)


def _blob(file: File) -> str:
    return f"blobs/sha256/{file.digest}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
