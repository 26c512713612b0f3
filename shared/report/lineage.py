"""Where every number comes from and what it cost: one row a committed result."""

from __future__ import annotations

from dataclasses import dataclass

from shared.artifacts.manifest import Manifest
from shared.config.stages import STAGES
from shared.report.inputs import Results


@dataclass(frozen=True)
class LineageEntry:
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
    """On a GPU."""
    cpu_seconds: float
    device_lost_seconds: float
    cpu_lost_seconds: float
    code: str
    libraries: dict[str, str]


@dataclass(frozen=True)
class StageCost:
    """A stage over the whole study."""

    stage: str
    results: int
    wall_seconds: float
    gpu_seconds: float
    gpu_lost_seconds: float
    """Of these, work that went with a process."""
    cpu_seconds: float
    """Without a GPU."""
    cpu_lost_seconds: float
    devices: list[str]


def lineage_entries(results: Results) -> list[LineageEntry]:
    """All results, each once, in the order of the stages."""
    entries: dict[tuple[str, str], LineageEntry] = {}
    for role in sorted(results, key=lambda r: [int(p) if p.isdecimal() else 0 for p in r.split("/")] + [len(r)]):
        manifest = results[role].manifest
        entry = entries.setdefault(
            (manifest.stage, manifest.key),
            LineageEntry(
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
                cpu_seconds=_cpu_seconds(manifest),
                device_lost_seconds=manifest.run.device_lost_seconds,
                cpu_lost_seconds=manifest.run.cpu_lost_seconds,
                code=manifest.run.code,
                libraries=manifest.run.libraries,
            ),
        )
        entry.roles.append(role)
    order: list[str] = list(STAGES)
    return sorted(entries.values(), key=lambda e: order.index(e.stage))


def _cpu_seconds(manifest: Manifest) -> float:
    run = manifest.run
    if run.cpu_seconds is not None:
        return run.cpu_seconds
    return run.seconds if run.device == "cpu" else 0.0  # of before it was recorded


def hours(gpu_seconds: float, cpu_seconds: float) -> str:
    """Hours on each kind of device that had a part: `1.25 GPU`, `<0.01 CPU`, `1.25 GPU + 0.40 CPU`; `0` where none had."""
    found = [(s / 3600, kind) for s, kind in ((gpu_seconds, "GPU"), (cpu_seconds, "CPU")) if s > 0]
    parts = [f"{f'{hours:.2f}' if hours >= 0.005 else '<0.01'} {kind}" for hours, kind in found]
    return " + ".join(parts) or "0"


def gpu_budgets(results: Results) -> list[float]:
    """GPU-hours that the study was given; several where experiments were given different ones."""
    searches = [r.manifest.config.get("search", {}) for r in results.values() if r.manifest.stage == "tune"]
    found = [(search.get("budget") or {}).get("gpu_hours") for search in searches]
    return sorted({hours for hours in found if hours is not None})


def costs(entries: list[LineageEntry]) -> list[StageCost]:
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
                    gpu_lost_seconds=sum(e.device_lost_seconds for e in of_stage),
                    cpu_seconds=sum(e.cpu_seconds for e in of_stage),
                    cpu_lost_seconds=sum(e.cpu_lost_seconds for e in of_stage),
                    devices=sorted({e.device for e in of_stage}),
                )
            )
    return found
