"""Calls a function for many items in threads, a bounded number at a time, so that the items need not fit in memory at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4
"""Sets how many calls per thread are begun before the first of them must have ended."""


def in_threads(
    call: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int | None = None
) -> Generator[tuple[Item, Result], None, None]:
    """Yields each item and what `call` returns for it, in order; raises what a call raises.

    At most `ahead` calls are begun whose results were not taken, by default AHEAD per thread. An error, or an iterator that is closed early, ends
    the calls that have not begun.
    """
    most = threads * AHEAD if ahead is None else ahead
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            if len(waiting) == most:
                first, future = waiting.popleft()
                yield first, future.result()
            waiting.append((item, pool.submit(call, item)))
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
