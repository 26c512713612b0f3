"""Where every number comes from and what it cost: one row a committed result."""

from __future__ import annotations

from dataclasses import dataclass

from shared.config.task import STAGES
from shared.report.inputs import Results


@dataclass(frozen=True)
class Entry:
    """A committed result."""

    stage: str
    roles: list[str]
    """Of the report's inputs; several where experiments share it."""
    key: str
    digest: str
    version: int
    inputs: dict[str, str]
    """Role → digest of what it was made from."""
    created: str
    device: str
    seconds: float
    device_seconds: float
    code: str
    libraries: dict[str, str]


@dataclass(frozen=True)
class StageCost:
    """A stage over the whole study."""

    stage: str
    results: int
    wall_seconds: float
    gpu_seconds: float
    devices: list[str]


def ledger(results: Results) -> list[Entry]:
    """All results, each once, in the order of the stages."""
    entries: dict[tuple[str, str], Entry] = {}
    for role in sorted(results, key=lambda r: [int(p) if p.isdecimal() else 0 for p in r.split("/")] + [len(r)]):
        manifest = results[role].manifest
        entry = entries.setdefault(
            (manifest.stage, manifest.key),
            Entry(
                stage=manifest.stage,
                roles=[],
                key=manifest.key,
                digest=manifest.digest,
                version=manifest.version,
                inputs={name: source.digest for name, source in manifest.inputs.items()},
                created=manifest.run.created,
                device=manifest.run.device,
                seconds=manifest.run.seconds,
                device_seconds=manifest.run.device_seconds,
                code=manifest.run.code,
                libraries=manifest.run.libraries,
            ),
        )
        entry.roles.append(role)
    return sorted(entries.values(), key=lambda e: STAGES.index(e.stage))


def costs(entries: list[Entry]) -> list[StageCost]:
    """Wall and GPU time of each stage: what several processes spent at once counts for each of them."""
    found = []
    for stage in STAGES:
        of_stage = [entry for entry in entries if entry.stage == stage]
        if of_stage:
            found.append(
                StageCost(
                    stage=stage,
                    results=len(of_stage),
                    wall_seconds=sum(e.seconds for e in of_stage),
                    gpu_seconds=sum(e.device_seconds for e in of_stage),
                    devices=sorted({e.device for e in of_stage}),
                )
            )
    return found
