from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from shared.parallel import in_threads


def test_results_come_in_order_beside_their_items() -> None:
    assert list(in_threads(lambda n: n * n, range(100), 4)) == [(n, n * n) for n in range(100)]


def test_items_are_taken_only_a_few_ahead_of_their_results() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    with closing(in_threads(str, items(), 2, ahead=5)) as results:
        for number, _ in results:
            assert len(taken) <= number + 6


def test_calls_run_at_once() -> None:
    both = threading.Barrier(2, timeout=30)
    assert len(list(in_threads(lambda _: both.wait(), range(2), 2))) == 2


@pytest.mark.parametrize("closes", [False, True])
def test_an_error_or_an_early_end_leaves_the_other_calls(closes: bool) -> None:
    begun = []

    def call(number: int) -> None:
        begun.append(number)
        if not closes and number == 3:
            raise ValueError("third")

    results = in_threads(call, range(1000), 1)
    if closes:
        next(results)
        results.close()
    else:
        with pytest.raises(ValueError, match="third"):
            list(results)
    assert len(begun) < 20
