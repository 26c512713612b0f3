"""Finds the searches of other studies in the same store from which a study's searches start (`search.warm_start_from: study/experiment`)."""

from __future__ import annotations

from dataclasses import dataclass

from shared.artifacts.artifacts import Artifacts
from shared.config.resolve import ResolvedStudy
from shared.config.task import Input
from shared.errors import ConfigError


@dataclass(frozen=True)
class WarmStart:
    """Holds the search of another study's experiment from which a search starts."""

    name: str
    """Names it as the study file does: `study/experiment`."""
    result: Input | None = None
    """Refers to its newest committed result; None if there is none, or if the store was not read."""
    available: tuple[str, ...] = ()
    """Names, if it has no result, the searches that have one."""

    def committed(self) -> Input:
        """Returns its result; raises ConfigError if there is none."""
        if self.result is None:
            raise ConfigError(
                f"search.warm_start_from: no finished search of {self.name!r} is in this store; there are "
                f"{', '.join(self.available) or 'none'}. Name one of them, or run that study first on the same TAILFILL_STORE or --workdir"
            )
        return self.result


def find_warm_starts(study: ResolvedStudy, artifacts: Artifacts) -> dict[str, WarmStart]:
    """Returns the searches of other studies that the study names, by name, after looking for their results in the store."""
    named = {e.search.warm_start_from for e in study.experiments if e.search.trials and e.search.warm_start_from}
    return {name: _find_warm_start(name, artifacts) for name in sorted(named) if "/" in name}


def _find_warm_start(name: str, artifacts: Artifacts) -> WarmStart:
    study, _, experiment = name.partition("/")
    manifests = Artifacts(artifacts.store, study, artifacts.cache).manifests("tune")
    results = [manifest for manifest in manifests if manifest.run.experiment == experiment]
    if results:
        newest = max(results, key=lambda manifest: (manifest.run.created, manifest.key))
        return WarmStart(name, Input(stage="tune", key=newest.key, digest=newest.digest, study=study))
    return WarmStart(
        name,
        None,
        tuple(
            sorted(
                {f"{study}/{m.run.experiment}" for m in manifests if m.run.experiment} or _searched_studies(artifacts)
            )
        ),
    )


def _searched_studies(artifacts: Artifacts) -> set[str]:
    """Returns the studies with a finished search, as `study/…`."""
    keys = (key.split("/") for key in artifacts.store.list(""))
    return {f"{parts[0]}/…" for parts in keys if len(parts) == 4 and parts[1] == "tune" and parts[3] == "manifest.json"}
