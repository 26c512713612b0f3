"""Tests what is posted to a real server, how often, and that no message shows the address."""

from __future__ import annotations

import base64
import json
import logging
import time
from email.utils import formatdate
from typing import Any

import pytest

from shared.artifacts.folder import FolderStore
from shared.artifacts.store import Store
from shared.errors import DataError, UnavailableError
from shared.retries import Backoff
from shared.settings import Settings
from shared.tracking import webhook as module
from shared.tracking.webhook import Happening, Webhook
from tests.support.webhook_server import WebhookServer, webhook_server

QUICK = Backoff(0.01)
DONE = Happening("done", "the study is done.\nIt helps \x1b[31m.", "done 1", report="s3://b/p")


def make(server: WebhookServer, store: Store, userinfo: str = "") -> Webhook:
    address = server.address.replace("://", f"://{userinfo}") + "/services/SECRET?token=SECRET"
    return Webhook(Settings.from_environment({"TAILFILL_WEBHOOK": address}), "demo", store, QUICK)


def test_what_is_posted_once(folder_store: FolderStore) -> None:
    with webhook_server() as server:
        for _ in range(2):  # as after a restart
            hook = make(server, folder_store, "user:pass%20word@")
            hook.post(DONE)
            hook.post(DONE)
        hook.post(Happening("stalled", "nothing moves", "stalled 1", step="tune real"))
    assert len(server.posts) == 2
    path, headers, body = server.posts[0]
    assert path == "/services/SECRET?token=SECRET"
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("tailfill/")
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"user:pass word"
    posted = json.loads(body)
    assert set(posted) == {"event", "sentence", "text", "study", "report", "time", "tailfill", "id"}
    assert posted["text"] == f"tailfill, study demo: {posted['sentence']}"
    assert posted["sentence"].isprintable()
    assert (posted["event"], posted["study"], posted["report"]) == ("done", "demo", "s3://b/p")
    assert json.loads(server.posts[1][2])["step"] == "tune real"
    records = [folder_store.get(name) for name in folder_store.list("demo/events/")]
    assert len(records) == 2
    assert not [record for record in records if b"SECRET" in record]


@pytest.mark.parametrize(
    ("answers", "posts"),
    [((500, 200), 2), ((429, 503, 408, 204), 4), (("reset", 200), 2), (("reset", "reset", 500, 202), 4)],
)
def test_another_attempt(answers: tuple[Any, ...], posts: int, folder_store: FolderStore) -> None:
    with webhook_server(*answers) as server:
        make(server, folder_store).post(DONE)
    assert len(server.posts) == posts
    assert len(list(folder_store.list("demo/events/"))) == 1


@pytest.mark.parametrize(
    ("answer", "posts", "words"),
    [
        (404, 1, "answers 404: see that it is right"), (403, 1, "answers 403"), (410, 1, "answers 410"), (400, 1, "answers 400"),
        ((302, {"Location": "http://127.0.0.1:1/x"}), 1, "answers 302: a redirect, which is not followed"),
        ((308, {"Location": "/elsewhere"}), 1, "answers 308: a redirect"), ((307, {}), 1, "answers 307"),
        (500, 4, r"did not take it in 4 attempts \(it answers 500\)"), ("reset", 4, "in 4 attempts"),
        ((503, {"Retry-After": "nonsense"}), 4, "it answers 503"), ((503, {"Retry-After": "-5"}), 4, "it answers 503"),
    ],
)  # fmt: skip
def test_what_is_given_up(
    answer: Any, posts: int, words: str, folder_store: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        webhook_server(answer) as server,
        caplog.at_level(logging.DEBUG),
        pytest.raises(DataError, match=words) as caught,
    ):
        make(server, folder_store, "user:SECRET@").post(DONE)
    assert len(server.posts) == posts
    assert "SECRET" not in f"{caught.value!r} {caught.value} {caplog.text} {[r.__dict__ for r in caplog.records]}"
    assert not list(folder_store.list("demo/events/"))  # the next run tries again


def test_a_server_that_hangs(
    folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.3)
    start = time.monotonic()
    with webhook_server("hang") as server, pytest.raises(DataError, match=r"4 attempts \(no answer in 0.3 s\)"):
        make(server, folder_store).post(DONE)
    assert time.monotonic() - start < 10
    assert "SECRET" not in caplog.text


def test_nobody_listens(folder_store: FolderStore) -> None:
    server = WebhookServer(address="http://127.0.0.1:1")
    with pytest.raises(DataError, match=r"http://127.0.0.1:1 did not take it .*Connection refused") as caught:
        make(server, folder_store).post(DONE)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("asked", ["1", formatdate(time.time() + 100000, usegmt=True)], ids=["seconds", "date"])
def test_the_server_says_how_long_to_wait(
    asked: str, folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_WAIT", 1.0)
    start = time.monotonic()
    with webhook_server((429, {"Retry-After": asked}), 200) as server:
        make(server, folder_store).post(DONE)
    assert 1.0 <= time.monotonic() - start < 10
    assert len(server.posts) == 2


def test_the_news_that_the_store_is_away_is_posted_once(
    folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> bool:
        raise UnavailableError("the store is away")

    monkeypatch.setattr(folder_store, "exists", away)
    monkeypatch.setattr(folder_store, "create", away)
    with webhook_server() as server:
        hook = make(server, folder_store)
        hook.post(DONE)
        hook.post(DONE)
    assert len(server.posts) == 1
