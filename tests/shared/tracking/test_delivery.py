"""Tests that events reach a slow or unavailable receiver in their order, and that nobody waits for it beyond a bound."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

from shared.errors import DataError, UnavailableError
from shared.stop import StopSignal
from shared.tracking import delivery
from shared.tracking.delivery import Delivery


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "WAITS", (0.05,))


def end(open_delivery: Delivery[int], seconds: float = 10.0) -> float:
    start = time.monotonic()
    open_delivery.end_close(start + seconds, StopSignal())
    return time.monotonic() - start


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def hanging(release: threading.Event, taken: threading.Event) -> Callable[[int], None]:
    """Returns a receiver that says when it has taken an event, and hangs until it is released."""

    def receive(_: int) -> None:
        taken.set()
        release.wait(30)

    return receive


def test_events_arrive_in_their_order_and_once_a_server_is_back(caplog: pytest.LogCaptureFixture) -> None:
    got, failures = list[int](), [3]

    def receive(event: int) -> None:
        if event == 2 and failures[0]:
            failures[0] -= 1
            raise UnavailableError("the server is away")
        got.append(event)

    with caplog.at_level(logging.WARNING):
        opened = Delivery("X", receive, "do this")
        for event in range(5):
            opened.put(event)
        until(lambda: not failures[0])  # at the end there would be fewer attempts
        end(opened)
    assert got == [0, 1, 2, 3, 4]
    assert [record.getMessage() for record in caplog.records] == ["X: the server is away; the study goes on, do this"]


def test_at_the_end_a_server_that_stays_away_costs_little(caplog: pytest.LogCaptureFixture) -> None:
    def receive(_: int) -> None:
        raise UnavailableError("the server is away")

    with caplog.at_level(logging.WARNING):
        opened = Delivery("X", receive, "do this")
        for event in range(100):
            opened.put(event)
        assert end(opened) < 5
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "X: the server is away; the study goes on, do this",
        "X: 100 events of the study are not delivered; do this",
    ]


def test_a_server_that_hangs_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    release, taken = threading.Event(), threading.Event()
    opened = Delivery[int]("X", hanging(release, taken), "do this")
    opened.put(1)
    opened.put(2)
    assert taken.wait(30)
    with caplog.at_level(logging.WARNING):
        assert 0.9 < end(opened, 1.0) < 3
    assert "2 events of the study are not delivered" in caplog.text
    opened = Delivery[int]("X", lambda _: release.wait(30) and None, "do this")
    opened.put(1)
    start = time.monotonic()
    opened.abandon()
    assert time.monotonic() - start < 0.5
    release.set()


def test_what_is_refused_does_not_hold_up_the_rest_and_a_bug_shows_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    got = list[int]()

    def receive(event: int) -> None:
        if event < 10:
            raise DataError("the server refuses it") if event % 2 else ValueError("https://h/SECRET")
        got.append(event)

    with caplog.at_level(logging.WARNING):
        opened = Delivery("X", receive, "do this")
        for event in range(12):
            opened.put(event)
        end(opened)
    assert got == [10, 11]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == delivery.MOST_WARNINGS + 1
    assert messages[:2] == [
        "X: an event of the study cannot be delivered: ValueError; the study goes on",
        "X: an event of the study cannot be delivered: the server refuses it; the study goes on",
    ]
    assert messages[-1] == "X: 10 events of the study are not delivered; do this"


def test_too_many_events_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delivery, "MOST_WAITING", 3)
    release, taken = threading.Event(), threading.Event()
    opened = Delivery[int]("X", hanging(release, taken), "do this")
    opened.put(0)
    assert taken.wait(30)
    for event in range(10):
        opened.put(event)
    release.set()
    with caplog.at_level(logging.WARNING):
        end(opened)
    assert "X: 7 events of the study are not delivered" in caplog.text


def test_a_signal_ends_the_wait() -> None:
    release, stop = threading.Event(), StopSignal()
    opened = Delivery[int]("X", lambda _: release.wait(30) and None, "do this")
    opened.put(1)
    threading.Timer(0.3, stop.set).start()
    start = time.monotonic()
    opened.end_close(start + 60, stop)
    assert time.monotonic() - start < 3
    release.set()
