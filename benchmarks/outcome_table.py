"""Measures null.py's table: one training per point of the space, seed and pool of images, tested on the same images."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.held_out import HeldOut
from jobs.tune import MEAN_EPOCHS
from shared.artifacts.checkpoints import NoCheckpoints
from shared.artifacts.disk import whole_file
from shared.classifier.fit import TrainingData, fit
from shared.classifier.frozen_features import UNAUGMENTED
from shared.classifier.inputs import FrozenFeatures
from shared.classifier.predictor import probabilities
from shared.classifier.runtime import Runtime
from shared.classifier.snapshot import deployed
from shared.classifier.training_set import effective_training_set
from shared.config.apply_parameters import apply_parameters
from shared.config.seeds import hashed_seed
from shared.config.training import Images
from shared.data.schema import Labels, LabelSchema
from shared.log import Log
from shared.metrics.classification import best_thresholds
from shared.metrics.counts import decide
from shared.pipeline.plan import arm_of
from shared.search.search_state import directions
from shared.search.space import sobol_points
from shared.stop import StopSignal

Kind = Literal["real", "draws", "copies"]
"""Says what an arm trains on: the real images alone; these and held-out real images; or these and copies of them."""
IMAGES: Mapping[Kind, Images] = {"real": "real", "draws": "real+synthetic", "copies": "real+copies"}

log = Log("null")

Cells = tuple[NDArray[np.float64], NDArray[np.uint8]]
"""Holds the objective, `[P, S]`, and the packed decisions, `[P, S, bytes]`, of an arm with one pool."""


@dataclass(frozen=True)
class OutcomeTable:
    """Holds the trainings of one kind of arm: P points, S seeds, Q pools."""

    values: NDArray[np.float64]
    """Gives the search's objective, negative if it is minimised, so that larger is better, `[P, S, Q]`."""
    decided: NDArray[np.uint8]
    """Holds the decisions on the test images, packed as bits, `[P, S, Q, bytes]`."""


@dataclass(frozen=True)
class Outcomes:
    """Holds all that null.py measures on a data set."""

    schema: LabelSchema
    rare: NDArray[np.int64]
    labels: Labels
    """Holds the labels of the test images, `[n, C]`."""
    units: NDArray[np.int64]
    """Numbers the product, patient and the like that each test image shows, `[n]`."""
    tables: dict[Kind, OutcomeTable]

    def decisions(self, kind: Kind, point: int, seed: int, pool: int) -> NDArray[np.bool_]:
        """Returns the decisions of one training on the test images, `[n, C]`."""
        n, width = self.labels.shape
        packed = self.tables[kind].decided[point, seed, pool]
        return np.unpackbits(packed, count=n * width).reshape(n, width).astype(np.bool_)

    def save(self, path: Path) -> None:
        """Writes all of it into one file of NumPy's."""
        arrays = {
            f"{kind}_{name}": getattr(t, name) for kind, t in self.tables.items() for name in ("values", "decided")
        }
        schema = np.array(self.schema.model_dump_json())
        np.savez_compressed(path, schema=schema, rare=self.rare, labels=self.labels, units=self.units, **arrays)

    @classmethod
    def load(cls, path: Path) -> Outcomes:
        """Reads the file that `save` wrote."""
        with np.load(path) as file:
            kinds: list[Kind] = [kind for kind in IMAGES if f"{kind}_values" in file]
            tables = {kind: OutcomeTable(file[f"{kind}_values"], file[f"{kind}_decided"]) for kind in kinds}
            schema = LabelSchema.model_validate_json(str(file["schema"]))
            return cls(schema, file["rare"], file["labels"], file["units"], tables)


@dataclass(frozen=True)
class Sizes:
    """Counts the points, seeds and pools of a table."""

    points: int
    seeds: int
    pools: int


@dataclass(frozen=True)
class Measurement:
    """Holds what a process needs to measure one kind of arm with one pool."""

    kind: Kind
    pool: int
    sizes: Sizes
    cache: Path


def measure(data: HeldOut, sizes: Mapping[Kind, Sizes], cache: Path, processes: int) -> Outcomes:
    """Trains every cell of the tables. The folder `cache` keeps the frozen backbone's outputs and each pool's cells: what was interrupted goes on."""
    work = [Measurement(kind, pool, s, cache) for kind, s in sizes.items() for pool in range(s.pools)]
    with contextlib.ExitStack() as stack:
        run: Callable[[Callable[[Measurement], Cells], Iterable[Measurement]], Iterable[Cells]] = map
        if processes > 1:
            executor = ProcessPoolExecutor(processes, get_context("spawn"), _start, (data, processes))
            run = stack.enter_context(executor).map
        else:
            _start(data, 1)
        results = log.progress(run(measure_pool, work), "pools", len(work), "pools")
        done = dict(zip([(w.kind, w.pool) for w in work], results, strict=True))
    test = data.images.of("test")
    tables = {
        kind: OutcomeTable(
            np.stack([done[kind, pool][0] for pool in range(s.pools)], 2),
            np.stack([done[kind, pool][1] for pool in range(s.pools)], 2),
        )
        for kind, s in sizes.items()
    }
    return Outcomes(test.schema, data.rare, test.labels, test.unit_numbers(), tables)


class _Process:
    """Holds what all measurements of a process share."""

    data: HeldOut


def _start(data: HeldOut, processes: int) -> None:
    if processes > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    _Process.data = data


def measure_pool(work: Measurement) -> Cells:
    """Returns the cells of an earlier run from the cache; else trains and tests the arm with one pool for every point and seed."""
    asked = f"{_Process.data.study.written.model_dump_json()} {work.kind} {work.pool} {work.sizes}"
    kept = work.cache / f"{hashlib.sha256(asked.encode()).hexdigest()[:16]}.npz"
    if kept.exists():
        with np.load(kept) as file:
            return file["values"], file["decided"]
    values, decided = _train_pool(work, _Process.data)
    with whole_file(kept) as temporary, temporary.open("wb") as file:
        np.savez(file, values=values, decided=decided)
    return values, decided


def _train_pool(work: Measurement, data: HeldOut) -> Cells:
    experiment = data.study.experiments[-1]
    arm = arm_of(experiment).model_copy(update={"images": IMAGES[work.kind]})
    train, val, test = (data.images.of(split) for split in ("train", "val", "test"))
    pool = data.pool(work.kind, work.pool)
    training = effective_training_set(arm, train, pool, None, data.rare)
    runtime = Runtime(torch.device("cpu"), data.study.resources, cache=work.cache)
    built = TrainingData.build(arm, training, val, data.rare, runtime)
    tested = FrozenFeatures(built.frozen, test, [UNAUGMENTED], 1e12, "test images through the frozen backbone")
    rows = np.arange(len(test))
    inputs = tested.rows(rows, np.zeros_like(rows))
    search = experiment.search
    objective, direction = search.objectives[0], directions(search)[0]
    points = sobol_points(search.space, hashed_seed("points", data.study.name), work.sizes.points)
    values, decided = [], []
    for point in points:
        for seed in range(work.sizes.seeds):
            tried = apply_parameters(arm, point)
            # a trial is also the final training: both have the same seed, and here as many epochs
            trained = fit(tried, built, search.epochs, hashed_seed("null", seed), NoCheckpoints(), StopSignal())
            last = deployed(trained.history, search.epochs)[-MEAN_EPOCHS:]
            value = float(np.mean([getattr(record, objective) for record in last]))
            values.append(value if direction == "maximize" else -value)
            thresholds = best_thresholds(test.schema, trained.val_probabilities, val.labels)
            trained.network.eval()
            with torch.inference_mode():
                predicted = probabilities(trained.network(inputs), test.schema)
            decided.append(np.packbits(decide(test.schema, predicted, thresholds)))
    shape = (len(points), work.sizes.seeds)
    return np.reshape(values, shape), np.stack(decided).reshape(*shape, -1)
