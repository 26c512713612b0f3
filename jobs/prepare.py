"""`prepare`: converts any source of labelled images to the form that all other stages read.

Commits `dataset.json`, `images-*.parquet`, `leaks.csv` (similar images in different splits) and `contact.png` (a few images of each class).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.artifacts.manifest import Manifest
from shared.config.stages import PrepareConfig
from shared.context import Context
from shared.errors import DataError
from shared.stop import StopSignal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shared.data.dataset import DatasetInfo
    from shared.data.imageset import ImageSet


@dataclass(frozen=True)
class Prepared:
    """Holds the files that `prepare` wrote, by name, and the manifest's summary."""

    files: dict[str, Path]
    summary: dict[str, Any]


def run(config: PrepareConfig, context: Context) -> Manifest:
    """Fetches the source if it is in a bucket, prepares it and commits the result."""
    root = None
    if config.dataset.root is not None:
        from shared.artifacts.remote import local_folder

        fetched = context.scratch / "fetched"
        fetched.mkdir()
        root = local_folder(config.dataset.root, context.settings, fetched)
    out = context.scratch / "prepared"
    out.mkdir()
    prepared = prepare(config, root, out, context.stop)
    return context.commit(prepared.files, prepared.summary)


def prepare(config: PrepareConfig, root: Path | None, out: Path, stop: StopSignal) -> Prepared:
    """Reads a source and writes the data set into the folder `out`; `root` is the source's local folder, None for drawn images.

    Raises DataError or ConfigError if something is wrong with the source (in one line, with file and line if possible), and Stopped.
    """
    import numpy as np

    from shared.data.canonical import Reading
    from shared.data.dataset import describe, rare_classes
    from shared.data.decode import decode_images
    from shared.data.imageset import ImageSet, unit_column
    from shared.data.leaks import count_leaks, find_alike, find_leaks, without_leaks, write_leaks
    from shared.data.problems import Problems
    from shared.data.sources.table import open_source
    from shared.data.split import assign_splits, join_units

    dataset = config.dataset
    problems = Problems(dataset.on_bad)
    listing = open_source(dataset, root, config.seed, problems)
    decoded = decode_images(listing, dataset.resolution, dataset.fit, problems, stop, Reading.of(dataset))
    likeness = find_alike(decoded.canonical, dataset.leak_distance)
    # similar images go to the same split, so that only a split that the source itself gives can leak
    units = join_units([image.group for image in decoded.images], likeness.clusters())
    given = np.array([image.split or "" for image in decoded.images], dtype="<U5")
    split, split_notes = assign_splits(given, decoded.labels, units, dataset.split, config.seed)
    leaks = find_leaks(likeness, split)
    kept = without_leaks(leaks, dataset.on_leak, decoded.images)
    images = ImageSet(
        decoded.schema,
        [decoded.canonical[i].data for i in kept],
        [decoded.images[i].path for i in kept],
        split[kept],
        decoded.labels[kept],
        unit_column([decoded.images[i].group for i in kept]),
    )
    info = describe(
        dataset.source,
        images.schema,
        dataset.resolution,
        images.labels,
        images.split,
        skipped=problems.counts,
        leaks=count_leaks(leaks),
        notes=(*listing.notes, *split_notes, *decoded.notes),
    )
    rare = rare_classes(config.rare, info)
    _check_coverage(info, rare)
    write_leaks(leaks, [image.path for image in decoded.images], out / "leaks.csv", dataset.on_leak == "drop")
    return _write(info, images, rare, out)


def _check_coverage(info: DatasetInfo, rare: NDArray[np.int64]) -> None:
    """Raises DataError, with the counts, if a class has no training image, or a rare class has none in another split."""
    bad = []
    for column, name in enumerate(info.schema_.class_names):
        needed = ("train", "val", "test") if column in rare else ("train",)
        if any(info.counts[split][name] == 0 for split in needed):
            counts = ", ".join(f"{split} {info.counts[split][name]}" for split in ("train", "val", "test"))
            bad.append(f"{'the rare class' if column in rare else 'the class'} {name} ({counts})")
    if bad:
        raise DataError(
            f"dataset: images are missing in a split for {'; '.join(bad[:5])}{f'; and {len(bad) - 5} more' if bad[5:] else ''}; "
            "add images, move some between the splits, raise dataset.split, or take the class out"
        )


def _write(info: DatasetInfo, images: ImageSet, rare: NDArray[np.int64], out: Path) -> Prepared:
    from shared.data.class_sheet import SIDE, class_sheet
    from shared.data.imageset import decode, write_shards

    train = images.of("train")
    sheet = class_sheet(train.schema, train.labels, lambda i: decode(train.encoded[i], SIDE, train.paths[i]))
    sheet.save(out / "contact.png", "PNG")
    (out / "dataset.json").write_text(info.model_dump_json(by_alias=True, indent=1) + "\n")
    shards = write_shards(images, out, "images")
    files = {path.name: path for path in (out / "dataset.json", out / "leaks.csv", out / "contact.png", *shards)}
    summary = {
        "sizes": info.sizes,
        "rare": [info.schema_.class_names[column] for column in rare],
        "skipped": info.skipped,
        "leaks": info.leaks,
    }
    return Prepared(files, summary)
