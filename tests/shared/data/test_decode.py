from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shared.data.decode import decode_images
from shared.data.imageset import decode
from shared.data.problems import Problems
from shared.data.schema import LabelGroup, LabelSchema
from shared.data.source import ImageListing, SourceImage
from shared.errors import DataError, Stopped
from shared.stop import StopSignal

SCHEMA = LabelSchema(
    groups=(LabelGroup(name="tone", classes=("dark", "light")), LabelGroup(name="mark", kind="any", classes=("x", "y")))
)


def image(number: int, labels: list[int]) -> SourceImage:
    pixels = np.full((20, 20), number % 256, np.uint8)
    return SourceImage(f"{number}.png", f"list line {number}", pixels, np.array(labels, np.int8))


def listing(images: Iterator[SourceImage], total: int) -> ImageListing:
    return ImageListing(SCHEMA, images, total, class_where={"mark/y": "list line 1"})


def test_images_come_in_order_and_are_not_listed_all_at_once() -> None:
    listed = 0
    ahead = []

    def images() -> Iterator[SourceImage]:
        nonlocal listed
        for number in range(200):
            listed += 1
            yield image(number, [number % 2, 1 - number % 2, 1, number % 3 == 0])

    class Watching(Problems):
        def add(self, reason: str, where: str, message: str) -> None:
            ahead.append(listed)
            super().add(reason, where, message)

    def with_a_missing_file() -> Iterator[SourceImage]:
        yield SourceImage("0", "list line 0", Path("/nowhere/0.png"), np.array([0, 1, 1, 1], np.int8))
        yield from images()

    decoded = decode_images(listing(with_a_missing_file(), 201), 16, "squash", Watching("skip"), StopSignal())
    assert [decode(data, 16, "")[0, 0, 0] for data in decoded.encoded] == list(range(200))
    assert [i.path for i in decoded.images] == [f"{n}.png" for n in range(200)]
    assert ahead[0] < 200
    assert all(isinstance(i.content, np.ndarray) and not i.content.size for i in decoded.images)


def test_an_empty_class_leaves_the_schema_and_its_column_the_labels() -> None:
    problems = Problems("skip")
    images = [image(n, [n % 2, 1 - n % 2, 1, 0]) for n in range(4)]
    decoded = decode_images(listing(iter(images), 4), 16, "squash", problems, StopSignal())
    assert decoded.schema.class_names == ("tone/dark", "tone/light", "mark/x")
    assert decoded.labels.shape == (4, 3)
    assert problems.counts == {"empty class": 1}
    assert problems.lines[0].startswith("list line 1: the class mark/y has no usable image")


def test_a_group_without_a_choice_and_nothing_at_all() -> None:
    with pytest.raises(DataError, match=r"in the group tone only \['light'\] has usable images"):
        decode_images(listing(iter([image(1, [0, 1, 1, 1])]), 1), 16, "squash", Problems("skip"), StopSignal())
    with pytest.raises(DataError, match="has no usable image"):
        decode_images(listing(iter([]), 0), 16, "squash", Problems("skip"), StopSignal())


def test_the_stop_signal_ends_it() -> None:
    stop = StopSignal()
    stop.set()
    with pytest.raises(Stopped):
        decode_images(listing(iter([image(1, [0, 1, 1, 1])]), 1), 16, "squash", Problems("fail"), stop)
