from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data.canonical import Canonical
from shared.data.leaks import count_leaks, find_alike, find_leaks, without_leaks, write_leaks
from shared.data.source import SourceImage
from shared.errors import DataError

rng = np.random.default_rng(0)
HASHES = rng.integers(0, 256, (6, 32), np.uint8)


def image(digest: str, hash_number: int, flipped_bits: int = 0, colour: int = 100) -> Canonical:
    bits = np.unpackbits(HASHES[hash_number])
    bits[:flipped_bits] ^= 1
    return Canonical(b"", digest.encode(), np.packbits(bits), np.full(48, colour, np.uint8))


def splits(*names: str) -> np.ndarray[Any, np.dtype[np.str_]]:
    return np.array(names)


def test_equal_pixels_in_two_splits() -> None:
    alike = find_alike([image("a", 0), image("b", 1), image("a", 0), image("c", 2)], 0)
    leaks = find_leaks(alike, splits("train", "train", "test", "val"))
    assert [(leak.image, leak.other, leak.equal) for leak in leaks] == [(0, 2, True)]
    assert count_leaks(leaks) == {"train/test": 1}


@pytest.mark.parametrize("distance", [0, 3, 16])
def test_near_equal_up_to_the_distance(distance: int) -> None:
    images = [image("a", 0), image("b", 0, 3), image("c", 0, 17), image("d", 1)]
    leaks = find_leaks(find_alike(images, distance), splits("train", "test", "val", "test"))
    # c is 14 bits from b and 17 from a
    expected = {0: [], 3: [(0, 1, 3)], 16: [(0, 1, 3), (2, 1, 14)]}[distance]
    assert [(leak.image, leak.other, leak.distance) for leak in leaks] == expected
    assert not any(leak.equal for leak in leaks)


def test_equal_hashes_of_other_colours_are_not_alike() -> None:
    alike = find_alike([image("a", 0, colour=20), image("b", 0, colour=200), image("c", 0, colour=22)], 0)
    assert alike.pairs.tolist() == [[0, 2]]
    assert alike.clusters().tolist() == [0, 1, 0]


def test_one_leak_an_image_and_later_split_named_by_its_nearest() -> None:
    images = [image("a", 0), image("b", 0, 2), image("c", 0, 1), image("a", 0)]
    leaks = find_leaks(find_alike(images, 4), splits("train", "test", "test", "val"))
    assert [(leak.image, leak.split, leak.other, leak.other_split) for leak in leaks] == [
        (0, "train", 3, "val"),
        (0, "train", 2, "test"),
        (3, "val", 2, "test"),
    ]


def source_image(name: str) -> SourceImage:
    return SourceImage(name, f"labels.csv line {name}", Path(name), np.zeros(1, np.int8))


def test_what_is_done_with_leaks() -> None:
    leaks = find_leaks(find_alike([image("a", 0), image("a", 0), image("b", 1)], 0), splits("train", "test", "val"))
    images = [source_image(name) for name in "123"]
    assert without_leaks(leaks, "keep", images).tolist() == [0, 1, 2]
    assert without_leaks(leaks, "drop", images).tolist() == [1, 2]
    with pytest.raises(
        DataError, match=r"labels\.csv line 1: 1 of train is equal to 2 of test \(labels\.csv line 2\); 1 of train/test"
    ):
        without_leaks(leaks, "fail", images)
    assert without_leaks([], "fail", images).tolist() == [0, 1, 2]


def test_the_report(tmp_path: Path) -> None:
    leaks = find_leaks(find_alike([image("a", 0), image("b", 0, 1)], 1), splits("val", "test"))
    write_leaks(leaks, ["x,y.png", "z.png"], tmp_path / "leaks.csv", dropped=True)
    with (tmp_path / "leaks.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {
                "path": "x,y.png", "split": "val", "other_path": "z.png", "other_split": "test",
                "differing_bits": "1", "equal_pixels": "0", "dropped": "1",
            }
        ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 20), st.sampled_from([20, 200])), min_size=1, max_size=12
    ),
    distance=st.integers(0, 16),
)
def test_pairs_are_those_of_a_plain_double_loop(kinds: list[tuple[int, int, int]], distance: int) -> None:
    images = [image(str(i), *kind) for i, kind in enumerate(kinds)]
    expected = [
        [i, j]
        for i in range(len(images))
        for j in range(i + 1, len(images))
        if np.bitwise_count(images[i].perceptual ^ images[j].perceptual).sum() <= distance
        and np.abs(images[i].colours.astype(int) - images[j].colours).mean() <= 8
    ]
    assert sorted(find_alike(images, distance).pairs.tolist()) == expected


@pytest.mark.parametrize("distance", [0, 1, 4, 16])
def test_planted_pairs_among_many_are_found(distance: int) -> None:
    random = np.random.default_rng(distance)
    hashes = random.integers(0, 256, (2000, 32), np.uint8)
    for i in range(200):  # the images 1800 … 1999 differ from the first 200 in exactly `distance` bits
        flipped = np.zeros(256, np.uint8)
        flipped[random.choice(256, distance, replace=False)] = 1
        hashes[1800 + i] = hashes[i] ^ np.packbits(flipped)
    images = [Canonical(b"", b"%d" % i, bits, np.zeros(48, np.uint8)) for i, bits in enumerate(hashes)]
    alike = find_alike(images, distance)
    assert alike.pairs.tolist() == [[i, 1800 + i] for i in range(200)]
    assert alike.distances.tolist() == [distance] * 200
