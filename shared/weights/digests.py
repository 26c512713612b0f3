"""Computes digests of the weights that a study names by location; keys contain the digest instead of the location.

So another file at the same location gives another result. A file that was moved, or copied from a folder to a bucket, gives the same one.
Weights from a hub or a package are identified by name and revision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shared.artifacts.open import is_s3, open_bucket, split_s3
from shared.artifacts.remote import expanded
from shared.artifacts.store import NotFound, Store
from shared.config.resolve import ResolvedExperiment, ResolvedStudy
from shared.config.search import Choice
from shared.config.stages import PRETRAINED
from shared.diffusion.generators import BaseFiles, generator_kind
from shared.digests import file_digest
from shared.errors import DataError
from shared.log import Log
from shared.settings import Settings
from shared.weights.roles import ADAPTER

if TYPE_CHECKING:
    from shared.artifacts.s3 import S3Store

log = Log("weights")

BIG = 256 << 20  # bytes; reading more takes a second or longer


def weight_locations(study: ResolvedStudy) -> tuple[dict[str, str], set[str]]:
    """Returns the files, each with the setting that names it, and the folders (`finetune.base`), local or in a bucket, that the stages read."""
    experiments = study.experiments
    with_images = [experiment for experiment in experiments if experiment.images != "real"]
    files = {value for experiment in experiments for value in _pretrained(experiment)}
    if with_images:
        files.add(study.written.classifier.pretrained)  # the judges' own
    adapters = [few.adapter for e in with_images if (few := e.generate.few_step) is not None and not few.on_hub]
    found = {
        value: PRETRAINED for value in files if isinstance(value, str) and not value.startswith("package:")
    } | dict.fromkeys(adapters, ADAPTER)
    return found, set(_bases(study))


def weight_digests(study: ResolvedStudy, settings: Settings, kept: Store) -> dict[str, str]:
    """Returns the SHA-256 of the weights by location: of a file's bytes, or of the names and digests of the files read from a folder.

    `kept` stores the digests, so that a file is read again only if it changed (by size and modification time; in a bucket by ETag). Raises
    DataError if there are no weights at a location, and what the bucket raises.
    """
    files, _ = weight_locations(study)
    found = {location: _file(location, files[location], settings, kept) for location in sorted(files)}
    return found | {location: _folder(location, base, settings, kept) for location, base in _bases(study).items()}


def _bases(study: ResolvedStudy) -> dict[str, list[BaseFiles]]:
    """Returns the files to read of the base models in a local folder or a bucket, by location: those of each generator that has it."""
    found: dict[str, list[BaseFiles]] = {}
    for finetune in (experiment.finetune for experiment in study.experiments if experiment.images != "real"):
        at, base = finetune.base_location, generator_kind(finetune.generator).base
        if at and base and (is_s3(at) or Path(at).is_dir()) and base not in found.setdefault(at, []):
            found[at].append(base)
    return found


def _pretrained(experiment: ResolvedExperiment) -> Iterable[bool | str | int | float]:
    choices = experiment.search.space.get(PRETRAINED) if experiment.search.trials else None
    return (experiment.classifier.pretrained, *(choices.values if isinstance(choices, Choice) else ()))


def _file(location: str, setting: str, settings: Settings, kept: Store) -> str:
    if is_s3(location):
        bucket, key = split_s3(location)
        store = open_bucket(bucket, "", settings)
        tag = next((listed.etag for listed in store.listed(key) if listed.key == key), None)
        if tag is None:
            raise DataError(f"{setting}: there is no object {location}; check bucket and key")
        return _object(store, key, tag, settings, kept)
    path = expanded(location)
    if not path.is_file():
        other = (
            "package:<module>/<file> or s3://bucket/key" if setting == PRETRAINED else "s3://bucket/key or a hub name"
        )
        raise DataError(f"{setting}: there is no file {location}; name an existing one, {other}")
    return _local(path, kept)


def _folder(location: str, bases: Sequence[BaseFiles], settings: Settings, kept: Store) -> str:
    def read(there: Iterable[str]) -> set[str]:
        names = [*there]
        return {name for base in bases for name in base.choose(names)}

    if is_s3(location):
        store = open_bucket(*split_s3(location), settings)
        tags = {listed.key: listed.etag for listed in store.listed()}
        digests = {name: _object(store, name, tags[name], settings, kept) for name in read(tags)}
    else:
        root = Path(location)
        paths = {path.relative_to(root).as_posix(): path for path in (*root.glob("*"), *root.glob("*/*"))}
        names = read(name for name, path in paths.items() if path.is_file())
        digests = {name: _local(paths[name], kept) for name in names}
    if not digests:
        raise DataError(f"finetune.base: {location} holds no model; name {' or '.join(base.layout for base in bases)}")
    return hashlib.sha256("\n".join(f"{name} {digests[name]}" for name in sorted(digests)).encode()).hexdigest()


def _local(path: Path, kept: Store) -> str:
    def read() -> str:
        if stat.st_size > BIG:
            log.info("reading weights once, for the key of what is made with them", file=path)
        return file_digest(path)

    stat = path.stat()
    return _remembered(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}", read, kept)


def _object(store: S3Store, key: str, tag: str, settings: Settings, kept: Store) -> str:
    identity = f"{settings.s3_endpoint} {store.url}/{key} {tag}"
    return _remembered(identity, lambda: store.digest(key), kept)


def _remembered(identity: str, read: Callable[[], str], kept: Store) -> str:
    key = hashlib.sha256(identity.encode()).hexdigest()
    try:
        return kept.get(key).decode()
    except NotFound:
        digest = read()
        kept.put(key, digest.encode())
        return digest
