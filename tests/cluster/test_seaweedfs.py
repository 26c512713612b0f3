"""Tests the chart's own servers as new installs have them: SeaweedFS as the store, a PostgreSQL of few connections, and dumps of it.

The tests depend on each other and run in order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster_release import ROOT, Release, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1200)]

VALUES = Path(__file__).parent / "seaweedfs-values.yaml"
TRIALS, WORKERS = 4, 30
CONNECTIONS_FOR = 20 - 3 - 5 - 2
"""Counts the workers for which a server of 20 connections has room: 3 are its superuser's, 5 spare, 2 the coordinator's."""
KNOCK = """
import json, socket, ssl, sys, urllib.error, urllib.request
host, answers = sys.argv[1], {}
def status(request):
    try:
        return urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code
answers["list"] = status(f"http://{host}:9000/")
answers["get"] = status(f"http://{host}:9000/tailfill/x")
answers["put"] = status(urllib.request.Request(f"http://{host}:9000/tailfill/x", b"x", method="PUT"))
def opens(port):
    try:
        socket.create_connection((host, port), 3).close()
        return True
    except OSError:
        return False
# master, volume, filer, and those of their peers
answers["others"] = [port for port in (9333, 8080, 8888, 19333, 18080, 18888) if opens(port)]
context = ssl._create_unverified_context()
context.set_alpn_protocols(["h2"])
try:
    with context.wrap_socket(socket.create_connection((host, 19000), 5)) as peer:
        peer.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        answers["peers"] = "answered" if peer.recv(1) else "closed"
except OSError as error:
    answers["peers"] = str(error)
print(json.dumps(answers))
"""


def knock(release: Release) -> dict[str, Any]:
    """Returns what the store answers to somebody without keys, from another Pod, since NetworkPolicies may not be enforced."""
    (address,) = [pod["status"]["podIP"] for pod in release.objects("pods", "app.kubernetes.io/component=seaweedfs")]
    command = ["exec", "deployment/study-control", "--", "python", "-c", KNOCK, address]
    found: dict[str, Any] = json.loads(release.kubectl(*command))
    return found


def test_no_more_workers_than_connections(release: Release) -> None:
    """A search that asks for more workers than the server has connections for is held below that, and says so."""
    release.install(VALUES)
    log = wait_for(
        lambda: "fewer tuning workers" in (text := release.kubectl("logs", "deployment/study-control", check=False)) and text,
        "control holds the workers",
        400,
    )  # fmt: skip
    assert f'"connections_for": {CONNECTIONS_FOR}' in log
    assert release.status()["workers"]["database_allows"] == CONNECTIONS_FOR
    said = release.tailfill("status").stdout
    assert f"workers: {WORKERS} allowed" in said
    assert f"PostgreSQL has connections for {CONNECTIONS_FOR}" in said


def test_nobody_without_keys_reads_or_writes(release: Release) -> None:
    answers = knock(release)
    assert (answers["list"], answers["get"], answers["put"]) == (403, 403, 403)
    assert answers["others"] == []
    assert "CERTIFICATE_REQUIRED" in answers["peers"].upper().replace(" ", "_")


def test_a_study_completes_though_the_server_restarts(release: Release) -> None:
    release.kubectl("delete", "pod", "study-seaweedfs-0", "--wait=false")
    wait_for(lambda: release.jobs("report"), "the report's Job", 600, 3.0)
    wait_for(release.all_committed, "the report", 240, 3.0)
    assert [summary["trials"] for summary in release.summaries("tune")] == [TRIALS]


def finished(release: Release, job: str) -> str:
    """Waits for a Job of the dumps' CronJob, and returns its log."""
    release.kubectl("wait", "--for=condition=complete", f"job/{job}", "--timeout=120s")
    return release.kubectl("logs", f"job/{job}")


def trials(release: Release) -> int:
    """Counts the trials in PostgreSQL."""
    command = 'PGPASSWORD=$POSTGRES_PASSWORD psql -h 127.0.0.1 -U tailfill -tAc "SELECT count(*) FROM trials"'
    return int(release.kubectl("exec", "study-postgresql-0", "--", "sh", "-c", command))


def test_a_dump_brings_the_search_back(release: Release) -> None:
    for number in range(2):
        release.kubectl("create", "job", f"dump-{number}", "--from=cronjob/study-dump")
        listed = finished(release, f"dump-{number}")
        assert listed.count(".dump\n") == 1, listed  # `keep` is 1
    before = trials(release)
    assert before >= TRIALS
    command = 'PGPASSWORD=$POSTGRES_PASSWORD psql -h 127.0.0.1 -U tailfill -c "DROP SCHEMA public CASCADE; CREATE SCHEMA public"'
    release.kubectl("exec", "study-postgresql-0", "--", "sh", "-c", command)
    made = release.kubectl("create", "job", "restore", "--from=cronjob/study-dump", "--dry-run=client", "-o", "json")
    made = release.kubectl("set", "env", "--local", "-f", "-", "RESTORE=latest", "-o", "json", text=made)
    release.kubectl("create", "-f", "-", text=made)
    assert "restored " in finished(release, "restore")
    assert trials(release) == before


def test_another_store_does_not_take_its_place(release: Release) -> None:
    with pytest.raises(
        AssertionError, match=r"StatefulSet study-seaweedfs: holds the results .* remove minio.enabled=true"
    ):
        release.helm("upgrade", release.name, str(ROOT / "helm"), "--set", "minio.enabled=true")
    release.helm("uninstall", release.name)
    with pytest.raises(
        AssertionError, match="PersistentVolumeClaim data-study-seaweedfs-0: holds the results of an earlier"
    ):
        release.helm("install", release.name, str(ROOT / "helm"), "--set", "minio.enabled=true")


def test_an_upgrade_of_a_release_with_minio_names_the_remedy(release: Release) -> None:
    release.name = "old"
    try:
        release.install()  # MinIO, as k8s/kind-values.yaml says
        for values in (["--reset-values"], ["--set", "s3.store=s3://tailfill"]):
            with pytest.raises(
                AssertionError, match=r"StatefulSet old-minio: holds .* set minio.enabled=true to keep it"
            ):
                release.helm("upgrade", "old", str(ROOT / "helm"), *values)
        release.helm("upgrade", "old", str(ROOT / "helm"), "--set", "minio.enabled=true", "--dry-run=server")
        release.helm("uninstall", "old")
        with pytest.raises(AssertionError, match=r"data-old-minio-0: holds .* set minio.enabled=true to continue"):
            release.helm("install", "old", str(ROOT / "helm"))
    finally:
        release.name = "study"
