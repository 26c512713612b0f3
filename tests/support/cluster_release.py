"""Controls a release on a real cluster through helm, kubectl and the command, as a user would."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.manifest import Manifest
from shared.artifacts.open import open_store
from shared.config.stages import STAGES
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
KINDS = "jobs,pods,deployments,statefulsets,services,configmaps,serviceaccounts,secrets,persistentvolumeclaims,networkpolicies,roles,rolebindings"
OF_EVERY_NAMESPACE = {"ConfigMap/kube-root-ca.crt", "ServiceAccount/default"}
KEPT = [
    "PersistentVolumeClaim/data-study-minio-0",
    "PersistentVolumeClaim/data-study-postgresql-0",
    "Secret/study-credentials",
]
"""The objects that remain after a release is uninstalled."""


def registry() -> str:
    """Returns the registry of the images: REGISTRY, or the one of the kind cluster."""
    return os.environ.get("REGISTRY") or f"localhost:{os.environ.get('REGISTRY_PORT', '5001')}"


def tag() -> str:
    """Returns the tag of the images: TAG, or the one of `make kind-load`."""
    return os.environ.get("TAG") or "dev"


class Release:
    """Controls one release in its own namespace, which enforces the Pod Security Standard `restricted`."""

    def __init__(self, namespace: str, name: str = "study") -> None:
        self.namespace, self.name = namespace, name
        self.code = ROOT
        """Points to the code whose command is used: an earlier chart's control answers to the command of its version."""

    # -- programs

    def kubectl(self, *arguments: str, check: bool = True, seconds: float = 300, text: str | None = None) -> str:
        """Runs kubectl in the namespace, and returns its output."""
        command = ["kubectl", "--namespace", self.namespace, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, input=text, check=False)
        assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.stdout} {done.stderr}"
        return done.stdout + ("" if check else done.stderr)

    def helm(self, *arguments: str, program: str | None = None) -> str:
        """Runs Helm in the namespace, and returns its output."""
        command = [program or os.environ.get("HELM", "helm"), *arguments, "--namespace", self.namespace]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout} {done.stderr}"
        return done.stdout

    def install(
        self, *values: str, program: str | None = None, chart: Path = ROOT / "helm", image_tag: str | None = None
    ) -> str:
        """Installs or upgrades the release with k8s/kind-values.yaml and the images that the environment names, or those of another tag."""
        files = [part for file in (ROOT / "k8s" / "kind-values.yaml", *values) for part in ("-f", str(file))]
        images = {
            "minio.image": "MINIO_IMAGE", "seaweedfs.image": "SEAWEEDFS_IMAGE", "postgresql.image": "POSTGRESQL_IMAGE"
        }  # fmt: skip
        known = (chart / "values.schema.json").read_text(
            encoding="utf-8"
        )  # an earlier chart refuses what it does not know
        named = [
            f"--set={value}={os.environ[name]}"
            for value, name in images.items()
            if os.environ.get(name) and f'"{value.removesuffix(".image")}"' in known
        ]
        named += [f"--set=image.registry={registry()}", f"--set=image.tag={image_tag or tag()}"]
        if self.has_gpus():
            named.append("--set=gpu.enabled=true")
        return self.helm("upgrade", "--install", self.name, str(chart), *files, *named, program=program)

    def has_gpus(self) -> bool:
        """Returns whether a node has a GPU, simulated ones included."""
        nodes = json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
        return any(int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)) for node in nodes)

    def tailfill(
        self, *arguments: str, seconds: float = 600, kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command of tailfill on this machine for the release, as the user of another kubeconfig if one is named."""
        environment = os.environ | ({} if kubeconfig is None else {"KUBECONFIG": str(kubeconfig)})
        return subprocess.run(
            self.command(*arguments),
            cwd=self.code, env=environment, capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip

    def command(self, *arguments: str) -> list[str]:
        """Returns a command of tailfill for the release, which is to run in the folder `code`."""
        return [sys.executable, "-m", "jobs", *arguments, "--release", self.name, "--namespace", self.namespace]

    # -- the state of the release

    def objects(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """Returns the objects of a kind as JSON."""
        found = json.loads(self.kubectl("get", kind, "-o", "json", *(["-l", selector] if selector else [])))
        items: list[dict[str, Any]] = found["items"]
        return items

    def jobs(self, stage: str) -> dict[str, dict[str, Any]]:
        """Returns a stage's Jobs by name."""
        selector = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={stage},app.kubernetes.io/managed-by=tailfill-control"
        selector += ",tailfill/role!=worker"
        return {job["metadata"]["name"]: job for job in self.objects("jobs", selector)}

    def pods(self, component: str, phase: str | None = None) -> list[str]:
        """Returns the names of a component's Pods in a phase (None: in any), except those that are being deleted."""
        return [
            str(pod["metadata"]["name"])
            for pod in self.objects("pods", f"app.kubernetes.io/component={component}")
            if "deletionTimestamp" not in pod["metadata"] and phase in (None, pod["status"]["phase"])
        ]

    def workers(self, phase: str | None = "Running") -> list[str]:
        """Returns the names of the tuning workers in a phase, except those that are being deleted."""
        found = self.objects("pods", "tailfill/role=worker")
        alive = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return [str(pod["metadata"]["name"]) for pod in alive if phase in (None, pod["status"]["phase"])]

    def progresses(self, pod: str) -> list[int]:
        """Returns the counts in the progress lines of a Pod's log."""
        lines = [
            json.loads(line) for line in self.kubectl("logs", pod, check=False).splitlines() if line.startswith("{")
        ]
        return [int(line["progress"]["done"]) for line in lines if line.get("progress")]

    def progress(self, pod: str) -> int:
        """Returns the last count of a Pod's progress, or 0."""
        return (self.progresses(pod) or [0])[-1]

    def begun_at(self) -> list[int]:
        """Returns how many epochs each trial of the present workers had finished when the worker claimed it."""
        logs = "\n".join(self.kubectl("logs", pod, check=False) for pod in self.workers())
        lines = [json.loads(line) for line in logs.splitlines() if line.startswith("{")]
        return [int(line["epochs_done"]) for line in lines if "epochs_done" in line]

    def status(self) -> dict[str, Any]:
        """Returns the output of `tailfill status --json`."""
        done = self.tailfill("status", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def steps(self) -> dict[str, dict[str, Any]]:
        """Returns the steps of the status by label; none if a service is unavailable, which the status then says."""
        return {step["step"]: step for step in self.status().get("steps", ())}

    def searches(self) -> dict[str, dict[str, Any]]:
        """Returns the searches that have begun, by label."""
        found = {label: step["search"] or {} for label, step in self.steps().items()}
        return {label: search for label, search in found.items() if "running" in search}

    @contextmanager
    def forwarded(self, service: str, port: int) -> Iterator[int]:
        """Yields a port of this machine at which a service of the release answers."""
        command = ["kubectl", "-n", self.namespace, "port-forward", f"svc/{self.name}-{service}", f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
            try:
                assert forward.stdout is not None
                yield int(re.findall(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())[0])
            finally:
                forward.terminate()

    @contextmanager
    def store(self) -> Iterator[dict[str, str]]:
        """Yields the variables with which this machine reaches the chart's own S3 server, as helm/README.md describes it."""
        services = {service["metadata"]["name"] for service in self.objects("services")}
        service = next(each for each in ("minio", "seaweedfs") if f"{self.name}-{each}" in services)
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        (secret,) = [o for o in self.objects("secrets") if o["metadata"]["name"] == f"{self.name}-credentials"]
        keys = {name: base64.b64decode(secret["data"][name]).decode() for name in names}
        with self.forwarded(service, 9000) as port:
            yield keys | {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}", "TAILFILL_STORE": "s3://tailfill"}

    def committed(self) -> list[Manifest]:
        """Returns the manifests of all committed results of the release's study."""
        (study,) = [o for o in self.objects("configmaps") if o["metadata"]["name"].startswith(f"{self.name}-study-")]
        name = json.loads(study["data"]["study.json"])["name"]
        with self.store() as variables, tempfile.TemporaryDirectory() as cache:
            artifacts = Artifacts(open_store(Settings.from_environment(variables)), name, Path(cache))
            return [manifest for stage in STAGES for manifest in artifacts.manifests(stage)]

    def manifests(self) -> dict[str, str]:
        """Returns the digests of all committed results by `<stage>/<key>`."""
        return {f"{manifest.stage}/{manifest.key}": manifest.digest for manifest in self.committed()}

    def summaries(self, stage: str) -> list[dict[str, Any]]:
        """Returns the summaries of the stage's committed results."""
        return [manifest.summary for manifest in self.committed() if manifest.stage == stage]

    def summary(self, name: str) -> dict[str, Any]:
        """Returns the summary of the result that was committed as `<stage>/<key>`."""
        (found,) = [manifest for manifest in self.committed() if f"{manifest.stage}/{manifest.key}" == name]
        return found.summary

    def all_committed(self) -> bool:
        """Returns whether all steps are committed."""
        states = {step["state"] for step in self.steps().values()}
        return states == {"committed"}

    def left(self) -> list[str]:
        """Returns the objects of the namespace, except those that every namespace has."""
        names = {f"{found['kind']}/{found['metadata']['name']}" for found in self.objects(KINDS)}
        return sorted(names - OF_EVERY_NAMESPACE)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 300, every: float = 1.0) -> Any:
    """Returns the first truthy value of `condition`; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(every)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")
