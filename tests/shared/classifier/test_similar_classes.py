from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from shared.classifier import similar_classes
from shared.classifier.runtime import Runtime
from shared.classifier.similar_classes import MOST, similar_starts
from shared.config.search import Resources
from shared.data.imageset import ImageSet
from shared.data.schema import LabelGroup, LabelSchema
from shared.diffusion.quota import starting_points
from shared.errors import ConfigError, Stopped
from shared.stop import StopSignal
from shared.weights import packaged

SCHEMA = LabelSchema(groups=(LabelGroup(name="shape", classes=("stripes", "disc", "ring", "oval")),))
RARE = np.array([3])
COUNTS = (30, 30, 30, 5)


def drawn(shape: str, rng: np.random.Generator) -> bytes:
    """Draws an oval, a disc or a ring that fills an oval, or stripes, at random places in random colours."""
    image = Image.new("RGB", (64, 64), tuple(int(v) for v in rng.integers(0, 60, 3)))
    draw = ImageDraw.Draw(image)
    colour = tuple(int(v) for v in rng.integers(150, 255, 3))
    left, top = (int(v) for v in rng.integers(4, 12, 2))
    if shape == "stripes":
        for x in range(0, 64, 8):
            draw.rectangle((x, 0, x + 3, 64), fill=colour)
    elif shape == "ring":
        draw.ellipse((left, top, left + 44, top + 44), outline=colour, width=6)
    else:
        draw.ellipse((left, top, left + 44, top + (44 if shape == "disc" else 36)), fill=colour)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def shapes() -> ImageSet:
    """Returns shapes of which the rare one, ovals, looks like discs, less like rings, and not like stripes."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(range(4), COUNTS)
    labels = np.eye(4, dtype=np.int8)[kinds]
    encoded = [drawn(SCHEMA.groups[0].classes[kind], rng) for kind in kinds]
    return ImageSet(SCHEMA, encoded, [f"{i}.png" for i in range(len(kinds))], np.full(len(kinds), "train"), labels)


def runtime(cache: Path | None = None, stop: StopSignal | None = None) -> Runtime:
    return Runtime(torch.device("cpu"), Resources(), stop=stop or StopSignal(), cache=cache)


def chosen(images: ImageSet, count: int, cache: Path | None = None, stop: StopSignal | None = None) -> list[set[int]]:
    """Returns the classes from which ovals start, the nearest first."""
    points = [starting_points(SCHEMA, images.labels, RARE, "shape/oval")]
    starts = similar_starts(points, count, images, 64, runtime(cache, stop))
    return [set(images.labels[rows].argmax(axis=1).tolist()) for rows in starts["shape/oval"]]


def test_the_classes_that_look_alike_come_first(shapes: ImageSet, tmp_path: Path) -> None:
    assert chosen(shapes, 1, tmp_path) == [{1}]
    assert chosen(shapes, 9, tmp_path) == [{1}, {2}, {0}], "all if there are fewer, never the class itself"


def test_the_order_of_the_classes_says_nothing(shapes: ImageSet, tmp_path: Path) -> None:
    backwards = shapes.take(np.arange(len(shapes))[::-1].copy())
    assert chosen(backwards, 2, tmp_path) == chosen(shapes, 2, tmp_path) == [{1}, {2}]


def test_a_class_is_judged_by_a_sample_and_gives_all_its_rows(
    shapes: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = shapes.take(np.concatenate([np.repeat(np.arange(90), 3), np.arange(90, 95)]))
    seen: list[int] = []

    def features(images: ImageSet, *_: object) -> np.ndarray:
        seen.append(len(images))
        return images.labels.astype(np.float32)

    monkeypatch.setattr(similar_classes, "_features", features)
    points = [starting_points(SCHEMA, many.labels, RARE, "shape/oval")]
    starts = similar_starts(points, 3, many, 64, runtime())
    assert seen == [3 * MOST + 5]
    assert sorted(len(rows) for rows in starts["shape/oval"]) == [90, 90, 90]


def test_without_targets_no_network_is_read(shapes: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "WEIGHTS", "package:no_such_package/weights.pth")
    assert similar_starts([], 3, shapes, 64, runtime()) == {}
    with pytest.raises(ConfigError, match="no_such_package is not installed"):
        chosen(shapes, 1)


def test_it_can_be_stopped(shapes: ImageSet) -> None:
    stop = StopSignal()
    stop.set()
    with pytest.raises(Stopped):
        chosen(shapes, 1, stop=stop)
