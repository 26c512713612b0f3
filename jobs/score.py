"""`score`: rates how plausible each generated image is to judges trained on real images only, and how near it is to a real image.

It drops no image: an arm accepts images by a filter over these scores (`shared.data.accept`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.artifacts.manifest import Manifest
from shared.config.stages import ScoreConfig
from shared.context import Context
from shared.data.dataset import read_info
from shared.data.imageset import read_shards
from shared.weights.inputs import fetched_judges

if TYPE_CHECKING:
    from shared.classifier.runtime import Runtime
    from shared.score.judges import Images


def run(config: ScoreConfig, context: Context) -> Manifest:
    """Reads the data set and the generated images, scores them, and commits."""
    from shared.classifier.runtime import Runtime
    from shared.device import device_name, pick_device
    from shared.score.judges import Images

    prepared, made = context.input("prepare"), context.input("generate")
    schema = read_info(context.fetch(prepared, "dataset.json")).schema_
    real = read_shards(context.fetch_all(prepared, "images"), schema)
    generated = read_shards(context.fetch_all(made, "images"), schema)
    resources = context.task.resources
    device = pick_device(resources.device)
    runtime = Runtime(
        device,
        resources,
        context.checkpoints,
        context.stop,
        context.settings.cache / "features",
        fetched_judges(context),
    )
    images = Images(real.of("train"), real.of("val"), real.of("test"), generated)
    summary = score(config, images, context.scratch, runtime)
    files = {name: context.scratch / name for name in ("scores.parquet", "judges.json", "copies.png")}
    return context.commit(files, summary, device=device_name(device))


def score(config: ScoreConfig, images: Images, out: Path, runtime: Runtime) -> dict[str, Any]:
    """Writes `scores.parquet`, `judges.json` and `copies.png` into `out`, and returns the summary.

    An interrupted run continues from `runtime.checkpoints`, one per judge. Raises DataError if there are no generated images or their
    provenance is missing, Stopped, and what training raises.
    """
    import numpy as np
    import pyarrow.parquet as pq

    from shared.score.judges import assign_folds, train_judges
    from shared.score.near_duplicates import copies_sheet, measure_near_duplicates
    from shared.score.plausibility import out_of_fold_mean
    from shared.score.set_metrics import classification_accuracy_score, distribution, out_of_fold_accuracy
    from shared.score.table import check_provenance, score_table, started_from

    check_provenance(images.generated)
    fold = assign_folds(images.train.labels, config.score.folds, config.seed)
    predictions, features = train_judges(config, images, fold, runtime)
    near_duplicates = measure_near_duplicates(features)
    probabilities = out_of_fold_mean([judge.generated for judge in predictions], fold, started_from(images.generated))
    table = score_table(images, probabilities, near_duplicates)
    runtime.stop.raise_if_set()
    cas = classification_accuracy_score(config, images, predictions, runtime)
    measures = distribution(images, features, config.seed)
    judges = {
        "accuracy": out_of_fold_accuracy(images.train, predictions, fold),
        "cas": cas,
        **measures,
        "neighbours": near_duplicates.summary(),
    }
    pq.write_table(table, out / "scores.parquet")
    (out / "judges.json").write_text(json.dumps(judges, indent=1))
    copies_sheet(images, near_duplicates).save(out / "copies.png")
    return {
        "images": len(images.generated),
        "plausibility": float(np.mean(table["plausibility"].to_numpy())),
        "cas": cas["accuracy"],
        "kid": measures["kid"],
        **near_duplicates.summary(),
    }
