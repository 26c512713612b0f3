"""Holds all that a look at a data set finds, and says it in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import LabelSchema, class_counts
from shared.data.source import SPLITS, SourceImage
from shared.data.tail import Tail, find_tail
from shared.look.copies import Pair
from shared.look.images import Oddity, SeenImages, odd_images
from shared.look.lookalikes import Lookalike
from shared.look.suspects import Judged

ALL = "all"
"""Names the only part of a data set without splits."""


@dataclass(frozen=True)
class Counts:
    """Counts the images of a data set by their labels, without opening one."""

    schema: LabelSchema
    total: int
    by_split: dict[str, NDArray[np.int64]]
    """Maps each split that the source names, or ALL, to the number of images per class, `[C]`."""
    sizes: dict[str, int]
    """Maps each of these to its number of images."""
    together: NDArray[np.int64]
    """Counts the images that have both classes, `[C, C]`."""
    unlabelled: dict[str, int]
    """Maps each group to the number of images of which nothing is known in it; groups without such images are left out."""
    tail: Tail
    """Holds the rare classes by all images."""

    @classmethod
    def of(cls, schema: LabelSchema, images: Sequence[SourceImage]) -> Counts:
        """Counts the images of a listing."""
        labels = np.stack([image.labels for image in images])
        split = np.array([image.split or ALL for image in images])
        names = [name for name in (*SPLITS, ALL) if (split == name).any()]
        has = (labels == 1).astype(np.int64)
        unknown = {name: int((labels[:, columns] < 0).all(axis=1).sum()) for name, columns in schema.slices().items()}
        return cls(
            schema,
            len(images),
            {name: class_counts(labels[split == name]) for name in names},
            {name: int((split == name).sum()) for name in names},
            has.T @ has,
            {name: number for name, number in unknown.items() if number},
            find_tail(schema, class_counts(labels)),
        )

    @property
    def has_pairs(self) -> bool:
        """Returns whether an image may have two classes, so that it is worth showing which come together."""
        return len(self.schema.groups) > 1 or any(group.kind == "any" for group in self.schema.groups)


@dataclass(frozen=True)
class Findings:
    """Holds what was found in a data set."""

    name: str
    """Says where the data are, as the user named it."""
    source: str
    counts: Counts
    seen: SeenImages
    pairs: list[Pair] | None = None
    """Lists similar images; None if they were not searched."""
    leaking: int = 0
    """Counts the images that are like one of a later split."""
    lookalikes: tuple[Lookalike, ...] = ()
    """Lists images of two splits that look alike and are no copies."""
    judged: list[Judged] | None = None
    """Holds what was found of the labels of each group; None if they were not judged."""
    eye: str = ""
    """Says what judged them."""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Holds what the source says of what it listed."""
    command: str = ""
    """Gives the command that finds what was not looked for."""

    @cached_property
    def odd(self) -> list[tuple[int, Oddity]]:
        """Lists the images that stand out by their size or their pixels, by position, with the reason."""
        return list(odd_images(self.seen.sizes, self.seen.plain))

    @property
    def leaks(self) -> list[Pair]:
        """Returns the pairs of similar images in two splits."""
        return [pair for pair in self.pairs or [] if pair.leak]

    @property
    def conflicts(self) -> list[Pair]:
        """Returns the pairs of similar images with different labels."""
        return [pair for pair in self.pairs or [] if pair.labels == "conflict"]

    @property
    def suspects(self) -> int:
        """Counts the labels that look wrong."""
        return sum(len(group.suspects) for group in self.judged or [])

    def headline(self) -> str:
        """Returns the most important findings as one sentence."""
        parts = [
            _count(self.leaking, "image is in two splits", "images are in two splits"),
            _count(len(self.conflicts), "pair of copies has different labels", "pairs of copies have different labels"),
            _count(self.suspects, "label is suspicious", "labels are suspicious"),
            _count(len(self.seen.unreadable), "image cannot be read", "images cannot be read"),
        ]
        found = [part for part in parts if part]
        if found:
            verb = "Look at" if found == [parts[2]] else "Mend"
            return f"{verb} these before you train: {', '.join(found)}."
        if self.judged is None:
            return "Counts and sizes: copies and labels were not looked at yet."
        return "Nothing needs to be mended: no copies in two splits or with different labels, no suspicious label, no unreadable image."

    def hints(self) -> list[str]:
        """Returns what a person may do about the findings, the most important first."""
        hints = []
        if self.leaking:
            hints.append(
                "Copies in two splits make a test easier than it is. A study drops them from the split that comes first in train, val, test "
                "(`dataset.on_leak: drop`); better, take them out of the data."
            )
        if self.conflicts:
            hints.append("Of copies with different labels at least one label is wrong: mend it, or take both out.")
        if self.lookalikes:
            hints.append(
                "Look-alikes in two splits may show one thing, such as a product or a patient, which makes a test easier than it is. Nothing drops them, "
                "since different things look alike too. If they do, name what each image shows in a column (`dataset.group_by`), or move them into one split."
            )
        if self.suspects:
            hints.append(
                "Look at the suspicious labels from the top until most are right, and mend those that are wrong. Do so in all splits: a wrong label of "
                "a test image costs every model. Do not take out images only because they are hard."
            )
        if self.seen.unreadable:
            hints.append("Replace images that cannot be read, or set `dataset.on_bad: skip`, which leaves them out.")
        if self.counts.unlabelled:
            hints.append("Images without a label in a group are not used for that group.")
        return hints

    def lines(self) -> list[str]:
        """Returns the findings for a terminal, the most important first."""
        compared = f", {len(self.seen):,} of them looked at" if len(self.seen) < self.counts.total else ""
        lines = [self.headline(), f"images: {self.counts.total:,}{compared}; {_groups(self.counts.schema)}"]
        if self.pairs is not None:
            lines.append(
                f"copies: {len(self.pairs):,} pairs, {len(self.leaks):,} of them in two splits, {len(self.conflicts):,} with different labels"
            )
        if self.lookalikes:
            lines.append(
                f"look-alikes: {_count(len(self.lookalikes), 'pair', 'pairs')} in two splits without copies; nothing drops them"
            )
        for group in self.judged or []:
            right = "" if group.accuracy is None else f"; {100 * group.accuracy:.1f} % are what the classifier expects"
            what = (
                f"not judged, since {group.reason}"
                if group.reason
                else f"{len(group.suspects):,} suspicious of {len(group.ranking):,}{right}"
            )
            lines.append(f"labels of {group.group}: {what}")
        return [*lines, *(f"note: {warning}" for warning in self.warnings)]


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}" if number else ""


def _groups(schema: LabelSchema) -> str:
    return ", ".join(f"{group.name} ({len(group.classes)} classes)" for group in schema.groups)
