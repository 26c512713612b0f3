"""Tests a small study on a real cluster, from `helm install` to an empty namespace, while its Pods are killed, evicted and restarted.

The tests depend on each other and run in order: the last removes what the first has installed.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from jobs.cli.stage import run_within
from shared.config.load import study_from_tree
from shared.pipeline.local_session import local_session
from shared.pipeline.plan import make_task
from shared.pipeline.session import Fingerprints
from shared.stop import StopSignal
from tests.support.cluster_release import KEPT, Release, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1200)]

HERE = Path(__file__).parent
VALUES = HERE / "small-values.yaml"
STUDY = yaml.safe_load(VALUES.read_text())["study"]
TRIALS = STUDY["search"]["trials"]


def changed(folder: Path, **sections: object) -> Path:
    """Returns the values with parts of the study replaced."""
    values = yaml.safe_load(VALUES.read_text())
    values["study"] |= sections
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_install_and_scale_to_nothing_at_once(release: Release) -> None:
    said = release.install(VALUES)
    release.kubectl("scale", "deployment/study-tune", "--replicas=0")
    assert "kubectl" in said  # NOTES.txt shows the next command
    wait_for(lambda: release.pods("control", "Running"), "control runs", 300)
    assert not release.workers(None)


def test_a_killed_finetune_goes_on(release: Release) -> None:
    wait_for(lambda: release.jobs("prepare"), "prepare's Job", 240)
    (pod,) = wait_for(lambda: release.pods("finetune", "Running"), "finetune runs", 300)
    wait_for(lambda: release.progress(pod) > 20, "twenty steps", 120, 0.5)
    release.kubectl("delete", "pod", pod, "--wait=false")
    (after,) = wait_for(lambda: [p for p in release.pods("finetune", "Running") if p != pod], "it is tried again", 120)
    wait_for(lambda: release.progress(after) > 0, "it goes on", 120, 0.5)
    first = next(done for done in release.progresses(after))
    assert first >= 20  # from its checkpoint, not from the start
    wait_for(lambda: release.steps().get("finetune", {}).get("state") == "committed", "finetune is committed", 300)


def test_prepare_is_the_same_as_on_one_machine(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILFILL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    with local_session(study_from_tree(STUDY), Fingerprints(None, {}), tmp_path) as local:
        study = local.session
        task = make_task(study.study, study.steps[0], {})
        manifest = run_within(task, study.artifacts, study.settings, StopSignal())
    assert release.manifests()[f"prepare/{task.key}"] == manifest.digest


def test_searches_wait_for_workers_and_say_so(release: Release) -> None:
    wait_for(lambda: release.jobs("tune"), "a coordinator", 240)
    found = wait_for(lambda: release.searches().get("tune real"), "the search of the real arm has begun", 240)
    assert (found["finished"], found["queued"]) == (0, TRIALS)
    assert "no worker" in str(found["stall"])


def test_workers_come_and_go(release: Release) -> None:
    """Scales from 0 to 2 workers, kills one, kills control, drains the node, restarts PostgreSQL and MinIO, and scales to 1 worker."""
    release.kubectl("scale", "deployment/study-tune", "--replicas=2")
    first = wait_for(lambda: len(found := release.workers()) == 2 and found, "two workers", 240)
    wait_for(lambda: sum(int(str(s["running"])) for s in release.searches().values()), "a trial runs", 240)
    release.kubectl("delete", "pod", first[0], "--wait=false")
    release.kubectl("delete", "pod", *release.pods("control"), "--wait=false")
    wait_for(lambda: len(release.workers()) == 2 and first[0] not in release.workers(), "the worker is replaced", 240)
    (node,) = {
        pod["spec"]["nodeName"] for pod in release.objects("pods", "tailfill/role=worker") if "nodeName" in pod["spec"]
    }
    drain = [
        "drain",
        node,
        "--pod-selector=tailfill/role=worker",
        "--delete-emptydir-data",
        "--ignore-daemonsets",
        "--timeout=120s",
    ]
    try:
        release.kubectl(*drain)
    finally:
        release.kubectl("uncordon", node)
    release.kubectl("delete", "pod", "study-postgresql-0", "study-minio-0", "--wait=false")
    release.kubectl("scale", "deployment/study-tune", "--replicas=1")
    wait_for(lambda: len(release.workers()) == 1, "one worker", 120)
    # interrupted trials continue from the epoch after their last checkpoint
    wait_for(lambda: any(epochs > 0 for epochs in release.begun_at()), "a trial is resumed", 240)
    assert sum(int(str(search["resumes"])) for search in release.searches().values()) >= 1


def test_a_final_training_with_the_best_so_far(release: Release) -> None:
    def has_value() -> bool:
        step = release.steps().get("tune real", {})
        return step.get("state") == "committed" or (step.get("search") or {}).get("best") is not None

    wait_for(has_value, "a value", 240)
    done = release.tailfill("submit", "final", "--experiment", "real", "--seeds", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert [row["seed"] for row in json.loads(done.stdout)] == [0]


def test_an_upgrade_resets_no_replicas_and_disturbs_no_job(release: Release, tmp_path: Path) -> None:
    before = {name: job["metadata"]["uid"] for name, job in release.jobs("tune").items()}
    values = changed(tmp_path, final={"epochs": 3, "seeds": 1})
    release.install(values, program=os.environ.get("HELM4") or shutil.which("helm4"))
    (deployment,) = [d for d in release.objects("deployments") if d["metadata"]["name"] == "study-tune"]
    assert deployment["spec"]["replicas"] == 1
    after = {name: job["metadata"]["uid"] for name, job in release.jobs("tune").items()}
    assert before.items() <= after.items()


def test_the_study_ends_with_exactly_so_many_trials(release: Release) -> None:
    wait_for(lambda: release.jobs("report"), "the report's Job", 900, 3.0)
    release.kubectl(
        "wait",
        "--for=condition=complete",
        "job",
        "-l",
        "app.kubernetes.io/component=report",
        "--timeout=240s",
        seconds=300,
    )
    wait_for(lambda: release.all_committed(), "all is committed", 60)
    steps = release.steps()
    found = release.summaries("tune")
    assert [summary["trials"] for summary in found] == [TRIALS, TRIALS]
    assert [summary["failed"] for summary in found] == [0, 0]
    # nothing was run under two keys; one more training may have started before the end of the search
    keys = {f"{step['stage']}/{step['key']}" for step in steps.values()}
    assert {key.split("/")[0] for key in release.manifests().keys() - keys} <= {"final"}


def test_nothing_holds_a_gpu_at_the_end(release: Release) -> None:
    def looked() -> bool:
        found = release.status()
        workers = found["workers"]
        return (found["gpus_held"], workers["all"], workers["waiting"]) == (0, 1, 1)

    wait_for(looked, "no GPU is held", 60)
    release.kubectl("scale", "deployment/study-tune", "--replicas=2")
    found = wait_for(lambda: (said := release.status())["workers"]["all"] == 2 and said, "two workers are allowed", 60)
    assert (found["workers"]["waiting"], found["gpus_held"], release.workers("Pending")) == (2, 0, [])


def test_the_report_comes_here(release: Release, tmp_path: Path) -> None:
    done = release.tailfill("report", "--workdir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "</html>" in Path(done.stdout.strip()).read_text()


def test_a_changed_value_makes_only_what_hangs_on_it_run(release: Release, tmp_path: Path) -> None:
    before = release.manifests()
    release.install(changed(tmp_path, final={"epochs": 2, "seeds": 1}))

    def added() -> list[str]:
        return sorted(key.split("/")[0] for key in release.manifests().keys() - before.keys())

    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=120s")
    wait_for(lambda: added() == ["final", "final", "report"], "two trainings and a report", 400, 3.0)
    assert before.items() <= release.manifests().items()


def test_submit_final(release: Release, tmp_path: Path) -> None:
    done = release.tailfill("submit", "final", "--experiment", "real", "--seeds", "2", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["experiment"], row["seed"]) for row in rows] == [("real", 0), ("real", 1)]
    assert all(0 <= row["metrics"]["macro_f1"] <= 1 for row in rows)
    assert "[real 1] epoch 2/2" in done.stderr  # the training's own log
    refused = release.tailfill("submit", "final", "--experiment", "none")
    assert (refused.returncode, "there is no such experiment; there are real, synthetic" in refused.stderr) == (2, True)


def test_uninstall_leaves_the_data_and_their_secret(release: Release) -> None:
    before = release.manifests()
    release.helm("uninstall", release.name)

    wait_for(lambda: release.left() == KEPT, "nothing is left but claims and their Secret", 120)

    release.install(VALUES)
    wait_for(lambda: release.pods("control", "Running"), "control runs again", 240)
    done = wait_for(lambda: release.tailfill("status", "--json").returncode == 0, "services are back", 240)
    assert done
    wait_for(
        lambda: release.all_committed(),
        "all is found committed",
        240,
        3.0,
    )
    assert release.manifests() == before
    assert not release.jobs("prepare")
