"""Tests the command that requests final trainings, beside a control that really carries them out on the fake API server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs import submit
from jobs.submit import create_request, print_line, submit_final, table, withdraw
from shared.errors import InputError, UnavailableError
from shared.kube.requests import SubmitRequest, read_request
from shared.metrics.table import METRICS
from shared.pipeline import final_requests
from shared.pipeline.final_requests import repeat_of
from tests.support.committed import commit_task
from tests.support.kube_objects import pod
from tests.support.kube_server import kube_server, read_settled
from tests.support.requested_release import STUDY
from tests.support.requested_release import RequestedRelease as Here


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.setattr(final_requests, "LOOK_SECONDS", 0.0)
    with kube_server() as (server, client):
        read_settled(server, monkeypatch)
        server.add("configmaps", {"metadata": {"name": "study-stages"}})
        yield Here(server, client, tmp_path)


def ask(here: Here, **query: str) -> Mapping[str, Any]:
    """Answers as control's endpoint does, after control has looked once."""
    here.advance()
    told: dict[str, Any] = {
        "study": STUDY.name,
        "problem": here.requests.problem or None,
        "requests": [state.as_json() for state in here.requests.states()],
    }
    if "results" in query:
        found = here.requests.results(query["results"])
        told["results"] = [
            {"experiment": task.experiment, "seed": repeat_of(task), "key": task.key, "metrics": {"macro_f1": 0.5}}
            for task, _ in found
        ]
    return told


def made(here: Here) -> str:
    """Returns the name of the only request."""
    (name,) = (name for name in here.server.objects["configmaps"] if "-request-" in name)
    return name


def while_waiting(monkeypatch: pytest.MonkeyPatch, work: Callable[[float], object]) -> None:
    """Has work done in place of the command's waiting, and of no other: the server of the test waits, too."""
    monkeypatch.setattr(submit, "time", SimpleNamespace(monotonic=time.monotonic, sleep=work))


def test_it_follows_its_trainings_to_their_metrics(
    here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def work(_: float) -> None:
        """Lets a Pod of the Job begin, and then commit what it trains."""
        (name,) = here.server.jobs
        if not any("job-name" in str(each["metadata"]) for each in here.server.pods):
            running = pod(f"{name}-a")
            running["metadata"]["labels"]["batch.kubernetes.io/job-name"] = name
            here.server.logs[f"{name}-a"] = json.dumps({"event": "epoch 1/2", "level": "info"}) + "\n"
            here.server.add("pods", running)
            return
        for task in here.requests.states()[0].tasks:
            commit_task(task, here.artifacts)

    while_waiting(monkeypatch, work)
    with caplog.at_level("INFO", "tailfill"):
        said = submit_final(here.client, "study", lambda **query: ask(here, **query), SubmitRequest("real", 1), True)
    assert [(row["experiment"], row["seed"]) for row in json.loads(said)] == [("real", 0)]
    assert f"requested as {made(here)}, which goes on if this command ends" in caplog.text
    assert "[real 0] epoch 1/2" in capsys.readouterr().err
    found = here.server.objects["configmaps"][made(here)]
    assert found["immutable"] is True
    assert found["metadata"]["ownerReferences"][0]["name"] == "study-stages"  # with which it is deleted
    assert read_request(found, "study", STUDY.name) == SubmitRequest("real", 1)


def test_a_refusal_is_told_and_stays(here: Here) -> None:
    with pytest.raises(InputError, match=r"study-request-\w+: refused: --experiment rael: .* did you mean real\?"):
        submit_final(here.client, "study", lambda **query: ask(here, **query), SubmitRequest("rael"), False)
    assert [state.state for state in here.advance()] == ["refused"]


def test_a_control_that_is_away_for_a_while_is_waited_for(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([None, UnavailableError("control restarts\nmore"), None])

    def sometimes(**query: str) -> Mapping[str, Any]:
        if (failure := next(answers, None)) is not None:
            raise failure
        return ask(here, **query)

    def work(_: float) -> None:
        for state in here.advance():
            for task in state.tasks:
                commit_task(task, here.artifacts)

    while_waiting(monkeypatch, work)
    assert json.loads(submit_final(here.client, "study", sometimes, SubmitRequest("real", 1), True))


def test_a_control_that_stays_away_is_not_waited_for_without_end(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "PATIENCE_SECONDS", 0.0)
    first = ask(here)
    answers = iter([first])

    def away(**_: str) -> Mapping[str, Any]:
        if (answer := next(answers, None)) is None:
            raise UnavailableError("control is away")
        return answer

    with pytest.raises(
        UnavailableError, match=r"study-request-\w+: control has not told of it .*; it stays \(control is"
    ):
        submit_final(here.client, "study", away, SubmitRequest("real", 1), False)
    assert made(here)


def test_a_request_that_somebody_withdraws_ends_the_command(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(_: float) -> None:
        if here.requests.states():
            here.withdraw(here.requests.states()[0].name)

    while_waiting(monkeypatch, work)
    with pytest.raises(InputError, match=r"study-request-\w+: was withdrawn, so that no more of its trainings begin"):
        submit_final(here.client, "study", lambda **query: ask(here, **query), SubmitRequest("real", 1), False)


def test_requests_are_as_many_as_people_make_and_none_takes_the_place_of_another(here: Here) -> None:
    made = {create_request(here.client, "study", STUDY.name, SubmitRequest("real", 1)) for _ in range(25)}
    found = {(name, each["metadata"]["uid"]) for name, each in here.server.objects["configmaps"].items()}
    assert (len(made), made < found) == (25, True)
    (first, *_) = here.advance()
    assert [state.state for state in here.requests.states()] == ["accepted"] * 25
    for task in first.tasks:
        commit_task(task, here.artifacts)
    assert [state.state for state in here.advance()] == ["done"] * 25
    create_request(here.client, "study", STUDY.name, SubmitRequest("real", 1))
    assert len(here.advance()) == 26  # those that have ended stay, until somebody withdraws them


def test_an_answer_that_is_lost_makes_no_second_request(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here.client, "create", lambda *given: type(here.client).create(here.client, *given) and False)
    create_request(here.client, "study", STUDY.name, SubmitRequest("real", 1))
    assert made(here)


def test_a_request_is_withdrawn_by_its_name(here: Here) -> None:
    name, _ = create_request(here.client, "study", STUDY.name, SubmitRequest("real", 1))
    with pytest.raises(InputError, match=rf"release study: has no request '{name[:-1]}'; did you mean {name}\?"):
        withdraw(here.client, "study", lambda **query: ask(here, **query), name[:-1])
    said = withdraw(here.client, "study", lambda **query: ask(here, **query), name)
    assert said.startswith(f"{name}: control deletes it within seconds")
    here.advance()
    assert here.advance() == []


def test_a_release_without_its_manifests_gets_no_request(here: Here) -> None:
    del here.server.objects["configmaps"]["study-stages"]
    with pytest.raises(InputError, match="configmap study-stages: does not exist"):
        create_request(here.client, "study", STUDY.name, SubmitRequest())


def test_the_table_has_the_headline_metrics_and_a_dash_for_one_that_is_not_defined() -> None:
    summary = {metric.name: 0.25 for metric in METRICS if metric.summary}
    rows: list[dict[str, Any]] = [
        {"experiment": "real", "seed": seed, "metrics": {name: value + seed / 2 for name, value in summary.items()}}
        for seed in (0, 1)
    ]
    for row in rows:
        row["metrics"]["rare_macro_f1"] = None
    head, *lines = (line.split() for line in table(rows).splitlines())
    headline = [metric.name for metric in METRICS if metric.headline]
    assert head == ["experiment", "seed", *headline]
    values = ["–" if name == "rare_macro_f1" else "0.2500" for name in headline]
    assert lines[0] == ["real", "0", *values]
    means = " ".join("–" if name == "rare_macro_f1" else "0.5000 ± 0.3536" for name in headline)
    assert lines[2] == ["real", "mean", *means.split()]


def test_a_line_of_a_block_is_shown_under_its_training(capsys: pytest.CaptureFixture[str]) -> None:
    names, shown = {"a" * 64: "real 0", "b" * 64: "real 1"}, "real 0"
    for line in (
        {"event": "torch is imported", "level": "info"},
        {"event": "task ends", "key": "a" * 64, "experiment": "real", "level": "info"},
        {"event": "task begins", "key": "b" * 64, "experiment": "real", "level": "info"},
        {"event": "epoch 1/2", "level": "info"},
        {"event": "task begins", "key": "c" * 64, "experiment": "other", "level": "info"},
        {"event": "epoch 1/2", "level": "info"},
    ):
        shown = print_line(shown, json.dumps(line), names)
    print_line(shown, "a \x1b[2Jwarning", names)
    said = ["[real 0] torch is imported", "[real 1] epoch 1/2", "[other] epoch 1/2", "[other] a \\u001b[2Jwarning"]
    assert capsys.readouterr().err.splitlines() == said
