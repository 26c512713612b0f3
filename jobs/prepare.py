"""`prepare`: converts any source of labelled images to the form that all other stages read.

Commits `dataset.json`, `images-*.parquet`, `leaks.csv` (similar images in different splits) and `contact.png` (a few images of each class).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.artifacts.manifest import Manifest
from shared.config.stages import PrepareConfig
from shared.context import Context
from shared.errors import DataError
from shared.log import Log
from shared.stop import StopSignal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shared.data.dataset import DatasetInfo
    from shared.data.imageset import ImageSet
    from shared.data.schema import Labels


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
    from shared.data.dataset import describe, rare_classes, usual_counts
    from shared.data.decode import decode_images
    from shared.data.imageset import ImageSet, unit_column
    from shared.data.leaks import count_leaks, find_alike, find_leaks, without_leaks, write_leaks
    from shared.data.problems import Problems
    from shared.data.sources.table import open_source
    from shared.data.split import assign_splits, join_units, units_for_folds

    dataset = config.dataset
    problems = Problems(dataset.on_bad)
    listing = open_source(dataset, root, config.seed, problems)
    decoded = decode_images(listing, dataset.resolution, dataset.fit, problems, stop, Reading.of(dataset))
    likeness = find_alike(decoded.canonical, dataset.leak_distance)
    # similar images go to the same split, so that only a split that the source itself gives can leak
    groups = [image.group for image in decoded.images]
    units = join_units(groups, likeness.clusters())
    given = np.array([image.split or "" for image in decoded.images], dtype="<U5")
    split, split_notes = assign_splits(given, decoded.labels, units, dataset.split, config.seed, config.fold)
    leaks = find_leaks(likeness, split)
    kept = without_leaks(leaks, dataset.on_leak, decoded.images)
    images = ImageSet(
        decoded.schema,
        decoded.encoded.take(kept),
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
        usual_counts=usual_counts(images.schema, images.labels, dataset.split, config.fold),
    )
    rare = rare_classes(config.rare, info)
    alone = join_units(groups, np.arange(len(groups)))
    least = LEAST_UNITS if config.fold is None else units_for_folds(config.fold.count)
    remedy = "raise dataset.split" if config.fold is None else "lower final.seeds, as each repetition tests on a fold"
    together = _kept_together(decoded.labels, alone, units, least)
    _check_coverage(info, rare, together, _dropped(decoded.labels, kept), remedy)
    write_leaks(leaks, [image.path for image in decoded.images], out / "leaks.csv", dataset.on_leak == "drop")
    return _write(info, images, rare, out)


LEAST_UNITS = 3  # to be in train, val and test


def _kept_together(labels: Labels, alone: NDArray[np.int64], units: NDArray[np.int64], least: int) -> list[str]:
    """Returns for each class why its images cannot be in all splits, `[C]` texts, blank if they can as far as similar images go.

    `units` `[n]` numbers what stays in one split, `alone` `[n]` what would if no image were like another; a class needs at least `least` of them.
    """
    import numpy as np

    reasons = []
    for column in range(labels.shape[1]):
        rows = np.flatnonzero(labels[:, column] == 1)
        now = len(np.unique(units[rows]))
        alike = now < least <= len(np.unique(alone[rows]))
        reasons.append(f"its {len(rows)} images are so alike that they count as {now}" if alike else "")
    return reasons


def _dropped(labels: Labels, kept: NDArray[np.int64]) -> list[str]:
    """Returns for each class how many of its images were dropped as leaks, `[C]` texts, blank if none was."""
    numbers = ((labels == 1).sum(axis=0) - (labels[kept] == 1).sum(axis=0)).tolist()
    return [f"on_leak: drop took {n} images like those of another split" if n else "" for n in numbers]


def _check_coverage(
    info: DatasetInfo, rare: NDArray[np.int64], kept_together: Sequence[str], dropped: Sequence[str], resplit: str
) -> None:
    """Raises DataError, with the counts, if a split is empty, a class has no training image, or a rare class has none in another split.

    `kept_together` and `dropped` have causes for each class, `[C]`, or blanks, and `resplit` is a remedy. A class that is missing in val or test
    without being rare is logged.
    """
    from shared.data.source import SPLITS

    bad, alike = [], False
    for column, name in enumerate(info.schema_.class_names):
        causes = [cause for cause in (kept_together[column], dropped[column]) if cause]
        counts = ", ".join([*(f"{split} {info.counts[split][name]}" for split in SPLITS), *causes])
        missing = [split for split in SPLITS if info.counts[split][name] == 0]
        empty = [split for split in SPLITS if info.sizes[split] == 0]
        if "train" in missing or empty or (missing and column in rare):
            bad.append(f"{'the rare class' if column in rare else 'the class'} {name} ({counts})")
            alike |= bool(causes)
        elif missing:
            Log("prepare").warning(f"the class {name} has no image in {' and '.join(missing)} ({counts})")
    if bad:
        more = f"; and {len(bad) - 3} more" if bad[3:] else ""
        remedy = (
            "take out the copies, or lower dataset.leak_distance, up to which images count as alike (0: only equal pixels are)"
            if alike
            else f"add images, move some between the splits, {resplit}, or take the class out"
        )
        raise DataError(f"dataset: images are missing in a split for {'; '.join(bad[:3])}{more}; {remedy}")


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
