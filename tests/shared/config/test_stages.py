"""Tests that everything that lists all stages agrees with the table of stages."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from shared.artifacts.fingerprint import recorded
from shared.config.stages import STAGES, Stage, StageConfig, stage_named
from shared.errors import ConfigError

ROOT = Path(__file__).parents[3]
stages = pytest.mark.parametrize("stage", STAGES)


def test_the_names_are_those_of_the_type() -> None:
    assert tuple(STAGES) == get_args(Stage)
    assert {kind.config for kind in STAGES.values()} == set(get_args(StageConfig))
    assert recorded().keys() == STAGES.keys()


@stages
def test_a_stage_runs_what_it_names(stage: Stage) -> None:
    kind = STAGES[stage]
    assert kind.run.startswith(f"jobs.{stage}:")
    parameters = inspect.signature(pkgutil.resolve_name(kind.run)).parameters
    assert list(parameters) == ["config", "context"]
    assert parameters["config"].annotation == kind.config.__name__
    if kind.work is not None:  # a worker may go from one task of its stage to the next
        assert kind.work.startswith(f"jobs.{stage}:")
        assert list(inspect.signature(pkgutil.resolve_name(kind.work)).parameters) == ["open_contexts"]


@stages
def test_a_stage_is_one_noun_everywhere(stage: Stage) -> None:
    for file in (f"jobs/{stage}.py", f"images/{stage}/Dockerfile"):
        assert (ROOT / file).is_file(), file
    assert list((ROOT / "tests" / "jobs").glob(f"test_{stage}*.py")), stage


@stages
def test_operational_values_are_in_the_config(stage: Stage) -> None:
    for path in STAGES[stage].operational:
        kinds: list[Any] = [STAGES[stage].config]
        for step in path.split("."):
            kinds = [kind.model_fields[step].annotation for kind in models(kinds) if step in kind.model_fields]
            assert kinds, path


def models(kinds: list[Any]) -> list[type[BaseModel]]:
    """Returns the models among some types and the members of unions."""
    inner = [argument for kind in kinds for argument in get_args(kind)]
    own = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return own + (models(inner) if inner else [])


def test_an_unknown_stage_is_refused_with_those_that_there_are() -> None:
    assert stage_named("final", "--rerun final") == "final"
    with pytest.raises(ConfigError, match=r"^--rerun fnal: there is no such stage; did you mean final\?$"):
        stage_named("fnal", "--rerun fnal")


def test_the_table_imports_no_torch() -> None:
    code = "import sys, shared.config.stages; print({'torch', 'numpy', 'boto3', 'optuna'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT) == "set()\n"
