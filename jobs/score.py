"""`score`: rates how plausible each generated image is to judges trained on real images only, and whether it is a copy of a real image.

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

    The metrics of the images as a set, for which another classifier is trained, are those of the first pool, which the report shows.
    An interrupted run continues from `runtime.checkpoints`, one per judge. Raises DataError if there are no generated images or their
    provenance is missing, Stopped, and what training raises.
    """
    import numpy as np
    import pyarrow.parquet as pq

    from shared.score.judges import assign_folds, train_judges
    from shared.score.near_duplicates import copies_sheet, find_near_duplicates
    from shared.score.plausibility import out_of_fold_mean
    from shared.score.set_metrics import of_set, out_of_fold_accuracy
    from shared.score.table import check_provenance, is_first_pool, score_table, started_from

    check_provenance(images.generated)
    fold = assign_folds(images.train, config.score.folds, config.seed)
    predictions, features = train_judges(config, images, fold, runtime)
    made_from = started_from(images.generated)
    near_duplicates = find_near_duplicates(images, made_from, runtime.stop)
    probabilities = out_of_fold_mean([judge.generated for judge in predictions], fold, made_from)
    table = score_table(images, probabilities, near_duplicates)
    runtime.stop.raise_if_set()
    measured = of_set(config, images, predictions, features, runtime) if is_first_pool(images.generated) else {}
    judges = {
        "accuracy": out_of_fold_accuracy(images.train, predictions, fold),
        **measured,
        "neighbours": near_duplicates.summary(),
    }
    pq.write_table(table, out / "scores.parquet")
    (out / "judges.json").write_text(json.dumps(judges, indent=1))
    copies_sheet(images, near_duplicates).save(out / "copies.png")
    return {
        "images": len(images.generated),
        "plausibility": float(np.mean(table["plausibility"].to_numpy())),
        **({"cas": measured["cas"]["accuracy"], "kid": measured["kid"]} if measured else {}),
        **near_duplicates.summary(),
    }
