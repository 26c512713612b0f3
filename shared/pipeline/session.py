"""A study that is being worked on: its plan, which rests on the data and weights as they are now, and its artifacts."""

from __future__ import annotations

from dataclasses import dataclass

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.open import open_store
from shared.artifacts.store import Store
from shared.config.resolve import ResolvedStudy
from shared.data.sources.digest import source_digest
from shared.errors import ConfigError
from shared.pipeline.plan import Step, plan
from shared.pipeline.warm_start import find_warm_starts
from shared.settings import Settings
from shared.weights.digests import weight_digests


@dataclass(frozen=True)
class Fingerprints:
    """What keys rest on that the study only names."""

    source: str | None
    """Of the data; None for drawn garments."""
    weights: dict[str, str]
    """By location."""


@dataclass(frozen=True)
class Session:
    """A study with its plan and artifacts, services running."""

    study: ResolvedStudy
    steps: list[Step]
    artifacts: Artifacts
    settings: Settings

    @property
    def database_url(self) -> str:
        """Of PostgreSQL; raises ConfigError where none is named."""
        if self.settings.database_url is None:
            raise ConfigError(
                "DATABASE_URL: is not set; a search needs PostgreSQL, postgresql://user:password@host:port/database"
            )
        return self.settings.database_url.get_secret_value()


def fingerprints(study: ResolvedStudy, settings: Settings, kept: Store) -> Fingerprints:
    """Of the data and weights as they are now; `kept` remembers digests of large files. Raises DataError where there are none."""
    return Fingerprints(source_digest(study.dataset, settings), weight_digests(study, settings, kept))


def open_session(study: ResolvedStudy, found: Fingerprints, settings: Settings) -> Session:
    """The study's plan and artifacts in the store that the settings name."""
    artifacts = Artifacts(open_store(settings), study.name, settings.cache)
    steps = plan(study, found.source, found.weights, find_warm_starts(study, artifacts))
    return Session(study, steps, artifacts, settings)
