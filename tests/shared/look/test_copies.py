from __future__ import annotations

import numpy as np

from shared.data.leaks import Likeness, find_leaks
from shared.look.copies import find_pairs


def likeness(first: list[int], pairs: list[tuple[int, int]], distances: list[int]) -> Likeness:
    return Likeness(np.array(first), np.array(pairs, np.int64).reshape(-1, 2), np.array(distances, np.int64))


def test_pairs_in_two_splits_come_before_those_with_different_labels() -> None:
    alike = likeness([0, 0, 2, 2, 4, 5], [(4, 5)], [3])
    split = np.array(["train", "train", "train", "train", "train", "test"])
    labels = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [-1, -1], [1, 0]], np.int8)
    found = find_pairs(alike, split, labels, find_leaks(alike, split))
    assert [(p.a, p.b, p.distance, p.equal, p.leak, p.labels) for p in found] == [
        (4, 5, 3, False, True, "unknown"),
        (2, 3, 0, True, False, "conflict"),
        (0, 1, 0, True, False, "agree"),
    ]


def test_images_that_are_all_alike_are_a_chain() -> None:
    n = 40
    every = [(a, b) for a in range(n) for b in range(a + 1, n)]
    alike = likeness(list(range(n)), every, [b - a for a, b in every])
    found = find_pairs(alike, np.full(n, ""), np.ones((n, 1), np.int8), [])
    assert [(p.a, p.b) for p in found] == [(a, a + 1) for a in range(n - 1)]


def test_every_image_that_leaks_is_in_a_pair() -> None:
    split = np.array(["train"] * 5 + ["test"])
    alike = likeness([0] * 6, [], [])
    found = find_pairs(alike, split, np.ones((6, 1), np.int8), find_leaks(alike, split))
    assert {(p.a, p.b) for p in found if p.leak} == {(i, 5) for i in range(5)}
