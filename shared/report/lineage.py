"""Reports the origin and the cost of every committed result."""

from __future__ import annotations

from dataclasses import dataclass

from shared.artifacts.manifest import Manifest
from shared.config.stages import STAGES
from shared.report.inputs import Results


@dataclass(frozen=True)
class LineageEntry:
    """Holds the origin and the cost of one committed result."""

    stage: str
    roles: list[str]
    """Lists the roles among the report's inputs; several if experiments share the result."""
    key: str
    digest: str
    version: int
    inputs: dict[str, str]
    """Maps the roles of its own inputs to their digests."""
    created: str
    device: str
    seconds: float
    device_seconds: float
    """Counts the seconds on a GPU."""
    cpu_seconds: float
    device_lost_seconds: float
    cpu_lost_seconds: float
    code: str
    libraries: dict[str, str]


@dataclass(frozen=True)
class StageCost:
    """Holds the cost of a stage over the whole study."""

    stage: str
    results: int
    wall_seconds: float
    gpu_seconds: float
    gpu_lost_seconds: float
    """Counts the `gpu_seconds` that were lost when a process ended."""
    cpu_seconds: float
    """Counts the seconds without a GPU."""
    cpu_lost_seconds: float
    devices: list[str]


def lineage_entries(results: Results) -> list[LineageEntry]:
    """Returns an entry for each result, in the order of the stages."""
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
    return run.seconds if run.device == "cpu" else 0.0  # a manifest from before it was recorded


def hours(gpu_seconds: float, cpu_seconds: float) -> str:
    """Returns the hours on each kind of device that was used: `1.25 GPU`, `<0.01 CPU`, `1.25 GPU + 0.40 CPU`, or `0`."""
    found = [(s / 3600, kind) for s, kind in ((gpu_seconds, "GPU"), (cpu_seconds, "CPU")) if s > 0]
    parts = [f"{f'{hours:.2f}' if hours >= 0.005 else '<0.01'} {kind}" for hours, kind in found]
    return " + ".join(parts) or "0"


def gpu_budgets(results: Results) -> list[float]:
    """Returns the study's budgets in GPU-hours; several if experiments have different ones."""
    searches = [r.manifest.config.get("search", {}) for r in results.values() if r.manifest.stage == "tune"]
    found = [(search.get("budget") or {}).get("gpu_hours") for search in searches]
    return sorted({hours for hours in found if hours is not None})


def stage_costs(entries: list[LineageEntry]) -> list[StageCost]:
    """Returns the cost of each stage; time that several processes spend at once counts for each of them."""
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
