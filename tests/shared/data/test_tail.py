from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.data.schema import LabelGroup, LabelSchema
from shared.data.tail import find_tail


def schema(*sizes: int) -> LabelSchema:
    groups = [LabelGroup(name=f"g{g}", classes=tuple(f"c{c}" for c in range(n))) for g, n in enumerate(sizes)]
    return LabelSchema(groups=tuple(groups))


@pytest.mark.parametrize(
    ("counts", "rare"),
    [
        ([400, 400, 120], ["c2"]),
        ([400, 400, 400, 150, 30, 90], ["c4", "c5"]),  # six classes, so at most two
        ([100, 20], ["c1"]),  # one of two may be
        ([100, 40], []),  # less than three times as many
        ([100, 100, 100, 400, 60], []),  # none under half of the median
        ([100, 0, 30], ["c2"]),  # a class without images is not counted
        ([7, 0], []),
    ],
)
def test_rare_classes(counts: list[int], rare: list[str]) -> None:
    tail = find_tail(schema(len(counts)), np.array(counts))
    assert list(tail.fill_to) == [f"g0/{name}" for name in rare]
    assert bool(tail.nothing) == (not rare)
    assert set(tail.fill_to.values()) <= {int(np.median([n for n in counts if n]))}


def test_groups_are_filled_to_their_own_median() -> None:
    tail = find_tail(schema(3, 3, 2), np.array([900, 800, 100, 60, 50, 9, 70, 60]))
    assert tail.fill_to == {"g1/c2": 50, "g0/c2": 800}
    assert tail.nothing == {"g2": "it is balanced: its largest class has 1.2 times as many images as its smallest"}


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=30))
def test_of_any_counts_a_third_at_most_is_rare_and_each_is_filled_to_more_than_twice(counts: list[int]) -> None:
    tail = find_tail(schema(len(counts)), np.array(counts))
    present = [n for n in counts if n]
    assert len(tail.fill_to) <= max(1, len(present) // 3)
    assert all(0 < 2 * counts[int(name.removeprefix("g0/c"))] < median for name, median in tail.fill_to.items())
    assert len(tail.fill_to) + len(tail.nothing) >= 1
