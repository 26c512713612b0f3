"""Implements `tailfill look DATA`: writes a page that shows what to mend in labelled images before anything is trained on them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import DataError

if TYPE_CHECKING:
    from shared.config.dataset import Dataset
    from shared.data.schema import LabelSchema
    from shared.data.source import SourceImage
    from shared.look.findings import Findings


@dataclass(frozen=True)
class Data:
    """Says where labelled images are."""

    dataset: Dataset
    root: Path | None
    seed: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listed:
    """Holds the images of a data set, not yet read."""

    name: str
    """Says where they are, as the user named it."""
    dataset: Dataset
    schema: LabelSchema
    images: Sequence[SourceImage]
    notes: tuple[str, ...] = ()


def look(data: str, out: Path, most: int, sets: Sequence[str] = ()) -> list[str]:
    """Looks at the images of `data`, which is what `init` takes, a location in a bucket or a study file, and writes the page into the folder `out`.

    Returns lines that say what was found. Raises DataError if the data cannot be read as a whole or hold no usable image, and ConfigError if the
    study is wrong, or if `out` lies inside of the data or holds files that are not of an earlier look.
    """
    from shared.look import tables
    from shared.look.folder import check_folder, write_folder
    from shared.look.page import render

    with tempfile.TemporaryDirectory(prefix="tailfill-") as scratch:
        check_folder(out)
        found = find(list_images(data, open_data(data, out, sets, Path(scratch))), most)
    files = {
        "index.html": render(found),
        "duplicates.csv": tables.duplicates(found),
        "lookalikes.csv": tables.lookalikes(found),
        "suspects.csv": tables.suspects(found),
        "odd.csv": tables.odd(found),
    }
    write_folder(out, files)
    return [
        *found.lines(),
        *(f"{Path(name).stem}: {out / name}" for name in list(files)[1:]),
        f"page: {out / 'index.html'}",
    ]


def first_look(listed: Listed, out: Path, command: str) -> Path:
    """Writes the parts of the page that take seconds, counts and the sizes of some images, into the folder `out`, and returns the page's path.

    `command` is what finds the rest.
    """
    import numpy as np

    from shared.look.findings import Counts, Findings
    from shared.look.folder import write_folder
    from shared.look.images import MEASURED, read_images, sample
    from shared.look.page import render
    from shared.weights.packaged import SMALL_SIDE

    chosen = sample(np.stack([image.labels for image in listed.images]), MEASURED)
    some = [listed.images[i] for i in chosen]
    seen = read_images(
        some,
        listed.schema,
        listed.dataset,
        SMALL_SIDE,
        SMALL_SIDE,
        lambda images: np.zeros((len(images), 1), np.float32),
    )
    counts = Counts.of(listed.schema, listed.images)
    found = Findings(listed.name, listed.dataset.source, counts, seen, notes=listed.notes, command=command)
    write_folder(out, {"index.html": render(found)})
    return out / "index.html"


def open_data(data: str, out: Path, sets: Sequence[str], scratch: Path) -> Data:
    """Returns where the images are; those of a bucket are copied into `scratch`."""
    from shared.artifacts.hub_location import is_hub
    from shared.artifacts.open import is_s3
    from shared.artifacts.remote import local_folder
    from shared.config.load import load_study
    from shared.data.infer_source import infer_source
    from shared.data.sources.digest import check_outside
    from shared.errors import ConfigError
    from shared.settings import Settings
    from shared.stop import StopSignal
    from shared.weights.hub_data import ensure_data, local_data

    remedy = "name a folder elsewhere with --out"
    if is_study(Path(data)):
        study = load_study(Path(data), sets)
        root = study.dataset.root
        ensure_data(root, Settings.from_environment(), StopSignal())
        check_outside(out, root, remedy)
        return Data(
            study.dataset,
            None if root is None else local_folder(root, Settings.from_environment(), scratch),
            study.seed,
        )
    if sets:
        raise ConfigError(f"--set: replaces values of a study file, and {data} is none")
    if is_hub(data):
        path = local_data(data, Settings.from_environment(), StopSignal())[0]
    else:
        path = local_folder(data, Settings.from_environment(), scratch) if is_s3(data) else Path(data)
    source = infer_source(path)
    check_outside(out, str(source.root), remedy)
    return Data(source.dataset, source.root, notes=source.notes)


def is_study(path: Path) -> bool:
    """Returns whether a file is a study, and not the YAML file of a data set: it has a section `dataset`. Raises ConfigError if it is no YAML."""
    from shared.config.plain_yaml import parse, read_text

    if path.suffix.lower() not in (".yaml", ".yml") or not path.is_file():
        return False
    tree, _ = parse(read_text(path, str(path), "name a study file"), str(path))
    return "dataset" in tree


def list_images(name: str, data: Data) -> Listed:
    """Lists the images; raises DataError if there is none."""
    from shared.data.problems import Problems
    from shared.data.sources.table import open_source

    problems = Problems("skip")
    listing = open_source(data.dataset, data.root, data.seed, problems)
    images = list(listing.images)
    if not images:
        why = f"; {problems.lines[0]}" if problems.lines else ""
        raise DataError(f"{name}: holds no usable image{why}")
    return Listed(name, data.dataset, listing.schema, images, (*listing.notes, *data.notes, *problems.lines))


def find(listed: Listed, most: int) -> Findings:
    """Returns what at most `most` of the images show; raises DataError if none can be read."""
    import numpy as np

    from shared.data.canonical import Reading
    from shared.data.leaks import find_alike, find_leaks
    from shared.data.split import join_units
    from shared.log import Log
    from shared.look.backbone import open_eye
    from shared.look.copies import find_pairs
    from shared.look.findings import Counts, Findings
    from shared.look.images import read_images, sample, shorter_sides
    from shared.look.lookalikes import find_lookalikes
    from shared.look.suspects import judge_labels
    from shared.report.pictures import thumbnail_side

    images, schema, dataset = listed.images, listed.schema, listed.dataset
    counts = Counts.of(schema, images)
    chosen = sample(np.stack([image.labels for image in images]), most)
    sides = shorter_sides(images, Reading.of(dataset))
    eye = open_eye(sorted(sides)[len(sides) // 2] if sides else 0)
    seen = read_images(
        [images[i] for i in chosen],
        schema,
        dataset,
        eye.side,
        thumbnail_side(dataset.source, eye.side),
        eye.features,
    )
    if not len(seen):
        raise DataError(
            f"{listed.name}: holds no usable image; {seen.unreadable[0].path}: {seen.unreadable[0].message}"
        )
    Log("look").info("comparing images with each other", images=len(seen))
    likeness = find_alike(seen.hashes, dataset.leak_distance)
    units = join_units([image.group for image in seen.images], likeness.clusters())
    leaks = find_leaks(likeness, seen.split) if (seen.split != "").all() else []
    warnings = [] if eye.warning is None else [eye.warning]
    if len(chosen) < len(images):
        warnings.append(
            f"{len(chosen):,} of {len(images):,} images were looked at, of each class equally many as far as it has so many; copies among the others "
            "are not found. `--max-images` sets another number."
        )
    pairs = find_pairs(likeness, seen.split, seen.labels, leaks)
    return Findings(
        listed.name,
        dataset.source,
        counts,
        seen,
        pairs,
        len({leak.image for leak in leaks}),
        tuple(find_lookalikes(seen.features, seen.split, units, {(pair.a, pair.b) for pair in pairs})),
        judge_labels(seen.features, seen.labels, schema, units),
        eye.name,
        tuple(warnings),
        listed.notes,
    )
