"""Controls a release on a real cluster through helm, kubectl and the command, as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
KINDS = "jobs,pods,deployments,statefulsets,services,configmaps,serviceaccounts,secrets,persistentvolumeclaims,networkpolicies,roles,rolebindings"
OF_EVERY_NAMESPACE = {"ConfigMap/kube-root-ca.crt", "ServiceAccount/default"}
KEPT = [
    "PersistentVolumeClaim/data-study-minio-0",
    "PersistentVolumeClaim/data-study-postgresql-0",
    "Secret/study-credentials",
]
"""The objects that remain after a release is uninstalled."""
OPENED = (
    "import json; from jobs.control import open_release_session, load_release_study; from shared.config.stages import STAGES\n"
    "from shared.settings import Settings\n"
    "artifacts = open_release_session(load_release_study(), Settings.from_environment()).artifacts\n"
)


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

    def tailfill(self, *arguments: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Runs a command of tailfill on this machine for the release."""
        command = [sys.executable, "-m", "jobs", *arguments, "--release", self.name, "--namespace", self.namespace]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)

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

    def python(self, code: str) -> Any:
        """Runs code in the control Pod, which alone can reach the store, and returns the JSON that it prints."""
        return json.loads(self.kubectl("exec", f"deployment/{self.name}-control", "--", "python", "-c", code))

    def manifests(self) -> dict[str, str]:
        """Returns the digests of all committed results by `<stage>/<key>`."""
        code = "print(json.dumps({f'{m.stage}/{m.key}': m.digest for s in STAGES for m in artifacts.manifests(s)}))"
        found: dict[str, str] = self.python(OPENED + code)
        return found

    def summaries(self, stage: str) -> list[dict[str, Any]]:
        """Returns the summaries of the stage's committed results."""
        code = f"print(json.dumps([m.summary for m in artifacts.manifests('{stage}')]))"
        found: list[dict[str, Any]] = self.python(OPENED + code)
        return found

    def summary(self, name: str) -> dict[str, Any]:
        """Returns the summary of the result that was committed as `<stage>/<key>`."""
        found: dict[str, Any] = self.python(OPENED + f"print(json.dumps(artifacts.find(*'{name}'.split('/')).summary))")
        return found

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
