"""Tests how experiments are resolved: merged values and pinned paths."""

from __future__ import annotations

from typing import Any

import pytest

from shared.config.generation import PixelFinetune, StableDiffusionFinetune
from shared.config.load import study_from_tree
from shared.config.search import FloatRange
from shared.config.study import least_seeds
from shared.errors import ConfigError


def tree(**values: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "dataset": {"source": "garments", "resolution": 32},
        "finetune": {"generator": "pixel", "steps": 5},
        "verdict": "none",
        "experiments": [{"name": "real"}],
        **values,
    }


def test_an_override_is_merged_key_by_key() -> None:
    study = study_from_tree(
        tree(
            training={"lr": 0.5, "dropout": 0.25}, experiments=[{"name": "a"}, {"name": "b", "training": {"lr": 0.125}}]
        )
    )
    a, b = study.experiments
    assert (a.training.lr, a.training.dropout) == (0.5, 0.25)
    assert (b.training.lr, b.training.dropout) == (0.125, 0.25)
    assert (a.pinned, b.pinned) == ((), ("training.lr",))


def test_a_search_space_is_replaced_whole() -> None:
    study = study_from_tree(
        tree(experiments=[{"name": "a", "search": {"space": {"training.tau": {"low": 0, "high": 2}}}}])
    )
    assert study.experiments[0].search.space == {"training.tau": FloatRange(low=0, high=2)}


def test_views_are_kept_where_trials_share_an_augmentation() -> None:
    spaces = ({"training.lr": {"low": 1e-4, "high": 1e-2}}, {"training.erasing": {"low": 0, "high": 0.5}})
    searched = [{"name": f"e{i}", "search": {"space": space}} for i, space in enumerate(spaces)]
    own = {"name": "own", "training": {"views": 4}, "search": {"space": spaces[1]}}
    fixed = {"name": "fixed", "search": {"trials": 0, "space": spaces[1]}}
    views = [e.training.views for e in study_from_tree(tree(experiments=[*searched, own, fixed])).experiments]
    assert views == ["auto", "fresh", 4, "auto"]


def test_another_generator_starts_from_its_own_defaults() -> None:
    study = study_from_tree(
        tree(
            experiments=[
                {"name": "a", "finetune": {"steps": 7}},
                {"name": "b", "finetune": {"generator": "stable-diffusion"}},
            ]
        )
    )
    a, b = study.experiments
    assert isinstance(a.finetune, PixelFinetune)
    assert a.finetune.steps == 7
    assert isinstance(b.finetune, StableDiffusionFinetune)
    assert b.finetune.steps == 1500


def test_seeds_add_up() -> None:
    study = study_from_tree(tree(seed=3, experiments=[{"name": "a"}, {"name": "again", "seed": 2}]))
    assert [e.seed for e in study.experiments] == [3, 2003]


def test_least_seeds_for_a_verdict() -> None:
    # 2/2^n <= .05/m: 6 seeds for one comparison, 7 for two and three, 8 for four
    assert [least_seeds(m, 0.05) for m in (1, 2, 3, 4)] == [6, 7, 7, 8]


@pytest.mark.parametrize(
    ("images", "path", "values", "error"),
    [
        ("real+synthetic", "generate.guidance", {"low": 1, "high": 3}, "generates images again for each value; give it a few `values`"),
        ("real+synthetic", "generate.image_to_image.strength", {"values": [0.4, 0.6]}, "set generate.image_to_image"),
        ("real", "generate.guidance", {"values": [1.0, 2.0]}, "has no meaning with images: real"),
        ("real+synthetic", "generate.replicates", {"values": [1, 2]}, "cannot be searched"),
        ("real+synthetic", "generate.guidance", {"values": [1.0, -2.0]}, r"generate\.guidance\.values\[1\]: must be >= 0, got -2\.0; name values"),
    ],
)  # fmt: skip
def test_settings_of_generate_in_a_space(images: str, path: str, values: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        study_from_tree(tree(experiments=[{"name": "a", "images": images, "search": {"space": {path: values}}}]))


@pytest.mark.parametrize(
    ("search", "error"),
    [
        (
            {"space": {"training.tau": {"low": 0, "high": 2}}},
            "search.space: lacks training.lr, which the baseline a searches",
        ),
        ({"budget": {"wall_hours": 1}}, "search.budget.wall_hours: must equal that of the baseline a"),
    ],
)
def test_arms_with_a_verdict_are_tuned_alike(search: dict[str, Any], error: str) -> None:
    arms = [{"name": "a"}, {"name": "b", "search": search}]
    space = {"training.lr": {"low": 0.1, "high": 0.2}}
    with pytest.raises(ConfigError, match=error):
        study_from_tree(tree(search={"space": space}, verdict={"baseline": "a"}, experiments=arms))
    wider = [{"name": "a"}, {"name": "b", "search": {"space": {**space, "training.tau": {"low": 0, "high": 2}}}}]
    study_from_tree(tree(search={"space": space}, verdict={"baseline": "a"}, experiments=wider))
