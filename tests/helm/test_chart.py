"""Tests what the chart renders: first with each version of Helm, then what control, the cluster and users rely on."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shared.config.stages import STAGES
from tests.support.rendered import CHART, CI, any_program, ci, environment, jobs, one, pods, program, rendered, run_helm

CASES = [pytest.param((), id="defaults"), *(pytest.param(("-f", str(file)), id=file.stem) for file in CI)]
GPU = ci("gpu")
TASK = "/etc/tailfill/task/task.json"


def cpu(quantity: str | int) -> int:
    """Returns a quantity of CPU in thousandths of a core."""
    text = str(quantity)
    return int(text[:-1]) if text.endswith("m") else int(float(text) * 1000)


@pytest.mark.parametrize("name", ["helm", "helm4"])
@pytest.mark.parametrize("values", CASES)
def test_it_lints_and_renders(name: str, values: tuple[str, ...]) -> None:
    helm = program(name)
    ended = run_helm(helm, "lint", "--strict", *values)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert set(jobs(rendered(helm, *values))) == {*STAGES, "worker"}


@pytest.mark.parametrize("values", CASES)
def test_every_pod_passes_the_restricted_standard(values: tuple[str, ...]) -> None:
    found = dict(pods(rendered(any_program(), *values)))
    assert {"Deployment control", "Job worker", *(f"Job {stage}" for stage in STAGES)} <= set(found)
    for name, spec in found.items():
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["automountServiceAccountToken"] is (name == "Deployment control"), name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        allowed = {"emptyDir", "configMap", "downwardAPI", "persistentVolumeClaim", "projected", "ephemeral", "name"}
        assert all(set(volume) <= allowed for volume in spec["volumes"]), name
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert "cpu" not in container["resources"].get("limits", {}), name
            assert re.search(r":[^/]+$|@sha256:", container["image"]), f"{name}: {container['image']} is not pinned"


@pytest.mark.parametrize("values", CASES)
def test_a_job_is_whole_but_for_what_control_adds(values: tuple[str, ...]) -> None:
    objects = rendered(any_program(), *values)
    for stage, job in ((stage, job) for stage, job in jobs(objects).items() if stage != "worker"):
        assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
        assert not {"name", "namespace", "ownerReferences"} & set(job["metadata"])
        template, labels = job["spec"]["template"], job["metadata"]["labels"]
        assert labels == template["metadata"]["labels"]
        assert {key.rpartition("/")[2]: value for key, value in labels.items() if key.startswith("app.")} == {
            "name": "tailfill",
            "instance": "study",
            "managed-by": "tailfill-control",
            "component": stage,
        }
        assert ("suspend" in job["spec"]) is ("kueue.x-k8s.io/queue-name" in labels)
        ignore, fail, told_to_end = job["spec"]["podFailurePolicy"]["rules"]
        assert (ignore["action"], ignore["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
        assert fail["action"] == "FailJob"
        assert fail["onExitCodes"] == {"containerName": "main", "operator": "In", "values": [2]}
        assert (told_to_end["action"], told_to_end["onExitCodes"]["values"]) == ("Ignore", [143])
        spec = template["spec"]
        assert spec["restartPolicy"] == "Never"
        for account in (each for each in objects if each["kind"] == "ServiceAccount"):
            assert account["automountServiceAccountToken"] is False
        (main,) = spec["containers"]
        assert (main["name"], main["args"]) == ("main", ["--log", "json", "stage", stage, "--config", TASK])
        assert main["terminationMessagePolicy"] == "FallbackToLogsOnError"
        mounts = {mount["mountPath"] for mount in main["volumeMounts"]}
        assert {"/etc/tailfill/task", "/dev/shm", "/cache", "/tmp"} <= mounts
        assert environment(spec)["TAILFILL_GRACE_SECONDS"] == str(spec["terminationGracePeriodSeconds"])


def test_who_knows_which_secret() -> None:
    objects = rendered(any_program(), *GPU)
    known = {name: environment(spec) for name, spec in pods(objects)}
    of_database = {name for name, env in known.items() if "DATABASE_URL" in env}
    assert of_database == {"Deployment control", "Job worker", "Job tune"}
    assert {name for name, env in known.items() if "HF_TOKEN" in env} == {"Job weights"}
    online = {name for name, env in known.items() if env.get("HF_HUB_OFFLINE") != "1"}
    assert online - {"StatefulSet seaweedfs", "StatefulSet postgresql"} == {"Job weights"}
    assert known["Deployment control"]["DATABASE_URL"] == (
        "postgresql://tailfill:$(POSTGRES_PASSWORD)@study-postgresql:5432/tailfill"
    )


def test_no_password_is_written_out() -> None:
    keys = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "POSTGRES_PASSWORD"}
    found = [each for _, spec in pods(rendered(any_program())) for each in environment(spec).items() if each[0] in keys]
    assert {key for key, _ in found} == keys
    for key, source in found:
        assert source == {"secretKeyRef": {"name": "study-credentials", "key": key}}


def test_control_knows_when_a_pod_is_lost_and_whether_data_have_changed() -> None:
    def of_control(*values: str) -> dict[str, Any]:
        return dict(pods(rendered(any_program(), *values)))["Deployment control"]

    env = environment(of_control())
    assert (env["TAILFILL_LOST_POD_SECONDS"], "TAILFILL_DATA_REVISION" in env) == ("600", False)
    env = environment(of_control("--set", "control.lostPodSeconds=30,data.revision=2"))
    assert (env["TAILFILL_LOST_POD_SECONDS"], env["TAILFILL_DATA_REVISION"]) == ("30", "2")


def test_without_a_cluster_no_passwords_are_made() -> None:
    def refused(*values: str) -> str:
        line = [any_program(), "template", "study", str(CHART), "--kube-version", "1.34.0", *values]
        ended = subprocess.run(line, capture_output=True, text=True, check=False)
        assert ended.returncode != 0
        return ended.stderr

    keys = "name it in s3.existingSecret (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY{}) and database.existingSecret"
    assert keys.format(", tls.crt, tls.key") in refused()
    assert keys.format("") in refused("--set", "minio.enabled=true")
    assert "name it in database.existingSecret (POSTGRES_PASSWORD), or use" in refused("--set", "s3.existingSecret=s3")


def test_the_report_is_waited_for_by_the_study_s_digest() -> None:
    def labels(*values: str) -> tuple[str, Any]:
        control = one(rendered(any_program(), *values), "Deployment", "study-control")
        return control["metadata"]["labels"]["tailfill/study"], control

    digest, control = labels()
    assert environment(control["spec"]["template"]["spec"])["TAILFILL_STUDY"] == digest
    assert len({digest, labels("--set", "data.revision=1")[0], labels(*ci("spot"))[0]}) == 3
    assert labels("--set", "workers.shmSize=2Gi")[0] == digest


def test_s3_by_a_role_or_with_keys_of_some_hours() -> None:
    helm, external = any_program(), ("--set", "s3.store=s3://bucket,s3.existingSecret=")
    role = ("--set-json", 'serviceAccount.annotations={"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/study"}')
    objects = rendered(helm, *external, *role)
    for name in ("study-control", "study-stage"):
        account = one(objects, "ServiceAccount", name)
        assert account["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/study"}
    ours = [environment(spec) for name, spec in pods(objects) if name != "StatefulSet postgresql"]
    assert all(env["TAILFILL_STORE"] == "s3://bucket" for env in ours)
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} & {
        key for env in ours for key in env
    }
    for name, spec in pods(rendered(helm, *external, "--set", "s3.existingSecret=s3")):
        if name != "StatefulSet postgresql":
            env = environment(spec)
            assert env["AWS_ACCESS_KEY_ID"]["secretKeyRef"] == {"name": "s3", "key": "AWS_ACCESS_KEY_ID"}
            token = {"name": "s3", "key": "AWS_SESSION_TOKEN", "optional": True}
            assert env["AWS_SESSION_TOKEN"]["secretKeyRef"] == token


@pytest.mark.parametrize(
    ("value", "kind", "key"), [("caSecret", "secret", "secretName"), ("caConfigMap", "configMap", "name")]
)
def test_s3_with_a_certificate_of_one_s_own_authority(value: str, kind: str, key: str) -> None:
    objects = rendered(any_program(), "--set", f"s3.store=s3://bucket,s3.{value}=authority")
    for name, spec in pods(objects):
        if name == "StatefulSet postgresql":
            continue
        file = Path(environment(spec)["TAILFILL_CA_FILE"])
        assert "AWS_CA_BUNDLE" not in environment(spec)  # it would replace the public authorities
        (volume,) = (each for each in spec["volumes"] if each["name"] == "ca")
        assert volume[kind] == {key: "authority", "items": [{"key": "ca.crt", "path": file.name}]}
        mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
        assert mounts["ca"] == str(file.parent)


def test_s3_by_virtual_hosts() -> None:
    styles = {environment(spec).get("TAILFILL_S3_ADDRESSING") for _, spec in pods(rendered(any_program()))}
    assert styles == {None}  # the program's own default, as before
    styles = {environment(spec)["TAILFILL_S3_ADDRESSING"] for _, spec in pods(rendered(any_program(), *ci("platform")))}
    assert styles == {"virtual"}


def test_a_database_with_certificates_as_cloudnativepg_has_it() -> None:
    certificates = {"PGSSLROOTCERT": "ca.crt", "PGSSLCERT": "tls.crt", "PGSSLKEY": "tls.key"}
    for name, spec in pods(rendered(any_program(), *ci("platform"))):
        env = environment(spec)
        if name not in ("Deployment control", "Job tune", "Job worker"):
            assert not {"DATABASE_URL", "PGSSLMODE", *certificates} & set(env)
            assert "database" not in {volume["name"] for volume in spec["volumes"]}
            continue
        assert env["DATABASE_URL"] == {"secretKeyRef": {"name": "db-app", "key": "uri"}}
        assert env["PGSSLMODE"] == "verify-full"
        (mount,) = (each for each in spec["containers"][0]["volumeMounts"] if each["name"] == "database")
        (volume,) = (each["projected"] for each in spec["volumes"] if each["name"] == "database")
        assert volume["defaultMode"] == 0o440  # libpq refuses a key that others may read
        ca, pair = (source["secret"] for source in volume["sources"])
        assert (ca["name"], pair["name"]) == ("db-ca", "db-client")
        paths = {item["path"] for item in ca["items"] + pair["items"]}
        assert {
            variable: f"{mount['mountPath']}/{path}" for variable, path in certificates.items()
        }.items() <= env.items()
        assert paths == set(certificates.values())
    ca = ("--set", "postgresql.enabled=false,database.existingSecret=db,database.caConfigMap=ca")
    control = dict(pods(rendered(any_program(), *ca)))["Deployment control"]
    (volume,) = (each["projected"] for each in control["volumes"] if each["name"] == "database")
    assert volume["sources"] == [{"configMap": {"name": "ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]
    assert "PGSSLCERT" not in environment(control)


@pytest.mark.parametrize("name", ["helm", "helm4"])
def test_users_are_a_value_and_may_be_left_to_the_cluster(name: str) -> None:
    """The user IDs may be unset, as OpenShift's restricted-v2 refuses Pods that name one."""

    def users(*values: str) -> dict[str, set[int]]:
        found = {}
        for pod, spec in pods(rendered(program(name), *values)):
            security = spec["securityContext"]
            assert security["runAsNonRoot"] is True
            found[pod] = {security[key] for key in ("runAsUser", "runAsGroup", "fsGroup") if key in security}
        return found

    assert set().union(*users("--set", "podSecurity.runAsUser=null").values()) == set()
    mine = users("--set", "podSecurity.runAsUser=1000740000")
    assert mine.pop("StatefulSet postgresql") == {999}
    assert all(found == {1000740000} for found in mine.values())
    assert {frozenset(found) for found in users().values()} == {frozenset({10001}), frozenset({999})}


def test_own_servers_are_gone_with_external_ones() -> None:
    objects = rendered(any_program(), *ci("external"))
    assert not {each["kind"] for each in objects} & {"StatefulSet", "Service", "Secret"}
    env = environment(dict(pods(objects))["Deployment control"])
    assert env["TAILFILL_STORE"] == "s3://bucket/prefix"
    assert env["AWS_ENDPOINT_URL_S3"] == "https://s3.example.org"
    assert env["DATABASE_URL"] == {"secretKeyRef": {"name": "database", "key": "DATABASE_URL"}}
    assert env["AWS_SECRET_ACCESS_KEY"] == {"secretKeyRef": {"name": "s3", "key": "AWS_SECRET_ACCESS_KEY"}}
    assert "TAILFILL_CREATE_BUCKET" not in env


def test_the_demo_fits_one_core() -> None:
    """The largest load counts: three searches, two workers, a stage that makes images, and a final training."""
    objects = rendered(any_program())
    asked = {name: cpu(spec["containers"][0]["resources"]["requests"]["cpu"]) for name, spec in pods(objects)}
    always = asked["Deployment control"] + asked["StatefulSet seaweedfs"] + asked["StatefulSet postgresql"]
    searching = 3 * asked["Job tune"] + 2 * asked["Job worker"]
    making = max(asked[f"Job {stage}"] for stage in ("prepare", "weights", "finetune", "generate", "judge", "score"))
    assert always + searching + making + asked["Job final"] <= 1000


def test_the_number_of_workers_belongs_to_kubectl_scale() -> None:
    objects = rendered(any_program(), *GPU)
    deployment = one(objects, "Deployment", "study-tune")
    assert deployment["metadata"]["annotations"] == {"argocd.argoproj.io/ignore-healthcheck": "true"}
    assert "replicas" not in deployment["spec"]
    assert deployment["spec"]["paused"] is True
    placeholder = deployment["spec"]["template"]["spec"]
    # a Pod that `kubectl rollout resume` makes costs nothing
    assert placeholder["schedulingGates"] == [{"name": "tailfill/placeholder"}]
    assert "resources" not in placeholder["containers"][0]
    assert deployment["spec"]["selector"]["matchLabels"]["tailfill/role"] == "worker"
    assert "data" not in one(objects, "ConfigMap", "study-searches")  # an upgrade leaves what control wrote


def test_a_worker_is_a_job_that_reads_the_open_searches() -> None:
    found = jobs(rendered(any_program(), *GPU))
    worker, coordinator = found["worker"], found["tune"]
    assert worker["metadata"]["labels"] == coordinator["metadata"]["labels"] | {"tailfill/role": "worker"}
    assert worker["metadata"]["labels"] == worker["spec"]["template"]["metadata"]["labels"]
    assert "activeDeadlineSeconds" not in worker["spec"]
    assert worker["spec"]["podFailurePolicy"] == coordinator["spec"]["podFailurePolicy"]
    spec = worker["spec"]["template"]["spec"]
    assert spec["containers"][0]["args"] == ["--log", "json", "stage", "tune", "--config", TASK, "--worker"]
    assert {"name": "task", "configMap": {"name": "study-searches"}} in spec["volumes"]
    assert spec["priorityClassName"] == "batch"


def test_control_may_do_what_it_does_and_no_more() -> None:
    objects = rendered(any_program())
    rules = {
        (rule["resources"][0], *rule.get("resourceNames", ())): sorted(rule["verbs"])
        for rule in one(objects, "Role", "study-control")["rules"]
    }
    assert rules == {
        ("jobs",): ["create", "delete", "get", "list", "watch"],
        ("pods",): ["delete", "list", "watch"],
        ("pods/status",): ["patch"],
        ("events",): ["list"],
        ("configmaps",): ["delete", "list", "watch"],
        ("configmaps", "study-searches"): ["patch"],
        ("replicasets",): ["delete", "list"],
        ("deployments", "study-tune"): ["list", "watch"],
        ("deployments/scale", "study-tune"): ["get", "patch"],
        ("configmaps", "study-stages"): ["get"],
    }
    (subject,) = one(objects, "RoleBinding", "study-control")["subjects"]
    assert (subject["name"], subject["namespace"]) == ("study-control", "here")
    control = one(objects, "Deployment", "study-control")["spec"]
    assert (control["replicas"], control["strategy"]["type"]) == (1, "Recreate")
    env = environment(control["template"]["spec"])
    assert (env["TAILFILL_RELEASE"], env["TAILFILL_CREATE_BUCKET"]) == ("study", "1")
    (container,) = control["template"]["spec"]["containers"]
    assert {name for name in container if name.endswith("Probe")} == {"livenessProbe", "readinessProbe"}


def limits(spec: dict[str, Any]) -> int:
    """Returns the GPUs of a Pod."""
    return int(spec["containers"][0]["resources"].get("limits", {}).get("nvidia.com/gpu", 0))


def test_gpus_go_to_the_stages_that_compute() -> None:
    helm = any_program()
    assert all(limits(spec) == 0 for _, spec in pods(rendered(helm)))
    found = dict(pods(rendered(helm, *GPU)))
    on_gpu = {name for name, spec in found.items() if limits(spec)}
    assert on_gpu == {*(f"Job {stage}" for stage, kind in STAGES.items() if kind.on_device), "Job worker"}
    for name, spec in found.items():
        assert ("runtimeClassName" in spec) is (name in on_gpu)
        if name.startswith("Job"):
            assert environment(spec)["TAILFILL_DEVICE"] == ("cuda" if name in on_gpu else "cpu")
            assert ("OMP_NUM_THREADS" in environment(spec)) is (name not in on_gpu)
    spot = jobs(rendered(helm, *ci("spot")))
    finetune = spot["finetune"]["spec"]["template"]["spec"]
    assert limits(finetune) == 4
    assert finetune["tolerations"][0]["key"] == "cloud.google.com/gke-spot"
    assert finetune["nodeSelector"] == {"node.kubernetes.io/instance-type": "a2-highgpu-4g"}
    assert limits(spot["score"]["spec"]["template"]["spec"]) == 0


def test_made_up_gpus_are_asked_for_and_computed_without() -> None:
    found = dict(pods(rendered(any_program(), "--set", "gpu.enabled=true,gpu.emulated=true")))
    assert limits(found["Job finetune"]) == 1
    for stage in STAGES:
        variables = environment(found[f"Job {stage}"])
        assert (variables["TAILFILL_DEVICE"], variables["OMP_NUM_THREADS"]) == ("cpu", "1")


def test_generate_is_indexed_and_final_is_counted() -> None:
    found = jobs(rendered(any_program(), *GPU))
    generate = found["generate"]["spec"]
    assert (generate["completionMode"], generate["completions"], generate["parallelism"]) == ("Indexed", 4, 4)
    assert (generate["backoffLimitPerIndex"], generate["maxFailedIndexes"]) == (6, 0)
    assert environment(generate["template"]["spec"])["TAILFILL_COUNT"] == "4"
    assert found["final"]["metadata"]["annotations"] == {"tailfill/parallelism": "3"}
    assert "activeDeadlineSeconds" not in found["tune"]["spec"]
    assert found["tune"]["spec"]["backoffLimit"] >= 1000  # it runs for as long as the search


def test_images() -> None:
    objects = rendered(any_program(), *ci("private-registry"))
    images = {name: spec["containers"][0]["image"] for name, spec in pods(objects)}
    assert images["Job prepare"] == "registry.example.org/team/tailfill/prepare:v1"
    assert images["Deployment control"] == "registry.example.org/team/tailfill/control:v1"
    assert images["Job tune"] == "registry.example.org/team/tailfill/slim:v1"
    assert images["Job worker"] == "registry.example.org/team/tailfill/tune:v1"
    assert images["Job finetune"].startswith("registry.example.org/team/tailfill/finetune@sha256:")
    assert all(spec["imagePullSecrets"] == [{"name": "regcred"}] for _, spec in pods(objects))
    assert (
        dict(pods(rendered(any_program())))["Job final"]["containers"][0]["image"] == "localhost/tailfill/final:0.1.0"
    )


def test_kueue_queues_jobs_only() -> None:
    objects = rendered(any_program(), *ci("kueue"))
    found = jobs(objects)
    queues = {stage: job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] for stage, job in found.items()}
    assert queues == dict.fromkeys([*STAGES, "worker"], "research") | {"final": "low"}
    assert all(job["spec"]["suspend"] is True for job in found.values())
    one_shard = jobs(rendered(any_program(), *ci("kueue"), "--set", "stages.generate.shards=1"))
    assert "annotations" not in one_shard["generate"]["metadata"]  # Kueue refuses it for one Pod
    assert found["generate"]["metadata"]["annotations"] == {"kueue.x-k8s.io/job-min-parallelism": "1"}
    others = [each for each in objects if each["metadata"]["name"] != "study-stages"]
    reading = {each["metadata"]["name"]: each["kind"] for each in others if "kueue" in json.dumps(each)}
    assert reading == dict.fromkeys(
        ["study-control", "study-editor", "study-viewer"], "Role"
    )  # `status` says what they wait for
    rules = one(objects, "Role", "study-control")["rules"]
    assert {"apiGroups": ["kueue.x-k8s.io"], "resources": ["workloads"], "verbs": ["list"]} in rules
    one_stage = rendered(any_program(), "--set", "stages.final.queueName=low")
    assert "kueue" in json.dumps(one(one_stage, "Role", "study-control"))
    assert "kueue" not in json.dumps(rendered(any_program()))


def test_data_is_mounted_where_it_is_read() -> None:
    found = dict(pods(rendered(any_program(), *GPU)))
    mounted = {name for name, spec in found.items() if "deepfashion" in json.dumps(spec["volumes"])}
    assert mounted == {"Deployment control", "Job prepare"}


def test_prepare_runs_beside_control_where_both_mount_a_claim(tmp_path: Path) -> None:
    """A ReadWriteOnce volume of control cannot be attached to another node."""
    mine = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "mine"}}}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    node = {required: {"nodeSelectorTerms": [{"matchFields": []}]}}
    affinity = {"nodeAffinity": node, "podAffinity": {required: [mine]}}
    values = ("--set-json", f"stages.prepare.affinity={json.dumps(affinity)}")
    helm = any_program()
    objects = rendered(helm, *GPU, *values)
    control = one(objects, "Deployment", "study-control")["spec"]["selector"]["matchLabels"]
    beside = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": control}}
    found = {stage: job["spec"]["template"]["spec"].get("affinity") for stage, job in jobs(objects).items()}
    assert found.pop("prepare") == {"nodeAffinity": node, "podAffinity": {required: [mine, beside]}}
    assert set(found.values()) == {None}
    plain = jobs(rendered(helm, *GPU))["prepare"]["spec"]["template"]["spec"]
    assert plain["affinity"] == {"podAffinity": {required: [beside]}}
    assert jobs(rendered(helm, *values))["prepare"]["spec"]["template"]["spec"]["affinity"] == affinity
    assert "affinity" not in jobs(rendered(helm))["prepare"]["spec"]["template"]["spec"]


def test_policies_admit_what_the_study_needs() -> None:
    objects = rendered(any_program(), *ci("external"))
    everything = one(objects, "NetworkPolicy", "study-all")["spec"]
    assert everything["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everything
    assert everything["egress"][-1]["to"][0]["ipBlock"]["cidr"] == "192.0.2.0/24"
    inside = {
        each["metadata"]["name"]: each["spec"] for each in rendered(any_program()) if each["kind"] == "NetworkPolicy"
    }
    assert set(inside) == {"study-all", "study-control", "study-seaweedfs", "study-postgresql"}
    assert all(spec["policyTypes"] == ["Ingress"] for spec in inside.values())
    askers = inside["study-postgresql"]["ingress"][0]["from"]
    assert [each["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for each in askers] == ["control", "tune"]


def test_prometheus_finds_control() -> None:
    helm = any_program()
    assert not [each for each in rendered(helm) if each["kind"] == "PodMonitor"]
    objects = rendered(helm, "--set", "metrics.podMonitor.enabled=true,metrics.podMonitor.labels.release=prometheus")
    monitor, control = one(objects, "PodMonitor", "study-control"), one(objects, "Deployment", "study-control")["spec"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"] == control["selector"]
    (container,) = control["template"]["spec"]["containers"]
    port = container["ports"][0]
    assert port == {"name": monitor["spec"]["podMetricsEndpoints"][0]["port"], "containerPort": 8080}
    assert environment(control["template"]["spec"])["TAILFILL_METRICS_PORT"] == "8080"


def test_a_changed_job_starts_control_anew() -> None:
    def annotations(*values: str) -> dict[str, str]:
        template = one(rendered(any_program(), *values), "Deployment", "study-control")["spec"]["template"]
        found: dict[str, str] = template["metadata"]["annotations"]
        return found

    assert annotations() == annotations("--set", "seaweedfs.storage.size=1Gi")
    assert annotations() != annotations("--set", "stages.final.backoffLimit=1")
