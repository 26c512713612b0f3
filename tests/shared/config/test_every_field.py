"""Tests that nothing in a study is accepted and ignored: every section and field of `Study` reaches a stage, or is refused by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from shared.config.base import Section
from shared.config.load import study_from_tree
from shared.config.resolve import ResolvedStudy
from shared.config.study import Experiment, Overridable, Study
from shared.data.sources.table import SOURCES, StoredSource
from shared.diffusion.generators import GENERATORS
from shared.errors import ConfigError
from shared.pipeline.plan import plan
from shared.pipeline.warm_start import WarmStart
from tests.support.small_study import SMALL_STUDY

DEMO = yaml.safe_load((SMALL_STUDY).read_text())
BASE = {"base": "some/model", "revision": "a", "method": "lora"}
FINETUNE = {
    name: {"generator": name, "resolution": 32} | (BASE if kind.base else {}) for name, kind in GENERATORS.items()
}
GROUPS = {"kind": {"column": "kind"}, "marks": {"kind": "any", "columns": ["a", "b"]}}
COLUMNS = {"kind": {"column": "kind"}, "marks": {"kind": "any", "column": "marks"}}
REQUIRED: dict[str, dict[str, Any]] = {
    "csv": {"groups": GROUPS},
    "parquet": {"groups": COLUMNS},
    "imagefolder": {"groups": COLUMNS},
    "yolo": {"file": "data.yaml"},
}
"""The required keys of a source, beside its root."""
DATASETS: dict[str, dict[str, Any]] = {
    name: {"root": "data", "resolution": 64, **REQUIRED.get(name, {})}
    for name, entry in SOURCES.items()
    if isinstance(entry, StoredSource)
}
OTHER_VALUES: dict[str, Any] = {
    "images": "real+copies",
    "dataset.names": {"n02007558": "flamingo"},
    "rare.classes": ["fabric/leather"],
    "generate.quota": {"fabric/leather": 3},
    "generate.guidance_interval": [0.2, 0.8],
    "finetune.phrases": {"fabric/leather": "leather"},
    "search.space": {"training.tau": {"low": 0.0, "high": 1.0}},
    "search.objective": ["val_macro_f1", "val_loss"],
    "search.sampler": "cmaes",
    "search.warm_start_from": "other/real",
    "dataset.keep": {"shirt": 4},
    "dataset.classes": ["x", "y"],
    "dataset.header": ["path", "kind"],
    "dataset.window": [0.0, 4095.0],
    "dataset.skip": ["masks"],
    "dataset.lists": {"train": "train.txt", "test": "test.txt"},
    "dataset.tables": {"val": "val.txt"},
    "dataset.pixel_tables": ["train.csv"],
    "dataset.numbers": [1, 2],
    "dataset.more": [{"file": "test.csv", "split": "test"}],
    "dataset.split_values": {"0": "train", "1": "test"},
    "dataset.groups.kind.names": {"0": "x"},
    "dataset.groups": {"other": {"column": "kind"}},
    "dataset.groups.kind.column": "other",
    "dataset.groups.kind.classes": ["x", "y"],
    "dataset.groups.marks.columns": ["a", "c"],
    "verdict.baseline": "placebo",
    "prices": {"currency": "EUR", "per_hour": {"H100": 2.5}},
    "prices.currency": "USD",
    "prices.per_hour": {"H100": 3.0},
    "accept.plausibility": [0.1, 0.9],
    "classifier.pretrained": True,
    "classifier.head": [32],
    "training.views": 4,
}
"""Valid values, by path, of fields whose type does not suggest one."""
OPTIONAL = [name for name, field in Study.model_fields.items() if field.default is None and not field.is_required()]
"""The sections that a study may leave out."""
BASES: dict[str, dict[str, Any]] = {
    "demo": {**DEMO, "verdict": "none", "experiments": [*DEMO["experiments"], {"name": "plain"}]},
    "verdict": {**DEMO, "final": {"epochs": 2, "seeds": 8}, "search": {**DEMO["search"], "trials": 32}},
    **{name: {**DEMO, "verdict": "none", "finetune": values} for name, values in FINETUNE.items()},
    **{name: {**DEMO, "verdict": "none", "dataset": {"source": name, **values}} for name, values in DATASETS.items()},
    **{name: {**DEMO, "verdict": "none", name: OTHER_VALUES.get(name, {})} for name in OPTIONAL},
}
"""Studies that together have every possible section."""

NOT_SET_ALONE = {
    "dataset.source": "each has sections of its own",
    "finetune.generator": "each has sections of its own",
    "dataset.groups.kind.columns": "excludes `column`",
    "dataset.groups.kind.kind": "`column` names one class or a list",
    "dataset.groups.marks.column": "excludes `columns`",
    "dataset.groups.marks.classes": "`columns` are the classes",
    "dataset.groups.marks.names": "`columns` are the classes",
    "generate.prompts": "needs a generator with prompts",
    "generate.negative_prompt": "needs a generator with prompts",
    "generate.few_step": "needs a generator with a base",
    "generate.image_to_image.similar_classes": "needs start_from: similar",
    "synthetic.label_power": "needs start_from: similar",
    "search.space.training.dropout.log": "begins at 0",
    "search.space.training.lr.kind": "an integer is no learning rate",
    "search.space.training.dropout.kind": "an integer is no dropout",
}


def models(kind: Any, seen: set[type[BaseModel]]) -> set[type[BaseModel]]:
    """Returns all models that a type is made of."""
    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in seen:
        seen.add(kind)
        for field in kind.model_fields.values():
            models(field.annotation, seen)
    for argument in get_args(kind):
        models(argument, seen)
    return seen


def test_every_section_refuses_what_it_does_not_declare() -> None:
    found = models(Study, set())
    assert len(found) > 20
    for kind in found:
        assert (kind.model_config["extra"], kind.model_config["strict"], kind.model_config["frozen"]) == (
            "forbid",
            True,
            True,
        )


@pytest.mark.parametrize("name", Study.model_fields)
def test_every_section_is_overridable_or_refused_by_name(name: str) -> None:
    changed = copy.deepcopy(BASES["demo"])
    changed["experiments"][1][name] = {"nonsense": True}
    with pytest.raises(ConfigError) as error:
        study_from_tree(changed)
    if name in Overridable.model_fields:
        assert name in Experiment.model_fields
        assert f"experiments[1].{name}" in str(error.value)
    elif name not in Experiment.model_fields:  # an experiment has a name and a seed of its own
        assert str(error.value) == (
            f"experiments[1].{name}: is one for the whole study, not for an experiment; set {name} at the top level"
        )


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("no-section",), "no-section: unknown key; there are "),
        (("experiments", 1, "no-section"), "experiments[1].no-section: unknown key; there are "),
        (("experiments", 1, "titel"), "experiments[1].titel: unknown key; did you mean title?"),
        (("experiments", 1, "trainings"), "experiments[1].trainings: unknown key; did you mean training?"),
        (("experiments", 1, "training", "mixxup"), "experiments[1].training.mixxup: unknown key; did you mean mixup?"),
        (("experiments", 1, "search", "budget", "gpu_hour"), "experiments[1].search.budget.gpu_hour: unknown key; did you mean gpu_hours?"),
        (("experiments", 1, "finetune", "widht"), "experiments[1].finetune.widht: unknown key; did you mean width?"),
        (("search", "space", "training.lr", "lo"), "search.space.training.lr.lo: unknown key; did you mean low or log?"),
        (("dataset", "rooot"), "dataset.rooot: unknown key; there are "),
    ],
)  # fmt: skip
def test_an_unknown_key_is_refused_with_the_near_keys_of_its_own_section(
    place: tuple[str | int, ...], message: str
) -> None:
    changed = copy.deepcopy(BASES["demo"])
    put(changed, place, {"nonsense": True})
    with pytest.raises(ConfigError) as error:
        study_from_tree(changed)
    assert str(error.value).startswith(message)


def put(tree: Any, path: tuple[str | int, ...], value: Any) -> None:
    """Sets a value in a tree, and adds the mappings that are missing above it."""
    for step in path[:-1]:
        tree = tree.setdefault(step, {}) if isinstance(tree, dict) else tree[step]
    tree[path[-1]] = value


def fields(section: Section, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any, Any]]:
    """Yields path, type and value of every field that holds no further section."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, tuple) else ()
        sections = [(key, item) for key, item in inner if isinstance(item, Section)]
        if isinstance(value, Section):
            yield from fields(value, (*path, name))
        else:
            yield (*path, name), field.annotation, value
        for key, item in sections:
            yield from fields(item, (*path, name, key))


def others(path: tuple[str | int, ...], kind: Any, value: Any) -> Iterator[Any]:
    """Yields other values that a field might have."""
    name = ".".join(map(str, path)).removeprefix("experiments.1.")
    if name in OTHER_VALUES:
        yield OTHER_VALUES[name]
    elif name in OPTIONAL:
        yield {}
    yield from _literals(kind)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, value - 1, value + 8, value - 8, value - 4, value * 0.9, value / 2, 0.1)
    elif isinstance(value, str):
        yield f"{value}-x"
    else:
        yield from (1, 0.5, 32, True, "other")


def _literals(kind: Any) -> list[Any]:
    inner = get_args(kind)
    return [item for argument in inner for item in ([argument] if isinstance(argument, str) else _literals(argument))]


def outcome(study: ResolvedStudy) -> str:
    """Returns everything that the stages of a study get from it."""
    earlier = {"other/real": WarmStart("other/real")}
    steps = plan(study, None if study.dataset.root is None else "0" * 64, {}, earlier)
    told = [
        [step.stage, step.experiment, step.id, step.config.model_dump(mode="json"), step.warm_start is not None]
        for step in steps
    ]
    return json.dumps([study.name, study.resources.model_dump(mode="json"), told], sort_keys=True)


def changed_study(base: dict[str, Any], path: tuple[str | int, ...], kind: Any, value: Any) -> ResolvedStudy:
    """Returns the study with another value at the path; fails if no other value is valid."""
    errors = []
    for other in others(path, kind, value):
        tree = copy.deepcopy(base)
        put(tree, path, other)
        try:
            study = study_from_tree(tree)
        except ConfigError as error:
            errors.append(str(error))
            continue
        if other != value:
            return study
    name = ".".join(map(str, path)).removeprefix("experiments.1.")
    pytest.fail(f"{name}: no other value is known; add a valid one to OTHER_VALUES of this file. Tried: {errors}")


@pytest.mark.parametrize("base", BASES)
def test_every_field_reaches_a_stage(base: str) -> None:
    try:
        study = study_from_tree(BASES[base])
    except ConfigError as error:
        pytest.fail(f"the study of {base} is refused ({error}); what it requires belongs in REQUIRED or BASE above")
    told, ignored = outcome(study), []
    sections = {"demo": None, "verdict": "verdict"} | dict.fromkeys(GENERATORS, "finetune") | {n: n for n in OPTIONAL}
    section = sections.get(base, "dataset")
    for path, kind, value in fields(study.written):
        name = ".".join(map(str, path))
        if section not in (None, path[0]) or name in {*NOT_SET_ALONE, "verdict", "experiments"}:
            continue
        if path[0] == "experiments" and path[2] in ("name", "parameters_from", *Overridable.model_fields):
            continue  # the next test covers the sections of an experiment
        if outcome(changed_study(BASES[base], path, kind, value)) == told:
            ignored.append(name)
    assert not ignored


def test_every_field_of_an_experiment_reaches_a_stage() -> None:
    tree = BASES["demo"]
    study = study_from_tree(tree)
    told, ignored = outcome(study), []
    for path, kind, value in fields(study.written):
        name = ".".join(map(str, path))
        if path[0] not in Overridable.model_fields or name in NOT_SET_ALONE or name.startswith("search.space."):
            continue  # an experiment's space replaces the study's as one value
        if outcome(changed_study(tree, ("experiments", 1, *path), kind, value)) == told:
            ignored.append(name)
    assert not ignored
