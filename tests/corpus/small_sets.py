"""Holds sets with few images, or with images that are alike, as `prepare` splits them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jobs.prepare import prepare
from shared.config.stages import PrepareConfig
from shared.data.dataset import read_info
from shared.stop import StopSignal
from tests.corpus.case import Case

Picture = Callable[[str, int], Image.Image]
SIDE = 32


def _noise(folder: str, number: int) -> Image.Image:
    """Returns an image that is like no other."""
    pixels = np.random.default_rng([number, *folder.encode()]).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    return Image.fromarray(pixels)


def _black(folder: str, number: int) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE))


def _stuck(folder: str, number: int) -> Image.Image:
    """Returns an image of a camera that shows the same with a little noise in its brightness."""
    return _noise("camera", 0).point(lambda value: min(255, value + number % 3))


def _alike_in(alike: str, picture: Picture = _black) -> Picture:
    return lambda folder, number: (picture if folder == alike else _noise)(folder, number)


def _prepared(
    counts: dict[str, int], picture: Picture = _noise, below: int = 8, **dataset: Any
) -> Callable[[Path], object]:
    """Returns an attempt that prepares folders with these numbers of images, and returns the counts by split."""

    def attempt(folder: Path) -> object:
        for name, count in counts.items():
            (folder / "data" / name).mkdir(parents=True)
            for number in range(count):
                picture(name, number).save(folder / "data" / name / f"{number:03d}.png")
        tree = {"source": "folder", "root": "data", "resolution": SIDE, **dataset}
        text = json.dumps({"dataset": tree, "rare": {"below": below}, "seed": 0})
        (folder / "out").mkdir()
        done = prepare(PrepareConfig.model_validate_json(text), folder / "data", folder / "out", StopSignal())
        info = read_info(done.files["dataset.json"])
        return "; ".join(_counts(info.counts))

    return attempt


def _counts(counts: dict[str, dict[str, int]]) -> Iterator[str]:
    for name in counts["train"]:
        yield f"{name.removeprefix('label/')} {'+'.join(str(counts[split][name]) for split in ('train', 'val', 'test'))}"


def _split(a: tuple[int, int, int], b: tuple[int, int, int], **others: int) -> dict[str, int]:
    """Returns the numbers of images of the classes a and b in train, val and test, without the empty folders."""
    names = ("train", "val", "test")
    counts = {f"{s}/{c}": n for c, ns in (("a", a), ("b", b)) for s, n in zip(names, ns, strict=True)}
    return {
        name: number
        for name, number in {**counts, **{k.replace("_", "/"): v for k, v in others.items()}}.items()
        if number
    }


CASES = [
    Case("two classes of a few images", _prepared({"a": 12, "b": 9}), 0, ("a 8+2+2", "b 6+2+1")),
    Case("three images of each class", _prepared({"a": 3, "b": 3}), 0, ("a 1+1+1", "b 1+1+1")),
    Case(
        "a class of one image",
        _prepared({"a": 12, "b": 9, "c": 1}),
        2,
        ("the rare class label/c", "take the class out"),
    ),
    Case(
        "a class of two images",
        _prepared({"a": 12, "b": 9, "c": 2}),
        2,
        ("the rare class label/c", "val", "add images"),
    ),
    Case(
        "two images in all",
        _prepared({"a": 1, "b": 1}, below=1),
        2,
        ("images are missing in a split", "label/a", "label/b"),
    ),
    Case(
        "a class in val only",
        _prepared(_split((9, 4, 0), (8, 4, 0), val_c=3)),
        2,
        ("label/c (train 0, val 0, test 3)", "move some between the splits"),
    ),
    Case(
        "a class in train only, and rare",
        _prepared(_split((9, 4, 4), (8, 4, 4), train_c=5)),
        2,
        ("the rare class label/c (train 5, val 0, test 0)", "add images"),
    ),
    Case(
        "a class in train only, and not rare",
        _prepared(_split((9, 4, 4), (8, 4, 4), train_c=5), below=1),
        0,
        ("c 5+0+0",),
    ),
    Case(
        "all images black",
        _prepared({"a": 12, "b": 9}, _black),
        2,
        ("label/a", "its 12 images are so alike that they count as 1", "take out the copies", "dataset.leak_distance"),
    ),
    Case(
        "all images black, and no class rare",
        _prepared({"a": 12, "b": 9}, _black, below=1),
        2,
        ("so alike", "take out the copies"),
    ),
    Case(
        "a stuck camera",
        _prepared({"a": 12, "b": 9}, _stuck, below=1),
        2,
        ("its 9 images are so alike that they count as 1", "lower dataset.leak_distance"),
    ),
    Case(
        "a class of one image many times, and rare",
        _prepared({"a": 12, "b": 9}, _alike_in("b"), below=20),
        2,
        ("the rare class label/b", "its 9 images are so alike that they count as 1"),
    ),
    Case(
        "equal pixels are alike at any distance",
        _prepared({"a": 12, "b": 9}, _alike_in("b"), below=20, leak_distance=0),
        2,
        ("its 9 images are so alike that they count as 1",),
    ),
    Case(
        "copies of test images in train",
        _prepared(_split((9, 0, 4), (8, 0, 4)), lambda folder, number: _noise(folder[-1], number % 4)),
        2,
        ("on_leak: drop took 9 images like those of another split", "take out the copies"),
    ),
    Case(
        "copies that are kept",
        _prepared(
            _split((9, 4, 4), (8, 4, 4)), lambda folder, number: _noise(folder[-1], number % 4), on_leak="keep", below=1
        ),
        0,
        ("a 9+4+4", "b 8+4+4"),
    ),
    Case("no image at all", _prepared({"a": 0, "b": 0}), 2, ("label/a", "no usable image")),
    Case("one class", _prepared({"a": 9}), 2, ("1 class folders",)),
]
