"""Translates a search space into Optuna's terms: distributions, samplers, pruners, and the points that are planned ahead."""

from __future__ import annotations

import itertools
import json
import math
import random
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler

from shared.config.base import Section
from shared.config.paths import value_at
from shared.config.search import Choice, IntRange, Range, Search

Parameters = dict[str, Any]
SOBOL_DRAWS = 16  # per wanted point, at most
SOBOL_DIMENSIONS = 64
"""Exceeds the number of dimensions of any space, so that a further path does not change the others: how a dimension is scrambled
depends on how many there are."""


def distributions(space: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    """Returns Optuna's distribution of each parameter, by path."""
    return {path: _distribution(values) for path, values in space.items()}


def inside(values: Range, value: Any) -> bool:
    """Returns whether a value lies in the range or among its choices."""
    if isinstance(values, Choice):
        return any(type(v) is type(value) and v == value for v in values.values)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(values, IntRange) and not isinstance(value, int):
        return False
    return values.low <= value <= values.high


def own_values(section: Section, space: Mapping[str, Range]) -> Parameters:
    """Returns the section's own values of the parameters, if they lie in the space; raises ConfigError for a path that the section lacks."""
    values = {path: value_at(section, path) for path in space}
    return {path: value for path, value in values.items() if inside(space[path], value)}


def make_sampler(search: Search, seed: int, number: int) -> BaseSampler:
    """Returns the sampler for one trial. Its seed follows from the search's seed and the trial's number, so that with one worker
    the search is reproducible.
    """
    own = _sampler_seed(seed, number)
    if search.strategy in ("random", "grid"):
        return RandomSampler(seed=own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match search.sampler:
            case "tpe":
                return TPESampler(seed=own, n_startup_trials=search.startup_trials)
            case "cmaes":
                return CmaEsSampler(seed=own, n_startup_trials=search.startup_trials, warn_independent_sampling=False)
            case "gp":
                return GPSampler(seed=own, n_startup_trials=search.startup_trials)
            case "auto" | "qmc":
                return RandomSampler(
                    seed=own
                )  # the points of `qmc` are planned ahead, and a resolved study has no `auto`


def _sampler_seed(*numbers: int) -> int:
    """Returns a seed that follows from the numbers; Optuna's samplers take 32 bits, and an experiment's seed has 62."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def make_pruner(search: Search) -> BasePruner:
    """Returns the pruner. The worker ensures that it prunes no trial before `prune_after` epochs and `startup_trials` trials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match search.pruner:
            case "median":
                return MedianPruner(n_startup_trials=search.startup_trials, n_warmup_steps=search.prune_after)
            case "hyperband":
                return HyperbandPruner(min_resource=max(search.prune_after, 1), max_resource=search.epochs)
            case "halving":
                return SuccessiveHalvingPruner(min_resource=max(search.prune_after, 1), reduction_factor=3)
            case "none":
                return NopPruner()


def target(search: Search, space: Mapping[str, Range]) -> int:
    """Returns the number of finished trials with which a step of the search ends: `trials`, or fewer if a grid of choices has fewer points."""
    if search.strategy != "grid":
        return search.trials
    return min(search.trials, len(_grid(space, search.trials)))


def planned_points(
    search: Search, space: Mapping[str, Range], seed: int, first: Parameters, warm: list[Parameters], number: int
) -> list[Parameters]:
    """Returns the points that are known ahead, about `number` of them, in order: the study's own values, the best of an earlier
    search, the strategy's.

    Grid, random and quasi-random points do not depend on results, so they are planned here, each once, whatever the number of workers.
    """
    planned: list[Parameters] = []
    if search.strategy == "grid":
        grid = _grid(space, search.trials)
        planned = _shuffled(grid, seed)
        # any other point would take the place of a point of the grid
        first, warm = first if first in grid else {}, [point for point in warm if point in grid]
    elif search.strategy == "random":
        planned = _drawn(RandomSampler(seed=_sampler_seed(seed)), space, number)
    elif search.sampler == "qmc":
        planned = sobol_points(space, seed, number)
    points = [*([first] if first else []), *warm, *planned]
    return [point for i, point in enumerate(points) if point not in points[:i]]


def sobol_points(space: Mapping[str, Range], seed: int, number: int) -> list[Parameters]:
    """Returns `number` different points of a scrambled Sobol sequence (Owen 1998, by scipy), or all points if the space has fewer.

    The points of a shorter sequence are the first of a longer one, and a further dimension does not change the others.
    """
    from scipy.stats.qmc import Sobol

    engine = Sobol(max(SOBOL_DIMENSIONS, len(space)), scramble=True, rng=np.random.default_rng(seed))
    points: dict[str, Parameters] = {}
    drawn, limit = 0, SOBOL_DRAWS * max(number, 1)
    while len(points) < number and drawn < limit:  # duplicates are dropped, and a small space may run out
        block = max(drawn, 64)  # the total is always a power of two, for which Sobol points are balanced
        for row in engine.random(block).tolist():
            point = {path: _at(values, share) for (path, values), share in zip(space.items(), row, strict=False)}
            points.setdefault(json.dumps(point), point)
        drawn += block
    return list(points.values())[:number]


def _at(values: Range, share: float) -> Any:
    """Returns the value at a fraction `share` of the range, 0 <= share < 1, on the range's scale."""
    if isinstance(values, Choice):
        return values.values[int(share * len(values.values))]
    low, high = (
        math.log(end) if values.log else end for end in (values.low, values.high + isinstance(values, IntRange))
    )
    value = low + share * (high - low)
    value = math.exp(value) if values.log else value
    if isinstance(values, IntRange):
        return min(int(value), values.high)
    return min(max(value, values.low), values.high)


def _distribution(values: Range) -> BaseDistribution:
    if isinstance(values, Choice):
        return CategoricalDistribution(values.values)
    if isinstance(values, IntRange):
        return IntDistribution(values.low, values.high, log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _drawn(sampler: BaseSampler, space: Mapping[str, Range], number: int) -> list[Parameters]:
    study = optuna.create_study(sampler=sampler)
    points = []
    for _ in range(number):
        trial = study.ask(distributions(space))
        study.tell(trial, 0.0)
        points.append(dict(trial.params))
    return points


def _grid(space: Mapping[str, Range], number: int) -> list[Parameters]:
    """Returns the grid: all choices crossed with as many levels of each range as fit in `number` points, at least two."""
    fixed = 1
    for values in space.values():
        fixed *= len(values.values) if isinstance(values, Choice) else 1
    ranges = sum(not isinstance(values, Choice) for values in space.values())
    levels = 2
    while ranges and fixed * (levels + 1) ** ranges <= number:
        levels += 1
    axes = [_levels(values, levels) for values in space.values()]
    return [dict(zip(space, point, strict=True)) for point in itertools.product(*axes)]


def _levels(values: Range, number: int) -> list[Any]:
    if isinstance(values, Choice):
        return list(values.values)
    spaced = np.geomspace if values.log else np.linspace
    points = spaced(values.low, values.high, number).clip(values.low, values.high).tolist()
    return sorted({round(point) for point in points}) if isinstance(values, IntRange) else points


def _shuffled(points: list[Parameters], seed: int) -> list[Parameters]:
    random.Random(seed).shuffle(points)
    return points
