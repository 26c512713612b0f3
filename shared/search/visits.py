"""Moves a worker process from search to search: it stays with one while that has trials, and ends when all are closed.

What all trials of a search need is built once per visit. A visit therefore ends only when the search is closed, or when it has had no trial
for a while and another search has one, or when the search is not in the list any more.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from shared.search.worker import Objective, Turn, Worker

NEXT_STEP_SECONDS = (
    3.0  # without a trial before a worker leaves; the next step of a sequential search begins within two
)


@dataclass(frozen=True)
class OpenSearch:
    """Describes a search that is open to a worker process."""

    key: str
    """Gives the key of its task."""
    worker: Worker
    visit: Callable[[], AbstractContextManager[Objective]]
    """Begins a visit, which sends the worker's heartbeat and yields the objective."""
    ended: Callable[[], None]
    """The worker calls this once, when it finds the search closed."""


class Visits:
    """Runs the visits of one worker process."""

    def __init__(self, searches: Callable[[], Sequence[OpenSearch]]) -> None:
        """Takes `searches`, which returns the present searches; it is called often, as more may appear."""
        self._searches = searches
        self._closed = set[str]()
        self._waited_since = time.monotonic()

    def run(self) -> None:
        """Works until all searches are closed.

        Raises Stopped, InputError or what failed three trials of a search in a row, and UnavailableError if no search has a coordinator.
        """
        while open_ := self._open():
            search = _choose(open_)
            with search.visit() as objective:
                self._stay(search, objective)

    def _open(self) -> list[OpenSearch]:
        return [search for search in self._searches() if search.key not in self._closed]

    def _stay(self, search: OpenSearch, objective: Objective) -> None:
        empty_since = time.monotonic()
        while True:
            turn, now = search.worker.turn(objective), time.monotonic()
            if turn is Turn.CLOSED:
                self._closed.add(search.key)
                search.ended()
                return
            open_ = self._open()
            if all(other.key != search.key for other in open_):
                return  # it left the list: nobody wants its trials any more
            if turn is Turn.WORKED:
                empty_since = self._waited_since = time.monotonic()
                continue
            others = {other.worker.look()[0] for other in open_ if other.key != search.key}
            if not {turn, *others}.isdisjoint({Turn.EMPTY, Turn.READY}):
                self._waited_since = now
            search.worker.check_patience(self._waited_since)
            if Turn.READY in others and now - empty_since >= NEXT_STEP_SECONDS:
                return
            search.worker.pause()


def _choose(searches: Sequence[OpenSearch]) -> OpenSearch:
    """Returns the search to visit next: one with waiting trials if there is any, and among these the one with the fewest workers."""
    looks = [(search, *search.worker.look()) for search in searches]
    order = [Turn.READY, Turn.EMPTY, Turn.NOT_BEGUN, Turn.CLOSED]
    best = min((order.index(turn), workers) for _, turn, workers in looks)
    return random.choice([search for search, turn, workers in looks if (order.index(turn), workers) == best])
