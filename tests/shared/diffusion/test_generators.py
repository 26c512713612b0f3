"""Tests that every generator of the table trains, draws and is timed, and that no other code needs its name."""

from __future__ import annotations

import ast
import inspect
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import get_args

import numpy as np
import pytest
import torch

from shared.artifacts.fingerprint import modules_of
from shared.config.generation import AnyFinetune, Finetune, Generate
from shared.config.search import Resources
from shared.diffusion import generator
from shared.diffusion.generator import BaseSource, SampleRequest, Time, Train
from shared.diffusion.generators import GENERATORS, GeneratorKind, generator_kind
from shared.diffusion.load import load_generator
from shared.errors import DataError, Stopped
from shared.stop import StopSignal
from tests.support.checkpoints import StoppingCheckpoints
from tests.support.tiny_pipeline import SCHEMA, tiny_finetuning, tiny_images

ROOT = Path(__file__).parents[3]
every = pytest.mark.parametrize(("name", "kind"), GENERATORS.items(), ids=GENERATORS)


def tiny_config(name: str, kind: GeneratorKind, base: Path) -> Finetune:
    """Returns a section whose training takes one second."""
    small = {
        "steps": 3,
        "batch_size": 2,
        "resolution": 32,
        "width": 8,
        "base": str(base),
        "warmup_steps": 1,
        "checkpoint_every": 1,
    }
    return kind.config.model_validate(
        {"generator": name} | {field: value for field, value in small.items() if field in kind.config.model_fields}
    )


def package_of(name: str) -> str:
    """Returns the dotted name of a generator's package, which two generators may share."""
    return GENERATORS[name].train.partition(":")[0].rpartition(".")[0]


def functions(kind: GeneratorKind) -> dict[str, str]:
    """Returns the functions' names in an entry, by the name of their type in `shared.diffusion.generator`."""
    return {"Train": kind.train, "Load": kind.load, "Time": kind.time}


def test_every_section_of_a_study_has_an_entry_under_its_name() -> None:
    union, _ = get_args(AnyFinetune)
    named = {get_args(section.model_fields["generator"].annotation): section for section in get_args(union)}
    entries = {(name,): kind.config for name, kind in GENERATORS.items()}
    assert named == entries, "AnyFinetune (left, shared/config/generation.py) and GENERATORS (right) must have the same"


@every
def test_every_function_exists_and_takes_what_its_type_says(name: str, kind: GeneratorKind) -> None:
    for role, path in functions(kind).items():
        parameters, _ = get_args(getattr(generator, role))
        assert len(inspect.signature(resolve_name(path)).parameters) == len(parameters)


@every
def test_no_generator_imports_another(name: str, kind: GeneratorKind) -> None:
    packages = {other: package_of(other) for other in GENERATORS}
    for path in functions(kind).values():
        module = path.partition(":")[0]
        assert module.startswith(f"{packages[name]}."), f"{path} must be in a module of the package {packages[name]}"
        assert set(packages.values()).intersection(modules_of(module)) <= {packages[name]}


@every
def test_a_generator_reads_each_setting_of_its_section(name: str, kind: GeneratorKind) -> None:
    package = ROOT.joinpath(*package_of(name).split("."))
    trees = [ast.parse(path.read_text()) for path in package.rglob("*.py")]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    ignored = {*kind.config.model_fields} - read - {"generator"}
    assert not ignored, f"no module of {package_of(name)} reads {sorted(ignored)}: a study could set it without effect"


@every
def test_an_entry_agrees_with_its_section(name: str, kind: GeneratorKind, tiny_base: Path, tmp_path: Path) -> None:
    location = tiny_config(name, kind, tmp_path).base_location
    assert location == (None if kind.base is None else str(tmp_path))
    if kind.base is not None:
        files = [path.relative_to(tiny_base).as_posix() for path in tiny_base.rglob("*") if path.is_file()]
        read = kind.base.choose([*files, "unet/diffusion_pytorch_model.bin", "whole.safetensors"])
        assert set(read) <= set(files)
        assert kind.base.missing(read) == []
        assert kind.base.missing([])
        assert {name for name in read if name.endswith(".safetensors")} <= set(kind.base.pickles)


@every
def test_every_generator_trains_and_draws(
    name: str, kind: GeneratorKind, tiny_base: Path, source: BaseSource, tmp_path: Path, device: torch.device
) -> None:
    config = tiny_config(name, kind, tiny_base)
    finetuning = tiny_finetuning(tmp_path / "out", source, device)
    train: Train = resolve_name(kind.train)
    curve = train(config, finetuning)
    assert [point["step"] for point in curve] == [1, 2, 3], "a short curve has a point per step"
    assert all(np.isfinite(point["loss"]) for point in curve)
    files = {path.name: path for path in finetuning.out.iterdir()}
    assert json.loads(files["generator.json"].read_text())["generator"] == name
    assert json.loads(files["curve.json"].read_text()) == curve
    assert {path.suffix for path in files.values()} == {".json", ".safetensors"}, "a stage opens no other kind of file"
    trained = load_generator(files, device, source)
    labels = tiny_images().labels
    drawn = trained.sample([SampleRequest(labels[i], i) for i in range(3)], 2.0, 2)
    assert (drawn.shape, drawn.dtype) == ((3, 32, 32, 3), np.uint8)
    assert len({image.tobytes() for image in drawn}) == 3
    assert "red" in trained.prompt(labels[0])
    requests = [SampleRequest(labels[0], 0, start, 0.5) for start in tiny_images().pixels(32)[:2]]
    first, second = trained.sample(requests, 2.0, 2)
    assert (first != second).any(), "an image with a `start` depends on it"


@every
def test_a_stopped_training_continues_and_ends_with_the_same_weights(
    name: str, kind: GeneratorKind, tiny_base: Path, source: BaseSource, tmp_path: Path
) -> None:
    train: Train = resolve_name(kind.train)
    config = tiny_config(name, kind, tiny_base).model_copy(update={"steps": 5})
    whole = tiny_finetuning(tmp_path / "whole" / "out", source, torch.device("cpu"))
    train(config, whole)
    stop = StopSignal()
    checkpoints = StoppingCheckpoints(tmp_path / "kept", stop)
    with suppress(Stopped):  # a training that saves no checkpoint is not stopped
        train(config, replace(whole, out=tmp_path / "stopped" / "out", checkpoints=checkpoints, stop=stop))
    assert bool(stop) == ("checkpoint_every" in kind.config.model_fields), "`checkpoint_every` is its to heed"
    resumed = replace(whole, out=tmp_path / "resumed" / "out", checkpoints=checkpoints)
    train(config, resumed)
    assert len(checkpoints.steps) == len(set(checkpoints.steps)), "it began anew, and saved a step for the second time"
    for path in whole.out.glob("*.safetensors"):
        same = path.read_bytes() == (resumed.out / path.name).read_bytes()
        assert same, f"{path.name} differs from that of a training that was not stopped"


@every
def test_every_generator_is_timed(
    name: str, kind: GeneratorKind, tiny_base: Path, source: BaseSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.benchmark.SECONDS", 0.1)
    measure: Time = resolve_name(kind.time)
    config, generate = tiny_config(name, kind, tiny_base), Generate(steps=2, batch_size=2)
    for low, middle, high in measure(config, generate, SCHEMA, Resources(device="cpu"), source.settings):
        assert 0 < low <= middle <= high < 60


@every
@pytest.mark.parametrize("gpus", [0, 1, 3, 4, 8])
def test_a_training_takes_no_more_gpus_than_there_are(name: str, kind: GeneratorKind, gpus: int) -> None:
    assert 1 <= kind.most_gpus(tiny_config(name, kind, Path("base")), gpus) <= max(gpus, 1)


@pytest.mark.parametrize(("batch", "gpus", "count"), [(4, 0, 1), (4, 1, 1), (4, 2, 2), (4, 3, 2), (6, 4, 3), (1, 8, 1)])
def test_the_processes_of_stable_diffusion_share_a_batch_evenly(batch: int, gpus: int, count: int) -> None:
    kind = GENERATORS["stable-diffusion"]
    config = kind.config.model_validate({"generator": "stable-diffusion", "batch_size": batch})
    assert kind.most_gpus(config, gpus) == count
    assert GENERATORS["pixel"].most_gpus(config, gpus) == 1


def test_an_unknown_name_is_refused_with_those_that_there_are_and_those_near() -> None:
    for name, kind in GENERATORS.items():
        assert generator_kind(name) is kind
    known = ", ".join(GENERATORS)
    with pytest.raises(DataError, match=f"^there is no generator 'pixle'; there are {known}; did you mean pixel\\?$"):
        generator_kind("pixle")
    with pytest.raises(DataError, match=f"^there is no generator 'gan'; there are {known}$"):
        generator_kind("gan")
