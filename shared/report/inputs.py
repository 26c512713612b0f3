"""What the report reads: the committed files of every stage, by role, and each repetition's predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shared.artifacts.manifest import Manifest
from shared.config.stages import Arm, ReportConfig, ReportedExperiment
from shared.data.dataset import DatasetInfo, rare_classes, read_info
from shared.data.imageset import ImageSet, read_shards
from shared.data.schema import Labels, LabelSchema
from shared.errors import DataError


@dataclass(frozen=True)
class StageResult:
    """A committed result and the local paths of those of its files that the report wants."""

    manifest: Manifest
    files: Mapping[str, Path]

    def json(self, name: str) -> Any:
        """A JSON file's content, None where the stage committed none of that name."""
        return json.loads(self.files[name].read_text()) if name in self.files else None

    def table(self, name: str) -> pa.Table | None:
        """A Parquet file's content, None where the stage committed none of that name."""
        return pq.read_table(self.files[name]) if name in self.files else None

    def shards(self, stem: str) -> list[Path]:
        """The shards of an image set, in order."""
        return [self.files[name] for name in sorted(self.files) if name.startswith(f"{stem}-")]


Results = Mapping[str, StageResult]
"""By role: `prepare`, `final/<experiment>/<repeat>`, and `tune/<experiment>`, `finetune/…`, `generate/…`, `score/…`."""


@dataclass(frozen=True)
class Predictions:
    """One repetition's predictions on the test split."""

    paths: list[str]
    probabilities: NDArray[np.float32]
    """`[n, C]`."""
    labels: Labels
    """`[n, C]`."""
    thresholds: NDArray[np.float64]
    """`[C]`."""


@dataclass(frozen=True)
class Experiment:
    """An experiment with its results, repetitions by number."""

    config: ReportedExperiment
    finals: dict[int, StageResult]
    tune: StageResult | None
    finetune: StageResult | None
    generate: StageResult | None
    score: StageResult | None

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.config.title or self.config.name

    @cached_property
    def arm(self) -> Arm | None:
        """Its classifier and training as the first repetition was given them; None where none was trained."""
        for result in self.finals.values():
            return Arm.model_validate_json(json.dumps(result.manifest.config["arm"]))
        return None


@dataclass(frozen=True)
class StudyInputs:
    """The whole study, read."""

    config: ReportConfig
    info: DatasetInfo
    rare: NDArray[np.int64]
    """Columns of the study's rare classes."""
    experiments: list[Experiment]
    results: Results

    @property
    def schema(self) -> LabelSchema:
        """The label groups."""
        return self.info.schema_

    @cached_property
    def images(self) -> ImageSet:
        """All real images."""
        return read_shards(self.results["prepare"].shards("images"), self.schema)

    def experiment(self, name: str) -> Experiment:
        """The experiment of that name; raises KeyError."""
        for experiment in self.experiments:
            if experiment.config.name == name:
                return experiment
        raise KeyError(name)


def read_study(config: ReportConfig, results: Results) -> StudyInputs:
    """Sorts results by role into experiments; raises DataError where the data set is missing."""
    if "prepare" not in results:
        raise DataError("report: the input `prepare` is missing; run `prepare` first")
    info = read_info(results["prepare"].files["dataset.json"])
    experiments = []
    for experiment in config.experiments:
        prefix = f"final/{experiment.name}/"
        finals = {int(role.removeprefix(prefix)): r for role, r in results.items() if role.startswith(prefix)}
        others = {
            stage: results.get(f"{stage}/{experiment.name}") for stage in ("tune", "finetune", "generate", "score")
        }
        experiments.append(Experiment(experiment, dict(sorted(finals.items())), **others))
    return StudyInputs(config, info, rare_classes(config.rare, info), experiments, results)


def read_predictions(result: StageResult, schema: LabelSchema, role: str) -> Predictions:
    """Reads `predictions.parquet` (and `thresholds.json`); raises DataError that names role and column where one is missing."""
    table = result.table("predictions.parquet")
    if table is None:
        raise DataError(f"{role}: has no predictions.parquet; run it again (--rerun final)")
    probabilities: list[NDArray[Any]] = []
    labels: list[NDArray[Any]] = []
    for group in schema.groups:
        for prefix, parts in (("p_", probabilities), ("y_", labels)):
            if f"{prefix}{group.name}" not in table.column_names:
                raise DataError(
                    f"{role}: predictions.parquet has no column {prefix}{group.name}; run it again (--rerun final)"
                )
            parts.append(_matrix(table[f"{prefix}{group.name}"], len(group.classes)))
    return Predictions(
        table["path"].to_pylist(),
        np.concatenate(probabilities, axis=1).astype(np.float32),
        np.concatenate(labels, axis=1).astype(np.int8),
        _thresholds(result.json("thresholds.json"), schema),
    )


def _matrix(column: pa.ChunkedArray, width: int) -> NDArray[Any]:
    flat: NDArray[Any] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), width)


def _thresholds(committed: Any, schema: LabelSchema) -> NDArray[np.float64]:
    values = committed or {}
    return np.array([float(values.get(name, 0.5)) for name in schema.class_names])
