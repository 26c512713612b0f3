"""`judge`: trains the judges of generated images, a classifier per fold of the real training images, once for all pools.

It commits each judge's weights (`judge-<fold>.safetensors`), and the folds and what the judges say of the real images (`real.safetensors`).
`score` shows them the generated images.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.artifacts.manifest import Manifest
from shared.config.stages import JudgeConfig
from shared.context import Context
from shared.data.dataset import read_info
from shared.data.imageset import ImageSet, read_shards
from shared.weights.inputs import fetched_judges

if TYPE_CHECKING:
    from shared.classifier.runtime import Runtime


def run(config: JudgeConfig, context: Context) -> Manifest:
    """Fetches the data set, trains the judges (from checkpoints, if there are any) and commits."""
    from shared.classifier.runtime import Runtime
    from shared.device import device_name, pick_device

    prepared = context.input("prepare")
    info = read_info(context.fetch(prepared, "dataset.json"))
    real = read_shards(context.fetch_all(prepared, "images"), info.schema_)
    resources = context.task.resources
    runtime = Runtime(
        pick_device(resources.device),
        resources,
        context.checkpoints,
        context.stop,
        context.settings.cache / "features",
        fetched_judges(context),
        context.settings.memory,
    )
    out = context.scratch / "out"
    out.mkdir()
    summary = judge(config, real.of("train"), real.of("val"), out, runtime)
    files = {path.name: path for path in sorted(out.iterdir())}
    return context.commit(files, summary, device=device_name(runtime.device))


def judge(config: JudgeConfig, train: ImageSet, val: ImageSet, out: Path, runtime: Runtime) -> dict[str, Any]:
    """Trains the judges, writes the files to commit into the folder `out`, and returns the summary.

    An interrupted run continues from `runtime.checkpoints`, two per judge: one of its training, and one of the trained judge. Raises DataError if
    there are fewer training images than folds, Stopped, and what training raises.
    """
    from shared.score.judges import REAL, assign_folds, train_judges

    fold = assign_folds(train, config.folds, config.seed)
    real = train_judges(config, train, val, fold, out, runtime)
    real.save(out / REAL)
    return {"judges": real.judges, "images": len(train), "accuracy": real.accuracy(train)}
