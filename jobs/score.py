"""`score`: rates how plausible each generated image is to the judges, and whether it is a copy of a real image.

It drops no image: an arm selects images by a filter over these scores (`shared.data.accept`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
    from shared.score.near_duplicates import Images


def run(config: ScoreConfig, context: Context) -> Manifest:
    """Reads the data set, the judges and the generated images, scores the latter, and commits."""
    from shared.classifier.runtime import Runtime
    from shared.device import device_name, pick_device
    from shared.score.near_duplicates import Images

    prepared, made, trained = (context.input(role) for role in ("prepare", "generate", "judge"))
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
        context.settings.memory,
    )
    images = Images(real.of("train"), real.of("val"), real.of("test"), generated)
    judges = {file.name: context.artifacts.fetch(file) for file in trained.files}
    summary = score(config, images, judges, context.scratch, runtime)
    files = {name: context.scratch / name for name in ("scores.parquet", "judges.json", "copies.png")}
    return context.commit(files, summary, device=device_name(device))


def score(
    config: ScoreConfig, images: Images, judges: Mapping[str, Path], out: Path, runtime: Runtime
) -> dict[str, Any]:
    """Writes `scores.parquet`, `judges.json` and `copies.png` into `out`, and returns the summary.

    `judges` are the files that `judge` committed, by name. Only the first pool, which the report shows, gets the metrics of images as a set,
    for which another classifier is trained; that training continues from `runtime.checkpoints`. Raises DataError if there are no generated
    images, their provenance is missing or the judges do not fit, Stopped, and what training raises.
    """
    import numpy as np
    import pyarrow.parquet as pq

    from shared.log import Log
    from shared.score.judges import RealPredictions, load_judge
    from shared.score.near_duplicates import copies_sheet, find_near_duplicates
    from shared.score.plausibility import out_of_fold_mean
    from shared.score.set_metrics import of_set
    from shared.score.table import check_provenance, is_first_pool, score_table, started_from

    check_provenance(images.generated)
    real = RealPredictions.load(judges, images.train, images.val)
    answers = []
    for number in Log("score").progress(range(real.judges), "judges", real.judges, "judges"):
        runtime.stop.raise_if_set()
        answers.append(load_judge(config, judges, number, images.train, runtime).predict(images.generated))
    made_from = started_from(images.generated)
    near_duplicates = find_near_duplicates(images, made_from, runtime.stop)
    table = score_table(images, out_of_fold_mean(answers, real.fold, made_from), near_duplicates)
    runtime.stop.raise_if_set()
    measured: dict[str, Any] = {}
    if is_first_pool(images.generated):
        features = load_judge(config, judges, 0, images.train, runtime).features(images.generated)
        measured = of_set(config, images, real, features, runtime)
    judged = {"accuracy": real.accuracy(images.train), **measured, "neighbours": near_duplicates.summary()}
    pq.write_table(table, out / "scores.parquet")
    (out / "judges.json").write_text(json.dumps(judged, indent=1))
    copies_sheet(images, near_duplicates).save(out / "copies.png")
    return {
        "images": len(images.generated),
        "plausibility": float(np.mean(table["plausibility"].to_numpy())),
        **({"cas": measured["cas"]["accuracy"], "kid": measured["kid"]} if measured else {}),
        **near_duplicates.summary(),
    }
