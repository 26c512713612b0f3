"""`final`: trains one repetition of an experiment with its best parameters and judges it on the test split, once, at the end.

Commits `metrics.json`, `predictions.parquet` (test images), `curve.json`, `model.safetensors` and `thresholds.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from shared.artifacts.checkpoints import Checkpoints
from shared.artifacts.manifest import Manifest
from shared.config.apply_parameters import apply_parameters
from shared.config.search import Resources
from shared.config.stages import Arm, FinalConfig
from shared.context import Context
from shared.errors import DataError
from shared.search.best_parameters import best_parameters
from shared.stop import StopSignal
from shared.weights.inputs import fetched_models

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from shared.data.dataset import DatasetInfo
    from shared.data.imageset import ImageSet
    from shared.data.schema import LabelSchema


@dataclass(frozen=True)
class Finished:
    """What `final` wrote: files by name, the manifest's summary, and the device it ran on."""

    files: dict[str, Path]
    summary: dict[str, Any]
    device: str


def run(config: FinalConfig, context: Context) -> Manifest:
    """Fetches the data set, the generated images and the best parameters, trains and commits."""
    import pyarrow.parquet as pq

    from shared.data.dataset import read_info
    from shared.data.imageset import read_shards

    prepared = context.input("prepare")
    info = read_info(context.fetch(prepared, "dataset.json"))
    images = read_shards(context.fetch_all(prepared, "images"), info.schema_)
    generated = scores = None
    if config.arm.images != "real":
        generated = read_shards(context.fetch_all(context.input("generate"), "images"), info.schema_)
        scores = pq.read_table(context.fetch(context.input("score"), "scores.parquet"))
    out = context.scratch / "final"
    out.mkdir()
    finished = final(
        config,
        images,
        info,
        generated,
        scores,
        best_parameters(context, config.pinned),
        context.task.resources,
        out,
        context.checkpoints("training"),
        context.stop,
        context.settings.cache / "features",
        fetched_models(context),
    )
    return context.commit(finished.files, finished.summary, finished.device)


def final(
    config: FinalConfig,
    images: ImageSet,
    info: DatasetInfo,
    generated: ImageSet | None,
    scores: pa.Table | None,
    parameters: Mapping[str, Any],
    resources: Resources,
    out: Path,
    checkpoints: Checkpoints,
    stop: StopSignal,
    cache: Path | None = None,
    fetched: Mapping[str, Path] = MappingProxyType({}),
) -> Finished:
    """One repetition, written into the folder `out`.

    `images` are those of all splits, `generated` and `scores` a row each (None for real images only), `parameters` the best ones by
    path, `fetched` weights from the hub by timm model.
    Repetition r trains with the seed `config.seed + r` on pool r mod replicates. Thresholds of `any` groups are chosen on val. Raises what
    `fit` and `TrainingData.build` raise, DataError for a set without test images.
    """
    from shared.classifier.fit import TrainingData, fit
    from shared.classifier.training_set import effective_training_set
    from shared.data.dataset import rare_classes
    from shared.device import device_name, pick_device
    from shared.metrics.classification import best_thresholds
    from shared.metrics.table import METRICS

    arm, device = apply_parameters(config.arm, parameters), pick_device(resources.device)
    rare = rare_classes(arm.rare, info)
    train, val, test = (images.of(split) for split in ("train", "val", "test"))
    if len(test) == 0:
        raise DataError("the test set has no images; look at the splits that `prepare` made")
    training = effective_training_set(arm, train, generated, scores, config.repeat % arm.replicates, rare)
    data = TrainingData.build(arm, training, val, rare, resources, device, cache, stop, fetched)
    fitted = fit(
        arm,
        data,
        config.final.epochs,
        config.seed + config.repeat,
        checkpoints,
        stop,
        on_epoch=_logger(config.final.epochs + arm.training.refit_epochs),
        checkpoint_every=config.final.checkpoint_every,
    )
    thresholds = best_thresholds(info.schema_, fitted.val_probabilities, val.labels)
    # also after a signal: what is left is short, and the training may not be checkpointed to its end
    logits = fitted.logits(test)
    metrics = _judged(arm, info, data, logits, test, rare, thresholds)
    files = _write(out, info.schema_, logits, test, metrics, thresholds)
    from shared.classifier.snapshot import records_json

    files["curve.json"] = _json_file(out / "curve.json", records_json(fitted.history))
    files["model.safetensors"] = out / "model.safetensors"
    fitted.save(files["model.safetensors"])
    summary = {m.name: metrics[m.name] for m in METRICS if m.summary} | {
        "parameters": dict(parameters),
        "images": {"train": len(train), "added": int(training.generated.sum()), "test": len(test)},
    }
    return Finished(files, summary, device_name(device))


def _judged(
    arm: Arm,
    info: DatasetInfo,
    data: Any,
    logits: Any,
    test: ImageSet,
    rare: NDArray[np.int64],
    thresholds: NDArray[np.float64],
) -> dict[str, Any]:
    """The test split's scores, and its loss as the validation loss is counted; None if one is not defined."""
    import torch

    from shared.classifier.predictor import probabilities
    from shared.metrics.classification import evaluate
    from shared.metrics.table import METRICS

    schema = info.schema_
    metrics = evaluate(schema, probabilities(logits, schema), test.labels, rare, thresholds, info.train_counts())
    for metric in METRICS:
        if metric.from_training is not None:
            score = resolve_name(metric.from_training)
            metrics[metric.name] = score(schema, arm, data, logits, torch.from_numpy(test.labels))
    defined: dict[str, Any] = _without_nan(metrics)
    return defined


def _write(
    out: Path,
    schema: LabelSchema,
    logits: Any,
    test: ImageSet,
    metrics: dict[str, Any],
    thresholds: NDArray[np.float64],
) -> dict[str, Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from shared.classifier.predictor import probabilities

    predicted = probabilities(logits, schema)
    columns: dict[str, Any] = {"path": pa.array(test.paths, pa.string())}
    for name, where in schema.slices().items():
        columns[f"p_{name}"] = pa.array(list(predicted[:, where]), pa.list_(pa.float32()))
        columns[f"y_{name}"] = pa.array(list(test.labels[:, where]), pa.list_(pa.int8()))
    table = out / "predictions.parquet"
    pq.write_table(pa.table(columns), table)
    chosen = {
        name: float(thresholds[i]) for i, name in enumerate(schema.class_names) if schema.group_of(i).kind == "any"
    }
    return {
        "predictions.parquet": table,
        "metrics.json": _json_file(out / "metrics.json", metrics),
        "thresholds.json": _json_file(out / "thresholds.json", chosen),
    }


def _logger(epochs: int) -> Any:
    """Logs every epoch: on a GPU they take seconds, on a CPU someone waits."""
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
