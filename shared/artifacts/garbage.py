"""Finds and removes what no study needs: blobs that no manifest names, and writes that never ended.

Commits may happen at any moment, and none of them may lose a blob. Four rules ensure that, of which the first two suffice if clocks run
and processes do not pause:

1. A commit puts all its blobs, also those that exist, so that they are young; a blob is removed only if it is older than a day.
2. The age is asked for again right before a blob is removed.
3. A blob is moved to `removed/` first, into a folder of this removal alone. Then the manifests are read once more, and a blob that one names
   by now is moved back.
4. A commit looks for its blobs again after its manifest exists (`Artifacts.commit`), and puts those again that are missing.

So if a blob is removed between its upload and the commit, either the manifest came before the second reading of rule 3, or the check of
rule 4 came after the removal. A process that is killed meanwhile leaves blobs in `removed/`. The next one moves back what is needed; it removes
the rest only if that is older than a day, as the process may still be at work: what it moves may be the only copy.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

from shared.artifacts.artifacts import BLOBS
from shared.artifacts.folder import INCOMING
from shared.artifacts.store import NotFound, Store, Stored, Unfinished
from shared.config.stages import STAGES
from shared.log import Log
from shared.names import name_fault
from shared.parallel import in_threads

log = Log("gc")

OLD_SECONDS = 24 * 3600.0  # a commit takes far less from the upload of its first blob to its manifest
REMOVED = "removed/sha256/"
LISTED_PER_LINE = 50_000  # objects; an S3 server lists about 5,000 per second
PARALLEL = 16  # small requests at the same time, as most of their time is round trips

_BLOB = re.compile(re.escape(BLOBS) + "[0-9a-f]{64}")
_NAMED = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_WRITTEN = re.compile(rf"({re.escape(BLOBS)}|{re.escape(REMOVED)}|[^/]+/({'|'.join(STAGES)})/|{re.escape(INCOMING)}/)")
"""Matches the beginning of the keys that tailfill writes; a bucket may hold uploads of others."""


@dataclass(frozen=True)
class Garbage:
    """Holds what may be removed from a store, and counts what stays."""

    manifests: int
    named: int
    """Counts the blobs that a manifest names."""
    young: int
    """Counts the blobs that no manifest names and that are too young to be removed."""
    blobs: tuple[Stored, ...]
    uploads: tuple[Unfinished, ...]
    interrupted: int
    """Counts the blobs in `removed/`, of processes that were killed or are at work."""

    @property
    def bytes(self) -> int:
        """Returns the size of the blobs that may be removed."""
        return sum(blob.size for blob in self.blobs)


def find_garbage(store: Store, old_seconds: float = OLD_SECONDS) -> Garbage:
    """Returns what no manifest of any study in the store names and what is older than `old_seconds`; changes nothing.

    Raises the errors of the store: if one manifest cannot be read, nothing is known to be garbage.
    """
    manifests, named = _named(store)
    blobs, kept, young = [], 0, 0
    for blob in _counted(store.scan(BLOBS), "blobs"):
        if _BLOB.fullmatch(blob.key) is None:
            continue
        if _digest(blob.key) in named:
            kept += 1
        elif blob.age > old_seconds:
            blobs.append(blob)
        else:
            young += 1
    uploads = tuple(w for w in store.unfinished() if w.age > old_seconds and _WRITTEN.match(w.key) is not None)
    interrupted = sum(1 for left in store.scan(REMOVED) if _digest(left.key))
    return Garbage(manifests, kept, young, tuple(sorted(blobs)), uploads, interrupted)


def remove_garbage(store: Store, garbage: Garbage, old_seconds: float = OLD_SECONDS) -> int:
    """Removes what `find_garbage` found, except what is needed or young by now; returns how many blobs it removed.

    It may be killed at any moment and called again, and several at once do no harm.
    """
    for upload in garbage.uploads:
        store.abandon(upload)
    own = f"{REMOVED}{uuid.uuid4().hex}/"
    for blob in log.progress(garbage.blobs, f"remove from {store.url}", len(garbage.blobs), "blobs"):
        found = store.stat(blob.key)
        if found is not None and found.age > old_seconds:
            _move(store, blob.key, own + blob.key.removeprefix(BLOBS))
    return _empty(store, own, old_seconds)


def _empty(store: Store, own: str, old_seconds: float) -> int:
    """Moves back what a manifest names by now; removes the rest of what is below `own`, or was left by a killed process long ago.

    Returns how many blobs below `own` were removed.
    """
    named = _named(store)[1]
    count = 0
    for left in store.scan(REMOVED):
        digest = _digest(left.key)
        if not digest:  # none of ours
            continue
        blob = BLOBS + digest.hex()
        if digest in named and store.stat(blob) is None:
            log.warning("a blob is put back, as a study was committed meanwhile that needs it", key=blob)
            _move(store, left.key, blob)
        elif left.key.startswith(own) or left.age > old_seconds:
            store.delete(left.key)
            count += left.key.startswith(own) and digest not in named
    return count


def _move(store: Store, key: str, target: str) -> None:
    with suppress(NotFound):  # another process was faster
        store.move(key, target)


def _named(store: Store) -> tuple[int, set[bytes]]:
    """Returns the number of manifests of all studies, and all digests in them.

    Whatever looks like a digest counts, so that the manifests of other versions keep their blobs.
    """
    keys = [found.key for found in _counted(store.scan(""), "objects") if _is_manifest(found.key)]
    named: set[bytes] = set()
    with closing(in_threads(lambda key: _digests(store, key), keys, PARALLEL)) as read:
        for _, digests in log.progress(read, "read manifests", len(keys), "manifests"):
            named |= digests
    return len(keys), named


def _is_manifest(key: str) -> bool:
    """Returns whether a key may be a manifest's: of any stage, as other versions have others, but not one that no store of ours takes."""
    return key.endswith("/manifest.json") and name_fault(key) is None


def _digests(store: Store, key: str) -> set[bytes]:
    try:
        return {bytes.fromhex(found.decode()) for found in _NAMED.findall(store.get(key))}
    except NotFound:  # forgotten by --rerun since it was listed
        return set()


def _digest(key: str) -> bytes:
    name = key.rpartition("/")[2]
    return bytes.fromhex(name) if re.fullmatch("[0-9a-f]{64}", name) else b""


def _counted(found: Iterator[Stored], unit: str) -> Iterator[Stored]:
    """Yields what a store lists; it logs from time to time how much that is, as nobody knows how much is to come."""
    for number, each in enumerate(found, 1):
        if number % LISTED_PER_LINE == 0:
            log.info("listed", **{unit: number})
        yield each
