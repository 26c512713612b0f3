"""Tests which settings of a search are valid, and which are refused with a remedy."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from shared.config.load import parse, study_from_tree
from shared.config.search import Choice, Search
from shared.errors import ConfigError

BOTH = ["val_macro_f1", "val_loss"]


def tree(search: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "dataset": {"source": "garments", "resolution": 32},
        "finetune": {"generator": "pixel", "steps": 5},
        "verdict": "none",
        "search": search,
        "experiments": [{"name": "real"}],
        **values,
    }


def test_one_objective_or_several() -> None:
    assert Search().objectives == ("val_macro_f1",)
    study = study_from_tree(tree({"objective": BOTH, "pruner": "none"}))
    assert study.written.search.objectives == ("val_macro_f1", "val_loss")
    assert study.written.search.model_dump(mode="json")["objective"] == BOTH


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"objective": "val_los"}, r"search\.objective: must be one of 'val_loss', .* got \"val_los\""),
        ({"objective": ["val_loss", "val_los"]}, r"search\.objective\[1\]: must be one of .* got \"val_los\""),
        ({"objective": ["val_loss"]}, r"search\.objective: lists 1 objectives, .* name one without brackets"),
        ({"objective": ["val_loss"] * 2}, r"search\.objective: names val_loss twice, .* name each objective once"),
        ({"objective": BOTH}, r"^search\.pruner: must be none with several objectives .* got 'median'; set"),
        ({"objective": BOTH, "pruner": "none", "strategy": "sequential"}, r"search\.strategy: must be joint or random or grid .* got 'seq"),
        ({"objective": BOTH, "pruner": "none", "sampler": "cmaes"}, r"search\.sampler: must be auto or tpe or qmc or gp .* got 'cmaes'"),
    ],
)  # fmt: skip
def test_refused_objectives(search: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        study_from_tree(tree(search))
    assert "\n" not in str(caught.value)


def test_an_error_of_two_values_together_names_them_where_they_were_written() -> None:
    wrong = r"search\.pruner: must be none with several objectives"
    own = [{"name": "real"}, {"name": "other", "search": {"objective": BOTH}}]
    with pytest.raises(ConfigError, match=rf"^experiments\[1\]\.{wrong}"):
        study_from_tree(tree({}, experiments=own))
    own = [{"name": "real", "search": {"pruner": "median"}}]
    with pytest.raises(ConfigError, match=rf"^experiments\[0\]\.{wrong}"):
        study_from_tree(tree({"objective": BOTH, "pruner": "none"}, experiments=own))
    text = yaml.safe_dump(tree({"objective": BOTH, "pruner": "median"}))
    line = next(i for i, written in enumerate(text.splitlines(), 1) if "pruner" in written)
    with pytest.raises(ConfigError, match=rf"^{wrong} .* in study\.yaml line {line}$"):
        study_from_tree(*parse(text, "study.yaml"))


def test_a_pruner_that_is_asked_for_must_be_able_to_prune() -> None:
    def study(**search: Any) -> None:
        study_from_tree(
            *parse(
                yaml.safe_dump(tree({"space": {"training.lr": {"low": 1e-4, "high": 1e-2}}, **search})), "study.yaml"
            )
        )

    study(epochs=10)  # the default is allowed
    study(epochs=10, pruner="hyperband", prune_after=8)
    study(epochs=10, pruner="none")
    study(epochs=10, pruner="median", trials=0, space={})
    wrong = r"^search\.pruner: halving would prune no trial: .* lower search\.prune_after to 8, raise .* in study\.yaml line \d+$"
    with pytest.raises(ConfigError, match=wrong):
        study(epochs=10, pruner="halving", prune_after=9)
    with pytest.raises(ConfigError, match=r"; raise search\.epochs, or set pruner: none"):
        study(epochs=1, pruner="median", prune_after=0)


@pytest.mark.parametrize(
    ("values", "refused"),
    [([1.5, 1.5], "1.5"), ([1, 2, 1.0], "1.0"), (["soft", "hard", "soft"], "soft"), ([True, False, True], "True")],
)
def test_a_choice_names_each_value_once(values: list[Any], refused: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^search\.space\.training\.lr\.values: names {refused} twice, got .*; name each value once"
    ):
        study_from_tree(tree({"space": {"training.lr": {"values": values}}}))
    assert Choice(values=(True, 1)).values == (True, 1)


def test_a_verdict_compares_arms_with_the_same_objectives() -> None:
    experiments = [{"name": "real"}, {"name": "other", "images": "real+copies", "search": {"objective": BOTH[::-1]}}]
    with pytest.raises(ConfigError, match=r"experiments\[1\]\.search\.objective: must equal that of the baseline real"):
        study_from_tree(
            tree({"objective": BOTH, "pruner": "none"}, verdict={"provisional": True}, experiments=experiments)
        )


def warm(name: str, **values: Any) -> dict[str, Any]:
    """Returns a study of three experiments: the second has no search, and the third starts from `name`."""
    experiments = [
        {"name": "real"},
        {"name": "fixed", "search": {"trials": 0, "warm_start_from": "nowhere"}},  # without a search it has no effect
        {"name": "other", "search": {"warm_start_from": name}},
        {"name": "below"},
    ]
    return tree({}, experiments=experiments, **values)


@pytest.mark.parametrize("name", ["real", "theirs/real", "t/r"])
def test_a_search_begins_from_an_earlier_one(name: str) -> None:
    study = study_from_tree(warm(name))
    assert study.experiments[2].search.warm_start_from == name


@pytest.mark.parametrize("name", ["below", "fixed", "other", "absent", ""])
def test_an_earlier_search_stands_above(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"experiments\[2\]\.search\.warm_start_from: must .* got '{name}'; there are real"
    ):
        study_from_tree(warm(name))


@pytest.mark.parametrize("name", ["tiny/real", "Theirs/real", "theirs/", "/real", "a/b/c"])
def test_another_study_s_search_has_two_names(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"must be an experiment above, or study/experiment .* got '{name}'"):
        study_from_tree(warm(name))


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"warm_start_from": "theirs/real"}, r"search\.warm_start_from: must be unset .* got \"theirs/real\"; change it"),
        ({"strategy": "sequential"}, r"search\.strategy: must be joint .* got \"sequential\""),
        ({"sampler": "tpe"}, r"search\.sampler: must be qmc with a verdict \(in a repetition all arms try the same points\), got \"tpe\""),
        ({"pruner": "hyperband"}, r"search\.pruner: must be none or median or halving .* got \"hyperband\""),
        ({"trials": 15}, r"search\.trials: must be a multiple of final\.seeds \(10\) .* got 15; set it to 20, or"),
        ({"trials": 10}, r"search\.trials: .* at least 2 per repetition .* got 10; set it to 20, or"),
        ({"trials": 35}, r"search\.trials: .* got 35; set it to 30 or 40, or"),
        ({"trials": 40, "space": {"augmentation": {"values": ["soft", "hard"]}}}, r"search\.trials: must be at most 20, since .* has 2 points .* got 40"),
    ],
)  # fmt: skip
def test_what_a_search_with_a_verdict_cannot_do(search: dict[str, Any], message: str) -> None:
    experiments = [{"name": "real"}, {"name": "other", "images": "real+copies"}]
    with pytest.raises(ConfigError, match=message):
        study_from_tree(tree(search, verdict={}, experiments=experiments))


def test_the_sampler_follows_from_the_verdict() -> None:
    experiments = [{"name": "real"}]
    found = [study_from_tree(tree({}, verdict=verdict, experiments=experiments)) for verdict in ({}, "none")]
    assert [study.experiments[0].search.sampler for study in found] == ["qmc", "tpe"]
