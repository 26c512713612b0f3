"""Follows a study's report through the store, to the final models, searches, images, generators and data, and checks all of it.

A manifest names its files and its inputs by digest, so whatever was changed or removed shows, except in the report's own manifest, which no
other one names: its digest is what a person can write down.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from shared.artifacts.artifacts import BLOBS, Artifacts, Damaged
from shared.artifacts.keys import canonical_digest
from shared.artifacts.manifest import Manifest
from shared.artifacts.store import NotFound, Store
from shared.config.stages import STAGES, Stage, stage_named
from shared.config.task import Input
from shared.log import Log
from shared.names import part_fault
from shared.parallel import in_threads
from shared.search.best_parameters import best_parameters

log = Log("verify")

PARALLEL = 4  # files read at the same time

_MANIFEST = re.compile(rf"([^/]+)/({'|'.join(STAGES)})/([^/]+)/manifest\.json")

_FINAL = re.compile(r"final/([^/]+)/([0-9]{1,9})")


class Place(NamedTuple):
    """Says where a manifest is."""

    study: str
    stage: Stage
    key: str

    def __str__(self) -> str:
        return f"{self.study}/{self.stage}/{self.key}/manifest.json"


@dataclass(frozen=True)
class Problem:
    """Describes an object that is not as it was committed."""

    kind: Literal["missing", "changed", "unlinked"]
    """Says whether the object is gone, has another content, or is whole but not what was read when the next stage ran."""
    object: str
    """Gives the object's key in the store."""
    reason: str


@dataclass
class Lineage:
    """Holds what was found of a study."""

    study: str
    report: Manifest | None
    """Holds the newest report; None if none is committed, and then everything that is committed is checked."""
    manifests: dict[Place, Manifest] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Returns whether there is a report, and everything that led to it is as it was committed."""
        return self.report is not None and not self.problems

    @property
    def sizes(self) -> dict[str, int]:
        """Returns the bytes of each blob by its digest."""
        return {file.digest: file.size for manifest in self.manifests.values() for file in manifest.files}


def studies(store: Store, study: str | None = None) -> dict[str, list[Place]]:
    """Returns where the manifests of each study in the store are, or of the one that is named."""
    places = defaultdict[str, list[Place]](list)
    for found in store.scan("" if study is None else f"{study}/"):
        match = _MANIFEST.fullmatch(found.key)
        if match is not None and part_fault(match[1]) is None and part_fault(match[3]) is None:
            place = Place(match[1], stage_named(match[2], found.key), match[3])
            places[place.study].append(place)
    return {name: sorted(places[name]) for name in sorted(places)}


def verify(artifacts: Artifacts, places: Iterable[Place]) -> Lineage:
    """Returns what was found of the study whose manifests are at these places, after reading every byte of its files.

    Raises UnavailableError if the store does not answer, and ArtifactError if it refuses.
    """
    lineage = Lineage(artifacts.study, None)
    roots = {place: _read(artifacts, place, lineage.problems) for place in places if place.stage == "report"}
    lineage.report = max(filter(None, roots.values()), key=lambda report: report.run.created, default=None)
    if lineage.report is None:
        roots = {place: _read(artifacts, place, lineage.problems) for place in places}
    else:
        lineage.problems.clear()  # those of older reports, which lead nowhere
        newest = next(place for place, report in roots.items() if report is lineage.report)
        roots = {newest: _read(artifacts, newest, lineage.problems)}
    lineage.manifests = {place: manifest for place, manifest in roots.items() if manifest is not None}
    _follow(artifacts, lineage)
    if lineage.report is not None:
        _check_searches(lineage, lineage.report)
    _check_files(artifacts.store, lineage)
    return lineage


def _read(artifacts: Artifacts, place: Place, problems: list[Problem], reader: str = "") -> Manifest | None:
    """Returns the manifest at a place if it can be read; notes what is wrong with it."""
    try:
        manifest = artifacts.find(place.stage, place.key, place.study)
    except Damaged as error:
        problems.append(Problem("changed", str(place), str(error).removeprefix(f"{artifacts.store.url}/{place}: ")))
        return None
    if manifest is None:
        reason = f"{reader} was made from it" if reader else "it was removed after it was listed"
        problems.append(Problem("missing", str(place), reason))
        return None
    if (manifest.study, manifest.stage, manifest.key) != place:
        own = f"{manifest.study}/{manifest.stage}/{manifest.key}"
        problems.append(Problem("unlinked", str(place), f"it is the manifest of {own}"))
    elif _key(manifest) != manifest.key:
        problems.append(Problem("changed", str(place), "its config and inputs are not those of its key"))
    return manifest


def _key(manifest: Manifest) -> str:
    """Returns the key that belongs to a manifest's content, as `shared.artifacts.keys.task_key` computes it for a task."""
    inputs = {role: each.digest for role, each in manifest.inputs.items()}
    return canonical_digest(
        {"stage": manifest.stage, "version": manifest.version, "config": manifest.config, "inputs": inputs}
    )


def _follow(artifacts: Artifacts, lineage: Lineage) -> None:
    """Reads the manifests of all inputs, theirs, and so on, and compares their digests."""
    left, seen = deque(lineage.manifests.items()), set(lineage.manifests)
    compared = set[tuple[Place, str]]()
    while left:
        at, manifest = left.popleft()
        for role, source in manifest.inputs.items():
            place = _place(at, source)
            if place not in seen:
                seen.add(place)
                found = _read(artifacts, place, lineage.problems, f"{at.stage} {at.key[:8]} (its {role})")
                if found is not None:
                    lineage.manifests[place] = found
                    left.append((place, found))
            known = lineage.manifests.get(place)
            if known is not None and known.digest != source.digest and (place, source.digest) not in compared:
                reason = (
                    f"has digest {known.digest}, but {at.stage} {at.key[:8]} (its {role}) was made from {source.digest}"
                )
                lineage.problems.append(Problem("unlinked", str(place), reason))
                compared.add((place, source.digest))


def _place(at: Place, source: Input) -> Place:
    return Place(source.study or at.study, source.stage, source.key)


def _check_searches(lineage: Lineage, report: Manifest) -> None:
    """Compares the parameters of each final training with what its search found: they are values of its config, no input of its own."""
    at = Place(report.study, report.stage, report.key)
    inputs = {role: _place(at, source) for role, source in report.inputs.items()}
    taken_from = _taken_from(report.config)
    repeated = isinstance(report.config.get("verdict"), dict)
    for role, place in inputs.items():
        final, match = lineage.manifests.get(place), _FINAL.fullmatch(role)
        if final is None or match is None:
            continue
        arm, passed = match[1], set[str]()
        while f"tune/{arm}" not in inputs and arm in taken_from and arm not in passed:
            passed.add(arm)
            arm = taken_from[arm]
        tune = lineage.manifests.get(inputs[f"tune/{arm}"]) if f"tune/{arm}" in inputs else None
        if tune is not None and not _fits(final.config, tune.summary, int(match[2]) if repeated else None, not passed):
            reason = f"its parameters are not those that the search tune {tune.key[:8]} found"
            lineage.problems.append(Problem("unlinked", str(place), reason))


def _taken_from(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the experiment whose parameters each one takes over, by name, as the report's config has it."""
    arms = config.get("experiments")
    return {
        str(arm.get("name")): arm["parameters_from"]
        for arm in (arms if isinstance(arms, list) else [])
        if isinstance(arm, dict) and isinstance(arm.get("parameters_from"), str)
    }


def _fits(config: Mapping[str, Any], summary: Mapping[str, Any], repetition: int | None, own: bool) -> bool:
    """Returns whether a final training has the parameters of a search: all of its own, or those that it takes over from another's."""
    parameters = config.get("parameters")
    try:
        found = best_parameters(summary, repetition)
    except (KeyError, IndexError, TypeError):
        return False
    if own or not isinstance(parameters, dict) or not isinstance(found, dict):
        return parameters == found
    return all(path in found and found[path] == value for path, value in parameters.items())


def _check_files(store: Store, lineage: Lineage) -> None:
    """Reads the files of all manifests, each once, and compares their digests."""
    readers: dict[tuple[str, int], str] = {}
    for place, manifest in lineage.manifests.items():
        for file in manifest.files:
            readers.setdefault((file.digest, file.size), f"{file.name!r} of {place.stage} {place.key[:8]}")
    with closing(in_threads(lambda blob: _fault(store, *blob), readers, PARALLEL)) as checked:
        for blob, fault in log.progress(checked, f"verify {lineage.study}", len(readers), "files"):
            if fault is not None:
                kind, reason = fault
                lineage.problems.append(Problem(kind, f"{BLOBS}{blob[0]}", f"{readers[blob]}{reason}"))


def _fault(store: Store, digest: str, size: int) -> tuple[Literal["missing", "changed"], str] | None:
    """Returns what is wrong with a blob, or None; reads nothing of one that has another size."""
    key = f"{BLOBS}{digest}"
    found = store.stat(key)
    if found is None:
        return "missing", ""
    if found.size != size:
        return "changed", f": has {found.size} bytes, expected {size}"
    try:
        other = store.digest(key)
    except NotFound:  # removed since
        return "missing", ""
    return None if other == digest else ("changed", f": has digest {other}")
