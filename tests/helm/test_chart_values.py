"""Tests the chart's values: which are refused, how the study reaches control, and that generated files are up to date."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm.generate import CHART, generated, values_table
from shared.config.load import load_study, study_from_tree
from shared.config.stages import STAGES
from shared.search.metrics import COUNTERS, GAUGES
from tests.support.rendered import any_program, ci, one, program, rendered, run_helm

STUDIES = sorted((CHART.parent / "studies").glob("*.yaml"))


def study_of(objects: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Returns the study that control reads."""
    (mount,) = (
        volume["configMap"]["name"]
        for volume in one(objects, "Deployment", "study-control")["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "study"
    )
    found = one(objects, "ConfigMap", mount)
    assert found["immutable"] is True
    tree: dict[str, Any] = json.loads(found["data"]["study.json"])
    return tree


@pytest.mark.parametrize("name", ["helm", "helm4"])
def test_unknown_keys_and_wrong_values_are_refused(name: str, tmp_path: Path) -> None:
    tree = yaml.safe_load((CHART / "files" / "demo-study.yaml").read_text(encoding="utf-8"))
    tree["finetune"]["stepps"] = tree["finetune"].pop("steps")
    tree["training"]["lr"] = "1e-05"
    values = tmp_path / "values.yaml"
    values.write_text(json.dumps({"study": tree, "gpus": 1, "stages": {"prepare": {"gpu": {"enabled": True}}}}))
    wrong = ("--set", "gpu.cont=2", "--set", "stages.tuning.threads=1", "--set", "image.pullPolicy=never")
    ended = run_helm(program(name), "template", "-f", str(values), *wrong)
    assert ended.returncode != 0
    for message in (
        "at '': additional properties 'gpus' not allowed",
        "at '/gpu': additional properties 'cont' not allowed",
        "at '/stages': additional properties 'tuning' not allowed",
        "at '/stages/prepare': additional properties 'gpu' not allowed",
        "at '/study/finetune': additional properties 'stepps' not allowed",
        "at '/study/training/lr': got string, want number",
        "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'",
    ):
        assert message in ended.stderr
    assert "StableDiffusion" not in ended.stderr  # the errors are about the chosen branch only


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("--set", "seaweedfs.enabled=false"), "needs s3.store (s3://bucket/prefix) and s3.existingSecret"),
        (
            ("--set", "postgresql.enabled=false,database.existingSecret="),
            "needs database.existingSecret (DATABASE_URL)",
        ),
        (("--set", "minio.enabled=true,s3.endpoint=https://s3.example.org"), "set minio.enabled=false"),
        (("--set", "s3.endpoint=https://s3.example.org"), "name its bucket too, in s3.store"),
        (("--set", "image.registry="), "name your registry, or localhost"),
        (("--set", "image.registry=null"), "name your registry, or localhost"),
    ],
)
def test_contradictions_are_refused_with_a_remedy(values: tuple[str, ...], message: str) -> None:
    ended = run_helm(any_program(), "template", *values)
    assert ended.returncode != 0
    assert message in ended.stderr


@pytest.mark.parametrize("release", ["2024", "my.study", "1st"])
def test_a_name_that_no_service_can_have_is_refused(release: str) -> None:
    ended = run_helm(any_program(), "template", release=release)
    assert ended.returncode != 0
    assert f'the release\'s name "{release}" must begin with a letter' in ended.stderr


def test_a_long_name_is_refused() -> None:
    ended = run_helm(any_program(), "template", release="a" * 41)
    assert "longer than 40 characters" in ended.stderr


def test_no_values_are_the_images_of_make_images() -> None:
    """These images are loaded into the nodes. A name `localhost/…` is never requested from a public registry, as `tailfill/…` would be."""
    bake = (CHART.parent / "images" / "docker-bake.hcl").read_text(encoding="utf-8")
    default = dict(re.findall(r'variable "(\w+)" \{ default = "(.*)" \}', bake))
    control = one(rendered(any_program()), "Deployment", "study-control")["spec"]["template"]["spec"]
    (container,) = control["containers"]
    assert container["image"] == f"{default['REGISTRY']}/tailfill/control:{default['TAG']}"
    assert default["REGISTRY"] == "localhost"
    project = tomllib.loads((CHART.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert default["TAG"] == project["version"]
    assert container["imagePullPolicy"] == "IfNotPresent"


def test_the_services_of_kind_are_the_chart_s() -> None:
    objects = rendered(any_program(), "-f", str(CHART.parent / "k8s" / "kind-values.yaml"))
    for name in ("minio", "postgresql"):
        (deployment,) = (
            each
            for each in yaml.safe_load_all((CHART.parent / "k8s" / "services" / f"{name}.yaml").read_text())
            if each["kind"] == "Deployment"
        )
        own = one(objects, "StatefulSet", f"study-{name}")["spec"]["template"]["spec"]["containers"][0]
        assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == own["image"]


def test_what_the_readme_reaches_by_port_forward_is_there() -> None:
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    objects = rendered(any_program())
    forwards = re.findall(r"port-forward svc/(study-\S+) (\d+) &", readme)
    assert len(forwards) == 2
    for name, port in forwards:
        assert one(objects, "Service", name)["spec"]["ports"][0]["port"] == int(port)
    (secret,) = set(re.findall(r"get secret (\S+) -o", readme))
    assert secret == "study-credentials"
    # tests/cluster/test_admission.py sees that these are its keys
    assert set(re.findall(r"\$\(secret (\w+)\)", readme)) == {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "POSTGRES_PASSWORD",
    }
    (container,) = one(objects, "Deployment", "study-control")["spec"]["template"]["spec"]["containers"]
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert f"TAILFILL_STORE={env['TAILFILL_STORE']} " in readme
    url = str(env["DATABASE_URL"]).replace(
        "$(POSTGRES_PASSWORD)@study-postgresql", "$(secret POSTGRES_PASSWORD)@localhost"
    )
    assert f"DATABASE_URL={url}\n" in readme


def test_no_values_is_the_demo() -> None:
    tree = study_of(rendered(any_program()))
    demo = next(file for file in STUDIES if file.stem == "demo")
    assert study_from_tree(tree) == load_study(demo)


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_study_file_is_a_value(file: Path, tmp_path: Path) -> None:
    """Each file is indented under `study:`, as the README says."""
    values = tmp_path / "values.yaml"
    text = file.read_text(encoding="utf-8")
    values.write_text("study:\n" + "".join(f"  {line}\n" for line in text.splitlines()), encoding="utf-8")
    assert study_from_tree(study_of(rendered(any_program(), "-f", str(values)))).written == load_study(file).written


@pytest.mark.parametrize("name", ["helm", "helm4"])
def test_numbers_and_nulls_arrive_as_they_are(name: str) -> None:
    more = ("--set-json", 'study.rare={"below": null}', "--set-json", "study.training.weight_decay=1e-7")
    tree = study_of(rendered(program(name), *ci("spot"), *more))
    assert (tree["training"]["lr"], tree["dataset"]["train"]) == (0.00001, 1000000)
    assert (tree["training"]["weight_decay"], tree["rare"]) == (1e-7, {"below": None})
    assert isinstance(tree["dataset"]["train"], int)


def test_a_study_is_named_by_its_content() -> None:
    helm = any_program()
    spot = ci("spot")

    def name(*values: str) -> str:
        (found,) = (
            each["metadata"]["name"] for each in rendered(helm, *values) if "study.json" in each.get("data", {})
        )
        return str(found)

    assert re.fullmatch(r"study-study-[0-9a-f]{8}", name())
    assert name() != name(*spot) == name(*spot, "--set", "gpu.count=2")


def test_another_study_leaves_the_workers_alone() -> None:
    helm = any_program()
    other = {
        "name": "other",
        "dataset": {"source": "garments"},
        "finetune": {"generator": "pixel"},
        "experiments": [{"name": "real"}],
    }
    before, after = rendered(helm), rendered(helm, "--set-json", f"study={json.dumps(other)}")
    assert study_of(before) != study_of(after)
    for kind, object_name in (("Deployment", "study-tune"), ("ConfigMap", "study-stages")):
        assert one(before, kind, object_name) == one(after, kind, object_name)


def test_what_is_generated_is_not_stale() -> None:
    for path, text in generated().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: run `make generate`"


def test_values_and_schema_name_every_stage() -> None:
    values, schema = (
        yaml.safe_load((CHART / name).read_text(encoding="utf-8")) for name in ("values.yaml", "schema.yaml")
    )
    assert list(values["stages"]) == list(schema["properties"]["stages"]["properties"]) == ["defaults", *STAGES]


def test_every_value_is_commented() -> None:
    table = values_table((CHART / "values.yaml").read_text(encoding="utf-8"))
    bare = [row for row in table.splitlines() if row.endswith("|  |")]
    assert bare == []


def test_the_dashboard_shows_the_metrics_that_there_are() -> None:
    board = json.loads((CHART / "files" / "grafana-dashboard.json").read_text(encoding="utf-8"))
    asked = {
        name
        for panel in board["panels"]
        for each in panel["targets"]
        for name in re.findall(r"tailfill_\w+", each["expr"])
    }
    served = {
        "tailfill_database_up",
        "tailfill_trials",
        "tailfill_stage",
        *GAUGES,
        *(f"{name}_total" for name in COUNTERS),
    }
    assert asked == served
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
