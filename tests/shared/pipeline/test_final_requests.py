"""Tests what control does with requests for final trainings: it decides each once, creates their Jobs, and tells their state."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from shared.errors import InputError, UnavailableError
from shared.kube.manifests import held_tasks
from shared.kube.requests import SubmitRequest, new_name, request_body
from shared.pipeline import final_requests as module
from shared.pipeline.final_requests import repeat_of
from tests.support.committed import commit_task
from tests.support.kube_server import kube_server, read_settled
from tests.support.requested_release import NAME, OWNER, STUDY
from tests.support.requested_release import RequestedRelease as Here

OTHER = "study-request-1"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr("shared.search.results.PATIENCE_SECONDS", 0.2)
    with kube_server() as (server, client):
        read_settled(server, monkeypatch)
        yield Here(server, client, tmp_path)


def test_a_request_is_carried_out_as_far_as_jobs_may_be_active(here: Here) -> None:
    uid = here.ask(SubmitRequest("real", 9))
    (state,) = here.advance()
    assert (state.name, state.state, len(state.tasks), len(state.jobs)) == (NAME, "accepted", 9, 2)
    assert sorted(here.submitted().values()) == [[0, 2, 4, 6], [1, 3, 5, 7]]  # two at once, each with its share
    assert {job["metadata"]["labels"]["tailfill/submitted"] for job in here.server.jobs.values()} == {uid}
    here.advance()
    assert len(here.server.jobs) == 2
    for name, job in list(here.server.jobs.items()):
        for _, key in held_tasks(job):
            commit_task(next(task for task in state.tasks if task.key == key), here.artifacts)
        here.server.end(name)
    (state,) = here.advance()
    assert sorted(here.submitted().values()) == [[0, 2, 4, 6], [1, 3, 5, 7], [8]]
    assert state.line() == f"{NAME}: accepted, 8 of 9 trained: real"
    commit_task(state.tasks[8], here.artifacts)
    (state,) = here.advance()
    assert (state.state, state.line()) == ("done", f"{NAME}: done, 9 of 9 trained: real")
    assert [repeat_of(task) for task, _ in here.requests.results(NAME)] == list(range(9))
    assert here.requests.results("another") == []


def test_requests_that_are_seen_together_share_what_may_be_active(here: Here) -> None:
    for number in range(12):
        here.ask(SubmitRequest("real", 1, {"training.lr": 0.001 * (number + 1)}), f"study-request-{number:02}")
    states = here.advance()
    assert [state.state for state in states] == ["accepted"] * 12
    assert len(here.server.jobs) == 2
    assert [len(state.jobs) for state in states] == [1, 1] + [0] * 10
    assert here.requests.waiting == 10
    assert states[2].reason == "2 Jobs of final trainings are active, as many as stages.final.parallelism allows"
    here.server.end(states[0].jobs[0])
    commit_task(states[0].tasks[0], here.artifacts)
    states = here.advance()
    assert [state.state for state in states] == ["done"] + ["accepted"] * 11
    assert [len(state.jobs) for state in states] == [0, 1, 1] + [0] * 9


def test_the_study_s_own_trainings_count_too(here: Here) -> None:
    here.ask(SubmitRequest("real", 3))
    here.advance()
    for job in here.server.jobs.values():  # as those of the study
        del job["metadata"]["labels"]["tailfill/submitted"]
    here.server.changed("jobs")
    here.ask(SubmitRequest("real", 1, {"training.lr": 0.5}), OTHER)
    here.advance()
    assert len(here.server.jobs) == 2
    here.server.end(next(iter(here.server.jobs)))
    here.advance()
    assert len([job for job in here.server.jobs.values() if "status" not in job]) == 2


def test_equal_requests_that_are_seen_together_train_once(here: Here) -> None:
    here.ask(SubmitRequest("real", 2))
    here.ask(SubmitRequest("real", 1), OTHER)
    first, second = here.advance()
    assert sorted(here.submitted().values()) == [[0], [1]]
    assert set(second.jobs) < set(first.jobs)


def test_many_trainings_are_looked_for_by_one_list(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.ask(SubmitRequest("real", 50))
    here.ask(SubmitRequest("real", 60), OTHER)
    here.advance()
    store, asked = here.artifacts.store, list[str]()
    for method in ("get", "exists", "list"):

        def ask(method: str, do: Any, key: str) -> Any:
            asked.append(method)
            return do(key)

        monkeypatch.setattr(store, method, partial(ask, method, getattr(store, method)))
    here.advance()
    assert asked == ["list"]


def test_what_was_decided_is_removed_with_its_request(here: Here) -> None:
    first, second = here.ask(SubmitRequest("real", 1)), here.ask(SubmitRequest("reel"), OTHER)
    here.advance()
    assert sorted(here.kept()) == sorted([first, second])
    del here.server.objects["configmaps"][OTHER]
    here.advance()
    assert here.kept() == [first]
    del here.server.objects["configmaps"][NAME]
    here.server.changed()
    assert here.advance(here.control()) == []  # which has never seen the request
    assert here.kept() == []


def test_what_another_release_has_decided_stays(here: Here) -> None:
    other = f"{STUDY.name}/cluster/requests/ns/other/1.json"
    here.artifacts.store.put(other, b"{}")
    here.ask(SubmitRequest("real", 1))
    here.advance()
    assert here.artifacts.store.exists(other)


def test_a_request_is_withdrawn_by_another_one(here: Here) -> None:
    here.ask(SubmitRequest("real", 9))
    here.ask(SubmitRequest("real", 1), OTHER)
    here.advance()
    jobs = dict(here.server.jobs)
    here.withdraw(NAME)
    here.advance()
    assert list(here.server.objects["configmaps"]) == [OTHER]
    assert [state.name for state in here.advance()] == [OTHER]
    assert here.server.jobs == jobs


def test_what_is_withdrawn_before_control_looks_never_begins(here: Here) -> None:
    here.ask(SubmitRequest("real", 9))
    here.withdraw(NAME)
    here.advance()
    assert here.advance() == []
    assert (here.server.jobs, here.server.objects["configmaps"]) == ({}, {})


def test_only_requests_of_the_release_are_withdrawn(here: Here) -> None:
    here.server.add("configmaps", {"metadata": {"name": "study-stages"}}, {"metadata": {"name": "other-stages"}})
    here.server.add("configmaps", request_body("theirs", "other", STUDY.name, SubmitRequest(), OWNER))
    for number, name in enumerate(("study-stages", "nowhere", "theirs", "")):
        here.withdraw(name, f"w{number}")
    here.withdraw(NAME, "w4", data={"request": NAME, "study": STUDY.name})
    here.ask(SubmitRequest("real", 1))
    states = {state.name: state for state in here.advance()}
    assert [states[f"w{number}"].state for number in range(5)] == ["refused"] * 5
    assert "there is no request 'study-stages'; `tailfill status` names them" in states["w0"].reason
    assert "has no field request" in states["w3"].reason
    assert "no field 'study'" in states["w4"].reason
    assert states[NAME].state == "accepted"
    here.withdraw("w0", "w5")  # what was refused goes in the same way
    here.withdraw("w6", "w6")
    here.advance()
    assert {"w0", "w5", "w6"}.isdisjoint(here.server.objects["configmaps"])
    assert {"study-stages", "other-stages", "theirs", NAME} <= set(here.server.objects["configmaps"])


def test_a_job_that_ended_before_its_program_began_is_created_again_once(here: Here) -> None:
    here.ask(SubmitRequest("real", 1))
    here.advance()
    (name,) = here.server.jobs
    for state in ("accepted", "failed"):
        here.server.end(name, "Failed")
        here.server.jobs[name]["status"]["conditions"][0]["reason"] = "PodFailurePolicy"
        here.server.changed("jobs")
        assert [each.state for each in here.advance()] == [state]
    assert here.server.created == [name, name]


def test_a_reason_has_one_line_and_an_end(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise InputError("first\n" + "x" * 5000)

    monkeypatch.setattr(module, "final_tasks", refuse)
    here.ask(SubmitRequest("real", 1))
    (state,) = here.advance()
    assert state.reason.startswith("first x")
    assert len(state.reason) == 1000


def test_a_control_that_starts_later_redoes_nothing(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.ask(SubmitRequest("real", 1))
    here.ask(SubmitRequest("reel"), OTHER)
    (state, refused) = here.advance()
    before = here.server.created[:]

    def decide(*_: object) -> None:
        raise AssertionError("it was decided before")

    with monkeypatch.context() as patched:
        patched.setattr(module, "final_tasks", decide)
        assert here.advance(here.control()) == [state, refused]
        assert here.server.created == before
        commit_task(state.tasks[0], here.artifacts)
        here.server.jobs.clear()  # Kubernetes has removed them
        assert [each.state for each in here.advance(here.control())] == ["done", "refused"]
        assert [each.state for each in here.advance(here.control())] == ["done", "refused"]
    assert here.server.created == before


def test_two_controls_at_once_decide_alike(here: Here) -> None:
    """The second has found better parameters meanwhile, and takes those of the first."""
    here.ask(SubmitRequest("real", 1, {"training.lr": 0.001}))
    (first,) = here.advance()
    other = here.control()
    with pytest.MonkeyPatch.context() as patched:
        kept = other._kept
        answers = [None]
        patched.setattr(other, "_kept", lambda state: answers.pop() if answers else kept(state))
        patched.setattr(module, "final_tasks", lambda *_: [first.tasks[0].model_copy(update={"key": "b" * 64})])
        assert here.advance(other) == [first]


def test_a_training_that_fails_ends_its_request_with_the_reason(here: Here) -> None:
    uid = here.ask(SubmitRequest("real", 1))
    (state,) = here.advance()
    (name,) = here.server.jobs
    here.server.end(name, "Failed")
    (state,) = here.advance()
    assert (state.state, state.reason) == ("failed", f"{name}: BackoffLimitExceeded; submit again")
    assert here.advance(here.control()) == [state]  # whenever control starts
    # who submits again gets another Job, though the failed one has its name
    here.server.objects["configmaps"].clear()
    again = here.ask(SubmitRequest("real", 1), OTHER)
    (state,) = here.advance()
    assert (state.state, again != uid) == ("accepted", True)
    assert here.server.jobs[name]["metadata"]["labels"]["tailfill/submitted"] == again


def test_what_another_job_trains_gets_no_job_of_its_own(here: Here) -> None:
    here.ask(SubmitRequest("real", 2))
    here.advance()
    here.ask(SubmitRequest("real", 2), OTHER)
    before = here.server.created[:]
    first, second = here.advance()
    assert (here.server.created, first.jobs) == (before, second.jobs)


def test_refusals_are_told_once_each_and_disturb_nobody(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    first, second, third, fourth, fifth = (new_name("study") for _ in range(5))
    here.ask(SubmitRequest("real", 1), first)
    here.ask(SubmitRequest("rael"), second)
    here.ask(SubmitRequest("synthetic"), third)
    here.ask(SubmitRequest(), fourth, data={"study": STUDY.name, "params": "x" * (1 << 19)})
    here.ask(SubmitRequest(), fifth, binaryData={"a": "AAAA"})
    foreign = request_body("mine", "other", STUDY.name, SubmitRequest(), OWNER)
    here.server.add("configmaps", foreign, {"metadata": {"name": "bare", "labels": {"tailfill/request": ""}}})
    with caplog.at_level("WARNING", "tailfill"):
        for _ in range(3):
            states = {state.name: state for state in here.advance()}
    assert states.pop(first).state == "accepted"
    assert {name: state.state for name, state in states.items()} == dict.fromkeys(states, "refused")
    said = {name: state.line() for name, state in states.items()}
    assert "there is no such experiment; did you mean real?" in said[second]
    assert "there is nothing to train on yet" in said[third]
    assert "bytes, which no request has" in said[fourth]
    assert "has binaryData" in said[fifth]
    assert "is 'other', and this release is study" in said["mine"]
    assert "is 'None', and this release is study" in said["bare"]
    assert [record.getMessage() for record in caplog.records] == ["a request is refused"] * 6
    assert len(here.server.jobs) == 1


def test_a_request_of_a_neighbour_is_left_to_it(here: Here) -> None:
    here.server.add("configmaps", {"metadata": {"name": "other-stages"}})
    here.server.add("configmaps", request_body("other-request-0", "other", STUDY.name, SubmitRequest(), OWNER))
    (state,) = here.advance()
    assert state.reason == "configmap other-request-0: is for another release, whose control carries it out"
    assert not list(here.artifacts.store.list(f"{STUDY.name}/cluster/"))


def test_a_request_waits_for_a_service(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise UnavailableError("PostgreSQL at db: is away")

    here.ask(SubmitRequest("real", 1))
    with monkeypatch.context() as patched:
        patched.setattr(module, "final_tasks", away)
        (state,) = here.advance()
    assert (state.state, state.reason) == ("waiting", "PostgreSQL at db: is away")
    (state,) = here.advance()
    assert (state.state, state.reason) == ("accepted", "")


def test_a_cluster_that_refuses_its_jobs_is_named(here: Here) -> None:
    here.ask(SubmitRequest("real", 1))
    here.server.refusals["POST", "jobs"] = 403
    here.advance()
    (state,) = here.advance()
    assert state.state == "waiting"
    assert "Kubernetes: POST" in state.reason
    del here.server.refusals["POST", "jobs"]
    (state,) = here.advance()
    assert (state.state, len(state.jobs)) == ("accepted", 1)


def test_configmaps_that_cannot_be_read_stop_no_study(here: Here) -> None:
    here.server.refusals["GET", "configmaps"] = 403
    assert here.advance() == []
    assert "configmaps: no; ask for the right" in here.requests.problem
    del here.server.refusals["GET", "configmaps"]
    here.ask(SubmitRequest("real", 1))
    assert [state.state for state in here.advance()] == ["accepted"]
    assert here.requests.problem == ""


def test_a_request_that_is_deleted_makes_no_more_jobs(here: Here) -> None:
    here.ask(SubmitRequest("real", 9))
    here.advance()
    before = dict(here.server.jobs)
    here.server.objects["configmaps"].clear()
    for name in before:
        here.server.end(name)
    assert here.advance() == []
    assert here.server.jobs == before


@pytest.mark.parametrize(
    "damaged",
    [b"", b"7", b"\xff", b'{"state": "accepted"}', b'{"state": "lost"}', b'{"state": "refused", "more": 1}', b"[" * 10_000],
)  # fmt: skip
def test_a_decision_that_is_damaged_is_said(here: Here, damaged: bytes) -> None:
    uid = here.ask(SubmitRequest("real", 1))
    here.artifacts.store.put(f"{STUDY.name}/cluster/requests/ns/study/{uid}.json", damaged)
    (state,) = here.advance()
    assert state.state == "refused"
    assert f"{uid}.json: is damaged; delete the request" in state.reason


def test_trainings_that_somebody_has_changed_are_not_trained(here: Here) -> None:
    here.ask(SubmitRequest("real", 1))
    (state,) = here.advance()
    here.server.jobs.clear()
    (kept,) = (key for key in here.artifacts.store.list(f"{STUDY.name}/final/") if "/tasks/" in key)
    here.artifacts.store.put(kept, b"{}")
    (state,) = here.advance(here.control())
    assert (state.state, "which is not its name" in state.reason) == ("failed", True)
    here.artifacts.store.delete(kept)
    (state,) = here.advance(here.control())
    assert (state.state, "not found" in state.reason) == ("failed", True)
    assert not here.server.jobs


def test_a_damaged_result_fails_its_request_alone(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.ask(SubmitRequest("real", 1))
    here.advance()

    def damaged(*_: object) -> None:
        raise InputError("manifest: is damaged")

    monkeypatch.setattr(module.FinalRequests, "_carry_out", damaged)
    (state,) = here.advance()
    assert (state.state, state.reason) == ("failed", "manifest: is damaged")
