"""Tests who may look at a release and who may change what runs, as users of their own, and that a request outlives its terminal.

The tests depend on each other and run in order.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.support.cluster_release import Release, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

VALUES = Path(__file__).parent / "small-values.yaml"
LABELS = {"app.kubernetes.io/instance": "study", "tailfill/request": "final"}


def values(folder: Path) -> Path:
    """Writes values for one training of some seconds and a report, without a search."""
    tree = yaml.safe_load(VALUES.read_text())
    tree["study"] |= {"name": "people", "experiments": [{"name": "real", "images": "real"}]}
    tree["study"]["search"]["trials"] = 0
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def kubeconfig(release: Release, folder: Path, role: str) -> Path:
    """Returns the kubeconfig of a service account that is bound to the chart's Role, and has no other right."""
    release.kubectl("create", "serviceaccount", role)
    bound = f"--serviceaccount={release.namespace}:{role}"
    release.kubectl("create", "rolebinding", role, f"--role=study-{role}", bound)
    config = json.loads(release.kubectl("config", "view", "--minify", "--raw", "-o", "json"))
    config["users"] = [
        {"name": role, "user": {"token": release.kubectl("create", "token", role, "--duration=2h").strip()}}
    ]
    config["contexts"][0]["context"] |= {"user": role, "namespace": release.namespace}
    path = folder / f"{role}.kubeconfig"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def people(release: Release, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Installs the release, and returns the kubeconfigs of a viewer and an editor."""
    folder = tmp_path_factory.mktemp("people")
    release.install(values(folder))
    return {role: kubeconfig(release, folder, role) for role in ("viewer", "editor")}


def may(release: Release, config: Path, verb: str, what: str) -> bool:
    """Returns whether a user may do something."""
    said = release.kubectl("--kubeconfig", str(config), "auth", "can-i", verb, *what.split(), check=False)
    return said.strip().splitlines()[-1] == "yes"


def requests(release: Release) -> dict[str, dict[str, object]]:
    """Returns what the status says of each request."""
    return {each["request"]: each for each in release.status()["requests"]}


def test_a_viewer_sees_the_status_and_the_report(release: Release, people: dict[str, Path], tmp_path: Path) -> None:
    wait_for(lambda: release.tailfill("status", "--json").returncode == 0, "control answers", 400, 3.0)
    done = release.tailfill("status", kubeconfig=people["viewer"])
    assert done.returncode == 0, done.stderr
    assert "control: running" in done.stdout
    wait_for(release.all_committed, "the report", 600, 3.0)
    report = release.tailfill("report", "--workdir", str(tmp_path), kubeconfig=people["viewer"])
    assert report.returncode == 0, report.stderr
    assert "</html>" in Path(report.stdout.strip()).read_text()


def test_a_viewer_changes_nothing_and_reads_no_secret(release: Release, people: dict[str, Path]) -> None:
    viewer = people["viewer"]
    done = release.tailfill("submit", "final", "--seeds", "1", kubeconfig=viewer)
    assert (done.returncode, "is forbidden" in done.stderr) == (2, True), done.stderr
    for verb, what in (
        ("create", "configmaps"), ("delete", "configmaps/anything"), ("get", "secrets"), ("list", "secrets"), ("create", "pods --subresource=exec"),
        ("get", "pods --subresource=exec"), ("create", "pods"), ("create", "jobs"), ("delete", "pods"), ("patch", "deployments/study-tune --subresource=scale"),
    ):  # fmt: skip
        assert not may(release, viewer, verb, what), (verb, what)
    assert not requests(release)


def test_an_editor_changes_what_runs_and_nothing_of_the_chart(release: Release, people: dict[str, Path]) -> None:
    editor = people["editor"]
    scaled = release.kubectl("--kubeconfig", str(editor), "scale", "deployment/study-tune", "--replicas=0", check=False)
    assert "scaled" in scaled
    for verb, what in (
        ("delete", "configmaps/study-stages"), ("patch", "configmaps/study-stages"), ("update", "configmaps/anything"), ("get", "secrets"),
        ("create", "pods --subresource=exec"), ("create", "pods"), ("create", "jobs"), ("patch", "deployments/study-control"),
    ):  # fmt: skip
        assert not may(release, editor, verb, what), (verb, what)
    assert not may(release, editor, "delete", "configmaps")
    assert may(release, editor, "create", "configmaps")


def test_a_request_outlives_its_terminal_and_a_restart_of_control(release: Release, people: dict[str, Path]) -> None:
    command = release.command("submit", "final", "--experiment", "real", "--seeds", "3")
    environment = os.environ | {"KUBECONFIG": str(people["editor"])}
    with subprocess.Popen(command, cwd=release.code, env=environment) as terminal:
        wait_for(lambda: release.jobs("final") and requests(release), "the request is accepted", 120)
        terminal.send_signal(signal.SIGKILL)
    release.kubectl("delete", "pod", *release.pods("control"), "--wait=false")
    done = wait_for(lambda: _state(release) == "done", "the request is done", 400, 3.0)
    assert done
    (told,) = requests(release).values()
    assert [(each["seed"], each["committed"]) for each in told["trainings"]] == [(0, True), (1, True), (2, True)]  # type: ignore[attr-defined]
    jobs = {name: job["metadata"]["uid"] for name, job in release.jobs("final").items()}
    release.kubectl("rollout", "restart", "deployment/study-control")
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=240s")
    wait_for(lambda: _state(release) == "done", "the request is still done", 120)
    time.sleep(15)  # in which control would make Jobs again
    assert {name: job["metadata"]["uid"] for name, job in release.jobs("final").items()} == jobs


def _state(release: Release) -> object:
    done = release.tailfill("status", "--json")
    if done.returncode == 75:  # control restarts
        return None
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout).get("requests", ())
    return next((each["state"] for each in listed), None)


def test_an_editor_withdraws_a_request(release: Release, people: dict[str, Path]) -> None:
    ((name, _),) = requests(release).items()
    refused = release.tailfill("submit", "withdraw", name, kubeconfig=people["viewer"])
    assert (refused.returncode, "is forbidden" in refused.stderr) == (2, True), refused.stderr
    done = release.tailfill("submit", "withdraw", name, kubeconfig=people["editor"])
    assert done.returncode == 0, done.stderr
    wait_for(lambda: not requests(release), "the request is gone", 60)


def test_hostile_requests_are_refused_each_with_its_reason(release: Release) -> None:
    bad: dict[str, dict[str, object]] = {
        "study-request-4": {"data": {"study": "people", "seeds": "many"}},
        "study-request-5": {"data": {"study": "people", "params": "x" * 900_000}},
        "study-request-6": {"data": {"study": "people", "experimnt": "real"}},
        "study-request-7": {"data": {"study": "people"}, "labels": {"app.kubernetes.io/instance": "other"}},
        "study-request-8": {"data": {"study": "people", "params": "[" * 50_000}},
        "study-request-9": {"data": {"study": "people", "experiment": "none"}},
    }
    for name, made in bad.items():
        labels = LABELS | made.get("labels", {})  # type: ignore[operator]
        found = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": labels},
            "data": made["data"],
        }
        release.kubectl("create", "-f", "-", text=json.dumps(found))
    wait_for(lambda: bad.keys() <= requests(release).keys(), "all are told", 60)
    said = {name: str(each["reason"]) for name, each in requests(release).items() if each["state"] == "refused"}
    assert said.keys() == bad.keys()
    assert "seeds must be a whole number" in said["study-request-4"]
    assert "bytes, which no request has" in said["study-request-5"]
    assert "did you mean experiment?" in said["study-request-6"]
    assert "is 'other', and this release is study" in said["study-request-7"]
    assert "not valid YAML" in said["study-request-8"]
    assert "there is no such experiment" in said["study-request-9"]
    (control,) = release.objects("pods", "app.kubernetes.io/component=control")
    assert control["status"]["containerStatuses"][0]["restartCount"] == 0
    release.helm("uninstall", release.name)
