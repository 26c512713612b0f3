"""From a source's list to images in canonical form, in the source's order, decoded by several threads."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from shared.data.canonical import Canonical, canonical
from shared.data.problems import BadImage, Problems
from shared.data.schema import LabelGroup, Labels, LabelSchema
from shared.data.source import Source, SourceImage
from shared.errors import DataError
from shared.log import Log
from shared.stop import StopSignal

AHEAD = 8  # images a thread that are listed (or drawn) before the first of them is done: bounds the memory


@dataclass(frozen=True)
class Gathered:
    """The usable images of a source."""

    schema: LabelSchema
    labels: Labels
    images: list[SourceImage]
    """Without their pixels."""
    canonical: list[Canonical]


def gather(
    source: Source, resolution: int, fit: Literal["squash", "crop", "pad"], problems: Problems, stop: StopSignal
) -> Gathered:
    """Decodes every image; what cannot be used goes to `problems`, and so do classes left without any image, which leave the schema.

    Raises DataError where problems are not to be skipped, or nothing usable is left; Stopped where the signal comes.
    """
    images: list[SourceImage] = []
    done: list[Canonical] = []
    with warnings.catch_warnings():
        # Pillow warns of odd metadata and of large images; the limits that count are canonical's own
        warnings.filterwarnings("ignore", module=r"PIL\.")
        for image, result in Log("prepare").progress(
            _decoded(source, resolution, fit), "images", source.total, unit="images"
        ):
            stop.raise_if_set()
            if isinstance(result, BadImage):
                problems.add(result.reason, image.where, f"{image.path}: {result}")
            else:
                images.append(_without_pixels(image))
                done.append(result)
    labels = np.stack([image.labels for image in images]) if images else np.empty((0, source.schema.width), np.int8)
    empty = _empty_classes(source, labels, problems)
    problems.raise_if_failing()
    if not images:
        raise DataError("dataset: has no usable image; see the lines above, or look at dataset.root")
    schema, columns = _without(source.schema, empty)
    return Gathered(schema, labels[:, columns], images, done)


def _decoded(
    source: Source, resolution: int, fit: Literal["squash", "crop", "pad"]
) -> Iterator[tuple[SourceImage, Canonical | BadImage]]:
    threads = len(os.sched_getaffinity(0))
    waiting: deque[tuple[SourceImage, Future[Canonical | BadImage]]] = deque()
    with ThreadPoolExecutor(
        threads
    ) as pool:  # Pillow lets go of the interpreter's lock while it decodes, resizes and encodes
        try:
            for image in source.images:
                waiting.append((image, pool.submit(_attempt, image, resolution, fit)))
                if len(waiting) > threads * AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _attempt(image: SourceImage, resolution: int, fit: Literal["squash", "crop", "pad"]) -> Canonical | BadImage:
    try:
        return canonical(image.content, resolution, fit, image.box)
    except BadImage as error:
        return error


def _without_pixels(image: SourceImage) -> SourceImage:
    return SourceImage(image.path, image.where, np.empty(0, np.uint8), image.labels, image.split, image.group)


def _empty_classes(source: Source, labels: Labels, problems: Problems) -> set[str]:
    counts = (labels == 1).sum(axis=0)
    empty = {name for name, count in zip(source.schema.class_names, counts.tolist(), strict=True) if not count}
    for name in source.schema.class_names:
        if name in empty:
            where = source.class_where.get(name, "the source")
            problems.add("empty class", where, f"the class {name} has no usable image; add some, or take the class out")
    return empty


def _without(schema: LabelSchema, empty: set[str]) -> tuple[LabelSchema, list[int]]:
    """The schema without these classes, and the columns that are left; raises DataError where a group is left without a choice."""
    groups = []
    for group in schema.groups:
        classes = tuple(name for name in group.classes if f"{group.name}/{name}" not in empty)
        if len(classes) < (2 if group.kind == "one" else 1):
            raise DataError(
                f"dataset: of the group {group.name} only {list(classes)} has usable images; a group needs two classes"
            )
        groups.append(LabelGroup(name=group.name, kind=group.kind, classes=classes))
    columns = [i for i, name in enumerate(schema.class_names) if name not in empty]
    return LabelSchema(groups=tuple(groups)), columns
