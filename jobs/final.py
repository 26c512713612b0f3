"""`final`: trains one repetition of an experiment with its best parameters and tests it on the test split, once, at the end.

Commits `metrics.json`, `predictions.parquet` (test images), `validation.parquet` (logits of validation images), `curve.json`,
`model.safetensors`, `thresholds.json` and `calibration.json`, and `reviewed.csv` if a person reviewed the generated images.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from shared.artifacts.manifest import Manifest
from shared.config.apply_parameters import apply_parameters
from shared.config.stages import Arm, FinalConfig
from shared.context import Context
from shared.errors import DataError
from shared.weights.inputs import fetched_models

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from shared.classifier.runtime import Runtime
    from shared.data.dataset import DatasetInfo
    from shared.data.imageset import ImageSet
    from shared.data.review import Review
    from shared.data.schema import LabelSchema


@dataclass(frozen=True)
class FinalInputs:
    """Holds the inputs of a final training."""

    images: ImageSet
    """Holds the real images of all splits."""
    info: DatasetInfo
    generated: ImageSet | None = None
    """Holds the generated images; None if the arm trains on real images only."""
    scores: pa.Table | None = None
    """Holds a row per generated image; None if the arm takes all of them."""
    review: Review | None = None
    """Holds a person's decisions about the generated images, if the arm has any."""


@dataclass(frozen=True)
class FinalResult:
    """Holds the files that `final` wrote."""

    files: dict[str, Path]
    """Holds the files by name."""
    summary: dict[str, Any]
    """Holds the summary for the manifest."""


def run(config: FinalConfig, context: Context) -> Manifest:
    """Fetches the data set and the generated images, trains, tests and commits."""
    import pyarrow.parquet as pq

    from shared.classifier.runtime import Runtime
    from shared.data.dataset import read_info
    from shared.data.imageset import read_shards
    from shared.data.review import arm_review
    from shared.device import device_name, pick_device

    prepared = context.input("prepare")
    info = read_info(context.fetch(prepared, "dataset.json"))
    images = read_shards(context.fetch_all(prepared, "images"), info.schema_)
    generated = scores = None
    if config.arm.images != "real":
        generated = read_shards(context.fetch_all(context.input("generate"), "images"), info.schema_)
        if "score" in context.task.inputs:
            scores = pq.read_table(context.fetch(context.input("score"), "scores.parquet"))
    out = context.scratch / "final"
    out.mkdir()
    runtime = Runtime(
        pick_device(context.task.resources.device),
        context.task.resources,
        context.checkpoints,
        context.stop,
        context.settings.cache / "features",
        fetched_models(context),
        context.settings.memory,
    )
    review = arm_review(config.arm.accept, config.weights, context.settings, context.scratch / "review")
    inputs = FinalInputs(images, info, generated, scores, review)
    result = final(config, inputs, runtime, out)
    files = result.files if review is None else {**result.files, "reviewed.csv": review.file}
    return context.commit(files, result.summary, device_name(runtime.device))


def final(config: FinalConfig, inputs: FinalInputs, runtime: Runtime, out: Path) -> FinalResult:
    """Trains and tests one repetition, and writes its files into the folder `out`.

    The thresholds of `any` groups are chosen, and the temperatures of all groups fitted, on the validation split.

    Raises what `fit` and `TrainingData.build` raise, and DataError if there are no test images.
    """
    from shared.classifier.fit import TrainingData, fit
    from shared.classifier.training_set import effective_training_set
    from shared.data.dataset import rare_classes
    from shared.metrics.calibration import calibrated, calibrated_thresholds, fit_temperatures
    from shared.metrics.classification import best_thresholds
    from shared.metrics.counts import thresholds_by_class
    from shared.metrics.table import METRICS

    arm, info = apply_parameters(config.arm, config.parameters), inputs.info
    rare = rare_classes(arm.rare, info)
    train, val, test = (inputs.images.of(split) for split in ("train", "val", "test"))
    if len(test) == 0:
        raise DataError("the test set has no images; check the splits that `prepare` made")
    training = effective_training_set(arm, train, inputs.generated, inputs.scores, rare, inputs.review)
    data = TrainingData.build(arm, training, val, rare, runtime)
    trained = fit(
        arm,
        data,
        config.final.epochs,
        config.seed,
        runtime.checkpoints("training"),
        runtime.stop,
        on_epoch=_logger(config.final.epochs + arm.training.refit_epochs),
        checkpoint_every=config.final.checkpoint_every,
    )
    schema = info.schema_
    thresholds = best_thresholds(schema, trained.val_probabilities, val.labels)
    temperatures = fit_temperatures(schema, trained.val_logits, val.labels)
    # also after a signal: the rest is short, and the end of the training may not be checkpointed
    logits = trained.logits(test)
    sure = calibrated(schema, logits.numpy(), temperatures)
    metrics = _test_metrics(arm, info, data, logits, test, rare, _Calibrated(thresholds, sure))
    files = {
        "predictions.parquet": _write_predictions(out / "predictions.parquet", schema, logits, sure, test),
        "validation.parquet": _write_validation(out / "validation.parquet", schema, trained.val_logits, val),
        "metrics.json": _json_file(out / "metrics.json", metrics),
        "thresholds.json": _json_file(out / "thresholds.json", thresholds_by_class(schema, thresholds)),
    }
    moved = calibrated_thresholds(schema, thresholds, temperatures)
    calibration = {"temperatures": temperatures, "thresholds": thresholds_by_class(schema, moved)}
    files["calibration.json"] = _json_file(out / "calibration.json", calibration)
    from shared.classifier.snapshot import records_json

    files["curve.json"] = _json_file(out / "curve.json", records_json(trained.history))
    files["model.safetensors"] = out / "model.safetensors"
    trained.save(files["model.safetensors"])
    summary = {m.name: metrics[m.name] for m in METRICS if m.summary} | {
        "parameters": config.parameters,
        "images": {"train": len(train), "added": int(training.generated.sum()), "test": len(test)},
    }
    return FinalResult(files, summary)


@dataclass(frozen=True)
class _Calibrated:
    """Holds what was chosen on the validation split."""

    thresholds: NDArray[np.float64]
    """Holds the thresholds `[C]` of probabilities as they are before calibration."""
    test: NDArray[np.float32]
    """Holds the calibrated probabilities of the test images, `[n, C]`."""


def _test_metrics(
    arm: Arm,
    info: DatasetInfo,
    data: Any,
    logits: Any,
    test: ImageSet,
    rare: NDArray[np.int64],
    chosen: _Calibrated,
) -> dict[str, Any]:
    """Returns the scores on the test split, and its loss computed like the validation loss; None for one that is not defined."""
    import torch

    from shared.classifier.predictor import probabilities
    from shared.metrics.classification import evaluate
    from shared.metrics.table import METRICS

    schema = info.schema_
    predicted, counts = probabilities(logits, schema), info.train_counts()
    metrics = evaluate(schema, predicted, test.labels, rare, chosen.thresholds, counts, chosen.test)
    for metric in METRICS:
        if metric.from_training is not None:
            score = resolve_name(metric.from_training)
            metrics[metric.name] = score(schema, arm, data, logits, torch.from_numpy(test.labels))
    defined: dict[str, Any] = _without_nan(metrics)
    return defined


def _write_predictions(
    path: Path, schema: LabelSchema, logits: Any, calibrated: NDArray[np.float32], test: ImageSet
) -> Path:
    """Writes a row per test image: its path, its unit if the data set names any, and per group `p_`, probabilities, `c_`, calibrated ones, and
    `y_`, labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from shared.classifier.predictor import probabilities

    predicted = probabilities(logits, schema)
    columns: dict[str, Any] = {"path": pa.array(test.paths, pa.string())}
    if (units := test.units()) is not None:
        columns["unit"] = pa.array(units, pa.string())
    for name, where in schema.slices().items():
        columns[f"p_{name}"] = pa.array(list(predicted[:, where]), pa.list_(pa.float32()))
        columns[f"c_{name}"] = pa.array(list(calibrated[:, where]), pa.list_(pa.float32()))
        columns[f"y_{name}"] = pa.array(list(test.labels[:, where]), pa.list_(pa.int8()))
    pq.write_table(pa.table(columns), path)
    return path


def _write_validation(path: Path, schema: LabelSchema, logits: NDArray[np.float32], val: ImageSet) -> Path:
    """Writes a row per validation image: its path, and per group `l_`, logits, and `y_`, labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {"path": pa.array(val.paths, pa.string())}
    for name, where in schema.slices().items():
        columns[f"l_{name}"] = pa.array(list(logits[:, where]), pa.list_(pa.float32()))
        columns[f"y_{name}"] = pa.array(list(val.labels[:, where]), pa.list_(pa.int8()))
    pq.write_table(pa.table(columns), path)
    return path


def _logger(epochs: int) -> Any:
    """Returns a callback that logs every epoch: on a GPU epochs take seconds, and on a CPU someone waits."""
    from shared.log import Log

    log = Log("final")

    def on_epoch(record: Any) -> None:
        log.info(
            f"epoch {record.epoch + 1}/{epochs}",
            train_loss=round(record.train_loss, 4),
            val_loss=round(record.val_loss, 4),
            val_macro_f1=round(record.val_macro_f1, 4),
            seconds_left=round(record.seconds * (epochs - record.epoch - 1)),
        )

    return on_epoch


def _json_file(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, indent=1, allow_nan=False))
    return path


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
