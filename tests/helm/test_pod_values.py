"""Tests the values that are merged into Pods and Jobs, and what the chart keeps."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.config.stages import STAGES
from tests.support.rendered import any_program, ci, environment, jobs, one, pods, program, rendered, run_helm

PLATFORM = ci("platform")
ROLES = ["control", "seaweedfs", "postgresql", *(f"stages.{stage}" for stage in STAGES), "workers"]
KEPT = {"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}


def templates(*values: str, helm: str | None = None) -> dict[str, dict[str, Any]]:
    """Returns the template of each role's Pods, by the name of its values."""
    objects = rendered(helm or any_program(), *values)
    found = {f"stages.{name}": job["spec"]["template"] for name, job in jobs(objects).items()}
    found["workers"] = found.pop("stages.worker")
    for each in objects:
        if each["kind"] in ("Deployment", "StatefulSet") and not each["spec"].get("paused"):
            found[each["metadata"]["name"].removeprefix("study-")] = each["spec"]["template"]
    return found


def refused(*values: str) -> str:
    ended = run_helm(any_program(), "template", *values)
    assert ended.returncode != 0
    return ended.stderr


def set_json(path: str, value: object) -> tuple[str, str]:
    return "--set-json", f"{path}={json.dumps(value)}"


@pytest.mark.parametrize("name", ["helm", "helm4"])
def test_every_role_has_the_same_merge(name: str) -> None:
    main = {"seaweedfs": "seaweedfs", "postgresql": "postgresql"}
    values: list[str] = []
    for role in ROLES:
        spec = {
            "nodeSelector": {"zone": "a"},
            "tolerations": [{"key": "mine", "operator": "Exists"}],
            "securityContext": {"supplementalGroups": [7]},
            "volumes": [{"name": "more", "emptyDir": {}}],
            "initContainers": [{"name": "first", "image": "busybox:1"}],
            "containers": [
                {
                    "name": main.get(role, "main"),
                    "env": [{"name": "MORE", "value": "1"}],
                    "volumeMounts": [{"name": "more", "mountPath": "/more"}],
                },
                {"name": "beside", "image": "busybox:1"},
            ],
        }
        values += set_json(f"{role}.podSpec", spec)
        values += set_json(f"{role}.podMetadata", {"labels": {"team": "vision"}, "annotations": {"note": "mine"}})
    before, after = templates(helm=program(name)), templates(*values, helm=program(name))
    assert list(before) == list(after)
    assert set(after) == set(ROLES)
    for role, template in after.items():
        old, new = before[role]["spec"], template["spec"]
        assert template["metadata"]["labels"] == before[role]["metadata"]["labels"] | {"team": "vision"}
        assert template["metadata"]["annotations"].items() >= {"note": "mine"}.items()
        assert new["nodeSelector"] == {"zone": "a"}
        assert new["tolerations"] == [{"key": "mine", "operator": "Exists"}]
        assert new["securityContext"] == old["securityContext"] | {"supplementalGroups": [7]}
        assert new["volumes"] == [*old["volumes"], {"name": "more", "emptyDir": {}}]
        (container,), (first, beside) = old["containers"], new["containers"]
        changed = ("env", "volumeMounts")
        assert {key: first[key] for key in first if key not in changed} == {
            key: container[key] for key in container if key not in changed
        }
        assert first["env"] == [*container["env"], {"name": "MORE", "value": "1"}]
        assert first["volumeMounts"] == [*container["volumeMounts"], {"name": "more", "mountPath": "/more"}]
        assert (beside["name"], new["initContainers"][0]["name"]) == ("beside", "first")


def test_lists_of_the_defaults_and_of_a_stage_are_both_appended() -> None:
    found = templates(*PLATFORM)
    keys = {role: [each["key"] for each in found[role]["spec"].get("tolerations", [])] for role in found}
    assert keys.pop("control") == []
    assert keys.pop("stages.final") == ["team", "low-priority"]
    assert all(each == ["team"] for each in keys.values())
    final = found["stages.final"]["spec"]
    assert environment(final)["NCCL_DEBUG"] == "WARN"
    (tmp,) = (volume for volume in final["volumes"] if volume["name"] == "tmp")
    assert set(tmp) == {"name", "ephemeral"}  # an entry replaces the chart's of its name
    assert [volume["name"] for volume in final["volumes"]].index("tmp") == 3  # at its place


def test_a_mount_is_known_by_its_path_and_a_key_is_removed_by_null() -> None:
    spec = {
        "containers": [
            {"name": "main", "terminationMessagePolicy": None, "volumeMounts": [
                {"name": "tmp", "mountPath": "/tmp", "subPath": "a"}, {"name": "tmp", "mountPath": "/scratch", "subPath": "b"},
            ]}
        ]
    }  # fmt: skip
    (main,) = templates(*set_json("stages.judge.podSpec", spec))["stages.judge"]["spec"]["containers"]
    assert "terminationMessagePolicy" not in main
    assert [mount["mountPath"] for mount in main["volumeMounts"] if mount["name"] == "tmp"] == ["/tmp", "/scratch"]
    assert {mount.get("subPath") for mount in main["volumeMounts"]} == {None, "a", "b"}


@pytest.mark.parametrize("name", ["helm", "helm4"])
def test_trainings_are_not_ended_to_save_a_node(name: str) -> None:
    trainings = {"stages.finetune", "stages.judge", "stages.final", "workers"}
    found = {
        role: template["metadata"].get("annotations", {}) for role, template in templates(helm=program(name)).items()
    }
    assert {role for role, annotations in found.items() if annotations.items() >= KEPT.items()} == trainings
    assert not {key for role in found.keys() - trainings for key in found[role]} & KEPT.keys()
    assert templates(*PLATFORM, helm=program(name))["stages.finetune"]["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "sidecar.istio.io/inject": "false",
    }
    nothing = templates(*set_json("workers.podMetadata", {"annotations": dict.fromkeys(KEPT)}), helm=program(name))
    assert not nothing["workers"]["metadata"].get("annotations")


def test_jobs_have_labels_and_annotations_of_their_own() -> None:
    more = {"labels": {"cost": "7"}, "annotations": {"note": "mine", "kueue.x-k8s.io/job-max-exec-time": "9"}}
    found = jobs(
        rendered(
            any_program(),
            *set_json("stages.defaults.jobMetadata", more),
            *set_json("workers.jobMetadata", {"labels": {"cost": "8"}}),
        )
    )
    plain = jobs(rendered(any_program()))
    for name, job in found.items():
        cost = {"cost": "8" if name == "worker" else "7"}
        assert job["metadata"]["labels"] == plain[name]["metadata"]["labels"] | cost
        assert job["metadata"]["annotations"].items() >= more["annotations"].items()
        assert job["spec"] == plain[name]["spec"]
    assert found["final"]["metadata"]["annotations"]["tailfill/parallelism"] == "1"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("stages.final.podSpec", {"restartPolicy": "OnFailure"}, "stages.final.podSpec.restartPolicy: the chart itself sets it; remove it"),
        ("stages.defaults.podSpec", {"terminationGracePeriodSeconds": 99}, "sets it by stages.final.terminationGracePeriodSeconds; remove it"),
        ("workers.podSpec", {"volumes": [{"name": "task", "emptyDir": {}}]}, "workers.podSpec.volumes: the chart itself has a volume task"),
        ("control.podSpec", {"volumes": [{"name": "stages", "emptyDir": {}}]}, "control.podSpec.volumes: the chart itself has a volume stages"),
        ("control.podSpec", {"containers": [{"name": "main", "args": ["x"]}]}, "control.podSpec.containers: the chart itself sets the args"),
        ("workers.podSpec", {"containers": [{"name": "main", "volumeMounts": [{"name": "x", "mountPath": "/etc/tailfill/task"}]}]}, "mounts files below"),
        ("stages.judge.podSpec", {"containers": [{"name": "main", "volumeMounts": None}]}, "got null, want array"),
        ("control.env", [{"name": "TAILFILL_RELEASE", "value": "x"}], "control: the chart itself sets the variable TAILFILL_RELEASE; remove it"),
        ("workers.podSpec", {"containers": [{"name": "main", "env": [{"name": "TAILFILL_DEVICE", "value": "x"}]}]}, "sets the variable TAILFILL_DEVICE"),
        ("stages.judge.podMetadata", {"labels": {"app.kubernetes.io/instance": "x"}}, "podMetadata.labels: the chart itself sets app.kubernetes.io/instance"),
        ("control.podMetadata", {"annotations": {"tailfill/task": "x"}}, "control.podMetadata.annotations: the chart itself sets tailfill/task"),
        ("workers.jobMetadata", {"labels": {"tailfill/role": "x"}}, "workers.jobMetadata.labels: the chart itself sets tailfill/role"),
        ("seaweedfs.podMetadata", {"labels": {"app.kubernetes.io/component": "x"}}, "seaweedfs.podMetadata.labels: the chart itself sets"),
        ("workers.podSpec", {"containers": [{"name": "mian"}]}, "workers.podSpec.containers: mian has no image; the chart's own container is main"),
        ("seaweedfs.podSpec", {"containers": [{"name": "main"}]}, "seaweedfs.podSpec.containers: main has no image; the chart's own container is seaweedfs"),
        ("serviceAccount", {"control": {"name": "a"}, "stage": {"name": "a"}}, "are the same: stages need no rights"),
        ("stages.judge.podSpec", {"toleration": []}, "value must be one of 'activeDeadlineSeconds'"),
        ("control.podSpec", {"containers": [{"name": "main", "enviroment": []}]}, "value must be one of 'args'"),
        ("control.podSpec", {"containers": [{"image": "x"}]}, "missing property 'name'"),
        ("stages.judge.podMetadata", {"label": {}}, "additional properties 'label' not allowed"),
        ("seaweedfs.jobMetadata", {}, "additional properties 'jobMetadata' not allowed"),
        ("stages.judge.cacheClaim", "x", "additional properties 'cacheClaim' not allowed"),
        ("image.digests", {"tuning": "sha256:" + "0" * 64}, "additional properties 'tuning' not allowed"),
        ("image.digests", {"tune": "latest"}, "does not match pattern"),
        ("s3.addressing", "dns", "value must be one of 'path', 'virtual', 'auto'"),
        ("networkPolicy.egress.dnsPorts", [], "minItems"),
        ("serviceAccount.create", False, "serviceAccount.create=false needs the names of accounts that exist"),
        ("database.caSecret", "ca", "the chart's own PostgreSQL has no TLS"),
        ("s3", {"caSecret": "a", "caConfigMap": "b"}, "s3.caSecret and s3.caConfigMap both name a certificate authority"),
    ],
)  # fmt: skip
def test_what_the_chart_relies_on_stays(path: str, value: object, message: str) -> None:
    assert message in refused(*set_json(path, value))


def test_a_variable_of_ones_own_replaces_the_charts() -> None:
    """Kubernetes refuses a list with a name twice."""
    env = [{"name": "HF_HUB_OFFLINE", "value": "0"}, {"name": "OMP_NUM_THREADS", "value": "7"}]
    found = templates(*set_json("stages.defaults.env", env), *set_json("control.env", env[:1]))
    assert environment(found["stages.judge"]["spec"])["OMP_NUM_THREADS"] == "7"
    assert all(
        environment(template["spec"])["HF_HUB_OFFLINE"] == "0"
        for role, template in found.items()
        if role not in ("seaweedfs", "postgresql")
    )


def test_postgresql_may_get_more_arguments() -> None:
    spec = {
        "containers": [{"name": "postgresql", "args": ["-c", "shared_buffers=1GB"]}],
        "terminationGracePeriodSeconds": 120,
    }
    found = templates(*set_json("postgresql.podSpec", spec))["postgresql"]["spec"]
    assert found["containers"][0]["args"] == ["postgres", "-c", "max_connections=200", "-c", "shared_buffers=1GB"]
    assert found["terminationGracePeriodSeconds"] == 120


def test_scratch_has_sizes() -> None:
    found = templates(*PLATFORM)
    sizes = {
        role: {
            volume["name"]: volume["emptyDir"].get("sizeLimit")
            for volume in template["spec"]["volumes"]
            if "emptyDir" in volume
        }
        for role, template in found.items()
    }
    assert sizes["stages.judge"] == {"shm": "1Gi", "cache": "20Gi", "tmp": "10Gi"}
    assert sizes["workers"] == {"shm": "1Gi", "tmp": "10Gi"}
    assert sizes["control"] == {"cache": None, "tmp": None}
    assert found["stages.judge"]["spec"]["containers"][0]["resources"]["requests"]["ephemeral-storage"] == "30Gi"


def test_a_worker_has_a_folder_of_its_own_in_a_claim_that_outlives_it() -> None:
    found = templates(*PLATFORM)
    worker = found["workers"]["spec"]
    assert {"name": "cache", "persistentVolumeClaim": {"claimName": "features"}} in worker["volumes"]
    env = environment(worker)
    assert env["TAILFILL_CACHE"] == "/cache/worker-$(TAILFILL_WORKER)"
    assert env["TAILFILL_WORKER"] == {"fieldRef": {"fieldPath": "metadata.labels['tailfill/worker']"}}
    names = list(env)
    assert names.index("TAILFILL_WORKER") < names.index(
        "TAILFILL_CACHE"
    )  # else Kubernetes leaves the reference as it is
    others = [environment(template["spec"]) for role, template in found.items() if role != "workers"]
    assert {each["TAILFILL_CACHE"] for each in others} == {"/cache"}


def test_one_registry_replaces_the_hosts_of_all_images() -> None:
    def images(*values: str) -> dict[str, str]:
        return {name: spec["containers"][0]["image"] for name, spec in pods(rendered(any_program(), *values))}

    found = images(
        "--set",
        "global.imageRegistry=mirror.example.org/proxy",
        "--set",
        "stages.judge.image=team/judge:7,stages.score.image=localhost:5000/score:7",
    )
    assert found["StatefulSet seaweedfs"].startswith("mirror.example.org/proxy/chrislusf/seaweedfs:")
    assert found["StatefulSet postgresql"] == "mirror.example.org/proxy/library/postgres:18.3"
    assert found["Deployment control"] == "mirror.example.org/proxy/tailfill/control:0.1.0"
    assert found["Job judge"] == "mirror.example.org/proxy/team/judge:7"
    assert found["Job score"] == "mirror.example.org/proxy/score:7"
    of_platform = images(*PLATFORM)
    assert of_platform["Deployment control"] == "mirror.example.org/proxy/team/tailfill/control@sha256:" + "1" * 64
    assert of_platform["Job tune"] == "mirror.example.org/proxy/team/tailfill/slim:0.1.0"
    assert of_platform["Job finetune"] == "mirror.example.org/proxy/team/tailfill/finetune@sha256:" + "2" * 64
    assert of_platform["Job worker"] == "mirror.example.org/proxy/team/tailfill/tune:0.1.0"


def test_secrets_of_registries_are_those_of_the_parent_too() -> None:
    values = (
        "--set-json",
        'global={"imagePullSecrets": ["mine", {"name": "other"}]}',
        "--set-json",
        'image.pullSecrets=[{"name": "other"}]',
    )
    for _, spec in pods(rendered(any_program(), *values)):
        assert spec["imagePullSecrets"] == [{"name": "other"}, {"name": "mine"}]


def test_accounts_and_roles_may_be_an_administrators() -> None:
    objects = rendered(any_program(), *PLATFORM)
    assert not {each["kind"] for each in objects} & {"ServiceAccount", "Role", "RoleBinding"}
    accounts = {name: spec["serviceAccountName"] for name, spec in pods(objects)}
    assert accounts.pop("Deployment control") == "tailfill"
    assert set(accounts.values()) == {"tailfill-stage"}
    role = ("--set", "rbac.create=true", "--show-only", "templates/control/role.yaml")  # as helm/README.md has it
    assert rendered(any_program(), *PLATFORM, *role) == (one(rendered(any_program()), "Role", "study-control"),)
    named = rendered(any_program(), "--set", "serviceAccount.control.name=mine,serviceAccount.stage.name=theirs")
    assert {each["metadata"]["name"] for each in named if each["kind"] == "ServiceAccount"} == {"mine", "theirs"}
    assert one(named, "RoleBinding", "study-control")["subjects"][0]["name"] == "mine"


def test_dns_is_where_the_cluster_has_it() -> None:
    def ports(*values: str) -> list[tuple[int, str]]:
        policy = one(
            rendered(any_program(), "--set", "networkPolicy.egress.enabled=true", *values), "NetworkPolicy", "study-all"
        )
        return [(each["port"], each["protocol"]) for each in policy["spec"]["egress"][0]["ports"]]

    assert ports() == [(53, "UDP"), (53, "TCP")]
    assert ports(*set_json("networkPolicy.egress.dnsPorts", [53, 5353])) == [
        (53, "UDP"),
        (53, "TCP"),
        (5353, "UDP"),
        (5353, "TCP"),
    ]
