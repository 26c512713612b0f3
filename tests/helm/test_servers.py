"""Tests which servers the chart installs: SeaweedFS or MinIO, PostgreSQL and its dumps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.rendered import CHART, PROGRAMS, any_program, environment, one, pods, program, rendered, run_helm

KIND = ("-f", str(CHART.parent / "k8s" / "kind-values.yaml"))
STORE = {"s3": {"store": "s3://bucket"}}


def stores(*values: str) -> set[str]:
    """Returns the names of the StatefulSets, which are all servers, except PostgreSQL's."""
    found = (each for each in rendered(any_program(), *values) if each["kind"] == "StatefulSet")
    return {each["metadata"]["name"] for each in found} - {"study-postgresql"}


@pytest.mark.parametrize(
    ("values", "installed"),
    [
        ((), {"study-seaweedfs"}),
        (KIND, {"study-minio"}),
        (("--set", "minio.enabled=true"), {"study-minio"}),
        (("--set", "minio.enabled=true,s3.store=s3://tailfill/mine"), {"study-minio"}),
        (("--set", "s3.store=s3://bucket"), set()),
        (("--set", "s3.store=s3://bucket,minio.enabled=false"), set()),  # as for charts whose default was MinIO
    ],
)
def test_there_is_one_store(values: tuple[str, ...], installed: set[str]) -> None:
    assert stores(*values) == installed
    env = environment(dict(pods(rendered(any_program(), *values)))["Deployment control"])
    assert ("TAILFILL_CREATE_BUCKET" in env, "AWS_ENDPOINT_URL_S3" in env) == (bool(installed), bool(installed))
    for name in installed:
        assert env["AWS_ENDPOINT_URL_S3"] == f"http://{name}:9000"
        service = one(rendered(any_program(), *values), "Service", name)
        assert service["spec"]["ports"] == [{"name": "s3", "port": 9000, "targetPort": "s3"}]


def test_seaweedfs_is_closed() -> None:
    """Its parts but S3 listen on loopback, and the port of S3 for its peers asks for a certificate; tests/cluster/test_seaweedfs.py tries both."""
    spec = dict(pods(rendered(any_program())))["StatefulSet seaweedfs"]
    (container,) = spec["containers"]
    options = dict(part.lstrip("-").split("=", 1) for part in container["args"] if "=" in part)
    assert (options["ip.bind"], options["s3.ip.bind"]) == ("127.0.0.1", "0.0.0.0")
    assert (options["master.telemetry"], options["s3.autoCreateBucket"]) == ("false", "false")
    assert [port["containerPort"] for port in container["ports"]] == [9000]
    env = environment(spec)
    keys = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert all(env[key] == {"secretKeyRef": {"name": "study-credentials", "key": key}} for key in keys)
    files = {name: path for name, path in env.items() if name.startswith("WEED_GRPC")}
    assert set(files) == {"WEED_GRPC_CA", "WEED_GRPC_S3_CERT", "WEED_GRPC_S3_KEY"}
    (volume,) = (each for each in spec["volumes"] if each["name"] == "tls")
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "tls")
    (source,) = volume["projected"]["sources"]
    assert {f"{mount['mountPath']}/{item['path']}" for item in source["secret"]["items"]} == set(files.values())
    policy = one(rendered(any_program()), "NetworkPolicy", "study-seaweedfs")["spec"]
    assert policy["ingress"][0]["ports"] == [{"port": "s3"}]
    labels = policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert labels == {"app.kubernetes.io/name": "tailfill", "app.kubernetes.io/instance": "study"}


def test_its_data_outlive_the_pod() -> None:
    values = ("--set", "seaweedfs.storage.size=7Gi,seaweedfs.storage.className=fast")
    found = one(rendered(any_program(), *values), "StatefulSet", "study-seaweedfs")
    (claim,) = found["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "7Gi"
    assert claim["spec"]["storageClassName"] == "fast"
    assert "-dir=/data" in found["spec"]["template"]["spec"]["containers"][0]["args"]


def test_seaweedfs_keeps_to_the_memory_that_it_asks_for() -> None:
    """A limit alone is what Kubernetes takes for the request; without either there is nothing to keep to, and 0 would be a limit."""

    def limit(resources: str) -> str | None:
        spec = dict(pods(rendered(any_program(), "--set-json", f"seaweedfs.resources={resources}")))
        found: str | None = environment(spec["StatefulSet seaweedfs"]).get("GOMEMLIMIT")
        return found

    assert limit('{"requests": {"memory": "1Gi"}}') == "$(MEMORY_MIB)MiB"
    assert limit('{"limits": {"memory": "1Gi"}, "requests": null}') == "$(MEMORY_MIB)MiB"
    assert limit('{"requests": {"cpu": 1, "memory": null}}') is None
    env = environment(dict(pods(rendered(any_program())))["StatefulSet seaweedfs"])
    assert env["MEMORY_MIB"] == {"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_number_of_connections(name: str) -> None:
    def args(*values: str) -> Any:
        spec = dict(pods(rendered(program(name), *values)))["StatefulSet postgresql"]
        return spec["containers"][0]["args"]

    assert args() == ["postgres", "-c", "max_connections=200"]
    assert args("--set", "postgresql.maxConnections=250000")[-1] == "max_connections=250000"


def test_a_number_of_connections_that_no_server_takes_is_refused() -> None:
    for number in (5, 300000):
        ended = run_helm(any_program(), "template", "--set", f"postgresql.maxConnections={number}")
        assert ended.returncode != 0
        assert "at '/postgresql/maxConnections'" in ended.stderr


def test_dumps_are_made_only_if_asked_for() -> None:
    assert not [each for each in rendered(any_program()) if each["kind"] in ("CronJob", "PersistentVolumeClaim")]
    values = ("--set", "postgresql.dump.enabled=true,postgresql.dump.keep=3,postgresql.nodeSelector.disk=ssd")
    objects = rendered(any_program(), *values)
    claim, job = one(objects, "PersistentVolumeClaim", "study-dumps"), one(objects, "CronJob", "study-dump")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    template = job["spec"]["jobTemplate"]["spec"]["template"]
    spec, (container,) = template["spec"], template["spec"]["containers"]
    server = dict(pods(objects))["StatefulSet postgresql"]
    assert (spec["securityContext"], spec["nodeSelector"]) == (server["securityContext"], {"disk": "ssd"})
    assert container["image"] == server["containers"][0]["image"]  # pg_dump must not be older than the server
    assert container["securityContext"] == server["containers"][0]["securityContext"]
    env = environment(spec)
    assert (env["PGHOST"], env["KEEP"], env["RESTORE"]) == ("study-postgresql", "3", "")
    assert env["PGPASSWORD"] == {"secretKeyRef": {"name": "study-credentials", "key": "POSTGRES_PASSWORD"}}
    askers = one(objects, "NetworkPolicy", "study-postgresql")["spec"]["ingress"][0]["from"]
    assert template["metadata"]["labels"] in [each["podSelector"]["matchLabels"] for each in askers]


def test_no_dumps_of_another_server(tmp_path: Path) -> None:
    external = {"postgresql": {"enabled": False, "dump": {"enabled": True}}, "database": {"existingSecret": "database"}}
    path = tmp_path / "values.yaml"
    path.write_text(json.dumps({**STORE, **external}))
    assert not [each for each in rendered(any_program(), "-f", str(path)) if each["kind"] == "CronJob"]
