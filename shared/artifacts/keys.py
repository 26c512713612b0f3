"""Computes keys: the name of a result is the hash of everything that it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from shared.config.base import Section
from shared.config.search import Resources
from shared.config.stages import PRETRAINED, STAGES, Stage, StageConfig
from shared.config.task import Input, Task


def canonical_digest(value: Any) -> str:
    """Returns the SHA-256 of a JSON value in its one canonical spelling (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def task_key(stage: Stage, config: StageConfig, inputs: Mapping[str, Input]) -> str:
    """Returns the key of a stage's result: the hash of its config, its inputs' digests and the stage's version."""
    digests = {name: each.digest for name, each in inputs.items()}
    described = {"stage": stage, "version": STAGES[stage].version, "config": keyed(stage, config), "inputs": digests}
    return canonical_digest(described)


def new_task(
    study: str,
    stage: Stage,
    config: StageConfig,
    inputs: Mapping[str, Input],
    resources: Resources,
    experiment: str | None = None,
) -> Task:
    """Returns a task with its key; the same work has the same key."""
    return Task(
        study=study,
        stage=stage,
        key=task_key(stage, config, inputs),
        experiment=experiment,
        config=config,
        inputs=dict(inputs),
        resources=resources,
    )


def keyed(stage: Stage, config: StageConfig) -> dict[str, Any]:
    """Returns the part of a stage's config that is in its key and in its manifest, as JSON."""
    left: dict[str, Any] = config.model_dump(mode="json", by_alias=True)
    operational = STAGES[stage].operational
    if stage == "prepare" and left["source_digest"] is None:
        operational = ()  # nothing else distinguishes one source from another
    for path in operational:
        *sections, name = path.split(".")
        section = left
        for step in sections:
            section = section[step] or {}  # `images` is None if trials make none
        section.pop(name, None)
    weights: dict[str, str] = left.pop("weights", {})
    if weights and PRETRAINED in left.get("search", {}).get("space", {}):
        return left | {"weights": weights}  # what such a search finds is a location, which must go on to hold
    by_content: dict[str, Any] = _by_content(left, weights)
    return by_content


def named_weights(config: Section, weights: Mapping[str, str]) -> dict[str, str]:
    """Returns those of the digests of weights, by location, whose location the config names."""
    return {location: weights[location] for location in _strings(config.model_dump(mode="json")) if location in weights}


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        return [text for inner in (value.values() if isinstance(value, dict) else value) for text in _strings(inner)]
    return [value] if isinstance(value, str) else []


def _by_content(config: Any, weights: Mapping[str, str]) -> Any:
    if isinstance(config, dict):
        return {name: _by_content(value, weights) for name, value in config.items()}
    if isinstance(config, list):
        return [_by_content(value, weights) for value in config]
    return f"sha256:{weights[config]}" if isinstance(config, str) and config in weights else config
