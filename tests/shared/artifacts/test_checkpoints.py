from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from shared.artifacts.checkpoints import AsyncCheckpointer


def test_the_training_goes_on_while_a_checkpoint_is_kept() -> None:
    arrived, kept = threading.Event(), []

    def slow() -> None:
        assert arrived.wait(20)
        kept.append("first")

    with AsyncCheckpointer() as keeper:
        assert not keeper.busy()
        keeper.begin(slow)
        assert keeper.busy()
        assert kept == []
        arrived.set()
        keeper.begin(lambda: kept.append("second"))  # after the first
        keeper.wait()
        assert kept == ["first", "second"]
        assert not keeper.busy()
        assert keeper.seconds > 0
        keeper.begin(lambda: kept.append("third"))
    assert kept == ["first", "second", "third"]


def fails() -> None:
    raise ValueError("the store is unavailable")


@pytest.mark.parametrize("call", [lambda k: k.busy(), lambda k: k.wait(), lambda k: k.begin(print), lambda k: None])
def test_what_ended_it_is_raised_by_the_next_call_or_at_the_end(call: Callable[[AsyncCheckpointer], object]) -> None:
    def training() -> None:
        with AsyncCheckpointer() as keeper:
            keeper.begin(fails)
            assert keeper._thread is not None
            keeper._thread.join()
            call(keeper)

    with pytest.raises(ValueError, match="the store is unavailable"):
        training()


def test_what_ended_the_training_counts_more(caplog: pytest.LogCaptureFixture) -> None:
    def training() -> None:
        with AsyncCheckpointer() as keeper:
            keeper.begin(fails)
            raise KeyError

    with pytest.raises(KeyError):
        training()
    assert "a checkpoint was not kept" in caplog.text
