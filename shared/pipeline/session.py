"""Opens a study: its plan, which depends on the present data and weights, and its artifacts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.keys import canonical_digest
from shared.artifacts.open import open_store
from shared.artifacts.store import NotFound, Store
from shared.config.resolve import ResolvedStudy
from shared.data.review import review_digests
from shared.data.sources.digest import source_digest
from shared.errors import ConfigError
from shared.log import Log
from shared.pipeline.plan import Step, plan
from shared.pipeline.warm_start import find_warm_starts
from shared.settings import Settings
from shared.weights.digests import weight_digests

T = TypeVar("T")
SOURCE: TypeAdapter[str | None] = TypeAdapter(str | None)
WEIGHTS: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])
log = Log("session")


@dataclass(frozen=True)
class Fingerprints:
    """Holds the digests of the data, weights and reviews that a study names, which are part of its keys."""

    source: str | None
    """Gives the digest of the data; None for drawn garments."""
    weights: dict[str, str]
    """Maps the location of weights and reviews to their digest."""


@dataclass(frozen=True)
class Session:
    """Holds an open study: its plan, its artifacts, and the settings of the running services."""

    study: ResolvedStudy
    steps: list[Step]
    artifacts: Artifacts
    settings: Settings

    @property
    def database_url(self) -> str:
        """Returns the URL of PostgreSQL; raises ConfigError if none is set."""
        if self.settings.database_url is None:
            raise ConfigError(
                "DATABASE_URL: is not set; a search needs PostgreSQL, postgresql://user:password@host:port/database"
            )
        return self.settings.database_url.get_secret_value()


def compute_fingerprints(study: ResolvedStudy, settings: Settings, digest_store: Store) -> Fingerprints:
    """Returns the fingerprints of the data, weights and reviews as they are now; raises DataError if they cannot be read.

    Digests of large files are stored in `digest_store`, so that these are read once.
    """
    return Fingerprints(source_digest(study.dataset, settings), _named(study, settings, digest_store))


def kept_fingerprints(study: ResolvedStudy, settings: Settings, store: Store) -> Fingerprints:
    """Returns the fingerprints that were computed and stored first, so that what happens to the files later changes no running study.

    Data are read anew if the study's `dataset` changes, weights and reviews if anything of the study does, and both at another
    `settings.data_revision`. Raises DataError if they cannot be read.
    """
    written, revision = study.written.model_dump(mode="json"), settings.data_revision
    dataset = canonical_digest({"dataset": written["dataset"], "revision": revision})
    source = _kept(store, f"source-{dataset}", SOURCE, lambda: source_digest(study.dataset, settings))
    whole = canonical_digest({"study": written, "revision": revision})
    weights = _kept(store, f"weights-{whole}", WEIGHTS, lambda: _named(study, settings, store))
    return Fingerprints(source, weights)


def _named(study: ResolvedStudy, settings: Settings, digest_store: Store) -> dict[str, str]:
    return review_digests(study, settings) | weight_digests(study, settings, digest_store)


def _kept(store: Store, name: str, kind: TypeAdapter[T], compute: Callable[[], T]) -> T:
    """Returns the value that is stored under this name; computes and stores it if there is none, or if it is damaged."""
    try:
        return kind.validate_json(store.get(name))
    except NotFound:
        store.create(name, kind.dump_json(compute()))
    except ValidationError as error:
        log.warning("a kept digest is damaged and is computed again", object=name, reason=error.errors()[0]["msg"])
        store.put(name, kind.dump_json(compute()))
    return kind.validate_json(store.get(name))  # that of another process, if it was faster


def open_session(study: ResolvedStudy, fingerprints: Fingerprints, settings: Settings) -> Session:
    """Returns the study with its plan and its artifacts in the store that the settings name."""
    artifacts = Artifacts(open_store(settings), study.name, settings.cache)
    steps = plan(study, fingerprints.source, fingerprints.weights, find_warm_starts(study, artifacts))
    return Session(study, steps, artifacts, settings)
