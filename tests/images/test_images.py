"""Tests every image as a cluster starts it, with a random user and a read-only root. Needs docker, and the images of `make images`."""

from __future__ import annotations

import json
import os
import random
import subprocess
from typing import Any

import pytest

from shared.config.stages import STAGES

pytestmark = [pytest.mark.images, pytest.mark.timeout(600)]

REGISTRY = os.environ.get("REGISTRY") or "localhost"
TAG = os.environ.get("TAG") or "0.1.0"
STAGE_IMAGES = sorted(STAGES)
ALL = ["base", "control", *STAGE_IMAGES]
WITHOUT_TORCH = ["prepare", "report"]


def image(name: str) -> str:
    return f"{REGISTRY}/tailfill/{name}:{TAG}"


def run(name: str, *arguments: str, entrypoint: str | None = None) -> str:
    """Returns what a container prints under the restrictions of the chart and of the namespace's `restricted`."""
    user = random.randint(1_000_000_000, 2_000_000_000)
    command = [
        "docker",
        "run",
        "--rm",
        "--network=none",
        "--read-only",
        "--tmpfs=/tmp",
        "--cap-drop=ALL",
        f"--user={user}:{user}",
    ]
    command += [
        "--security-opt=no-new-privileges",
        *([f"--entrypoint={entrypoint}"] if entrypoint else []),
        image(name),
        *arguments,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def inspect(name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(subprocess.check_output(["docker", "image", "inspect", image(name)]))
    return found[0]


@pytest.mark.parametrize("name", STAGE_IMAGES)
def test_a_stage_answers(name: str) -> None:
    assert "Usage: tailfill stage" in run(name, "stage", name, "--help")
    assert "Usage: tailfill stage" in run(name)  # as its CMD says


@pytest.mark.parametrize("name", ALL)
def test_an_image_says_what_it_is(name: str) -> None:
    config = inspect(name)["Config"]
    assert config["Entrypoint"] == ["tailfill"]
    user, group = config["User"].split(":")
    assert int(user) > 0 < int(group)  # numbers, by which Kubernetes can tell that the user is not root
    label = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert (label["title"], label["licenses"]) == (f"tailfill/{name}", "Apache-2.0")
    assert label["description"]
    assert run(name, "--version") == f"tailfill, version {label['version']}\n"
    assert len(label["revision"]) == 40


@pytest.mark.parametrize("name", ["base", "slim", "control"])
def test_an_image_has_no_tools_and_no_caches(name: str) -> None:
    """The others are built on this one, and add only labels."""
    script = """
for program in cc gcc g++ c++ clang make ld uv git curl; do command -v $program; done
ls -d /opt/uv /build /code /root/.cache /tmp/* /var/lib/apt/lists/* /opt/tailfill/bin/pip* /opt/tailfill/bin/uv* 2>/dev/null
true
"""
    assert run(name, "-c", script, entrypoint="sh") == ""


@pytest.mark.parametrize("name", STAGE_IMAGES)
def test_a_stage_adds_no_layer_to_the_base(name: str) -> None:
    base = "slim" if name in WITHOUT_TORCH else "base"
    assert inspect(name)["RootFS"]["Layers"] == inspect(base)["RootFS"]["Layers"]


def test_our_code_is_the_last_layer_and_small() -> None:
    lines = subprocess.check_output(
        ["docker", "history", "--no-trunc", "--human=false", "--format={{.Size}} {{.CreatedBy}}", image("base")],
        text=True,
    )
    sizes = [int(line.split()[0]) for line in lines.splitlines() if "/code /opt/tailfill" in line]
    assert len(sizes) == 1
    assert sizes[0] < 5e6


def test_control_is_small_and_has_no_torch() -> None:
    assert inspect("control")["Size"] < 500e6
    script = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ['torch', 'timm', 'diffusers', 'transformers'])))"
    run("control", "-c", script, entrypoint="python")


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_a_stage_without_torch_is_small(name: str) -> None:
    assert inspect(name)["Size"] < 1e9
    script = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ['torch', 'timm', 'diffusers', 'transformers'])))"
    run(name, "-c", script, entrypoint="python")


def test_the_search_is_coordinated_without_torch() -> None:
    script = """
import optuna, jobs.tune, shared.search.coordinator, shared.search.results, shared.search.metrics_server
from shared.config.search import FloatRange
from shared.search.space import sobol_points
assert len(sobol_points({"x": FloatRange(low=0, high=1)}, 0, 5)) == 5
study = optuna.create_study(pruner=optuna.pruners.HyperbandPruner())
study.optimize(lambda trial: trial.suggest_float("x", 0, 1) + trial.suggest_int("n", 1, 3), n_trials=20)
assert set(optuna.importance.get_param_importances(study)) == {"x", "n"}
"""
    run("slim", "-W", "ignore", "-c", script, entrypoint="python")


PROGRAMS = {
    "base": "jobs.__main__, jobs.cli.stage, jobs.final, jobs.finetune, jobs.generate, jobs.judge, jobs.score, jobs.tune, jobs.weights",
    "slim": "jobs.__main__, jobs.cli.stage, jobs.prepare, jobs.report, jobs.tune, shared.search.coordinator",
    "control": "jobs.__main__, jobs.control",
}
"""Says what the programs of an image import."""
IMPORTS = {
    "control": "boto3, optuna, psycopg2, sqlalchemy, kubernetes.client, pyarrow.parquet, pyarrow.compute, tensorboard",
    "slim": "boto3, optuna, psycopg2, sqlalchemy, sklearn, matplotlib.pyplot, jinja2, imagehash, PIL.Image, pyarrow.parquet",
    "base": "torch, torchvision, timm, diffusers, transformers, peft, accelerate, optuna, psycopg2, boto3, sklearn, matplotlib.pyplot",
}


@pytest.mark.parametrize("name", IMPORTS)
def test_libraries_load_without_a_home(name: str) -> None:
    run(name, "-W", "ignore", "-c", f"import {IMPORTS[name]}", entrypoint="python")


def test_bytecode_lies_in_the_image() -> None:
    """With a read-only root, no bytecode can be written later, and each start would compile what it imports."""
    script = """
import importlib.util, pathlib, sys, optuna, {}
ours = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] in ("jobs", "shared", "optuna")]
print(len(ours) > 20, [file for file in ours if not pathlib.Path(importlib.util.cache_from_source(file)).exists()])
"""
    for name, program in PROGRAMS.items():
        assert run(name, "-c", script.format(program), entrypoint="python") == "True []\n"
