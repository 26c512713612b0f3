"""Reads the inputs of the report: the committed files of every stage by role, and the predictions of each repetition."""

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
from shared.metrics.counts import threshold_array


@dataclass(frozen=True)
class StageResult:
    """Holds a committed result, with local paths of the files that the report reads."""

    manifest: Manifest
    files: Mapping[str, Path]

    def json(self, name: str) -> Any:
        """Returns the content of a JSON file, or None if the stage committed none of that name."""
        return json.loads(self.files[name].read_text()) if name in self.files else None

    def table(self, name: str) -> pa.Table | None:
        """Returns the content of a Parquet file, or None if the stage committed none of that name."""
        return pq.read_table(self.files[name]) if name in self.files else None

    def shards(self, stem: str) -> list[Path]:
        """Returns the paths of the shards of an image set, in order."""
        return [self.files[name] for name in sorted(self.files) if name.startswith(f"{stem}-")]


Results = Mapping[str, StageResult]
"""Maps roles to results: `prepare`, `final/<experiment>/<repeat>`, `tune/<experiment>`, `judge/<experiment>`, and
`finetune/<experiment>/<pool>`, `generate/…`, `score/…`; with a fold per repetition also `prepare/<repeat>` and `judge/<experiment>/<pool>` of all
but the first."""


@dataclass(frozen=True)
class Predictions:
    """Holds the predictions of one repetition on the test split."""

    paths: list[str]
    probabilities: NDArray[np.float32]
    """Holds probabilities `[n, C]`."""
    labels: Labels
    """Holds labels `[n, C]`."""
    calibrated: NDArray[np.float32]
    """Holds calibrated probabilities `[n, C]`."""
    thresholds: NDArray[np.float64]
    """Holds thresholds `[C]` of `probabilities`, of `any` groups."""
    units: list[str]
    """Names for each image what was sampled as one: its product, patient or the like if the data set names these, else the image itself."""


@dataclass(frozen=True)
class Experiment:
    """Holds an experiment with its results, and final trainings by the number of the repetition."""

    config: ReportedExperiment
    finals: dict[int, StageResult]
    tune: StageResult | None
    finetune: StageResult | None
    """Holds the result for the first pool of generated images, as do the two below."""
    generate: StageResult | None
    score: StageResult | None
    pools: int
    """Counts the pools of generated images."""

    @property
    def label(self) -> str:
        """Returns the name in tables."""
        return self.config.title or self.config.name

    @cached_property
    def arm(self) -> Arm | None:
        """Returns the arm as the first repetition was trained, or None if there is no repetition."""
        for result in self.finals.values():
            return Arm.model_validate_json(json.dumps(result.manifest.config["arm"]))
        return None


@dataclass(frozen=True)
class StudyInputs:
    """Holds all inputs of a study's report."""

    config: ReportConfig
    info: DatasetInfo
    rare: NDArray[np.int64]
    """Holds the columns of the study's rare classes."""
    experiments: list[Experiment]
    results: Results
    infos: Mapping[int, DatasetInfo]
    """Describes the data set of each repetition if each tests on a fold of its own, `info` being that of the first; empty if all have one."""

    @property
    def folds(self) -> bool:
        """Returns whether each repetition tests on a fold of its own."""
        return bool(self.infos)

    def train_counts(self, repeat: int) -> NDArray[np.int64]:
        """Returns the number of training images per class in a repetition, `[C]`."""
        return self.infos.get(repeat, self.info).train_counts()

    @cached_property
    def test_counts(self) -> dict[str, int]:
        """Maps each class to the number of its images that are tested on in any repetition."""
        infos = list(self.infos.values()) or [self.info]
        return {name: sum(info.counts["test"][name] for info in infos) for name in self.schema.class_names}

    @property
    def schema(self) -> LabelSchema:
        """Lists the label groups."""
        return self.info.schema_

    @cached_property
    def images(self) -> ImageSet:
        """Holds all real images."""
        return read_shards(self.results["prepare"].shards("images"), self.schema)

    def experiment(self, name: str) -> Experiment:
        """Returns the experiment of that name; raises KeyError if there is none."""
        for experiment in self.experiments:
            if experiment.config.name == name:
                return experiment
        raise KeyError(name)


def read_study(config: ReportConfig, results: Results) -> StudyInputs:
    """Sorts results by role into experiments; raises DataError if the data set is missing."""
    if "prepare" not in results:
        raise DataError("report: the input `prepare` is missing; run `prepare` first")
    info = read_info(results["prepare"].files["dataset.json"])
    others = {
        int(role.removeprefix("prepare/")): read_info(result.files["dataset.json"])
        for role, result in results.items()
        if role.startswith("prepare/")
    }
    infos = {0: info, **others} if others else {}
    experiments = []
    for experiment in config.experiments:
        prefix = f"final/{experiment.name}/"
        finals = {int(role.removeprefix(prefix)): r for role, r in results.items() if role.startswith(prefix)}
        first = {stage: results.get(f"{stage}/{experiment.name}/0") for stage in ("finetune", "generate", "score")}
        pools = sum(role.startswith(f"generate/{experiment.name}/") for role in results)
        tune = results.get(f"tune/{experiment.name}")
        experiments.append(Experiment(experiment, dict(sorted(finals.items())), tune, **first, pools=pools))
    return StudyInputs(config, info, rare_classes(config.rare, info), experiments, results, infos)


def read_predictions(result: StageResult, schema: LabelSchema, role: str) -> Predictions:
    """Reads `predictions.parquet` and `thresholds.json`; raises DataError, with role and column, if one is missing."""
    table = result.table("predictions.parquet")
    if table is None:
        raise DataError(f"{role}: has no predictions.parquet; run it again (--rerun final)")
    probabilities: list[NDArray[Any]] = []
    calibrated: list[NDArray[Any]] = []
    labels: list[NDArray[Any]] = []
    for group in schema.groups:
        for prefix, parts in (("p_", probabilities), ("c_", calibrated), ("y_", labels)):
            if f"{prefix}{group.name}" not in table.column_names:
                raise DataError(
                    f"{role}: predictions.parquet has no column {prefix}{group.name}; run it again (--rerun final)"
                )
            parts.append(_matrix(table[f"{prefix}{group.name}"], len(group.classes)))
    return Predictions(
        table["path"].to_pylist(),
        np.concatenate(probabilities, axis=1).astype(np.float32),
        np.concatenate(labels, axis=1).astype(np.int8),
        np.concatenate(calibrated, axis=1).astype(np.float32),
        threshold_array(schema, result.json("thresholds.json") or {}),
        table["unit" if "unit" in table.column_names else "path"].to_pylist(),
    )


def read_validation(path: Path, schema: LabelSchema) -> tuple[NDArray[np.float32], Labels]:
    """Returns the logits and the labels of `validation.parquet`, both `[m, C]`; raises ValueError or KeyError for another table."""
    table = pq.read_table(path)
    logits, labels = (
        np.concatenate([np.array(table[f"{kind}_{group.name}"].to_pylist()) for group in schema.groups], axis=1)
        for kind in "ly"
    )
    if logits.shape != labels.shape or logits.shape[1] != schema.width:
        raise ValueError(f"it has {logits.shape} logits and {labels.shape} labels")
    return logits.astype(np.float32), labels.astype(np.int8)


def _matrix(column: pa.ChunkedArray, width: int) -> NDArray[Any]:
    flat: NDArray[Any] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), width)
