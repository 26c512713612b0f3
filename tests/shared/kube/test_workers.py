"""Tests that as many Pods get work as there are trials, and that no Pod that runs a trial is deleted."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.config.task import Task
from shared.kube.workers import IDLE_SECONDS, Decision, Demand, IdleSince, decide
from tests.support.configs import any_config
from tests.support.kube_objects import pod


def demand(key: str, trials: int, *busy: str) -> Demand:
    return Demand(Task(study="s", stage="tune", key=key * 64, config=any_config("tune")), trials, frozenset(busy))


A, B = "a" * 16, "b" * 16


def begun(decision: Decision) -> dict[str, str]:
    return {name: found.label for name, found in decision.begin}


def test_gated_pods_go_where_the_fewest_are() -> None:
    pods = [pod("w1", label=A), *(pod(f"w{n}", "Pending", gate=True) for n in (2, 3, 4))]
    assert begun(decide(pods, [demand("a", 5), demand("b", 5)])) == {"w2": B, "w3": A, "w4": B}


def test_no_more_pods_than_trials() -> None:
    pods = [pod(f"w{n}", "Pending", gate=True) for n in range(4)]
    assert begun(decide(pods, [demand("a", 1), demand("b", 0)])) == {"w0": A}
    assert begun(decide(pods, [])) == {}


def test_pods_without_a_trial_are_idle_and_those_of_no_search_over() -> None:
    pods = [pod("w1", label=A), pod("w2", label=A), pod("w3", label="c" * 16), pod("w4", label=B, leaving=True)]
    decision = decide(pods, [demand("a", 1, "w1")])
    assert (decision.idle, decision.over, decision.begin) == (["w2"], ["w3"], [])


names = st.integers(0, 9).map(lambda n: f"w{n}")
kinds: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"gate": True}, {"label": A}, {"label": B}, {"label": "c" * 16}, {"leaving": True}]
)


@given(st.dictionaries(names, kinds), st.integers(0, 6), st.integers(0, 6), st.data())
def test_whatever_stands_there(found: dict[str, dict[str, Any]], first: int, second: int, data: st.DataObject) -> None:
    at_a = [name for name, values in found.items() if values.get("label") == A]
    busy = data.draw(st.sets(st.sampled_from(at_a), max_size=first) if at_a else st.just(set()))
    demands = [demand("a", first, *busy), demand("b", second)]
    decision = decide([pod(name, **values) for name, values in found.items()], demands)
    assert not busy & {*decision.idle, *decision.over}
    for wanted in demands:
        here = sum(values.get("label") == wanted.label for values in found.values())
        more = sum(chosen is wanted for _, chosen in decision.begin)
        assert here + more <= max(wanted.trials, here)
        # no Pod stays gated while a search has a trial for it
        gated = sum("gate" in values for values in found.values())
        assert here + more >= wanted.trials or len(decision.begin) == gated


def test_a_pause_between_two_steps_is_no_idleness() -> None:
    idle = IdleSince()
    assert idle.too_long(["w1"], 0.0) == []
    assert idle.too_long([], 5.0) == []
    assert idle.too_long(["w1"], 6.0) == []
    assert idle.too_long(["w1"], 6.0 + IDLE_SECONDS) == ["w1"]
