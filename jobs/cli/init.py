"""Implements `tailfill init DATA`: inspects labelled images, and writes a commented study for them and a contact sheet to check it by."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cli.choose_split import choose_split
from jobs.cli.fit_time import Fitted, fit_time, least_repetitions
from jobs.cli.study_text import SEED, USUAL, DataSummary, Design, study_text
from shared.artifacts.disk import whole_file
from shared.artifacts.hub_location import is_hub, parse_hub
from shared.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shared.data.problems import Problems
    from shared.data.source import InferredSource, SourceImage


def init(
    data: Path | str,
    out: Path,
    page: Path | None = None,
    hours: float | None = None,
    fits: bool = False,
    bases: tuple[str, ...] = (),
) -> list[str]:
    """Writes a study for the labelled images in `data`, of any source that `infer_source` knows, to `out`, and `<out>-contact.png` beside it.

    `data` may also be `hf://owner/name`, which is fetched first; the study names the commit then. With `page`, writes a page of counts and sizes into
    that folder, too. If it `fits`, the study takes about so many `hours` on this machine, by default 1 on a CPU and 8 on a GPU; else it has the usual
    size. With `bases`, it compares these pretrained models as generators. Returns lines that describe the data and the next step. Raises DataError if
    `data` is none of them or has no usable image, and ConfigError if `out` exists already or cannot be written, or if `page` holds other files.
    """
    from jobs.cli.look import Listed, first_look
    from shared.data.infer_source import infer_source

    named, data = str(data), Path(data)
    name = _study_name(data)
    if is_hub(named):
        name = _study_name(Path(parse_hub(named).name))
        data, named = _fetched(named)
    source = infer_source(data)  # first, since the user typed DATA, while --out has a default
    _check_written(bases, out, source, page)
    if is_hub(named):
        source = replace(source, dataset=source.dataset.model_copy(update={"root": named}))
    summary = inspect_data(data, source)
    sheet = out.with_name(f"{out.stem}-contact.png")
    split = choose_split(summary, least_repetitions(bases))
    usual = Fitted(replace(split.of(USUAL), bases=bases), split.lines)
    fitted = fit_time(summary, name, split, hours, bases) if fits else usual
    if fitted.design.folds:
        summary = summary.with_folds(fitted.design.repetitions)
    text = study_text(summary, name, fitted.design, fitted.lines)
    drawn = _contact_sheet(summary)
    with whole_file(sheet, private=False) as temporary:
        drawn.save(temporary, "PNG")
    with whole_file(out, private=False) as temporary:
        temporary.write_text(text, encoding="utf-8")
    look = f"tailfill look {shlex.quote(named)}"
    lines = [*_describe(summary, fitted.design), *fitted.lines, f"study: {out}", f"contact sheet: {sheet}"]
    if page is not None:
        listed = Listed(named, source.dataset, summary.schema, summary.images, (*summary.listed, *summary.source.notes))
        lines.append(f"page: {first_look(listed, page, look)}")
    return [
        *lines,
        f"before you train: {look} shows copies, images in two splits and suspicious labels",
        f"next: tailfill validate {out} --plan",
    ]


def _check_written(bases: tuple[str, ...], out: Path, source: InferredSource, page: Path | None) -> None:
    """Raises ConfigError if a base is named twice, or if what would be written cannot be."""
    from shared.data.sources.digest import check_outside
    from shared.look.folder import check_folder

    if len(set(bases)) < len(bases):
        twice = next(base for base in bases if bases.count(base) > 1)
        raise ConfigError(f"--base: {twice} is named twice; name each base once")
    if out.exists():
        raise ConfigError(f"{out}: exists already; rename it, or name another file with --out")
    check_outside(out, str(source.root), "name a file elsewhere with --out")
    if page is not None:
        check_folder(page)


def inspect_data(data: Path, source: InferredSource) -> DataSummary:
    """Returns what a study is written from; raises DataError if `data` holds no usable image."""
    import numpy as np

    from shared.config.dataset import CsvSource
    from shared.data.canonical import Reading
    from shared.data.preview import SAMPLE, Preview
    from shared.data.problems import Problems
    from shared.data.schema import class_counts
    from shared.data.sources.table import open_source
    from shared.data.split import assign_splits, join_units
    from shared.data.tail import find_tail
    from shared.data.unlisted import unlisted_images
    from shared.look.images import shorter_sides

    problems = Problems("skip")
    listing = open_source(source.dataset, source.root, 0, problems)
    images = [image for image in listing.images if _is_there(image, problems)]
    if isinstance(source.dataset, CsvSource) and (unlisted := unlisted_images(source.root, images)) is not None:
        source = replace(source, notes=(*source.notes, unlisted))
    sides = shorter_sides(
        images,
        Reading.of(source.dataset),
        lambda image, error: problems.add(error.reason, image.where, f"{image.path}: {error}"),
    )
    if not images or not sides:
        why = f"; {problems.lines[0]}" if problems.lines else ""
        raise DataError(f"{data}: holds no usable image{why}")
    labels = np.stack([image.labels for image in images])
    units = join_units([image.group for image in images], np.arange(len(images)))
    given = np.array([image.split or "" for image in images], dtype="<U5")
    split, _ = assign_splits(given, labels, units, source.dataset.split, SEED)
    counts = {name: class_counts(labels[split == name]) for name in ("train", "test")}
    tail = find_tail(listing.schema, counts["train"])
    bad = sum(problems.counts.values())
    tests = int((split == "test").sum())
    return DataSummary(
        source,
        listing.schema,
        images,
        counts["train"],
        counts["test"],
        tests,
        tail,
        sides,
        problems.lines[:3],
        bad,
        listing.notes,
        Preview(
            source.dataset.source,
            listing.schema,
            labels,
            split,
            len(images),
            0,
            tuple(images[:: -(-len(images) // SAMPLE)]),
        ),
        units,
    )


def _is_there(image: SourceImage, problems: Problems) -> bool:
    """Returns whether the image's file exists; reports it to `problems`, as `prepare` does, if it does not."""
    from shared.data.sources.paths import is_there, what_exists

    if not isinstance(image.content, Path) or is_there(image.content):
        return True
    problems.add("missing file", image.where, f"{image.path}: does not exist{what_exists(image.content)}")
    return False


def _fetched(location: str) -> tuple[Path, str]:
    """Fetches a data set of the hub, and returns its folder and its location at a commit; stops by a signal."""
    from shared.settings import Settings
    from shared.stop import StopSignal
    from shared.weights.hub_data import local_data

    stop = StopSignal()
    stop.install()
    try:
        with stop.interrupting():
            return local_data(location, Settings.from_environment(), stop)
    finally:
        stop.uninstall()


def _study_name(data: Path) -> str:
    resolved = data.resolve()
    stem = resolved.stem if resolved.is_file() else resolved.name
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:40].strip("-") or "study"


def _contact_sheet(summary: DataSummary) -> Any:
    import numpy as np

    from shared.data.canonical import canonical
    from shared.data.class_sheet import SIDE, class_sheet
    from shared.data.imageset import decode
    from shared.data.problems import BadImage

    def thumbnail(position: int) -> NDArray[np.uint8] | None:
        image = summary.images[position]
        try:
            return decode(canonical(image.content, SIDE, "squash", image.box).data, SIDE, image.path)
        except BadImage:  # `prepare` reports it
            return None

    return class_sheet(summary.schema, np.stack([image.labels for image in summary.images]), thumbnail)


def _describe(summary: DataSummary, design: Design) -> list[str]:
    import numpy as np

    from shared.data.source import SPLITS

    names = summary.schema.class_names
    kinds = ", ".join(f"{group.name} ({group.kind}, {len(group.classes)} classes)" for group in summary.schema.groups)
    lines = [
        *_effect(summary, design),
        f"found: {len(summary.images):,} images, label groups {kinds}",
        *_tail_lines(summary, design.cap),
    ]
    lines += [f"note: {note}" for note in summary.listed] + [f"check: {note}" for note in summary.source.notes]
    counts = (np.stack([image.labels for image in summary.images]) == 1).sum(axis=0)
    if few := [n for n, count in zip(names, counts.tolist(), strict=True) if count < len(SPLITS)]:
        lines.append(
            f"too few images to train, validate and test on: {', '.join(few[:8])}; add some, or remove the class"
        )
    if summary.bad_total:
        lines.append(
            f"bad: {summary.bad_total} rows or files, fix them or set dataset.on_bad: skip; the first: {summary.bad[0]}"
        )
    return lines


def _effect(summary: DataSummary, design: Design) -> list[str]:
    """Returns the smallest effect that the test images can show, with the variances that are assumed before anything is measured."""
    from shared.config.search import Verdict
    from shared.metrics.forecast import PowerForecast, assumed_components
    from shared.metrics.outer_folds import OuterFolds
    from shared.metrics.two_way import TwoWay

    columns = [summary.schema.column(name) for name in summary.tail.fill_to]
    judged = [int(summary.test_counts[c]) for c in columns if summary.test_counts[c]]
    if not judged:
        return []
    components = assumed_components(judged, summary.test_images)
    power = PowerForecast(components, Verdict().alpha, OuterFolds if design.folds else TwoWay)
    effect = power.smallest_effect(design.repetitions, summary.test_images)
    least = min((int(summary.test_counts[c]), summary.schema.class_names[c]) for c in columns)
    return [
        f"verdict: would find an effect of {100 * effect:.1f} points of rare macro-F1 in 80 % of such studies; of the rare classes {least[1]} has the fewest "
        f"test images, {least[0]}"
    ]


def _tail_lines(summary: DataSummary, cap: int) -> list[str]:
    """Returns the rare classes and what is generated for them, and the groups that have none."""
    tail = summary.tail
    lines = [f"nothing to fill in {name}: {why}" for name, why in tail.nothing.items()]
    if not tail.fill_to:
        return [
            *lines,
            "the study only tunes a classifier on the real images; its comments say how to ask about generated images all the same",
        ]
    counts = dict(zip(summary.schema.class_names, summary.train_counts.tolist(), strict=True))
    shown = [
        f"{name} ({counts[name]:,}, filled to {min(median, (cap + 1) * counts[name]):,})"
        for name, median in tail.fill_to.items()
    ]
    more = f" and {len(shown) - 8} more" if shown[8:] else ""
    return [f"rare (training images): {', '.join(shown[:8])}{more}", *lines]
