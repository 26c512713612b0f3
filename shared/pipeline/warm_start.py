"""Searches of other studies in the same store, from which a study's own begin (`search.warm_start_from: study/experiment`)."""

from __future__ import annotations

from dataclasses import dataclass

from shared.artifacts.artifacts import Artifacts
from shared.config.resolve import ResolvedStudy
from shared.config.task import Input
from shared.errors import ConfigError


@dataclass(frozen=True)
class WarmStart:
    """A search that is named `study/experiment`."""

    name: str
    result: Input | None = None
    """The newest committed one; None where there is none, or nobody looked."""
    there: tuple[str, ...] = ()
    """Where there is none: what could be named."""

    def committed(self) -> Input:
        """Its result; raises ConfigError where there is none."""
        if self.result is None:
            raise ConfigError(
                f"search.warm_start_from: no finished search of {self.name!r} is in this store; there are "
                f"{', '.join(self.there) or 'none'}. Name one of them, or run that study first on the same TAILFILL_STORE or --workdir"
            )
        return self.result


def find_warm_starts(study: ResolvedStudy, artifacts: Artifacts) -> dict[str, WarmStart]:
    """Looks for those that the study names, by name."""
    named = {e.search.warm_start_from for e in study.experiments if e.search.trials and e.search.warm_start_from}
    return {name: _look(name, artifacts) for name in sorted(named) if "/" in name}


def _look(name: str, artifacts: Artifacts) -> WarmStart:
    study, _, experiment = name.partition("/")
    manifests = Artifacts(artifacts.store, study, artifacts.cache).manifests("tune")
    found = [manifest for manifest in manifests if manifest.run.experiment == experiment]
    if found:
        newest = max(found, key=lambda manifest: (manifest.run.created, manifest.key))
        return WarmStart(name, Input(stage="tune", key=newest.key, digest=newest.digest, study=study))
    return WarmStart(
        name,
        None,
        tuple(sorted({f"{study}/{m.run.experiment}" for m in manifests if m.run.experiment} or _studies(artifacts))),
    )


def _studies(artifacts: Artifacts) -> set[str]:
    """As `study/…`: the studies with a finished search."""
    keys = (key.split("/") for key in artifacts.store.list(""))
    return {f"{parts[0]}/…" for parts in keys if len(parts) == 4 and parts[1] == "tune" and parts[3] == "manifest.json"}
