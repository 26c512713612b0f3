"""Tests the files of the images as far as that is possible without docker."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from shared.config.stages import STAGES

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted(ROOT.glob("images/*/Dockerfile"))
LOCKS = [ROOT / "requirements.lock", *sorted(ROOT.glob("images/*/requirements.lock"))]
BAKE = (ROOT / "images/docker-bake.hcl").read_text()
EXTRAS = {
    "base": {"prepare", "weights", "classifier", "diffusion", "search", "samplers", "report"},
    "slim": {"prepare", "search", "samplers", "report"},
    "control": {"search", "cluster", "tensorboard"},
    "control-mlflow": {"search", "cluster", "trackers"},
}
WITHOUT_TORCH = {"prepare", "report"}


def pins(lock: Path) -> dict[str, str]:
    """Returns the version of each package in a lock file."""
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.parent.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    ended = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), file], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "")


def test_there_is_an_image_for_every_stage() -> None:
    stages = set(STAGES)
    assert {file.parent.name for file in DOCKERFILES} == {"base", "control"} | stages
    matrix = re.search(r"matrix += \{ stage = \[(.*?)\] \}", BAKE)
    assert matrix is not None
    assert set(re.findall(r'"(\w+)"', matrix[1])) == stages


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.parent.name)
def test_an_image_is_named_after_its_folder(file: Path) -> None:
    name, text = file.parent.name, file.read_text()
    assert f'image.title="tailfill/{name}"' in text
    assert re.search(r'image.description="[^"]{20,}"', text)
    if name not in ("base", "control"):
        assert text.endswith(f'CMD ["stage", "{name}", "--help"]\n')


@pytest.mark.parametrize("name", EXTRAS)
def test_an_image_has_what_the_lock_has(name: str) -> None:
    lock = ROOT / "images" / name / "requirements.lock"
    pinned = pins(lock)
    assert pinned.items() <= pins(ROOT / "requirements.lock").items(), "run make lock"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in EXTRAS[name] for line in project["optional-dependencies"][extra]),
    ]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned.get(requirement.name.lower(), "0")), (
            f"{requirement}: run make lock"
        )
    assert "://" not in lock.read_text(), "an index's address"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.parent.name)
def test_a_lock_names_the_files_by_their_hashes(lock: Path) -> None:
    """A package that an index gives in place of the locked one is refused."""
    packages = re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.MULTILINE)[1:]
    assert len(packages) == len(pins(lock)) > 10
    assert [package for package in packages if "\n    --hash=sha256:" not in package] == []


@pytest.mark.parametrize("name", ["slim", "control", "control-mlflow"])
def test_an_image_has_no_torch(name: str) -> None:
    assert not {"torch", "torchvision", "timm", "diffusers", "transformers"} & set(
        pins(ROOT / "images" / name / "requirements.lock")
    )


def test_control_has_neither_scipy_nor_mlflow_unless_asked() -> None:
    small, whole = (pins(ROOT / f"images/{name}/requirements.lock") for name in ("control", "control-mlflow"))
    assert not {"scipy", "mlflow-skinny", "torch"} & set(small)
    assert small.items() < whole.items()
    assert "mlflow-skinny" in whole


@pytest.mark.parametrize(
    "program", re.findall(r'PROGRAM ?= ?"?(jobs[.\w]+)', (ROOT / "images/base/Dockerfile").read_text() + BAKE)
)
def test_what_an_image_runs_is_compiled(program: str) -> None:
    """Whatever is loaded by name, such as a stage's function, is among the files that the build compiles."""
    command = [sys.executable, "-m", "shared.artifacts.fingerprint", "--files", program]
    files = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    assert all(Path(file).is_file() for file in files)
    found = {str(Path(file).relative_to(ROOT)) for file in files}
    wanted = {"jobs/control.py", "shared/pipeline/release_endpoint.py", "shared/kube/api.py", "shared/log.py"}
    if program == "jobs.cli.stage":
        wanted = {f"jobs/{stage}.py" for stage in STAGES} | {"shared/diffusion/pixel/train.py", "shared/log.py"}
    assert wanted <= found
    assert not [file for file in found if file.startswith(("shared/look", "shared/deploy", "shared/services"))]


def test_the_stages_without_torch_are_named_alike() -> None:
    """The Dockerfiles, the bake file and the contract that forbids the import say the same."""
    bases = {stage: re.search(r"ARG BASE=(\S+)", (ROOT / f"images/{stage}/Dockerfile").read_text()) for stage in STAGES}
    assert {stage for stage, base in bases.items() if base and base[1] == "tailfill/slim:dev"} == WITHOUT_TORCH
    assert {stage for stage, base in bases.items() if base and base[1] == "tailfill/base:dev"} == set(
        STAGES
    ) - WITHOUT_TORCH
    chosen = re.search(r'contains\(\[(.*?)\], stage\) \? "slim" : "base"', BAKE)
    assert chosen is not None
    assert set(re.findall(r'"(\w+)"', chosen[1])) == WITHOUT_TORCH
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    contract = next(contract for contract in contracts if contract["name"] == "prepare and report run without torch")
    assert set(contract["source_modules"]) == {f"jobs.{stage}" for stage in WITHOUT_TORCH}


def test_the_base_can_be_replaced() -> None:
    """Every base image is an argument, so that another registry needs no change of a file."""
    froms = [line for file in DOCKERFILES for line in file.read_text().splitlines() if line.startswith("FROM ")]
    assert all(re.match(r"FROM (\$\{(PYTHON_IMAGE|BASE)\}|packages)( AS \w+)?$", line) for line in froms), froms


@pytest.mark.parametrize("file", sorted((ROOT / "k8s").rglob("*.yaml")), ids=lambda file: file.name)
def test_a_pod_of_k8s_keeps_to_restricted(file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        if document.get("kind") != "Deployment":
            continue
        pod = document["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            own = container["securityContext"]
            assert (own["allowPrivilegeEscalation"], own["capabilities"]) == (False, {"drop": ["ALL"]})
            assert own["readOnlyRootFilesystem"] is True
            assert re.search(r":[\w.-]+$", container["image"]), "a tag"
