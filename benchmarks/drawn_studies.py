"""Draws null.py's studies from the table of outcomes of a data set, and lets the project's own functions judge them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.outcome_table import Kind, Outcomes
from shared.metrics.counts import count
from shared.metrics.influence import influences
from shared.metrics.table import metric_named
from shared.metrics.verdict import ArmVerdict, Measured, give_verdicts

ALPHA = 0.05
METRIC = metric_named("rare_macro_f1")


@dataclass(frozen=True)
class Design:
    """Says how many repetitions a study has, and how many trials in each."""

    name: str
    repetitions: int
    candidates: int
    one_search: bool = False
    """Says whether one search per arm serves all repetitions, as it did before each repetition had its own: then false calls are frequent."""


DESIGNS = (
    Design("demo", 6, 2),
    Design("init, fashion-mnist, deepfashion-lite", 10, 4),
)
"""Lists the settings of the demo, of `init` and of the other studies with a verdict."""


@dataclass(frozen=True)
class World:
    """Says what the three arms of a study really are."""

    name: str
    real: Kind
    synthetic: Kind
    placebo: Kind
    false: tuple[str, ...]
    """Lists the outcomes that are false in it."""


WORLDS = (
    World("different draws in all arms", "draws", "draws", "draws", ("images help", "recipe helps", "hurts")),
    World("different copies in all arms", "copies", "copies", "copies", ("images help", "recipe helps", "hurts")),
    World("real images, copies, other copies", "real", "copies", "copies", ("images help",)),
    World("planted: real images, held-out images, copies", "real", "draws", "copies", ()),
)
ARMS = ("real", "synthetic", "placebo")


@dataclass(frozen=True)
class StudySampler:
    """Draws studies from the outcomes of a data set."""

    outcomes: Outcomes
    design: Design
    world: World

    def study(self, random: np.random.Generator, images: bool = True) -> Measured:
        """Returns a study's measurements. With `images`, its test images are drawn anew as well, with replacement, by their units.

        Per repetition, all arms get the same points and the same seed, and each gets its own pool and takes its own winner.
        """
        rows, units = (
            self._test_images(random) if images else (np.arange(len(self.outcomes.labels)), self.outcomes.units)
        )
        kinds = dict(zip(ARMS, (self.world.real, self.world.synthetic, self.world.placebo), strict=True))
        values: dict[str, dict[int, float | None]] = {arm: {} for arm in ARMS}
        influence = {}
        for repeat, cells in enumerate(self._cells(random, kinds)):
            for arm, cell in cells.items():
                decided = self.outcomes.decisions(kinds[arm], *cell)[rows]
                labels = self.outcomes.labels[rows]
                values[arm][repeat] = self._value(decided, labels)
                influence[arm, repeat] = influences(
                    METRIC, self.outcomes.schema, decided, labels, self.outcomes.rare, units
                )
        return Measured(METRIC.name, values, influence)

    def verdict(self, random: np.random.Generator) -> ArmVerdict:
        """Returns what a study says of its arm with generated images."""
        return give_verdicts(self.study(random), "real", ["synthetic"], ["placebo"], ALPHA)[0]

    def effect(self, random: np.random.Generator, repetitions: int) -> float:
        """Returns the mean difference of the generated and the real arm over this many repetitions on the test images as they are."""
        kinds: dict[str, Kind] = {"real": self.world.real, "synthetic": self.world.synthetic}
        labels, found = self.outcomes.labels, []
        many = replace(self.design, repetitions=repetitions)
        for cells in StudySampler(self.outcomes, many, self.world)._cells(random, kinds):
            scores = {
                arm: self._value(self.outcomes.decisions(kinds[arm], *cell), labels) for arm, cell in cells.items()
            }
            found.append(scores["synthetic"] - scores["real"])
        return float(np.mean(found))

    def _value(self, decided: NDArray[np.bool_], labels: NDArray[np.int8]) -> float:
        assert METRIC.from_counts is not None
        return float(METRIC.from_counts(self.outcomes.schema, count(decided, labels), self.outcomes.rare))

    def _cells(self, random: np.random.Generator, kinds: Mapping[str, Kind]) -> list[dict[str, tuple[int, int, int]]]:
        """Returns the point, seed and pool of each arm's final training, per repetition.

        Arms of one kind get different pools, as in a study: with the same pool, point and seed two arms would be one training.
        """
        points, seeds, _ = next(iter(self.outcomes.tables.values())).values.shape
        searched: dict[str, int] = {}
        repetitions = []
        for _ in range(self.design.repetitions):
            candidates = random.choice(points, self.design.candidates, replace=False)
            seed = int(random.integers(seeds))
            cells = {}
            pools = {
                kind: iter(random.permutation(self.outcomes.tables[kind].values.shape[2]).tolist())
                for kind in dict.fromkeys(kinds.values())
            }
            for arm, kind in kinds.items():
                table = self.outcomes.tables[kind].values
                pool = 0 if kind == "real" else next(pools[kind])
                if self.design.one_search:  # a search of its own per arm, and its winner in all repetitions
                    own = random.choice(points, self.design.candidates, replace=False)
                    best = searched.setdefault(arm, int(own[table[own, seed, pool].argmax()]))
                else:
                    best = int(candidates[table[candidates, seed, pool].argmax()])
                cells[arm] = (best, seed, pool)
            repetitions.append(cells)
        return repetitions

    def _test_images(self, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the rows of the test images of units drawn with replacement, and the number of the drawn unit of each."""
        units = self.outcomes.units
        drawn = random.integers(units.max() + 1, size=units.max() + 1)
        order = np.argsort(units, kind="stable")
        first = np.searchsorted(units[order], np.arange(units.max() + 2))
        rows = [order[first[unit] : first[unit + 1]] for unit in drawn]
        return np.concatenate(rows), np.repeat(np.arange(len(drawn)), [len(r) for r in rows])
