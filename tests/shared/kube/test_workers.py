"""Tests that there are as many workers as users allow and trials need, and that those with a trial end last."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.kube.workers import FAILED_SECONDS, IDLE_SECONDS, IdleSince, decide

FAILED = "2026-11-28T12:00:00Z"
THEN = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()


def worker(number: int, phase: str = "active", ready: int = 1) -> dict[str, Any]:
    """Returns a worker's Job as Kubernetes returns it."""
    conditions = {
        "complete": [{"type": "Complete", "status": "True"}],
        "failed": [{"type": "Failed", "status": "True", "lastTransitionTime": FAILED}],
    }.get(phase, [])
    return {
        "metadata": {"name": f"w{number}", "labels": {"tailfill/worker": str(number)}},
        "spec": {"suspend": phase == "suspended"},
        "status": {"conditions": conditions, "ready": ready},
    }


def test_no_more_workers_than_trials_and_than_allowed() -> None:
    assert decide([], 3, 2, ()).create == [0, 1]
    assert decide([], 2, 9, ()).create == [0, 1]
    assert decide([worker(1)], 3, 9, ()).create == [0, 2]
    assert decide([worker(0), worker(1, "suspended", 0)], 3, 9, ()).create == [2]
    assert decide([], 3, 0, ()).create == decide([], 0, 9, ()).create == decide([], 3, None, ()).create == []


def test_one_that_has_ended_makes_room_at_once_and_one_that_failed_later() -> None:
    jobs = [worker(0, "complete"), worker(1, "failed")]
    assert decide(jobs, 2, 9, (), THEN + FAILED_SECONDS - 1).create == [0]
    assert decide(jobs, 2, 9, (), THEN + FAILED_SECONDS).create == [0, 1]


def test_those_without_a_trial_are_idle() -> None:
    decision = decide([worker(0), worker(1), worker(2, ready=0)], 3, 1, {"w0"})
    assert (decision.idle, decision.over, decision.create) == (["w2", "w1"], [], [])


def test_scaled_down_the_ones_with_a_trial_end_last() -> None:
    jobs = [worker(0), worker(1), worker(2), worker(3, ready=0)]
    assert decide(jobs, 1, 9, {"w1"}).over == ["w3", "w2", "w0"]
    assert decide(jobs, 1, None, {"w1"}).over == ["w3", "w2", "w0"]
    assert decide(jobs, 0, 9, {"w1"}).over == ["w3", "w2", "w0", "w1"]


phases = st.sampled_from(["active", "suspended", "complete", "failed"])


@given(st.dictionaries(st.integers(0, 9), phases), st.integers(0, 12), st.integers(0, 12), st.data())
def test_whatever_there_is(found: dict[int, str], allowed: int, trials: int, data: st.DataObject) -> None:
    jobs = [worker(number, phase) for number, phase in found.items()]
    alive = [f"w{number}" for number, phase in found.items() if phase in ("active", "suspended")]
    busy = data.draw(st.sets(st.sampled_from(alive), max_size=trials) if alive else st.just(set()))
    decision = decide(jobs, allowed, trials, busy, THEN + FAILED_SECONDS)
    assert len(decision.over) == max(len(alive) - allowed, 0)
    assert not busy & set(decision.idle)
    left = len(alive) - len(decision.over)
    assert left + len(decision.create) == max(min(allowed, trials), left)
    assert not {f"w{number}" for number in decision.create} & set(alive)
    assert not (decision.create and (decision.over or decision.idle))


def test_a_pause_between_two_steps_is_no_idleness() -> None:
    idle = IdleSince()
    assert idle.too_long(["w1"], 0.0) == []
    assert idle.too_long([], 5.0) == []
    assert idle.too_long(["w1"], 6.0) == []
    assert idle.too_long(["w1"], 6.0 + IDLE_SECONDS) == ["w1"]
