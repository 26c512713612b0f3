"""Tests that a copy of objects is what the API server has, whatever happens to the connection, and that it asks for little."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shared.errors import UnavailableError
from shared.kube import api, mirror
from shared.kube.api import Cluster
from shared.kube.errors import ClusterError
from shared.kube.mirror import Mirror
from tests.support.kube_server import KubeServer, kube_server

LABELS = {"app": "a"}


def job(name: str, **status: Any) -> dict[str, Any]:
    template = {"metadata": {"annotations": {"b": "c"}}, "spec": {"containers": [{"name": "main"}]}}
    metadata = {"name": name, "labels": LABELS, "managedFields": [{"manager": "m"}]}
    return {"metadata": metadata, "spec": {"template": template, "suspend": False}, "status": status}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[KubeServer, Cluster, Mirror]]:
    monkeypatch.setattr(mirror, "WAITS", (0.05, 0.2))
    monkeypatch.setattr(mirror, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(mirror, "LISTED_SECONDS", 0.0)
    with kube_server() as (server, cluster):
        yield server, cluster, Mirror(cluster, "jobs", "app=a")


def names(copy: Mirror) -> list[str]:
    return [found["metadata"]["name"] for found in copy.objects()]


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def followed(server: KubeServer, copy: Mirror) -> None:
    """Waits for the watch to begin."""
    begun = server.requests.count("WATCH jobs")
    copy.objects()
    until(lambda: server.requests.count("WATCH jobs") > begun or copy._stream is not None)


def test_it_lists_once_in_pages_and_is_told_the_rest(
    here: tuple[KubeServer, Cluster, Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _, copy = here
    monkeypatch.setattr(api, "PAGE", 2)
    server.add("jobs", *(job(f"j{number}") for number in range(5)), {"metadata": {"name": "of-others", "labels": {}}})
    assert names(copy) == ["j0", "j1", "j2", "j3", "j4"]
    server.add("jobs", job("j5"), job("j1", active=1))
    del server.jobs["j0"]
    server.settle(copy)
    assert names(copy) == ["j1", "j2", "j3", "j4", "j5"]
    first = copy.objects()[0]
    assert first["status"] == {"active": 1}
    assert "managedFields" not in first["metadata"]
    assert first["spec"] == {"suspend": False, "template": {"metadata": {"annotations": {"b": "c"}}}}
    for _ in range(50):
        copy.objects()
    assert server.requests == ["GET jobs"] * 3 + ["WATCH jobs"]
    assert server.connections <= 2  # one for the watch, one for all else


def test_what_this_process_writes_is_seen_at_once(here: tuple[KubeServer, Cluster, Mirror]) -> None:
    server, cluster, copy = here
    server.add("jobs", job("old"))
    followed(server, copy)
    server.silent = True
    server.add("jobs", job("old", ready=1))  # which the watch tells only after the Job is gone
    assert cluster.create("jobs", job("new"))
    cluster.delete("jobs", "old")
    cluster.delete("jobs", "nowhere")
    assert names(copy) == ["new"]
    cluster.delete("jobs", "new")
    assert cluster.create("jobs", job("new"))  # another one of the same name
    uid = server.jobs["new"]["metadata"]["uid"]
    assert [found["metadata"]["uid"] for found in copy.objects()] == [uid]
    server.silent = False

    def up_to_date() -> bool:
        assert names(copy) == ["new"]
        return int(copy.version) >= server.version

    until(up_to_date)
    assert [found["metadata"]["uid"] for found in copy.objects()] == [uid]


def test_what_is_created_while_it_lists_is_not_lost(here: tuple[KubeServer, Cluster, Mirror]) -> None:
    server, cluster, copy = here
    listed = cluster.list_version

    def slow(*given: Any) -> Any:
        found = listed(*given)
        assert cluster.create("jobs", job("during"))
        return found

    cluster.list_version = slow  # type: ignore[method-assign]
    assert names(copy) == ["during"]
    cluster.list_version = listed  # type: ignore[method-assign]
    server.settle(copy)
    assert names(copy) == ["during"]


def test_what_is_created_but_ends_before_that_is_known_is_gone(here: tuple[KubeServer, Cluster, Mirror]) -> None:
    server, cluster, copy = here
    followed(server, copy)
    request = cluster._request

    def late(method: str, *given: Any, **more: Any) -> Any:
        found = request(method, *given, **more)
        del server.jobs["short"]
        server.settle(copy)
        return found

    cluster._request = late  # type: ignore[method-assign]
    assert cluster.create("jobs", job("short"))
    assert names(copy) == []


def test_a_job_that_another_control_makes_while_this_one_deletes_its_name_is_found(
    here: tuple[KubeServer, Cluster, Mirror],
) -> None:
    server, cluster, copy = here
    followed(server, copy)
    request = cluster._request

    def late(method: str, *given: Any, **more: Any) -> Any:
        found = request(method, *given, **more)
        if method == "DELETE":
            server.add("jobs", job("other-s"))
            server.settle(copy)
        return found

    server.add("jobs", job("other-s"))
    server.settle(copy)
    cluster._request = late  # type: ignore[method-assign]
    cluster.delete("jobs", "other-s")
    cluster._request = request  # type: ignore[method-assign]
    assert not cluster.create("jobs", job("other-s"))
    until(lambda: names(copy) == ["other-s"])


def test_it_keeps_nothing_of_what_is_gone(here: tuple[KubeServer, Cluster, Mirror]) -> None:
    server, cluster, copy = here
    followed(server, copy)
    for number in range(20):
        cluster.create("jobs", job(f"j{number}"))
        if number % 2:
            cluster.delete("jobs", f"j{number}")
        else:
            del server.jobs[f"j{number}"]
    server.settle(copy)
    assert (names(copy), copy._gone) == ([], set())
    server.silent = True
    cluster.create("jobs", job("unseen"))
    cluster.delete("jobs", "unseen")
    assert len(copy._gone) == 1
    server.forget()
    server.drop_watches()
    server.silent = False
    server.add("jobs", job("new"))
    until(lambda: names(copy) == ["new"])
    assert copy._gone == set()


def test_a_watch_that_is_cut_off_goes_on_where_it_was(here: tuple[KubeServer, Cluster, Mirror]) -> None:
    server, _, copy = here
    followed(server, copy)
    for number in range(3):
        server.drop_watches()
        server.add("jobs", job(f"j{number}"))
        server.settle(copy)
        assert names(copy) == [f"j{each}" for each in range(number + 1)]
    assert server.requests.count("GET jobs") == 1
    assert server.requests.count("WATCH jobs") == 4


def test_versions_that_the_server_has_forgotten_are_listed_anew(here: tuple[KubeServer, Cluster, Mirror]) -> None:
    server, _, copy = here
    server.add("jobs", job("gone"))
    followed(server, copy)
    server.refusals["GET", "jobs"] = 503
    server.drop_watches()
    until(lambda: copy._stream is None)
    del server.jobs["gone"]
    server.add("jobs", job("new"))
    server.changed()
    server.forget()
    server.refusals.clear()
    until(lambda: server.requests.count("GET jobs") == 2)
    until(lambda: names(copy) == ["new"])


def test_a_watch_that_falls_silent_is_noticed(
    here: tuple[KubeServer, Cluster, Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _, copy = here
    monkeypatch.setattr(api, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(mirror, "PATIENCE_SECONDS", 10.0)  # on a busy machine several watches may be silent in a row
    followed(server, copy)
    server.silent = True
    server.add("jobs", job("new"))
    begun = server.requests.count("WATCH jobs")
    until(lambda: server.requests.count("WATCH jobs") > begun)
    assert names(copy) == []
    server.silent = False
    until(lambda: names(copy) == ["new"])


def test_a_server_that_ends_every_watch_at_once_is_asked_less_and_less(
    here: tuple[KubeServer, Cluster, Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _, copy = here
    monkeypatch.setattr(mirror, "WAITS", (0.1, 60.0))
    server.watch_seconds = 0.0
    copy.objects()
    time.sleep(1.5)
    assert server.requests.count("WATCH jobs") <= 6
    assert copy.objects() == []


def test_a_server_that_is_unavailable_or_refuses_is_an_error_until_it_answers(
    here: tuple[KubeServer, Cluster, Mirror],
) -> None:
    server, _, copy = here
    for status, error in ((503, UnavailableError), (403, ClusterError)):
        server.refusals["GET", "jobs"] = status
        if copy._thread is not None:
            server.drop_watches()
            until(lambda: copy._error is not None)
        with pytest.raises(error, match=r"Kubernetes: GET .*/jobs: no"):
            copy.objects()
        server.refusals.clear()
        until(lambda: copy._thread is None or copy._error is None)
        server.add("jobs", job(f"after-{status}"))
        copy.objects()
        server.settle(copy)
        assert f"after-{status}" in names(copy)


def test_a_server_that_takes_its_time_to_fail_is_an_error_too(
    here: tuple[KubeServer, Cluster, Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _, copy = here
    monkeypatch.setattr(mirror, "SHORT_SECONDS", 0.1)
    followed(server, copy)
    server.refusals["GET", "jobs"], server.refusal_seconds = 503, 0.3
    server.drop_watches()
    until(lambda: copy._error is not None)
    with pytest.raises(UnavailableError, match=r"Kubernetes: GET .*/jobs: no"):
        copy.objects()
    server.refusals.clear()
    until(lambda: copy._error is None)
    assert copy.objects() == []


def test_a_copy_ends_at_once_at_any_moment(here: tuple[KubeServer, Cluster, Mirror]) -> None:
    _, cluster, _ = here
    for wait in (0.0, 0.001, 0.003, 0.01, 0.1):
        copy = Mirror(cluster, "pods")
        copy.objects()
        time.sleep(wait)
        since = time.monotonic()
        copy.close()
        assert time.monotonic() - since < mirror.CLOSE_SECONDS - 1
        assert copy._thread is not None
        assert not copy._thread.is_alive()


def test_an_object_that_was_missed_is_looked_for(here: tuple[KubeServer, Cluster, Mirror]) -> None:
    server, cluster, copy = here
    followed(server, copy)
    server.silent = True
    server.add("jobs", job("missed"))
    assert not cluster.create("jobs", job("missed"))
    until(lambda: names(copy) == ["missed"])
    assert not cluster.create("jobs", job("missed"))
    time.sleep(0.3)
    assert server.requests.count("GET jobs") == 2  # it is known by now


def test_pages_that_expire_are_read_again(
    here: tuple[KubeServer, Cluster, Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, cluster, copy = here
    monkeypatch.setattr(api, "PAGE", 1)
    server.add("jobs", job("j0"), job("j1"))
    request, times = cluster._request, [1]

    def late(method: str, path: str, query: Any = None, **more: Any) -> Any:
        if "continue" in (query or {}) and times[0]:
            times[0] -= 1
            server.forget()
        return request(method, path, query, **more)

    cluster._request = late  # type: ignore[method-assign]
    assert names(copy) == ["j0", "j1"]
    times[0] = api.LISTS
    with pytest.raises(UnavailableError, match="its pages expired 3 times"):
        cluster.list("jobs")


def test_many_threads_write_while_it_follows(here: tuple[KubeServer, Cluster, Mirror]) -> None:
    server, cluster, copy = here
    followed(server, copy)

    def write(first: int) -> None:
        for number in range(first, first + 20):
            cluster.create("jobs", job(f"j{number:03}"))
            if number % 2:
                cluster.delete("jobs", f"j{number:03}")

    threads = [threading.Thread(target=write, args=(first,)) for first in range(0, 160, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [f"j{number:03}" for number in range(0, 160, 2)]
    assert names(copy) == expected
    server.settle(copy)
    assert names(copy) == expected
