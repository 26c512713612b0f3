"""What a search is called in PostgreSQL, and which settings it is searched with; without Optuna, whose import is slow."""

from __future__ import annotations

from collections.abc import Mapping

from shared.artifacts.keys import canonical_digest, keyed
from shared.config.search import Search
from shared.config.stages import STAGES, TuneConfig
from shared.config.task import Input

OPERATIONAL = frozenset(
    {"trials", "workers", "budget", "max_failures", "max_retries", "lease_seconds", "checkpoint_every"}
)
"""Settings of a search that may change while it goes on."""


def search_name(study: str, config: TuneConfig, inputs: Mapping[str, Input], generation: int) -> str:
    """The Optuna study: the tune key without trials, workers and budgets, so that raising them goes on with the same search.

    `generation` says how often its result was forgotten.
    """
    described = keyed("tune", config)
    described["search"] = {k: v for k, v in described["search"].items() if k not in OPERATIONAL}
    digests = {role: source.digest for role, source in inputs.items()}
    return f"{study}-{canonical_digest([STAGES['tune'].version, described, digests, generation])[:16]}"


def searches_of(study: str) -> str:
    """A regular expression (PostgreSQL's, Python's) for the names of all searches of a study, and of no other study."""
    return f"^{study}-[0-9a-f]{{16}}$"


def settings_digest(search: Search) -> str:
    """Tells a search that was closed under these settings from one that was under others: a raised budget opens it again."""
    return canonical_digest(search.model_dump(mode="json"))
