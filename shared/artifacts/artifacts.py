"""Reads and writes a study's artifacts: commits files under a manifest, fetches them checked, keeps checkpoints.

Layout in the store::

    blobs/sha256/<digest>                              committed bytes, by their own hash, shared by all manifests
    removed/sha256/<removal>/<digest>                  blobs that a `tailfill gc` is removing (`shared.artifacts.garbage`)
    <study>/<stage>/<key>/manifest.json                written last and once: the commit
    <study>/<stage>/<key>/checkpoints/<name>.json      names the files of the last checkpoint; replaced as work continues
    <study>/<stage>/<key>/checkpoints/<name>/<save>/   those files, in a folder of each save; a stage's own names end in `.<attempt>`
    <study>/<stage>/<key>/parts/<index>.json           a shard of a stage that several processes make together; written once
    <study>/<stage>/<key>/parts/<index>/<save>/        its files
    <study>/<stage>/<key>/spent/<process>.json         the time that a process has spent on it (`shared.usage`)
    <study>/<stage>/<key>/tasks/<digest>.json          the tasks of a cluster's Job, of which the first has this key; written once

Checkpoints and parts are not blobs, so that removing them cannot remove the bytes of a manifest's file. The commit removes them, including
files that a killed process left before it wrote their pointer, except the checkpoints that the call of `commit` names.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from pydantic import ValidationError

from shared.artifacts.disk import disk_errors, whole_file
from shared.artifacts.manifest import File, Manifest
from shared.artifacts.store import NotFound, Store
from shared.config.base import Section
from shared.config.stages import Stage
from shared.config.task import Input, Task, TaskReference, block_json, block_of_json
from shared.digests import file_digest, stream_digest
from shared.errors import ArtifactError, UnavailableError
from shared.log import Log
from shared.names import FileName, checked_name, checked_part, path_below, shown

S = TypeVar("S", bound=Section)
log = Log("artifacts")

REMEDY = "remove that object from the store, and run again"
BLOBS = "blobs/sha256/"


class Damaged(ArtifactError):
    """Says that an object in the store is not what was written there."""


class PlacedFile(File):
    """Describes a file of a checkpoint or a part, which has a key of its own instead of one among the blobs."""

    location: FileName
    """Gives the file's key in the store."""


class Pointer(Section):
    """Describes a checkpoint or a part: its files and a few values."""

    files: tuple[PlacedFile, ...]
    values: dict[str, int | float | str]


class Artifacts:
    """Holds one study's artifacts in a store, and a cache of blobs on local disk that the processes of a node share."""

    def __init__(self, store: Store, study: str, cache: Path) -> None:
        self.store = store
        self.study = study
        self.cache = cache
        self._verified: set[str] = set()

    # -- committed results

    def find(self, stage: Stage, key: str, study: str | None = None) -> Manifest | None:
        """Returns the manifest, or None if nothing is committed under that key; of another study if `study` is given."""
        location = f"{self._folder(stage, key, study)}/manifest.json"
        try:
            text = self.store.get(location)
        except NotFound:
            return None
        return _parse(Manifest, text, f"{self.store.url}/{location}")

    def open(self, source: Input) -> Manifest:
        """Returns the manifest of an input; raises ArtifactError if it is missing or its digest is not that of the task."""
        manifest = self.find(source.stage, source.key, source.study)
        where = f"{self.store.url}/{self._folder(source.stage, source.key, source.study)}/manifest.json"
        if manifest is None:
            raise ArtifactError(f"{where}: not found; run the stage {source.stage} first")
        if manifest.digest != source.digest:
            raise ArtifactError(
                f"{where}: has digest {manifest.digest}, expected {source.digest}; run the study again from `tailfill run`"
            )
        return manifest

    def commit(
        self,
        manifest: Manifest,
        unfinished: Sequence[str] = (),
        paths: Mapping[str, Path] = MappingProxyType({}),
    ) -> Manifest:
        """Writes the manifest if the key has none; returns the committed one, which is another process's if that was faster.

        Its blobs were uploaded before. Those of `paths`, the local files by name, are looked for again once the manifest names them, and put
        again if `tailfill gc` removed one in between. Its checkpoints and parts are removed afterwards, except the checkpoints named
        `unfinished`, from which work continues under another key.
        """
        folder = self._folder(manifest.stage, manifest.key)
        self.store.create(f"{folder}/manifest.json", manifest.model_dump_json(indent=1).encode())
        committed = self.find(manifest.stage, manifest.key)
        if committed is None:
            raise ArtifactError(f"{self.store.url}/{folder}/manifest.json: vanished after it was written; run again")
        for file in set(manifest.files) & set(committed.files):
            if file.name in paths and not self.store.exists(_blob(file)):
                self.store.put_file(_blob(file), paths[file.name])
        kept = [f"{folder}/checkpoints/{name}{end}" for name in unfinished for end in (".json", "/")]
        self.clean(manifest.stage, manifest.key, kept)
        return committed

    def forget(self, stage: Stage, key: str) -> None:
        """Removes the manifest, so that the stage runs again from the start; its blobs stay, as other manifests may name them."""
        folder = self._folder(stage, key)
        self.store.put(f"{folder}/generation", str(self.generation(stage, key) + 1).encode())
        self.clean(stage, key)
        self.store.delete(f"{folder}/manifest.json")

    def generation(self, stage: Stage, key: str) -> int:
        """Returns how often the result was forgotten, from which a search in PostgreSQL learns that it must begin again."""
        location = f"{self._folder(stage, key)}/generation"
        try:
            text = self.store.get(location)
        except NotFound:
            return 0
        if not re.fullmatch(rb"[0-9]{1,9}", text):
            raise ArtifactError(
                f"{self.store.url}/{location}: must be a small whole number, got {shown(text)}; remove it"
            )
        return int(text)

    def manifests(self, stage: Stage) -> list[Manifest]:
        """Returns all manifests of a stage in this study, under any key."""
        return [manifest for key in self.committed(stage) if (manifest := self.find(stage, key)) is not None]

    def committed(self, stage: Stage) -> list[str]:
        """Returns the keys under which results of a stage are committed in this study; it lists them, and reads none."""
        prefix = f"{checked_part(self.study, f'{self.store.url}: the study')}/{stage}/"
        return [key.split("/")[-2] for key in self.store.list(prefix) if key.endswith("/manifest.json")]

    def clean(self, stage: Stage, key: str, kept: Sequence[str] = ()) -> None:
        """Removes the checkpoints, parts and records of time of a stage's result, including those of killed processes.

        Objects whose key begins with one of `kept` stay.
        """
        for prefix in ("checkpoints", "parts", "spent"):
            for location in list(self.store.list(f"{self._folder(stage, key)}/{prefix}/")):
                if not location.startswith(tuple(kept)):
                    self.store.delete(location)

    # -- the tasks of Jobs, which stay small as they only refer to them

    def save_tasks(self, tasks: Sequence[Task]) -> TaskReference:
        """Writes tasks of one stage, by the digest of their JSON, so that the same ones are written once; returns what refers to them."""
        text = block_json(tasks).encode()
        keys = tuple(task.key for task in tasks)
        reference = TaskReference(study=self.study, stage=tasks[0].stage, keys=keys, digest=stream_digest([text]))
        self.store.create(self._tasks(reference), text)
        return reference

    def load_tasks(self, reference: TaskReference) -> list[Task]:
        """Returns the tasks to which a Job refers.

        Raises ArtifactError if they are missing or were changed, and ValidationError if another version wrote them.
        """
        where = f"{self.store.url}/{self._tasks(reference)}"
        remedy = "delete the Job, which control then makes again with its tasks"
        try:
            text = self.store.get(self._tasks(reference))
        except NotFound:
            raise ArtifactError(f"{where}: not found, though a Job refers to it; {remedy}") from None
        if (found := stream_digest([text])) != reference.digest:
            raise ArtifactError(f"{where}: has digest {found}, which is not its name; remove it, and {remedy}")
        return block_of_json(text)

    def _tasks(self, reference: TaskReference) -> str:
        return f"{self._folder(reference.stage, reference.keys[0])}/tasks/{reference.digest}.json"

    # -- blobs

    def upload(self, name: str, path: Path) -> File:
        """Writes a file's bytes under their digest and returns the entry for a manifest.

        Existing bytes are overwritten with the same ones, which repairs them if they were damaged, and makes them young again: `tailfill gc`
        removes no young blob.
        """
        file = _describe(name, path)
        self.store.put_file(_blob(file), path)
        return file

    def fetch(self, file: File) -> Path:
        """Returns the path of the file's bytes on local disk, checked once per process; raises ArtifactError if the digest differs."""
        path = path_below(self.cache, f"sha256/{file.digest[:2]}/{file.digest}", file.name)
        if file.digest in self._verified and path.exists():
            return path
        with disk_errors(path):
            cached = path.exists() and path.stat().st_size == file.size and file_digest(path) == file.digest
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
                self.store.get_file(key, temporary, file.size)
            except NotFound:
                if isinstance(file, PlacedFile):
                    raise UnavailableError(
                        f"{where}: was replaced or committed by another process meanwhile; run the same command again"
                    ) from None
                raise ArtifactError(
                    f"{where}: not found, though its manifest is; restore it, or make it again with --rerun"
                ) from None
            found = file_digest(temporary)
            if found != file.digest:
                raise ArtifactError(
                    f"{where}: has digest {found}, expected {file.digest}; it was changed or cut short: "
                    "restore it, or make it again with --rerun"
                )

    # -- checkpoints and parts: what makes interrupted work resumable

    def save_checkpoint(
        self, stage: Stage, key: str, name: str, files: Mapping[str, Path], values: Mapping[str, int | float | str]
    ) -> None:
        """Uploads the files, then replaces the pointer `name`: a reader sees either the whole old checkpoint or the whole new one."""
        self._save(self._checkpoint(stage, key, name), files, values)

    def load_checkpoint(
        self, stage: Stage, key: str, name: str
    ) -> tuple[dict[str, Path], dict[str, int | float | str]] | None:
        """Returns local, checked files by name, and the values; None if there is no such checkpoint."""
        pointer = self._pointer(self._checkpoint(stage, key, name))
        return None if pointer is None else ({f.name: self.fetch(f) for f in pointer.files}, dict(pointer.values))

    def discard_checkpoint(self, stage: Stage, key: str, name: str) -> None:
        """Removes a checkpoint if it exists, its pointer first, so that no reader finds one without its files."""
        location = self._checkpoint(stage, key, name)
        pointer = self._pointer(location)
        self.store.delete(location)
        self._remove(pointer)

    def begin_attempt(self, stage: Stage, key: str, name: str) -> int:
        """Returns the number of a new attempt, higher than those of all others, which saves its checkpoints as `<name>.<number>`."""
        number = max(self.attempts(stage, key, name), default=0) + 1
        nothing = Pointer(files=(), values={}).model_dump_json().encode()
        while not self.store.create(self._checkpoint(stage, key, f"{name}.{number}"), nothing):
            number += 1
        return number

    def attempts(self, stage: Stage, key: str, name: str) -> list[int]:
        """Returns the numbers of the attempts that have begun, in order, except those whose checkpoint was discarded."""
        prefix = self._checkpoint(stage, key, name).removesuffix("json")
        ends = (location.removeprefix(prefix) for location in self.store.list(prefix))
        return sorted(int(end.removesuffix(".json")) for end in ends if re.fullmatch(r"[0-9]{1,9}\.json", end))

    def save_part(
        self, stage: Stage, key: str, index: int, files: Mapping[str, Path], values: Mapping[str, int | float | str]
    ) -> None:
        """Saves one part of a stage that several processes make together, unless another process has saved it."""
        location = f"{self._folder(stage, key)}/parts/{index:06d}.json"
        made = self._place(location, files, values)
        if not self.store.create(location, made.model_dump_json().encode()) and self._pointer(location) != made:
            self._remove(made)

    def has_part(self, stage: Stage, key: str, index: int) -> bool:
        """Returns whether that part was saved."""
        return self.store.exists(f"{self._folder(stage, key)}/parts/{index:06d}.json")

    def parts(self, stage: Stage, key: str) -> dict[int, Pointer]:
        """Returns the parts saved so far, by index."""
        prefix = f"{self._folder(stage, key)}/parts/"
        names = (location.removeprefix(prefix) for location in self.store.list(prefix))
        indexes = [int(name.removesuffix(".json")) for name in names if re.fullmatch(r"[0-9]{6,}\.json", name)]
        found = {index: self._pointer(f"{prefix}{index:06d}.json") for index in indexes}
        return {index: pointer for index, pointer in found.items() if pointer is not None}

    def _folder(self, stage: Stage, key: str, study: str | None = None) -> str:
        study = checked_part(study or self.study, f"{self.store.url}: the study")
        return f"{study}/{stage}/{checked_part(key, f'{self.store.url}/{study}/{stage}')}"

    def _checkpoint(self, stage: Stage, key: str, name: str) -> str:
        """Returns the key of the pointer of that name."""
        folder = f"{self._folder(stage, key)}/checkpoints"
        return f"{folder}/{checked_part(name, f'{self.store.url}/{folder}')}.json"

    def _save(self, location: str, files: Mapping[str, Path], values: Mapping[str, int | float | str]) -> None:
        old = self._pointer(location)
        made = self._place(location, files, values)
        self.store.put(location, made.model_dump_json().encode())
        self._remove(old)

    def _place(self, location: str, files: Mapping[str, Path], values: Mapping[str, int | float | str]) -> Pointer:
        """Uploads the files into a folder of their own, and returns what is to be written at `location`."""
        folder = f"{location.removesuffix('.json')}/{uuid.uuid4().hex}"
        placed = []
        for name, path in files.items():
            file = _describe(name, path)
            placed.append(PlacedFile(name=name, digest=file.digest, size=file.size, location=f"{folder}/{name}"))
            self.store.put_file(placed[-1].location, path)
        return Pointer(files=tuple(placed), values=dict(values))

    def _remove(self, pointer: Pointer | None) -> None:
        for file in pointer.files if pointer else ():
            self.store.delete(file.location)

    def _pointer(self, location: str) -> Pointer | None:
        try:
            pointer = _parse(Pointer, self.store.get(location), f"{self.store.url}/{location}")
        except NotFound:
            return None
        folder = f"{location.removesuffix('.json')}/"
        for file in pointer.files:
            if not file.location.startswith(folder):  # else discarding it would remove other objects
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
        raise Damaged(
            f"{where}: not a {kind.__name__.lower()} that this version can read ({place}{first['msg']}, got "
            f"{shown(first['input'])}); {REMEDY}"
        ) from error


def _describe(name: str, path: Path) -> File:
    return File(name=checked_name(name, str(path)), digest=file_digest(path), size=path.stat().st_size)


def _blob(file: File) -> str:
    return f"{BLOBS}{file.digest}"
