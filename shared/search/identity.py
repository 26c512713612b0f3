"""Computes the name of a search in PostgreSQL and the digest of its settings; it does not import Optuna, which is slow to import."""

from __future__ import annotations

import re
from collections.abc import Mapping

from shared.artifacts.keys import canonical_digest, keyed
from shared.config.search import Search
from shared.config.stages import STAGES, TuneConfig
from shared.config.task import Input

_POOL = re.compile(r"(finetune|generate|score)/\d+")
OPERATIONAL = frozenset(
    {"trials", "workers", "budget", "max_failures", "max_retries", "lease_seconds", "checkpoint_every"}
)
"""Lists the settings of a search that may change while it runs."""


def search_name(study: str, config: TuneConfig, inputs: Mapping[str, Input], generation: int) -> str:
    """Returns the name of the Optuna study: the tune key without trials, repetitions, workers and budgets, so that raising them continues
    the search.

    `generation` is the number of times that its result was forgotten.
    """
    described = keyed("tune", config)
    described["search"] = {k: v for k, v in described["search"].items() if k not in OPERATIONAL}
    if described["repetitions"] is not None:
        del described["repetitions"]["count"]
    # further pools of images follow from the settings and the seed of the first
    digests = {
        role: source.digest for role, source in inputs.items() if not _POOL.fullmatch(role) or role.endswith("/0")
    }
    return f"{study}-{canonical_digest([STAGES['tune'].version, described, digests, generation])[:16]}"


def searches_of(study: str) -> str:
    """Returns a regular expression (for PostgreSQL and Python) that the names of all searches of a study match, and no others."""
    return f"^{study}-[0-9a-f]{{16}}$"


def settings_digest(search: Search) -> str:
    """Returns a digest of the settings under which a search is closed: if they change, as with a raised budget, the search opens again."""
    return canonical_digest(search.model_dump(mode="json"))
