"""Tests how experiments are resolved: merged values and pinned paths."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.config.dataset import (
    DeepFashionSource,
    FashionMnistSource,
    Fold,
    FolderSource,
    GarmentsSource,
    ParquetSource,
)
from shared.config.generation import Generate, ImageToImage, PixelFinetune, StableDiffusionFinetune
from shared.config.load import load_study, study_from_tree
from shared.config.resolve import ResolvedStudy
from shared.config.search import FloatRange
from shared.config.seeds import repetition_seed
from shared.config.stages import GenerateConfig
from shared.config.study import LEAST_REPETITIONS, least_seeds
from shared.config.training import Synthetic
from shared.data.garments.labels import COUNTS
from shared.data.sources import deepfashion, fashion_mnist
from shared.errors import ConfigError
from shared.pipeline.plan import plan
from tests.support.small_study import SMALL_STUDY


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


def test_seeds_of_studies_and_experiments_are_unrelated() -> None:
    arms = [{"name": str(seed), "seed": seed} for seed in range(4)]
    seeds = [e.seed for seed in range(4) for e in study_from_tree(tree(seed=seed, experiments=arms)).experiments]
    repetitions = {repetition_seed(seed, number) for seed in seeds for number in range(20)}
    assert len(repetitions) == 16 * 20
    assert all(0 <= seed < 2**62 for seed in repetitions)


def test_least_seeds_for_a_verdict() -> None:
    # 2/2^n <= .05/m: 6 seeds for one comparison, 7 for two and three, 8 for four
    assert [least_seeds(m, 0.05) for m in (1, 2, 3, 4)] == [6, 7, 7, 8]
    assert least_seeds(1, 0.2) == LEAST_REPETITIONS


@pytest.mark.parametrize(
    ("images", "path", "values", "error"),
    [
        ("real+synthetic", "generate.guidance", {"low": 1, "high": 3}, "generates images again for each value; give it a few `values`"),
        ("real+synthetic", "generate.image_to_image.strength", {"values": [0.4, 0.6]}, "set generate.image_to_image"),
        ("real", "generate.guidance", {"values": [1.0, 2.0]}, "has no meaning with images: real"),
        ("real+synthetic", "generate.batch_size", {"values": [1, 2]}, "cannot be searched"),
        ("real+synthetic", "generate.guidance", {"values": [1.0, -2.0]}, r"generate\.guidance\.values\[1\]: must be >= 0, got -2\.0; name values"),
    ],
)  # fmt: skip
def test_settings_of_generate_in_a_space(images: str, path: str, values: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        study_from_tree(tree(experiments=[{"name": "a", "images": images, "search": {"space": {path: values}}}]))


SPACE = {"training.lr": {"low": 0.1, "high": 0.2}}
TAU = {"training.tau": {"low": 0, "high": 2}}
SHARE = {"synthetic.share": {"low": 0.1, "high": 0.5}}


def compared(arm: dict[str, Any], **verdict: Any) -> ResolvedStudy:
    arms = [{"name": "a"}, {"name": "b", "images": "real+synthetic", **arm}]
    return study_from_tree(tree(search={"space": SPACE}, verdict={"baseline": "a", **verdict}, experiments=arms))


@pytest.mark.parametrize(
    ("arm", "error"),
    [
        ({"search": {"space": TAU}}, "search.space: must search training.lr as the baseline a"),
        ({"search": {"space": SPACE | TAU}}, "search.space: must not search training.tau, which the baseline a does not"),
        ({"search": {"space": {"training.lr": {"low": 0.1, "high": 0.3}}}}, "search.space: must search training.lr as the baseline a"),
        ({"search": {"budget": {"wall_hours": 1}}}, r"search.budget.wall_hours: must equal that of the baseline a \(null\)"),
        ({"training": {"loss": "plain"}}, r'training.loss: must equal that of the baseline a \("weighted"\), .* about the images, got "plain"'),
        ({"training": {"mixup": 1.0}}, "training.mixup: must equal .*; make them equal, set verdict.compares: recipes, or set verdict: none"),
        ({"augmentation": "hard"}, "augmentation: must equal"),
        ({"classifier": {"model": "resnet18"}}, "classifier.model: must equal"),
        ({"rare": {"below": 7}}, "rare.below: must equal"),
        ({"seed": 1}, "seed: must equal"),
        ({"final": {"epochs": 7}}, "final.epochs: must equal"),
    ],
)  # fmt: skip
def test_an_arm_with_generated_images_differs_from_the_baseline_in_these_alone(arm: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        compared(arm)


@pytest.mark.parametrize(
    "arm",
    [
        {"search": {"space": SPACE | SHARE}},
        {"generate": {"guidance": 3.0}, "accept": {"plausibility": [0.1, 0.9]}, "synthetic": {"share": 0.5}},
        {"finetune": {"steps": 7}, "score": {"folds": 2}},
        {"search": {"workers": 5, "lease_seconds": 100.0}, "final": {"checkpoint_every": 9}},
    ],
)
def test_what_an_arm_with_generated_images_may_differ_in(arm: dict[str, Any]) -> None:
    compared(arm)


def test_recipes_may_differ_in_anything_but_their_budgets() -> None:
    recipe = {"training": {"mixup": 1.0}, "search": {"space": SPACE | TAU}}
    compared(recipe, compares="recipes")
    with pytest.raises(ConfigError, match=r"search\.epochs: must equal .*; make them equal, or set verdict: none"):
        compared({**recipe, "search": {"epochs": 7}}, compares="recipes")


def test_further_arms_with_real_images_may_differ_in_anything_but_the_number_of_repetitions() -> None:
    real = {"name": "c", "training": {"loss": "plain"}, "search": {"trials": 0}, "seed": 5}
    arms = [{"name": "a"}, {"name": "b", "images": "real+synthetic"}, real]
    study_from_tree(tree(verdict={"baseline": "a"}, experiments=arms))
    with pytest.raises(
        ConfigError, match=r"experiments\[2\]\.final\.seeds: must equal .* repetitions are paired, got 7"
    ):
        study_from_tree(tree(verdict={"baseline": "a"}, experiments=[*arms[:2], real | {"final": {"seeds": 7}}]))


def test_guidance_and_steps_of_a_base_unless_they_are_set() -> None:
    base = "finetune={generator: text-to-image, base: some/model}"
    real, synthetic, _ = load_study(SMALL_STUDY, [base, "generate={fill_to: 9}"]).experiments
    assert (real.generate.guidance, real.generate.steps) == (None, None)
    own = load_study(
        SMALL_STUDY, [base, "generate={fill_to: 9, steps: 7}", "experiments.synthetic.generate.guidance=3"]
    )
    assert [(e.generate.guidance, e.generate.steps) for e in own.experiments] == [(None, 7), (3.0, 7), (None, 7)]
    assert synthetic.finetune.resolution is None
    pixel = load_study(SMALL_STUDY, ["generate={fill_to: 9}"]).experiments[0]
    assert (pixel.generate.guidance, pixel.generate.steps) == (2.0, 25)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "generate.prompts=['a {labels}', 'a {fabrik}']",
            r"generate\.prompts: \{fabrik\} in 'a \{fabrik\}' is no label group; did you mean fabric",
        ),
        ("generate.prompts=['a {labels']", "generate\\.prompts: a brace in 'a {labels' has no partner"),
        ("finetune.caption='{}'", r"finetune\.caption: \{\} in '\{\}' is no label group; there are fabric, fit"),
        ("finetune.caption='{Fabric}'", r"finetune\.caption: \{Fabric\}.*did you mean fabric"),
    ],
)
def test_a_template_with_a_wrong_field_is_refused_before_any_data_are_read(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_study(SMALL_STUDY, ["finetune={generator: stable-diffusion, resolution: 32}", setting])


def test_the_groups_that_a_study_knows_are_those_of_its_data() -> None:
    assert GarmentsSource(source="garments").group_names == tuple(COUNTS)
    assert DeepFashionSource(source="deepfashion", root="x").group_names == deepfashion.GROUPS
    assert FashionMnistSource(source="fashion-mnist", root="x").group_names == tuple(
        group.name for group in fashion_mnist.SCHEMA.groups
    )
    assert FolderSource(source="folder", root="x", group="kind").group_names == ("kind",)
    groups = {"a": {"column": "b"}, "c": {"column": "d"}}
    assert ParquetSource.model_validate({"source": "parquet", "root": "x", "groups": groups}).group_names == ("a", "c")


def test_prompts_reach_generate_if_the_generator_has_prompts() -> None:
    sets = ["generate.prompts=['a {labels}', 'my {labels}']", "generate.negative_prompt=dark"]
    study = load_study(SMALL_STUDY, ["finetune={generator: stable-diffusion, resolution: 32}", *sets])
    (made, *_) = [step.config for step in plan(study) if isinstance(step.config, GenerateConfig)]
    assert (made.generate.prompts, made.generate.negative_prompt) == (("a {labels}", "my {labels}"), "dark")
    assert not {"prompts", "negative_prompt", "guidance_interval"} & Generate().model_dump().keys(), "keys stay"
    for setting in sets:
        with pytest.raises(
            ConfigError, match=r"has no meaning with generator: pixel, which reads labels and no text; remove"
        ):
            load_study(SMALL_STUDY, [setting])


ADAPTER = "generate.few_step={adapter: some/lora, revision: c0ffee, scheduler: lcm}"


def test_few_steps_need_a_base_and_choose_steps_and_guidance() -> None:
    stable = "finetune={generator: stable-diffusion, base: some/model, resolution: 32}"
    unset = "generate={fill_to: 20, few_step: {adapter: some/lora, revision: c0ffee}}"
    study = load_study(SMALL_STUDY, [stable, unset])
    assert {(e.generate.guidance, e.generate.steps) for e in study.experiments} == {(None, None)}
    steps = plan(study)
    made = [step for step in steps if step.stage == "generate"]
    (fetched,) = {step.needs["weights/few-step"].label for step in made}
    assert fetched == "weights some/lora/pytorch_lora_weights.safetensors@c0ffee"
    assert not [step for step in steps if step.stage == "finetune" and "weights/few-step" in step.needs]
    space = "experiments.synthetic.search={space: {generate.guidance: {values: [1.0, 2.0]}}}"
    searched = plan(load_study(SMALL_STUDY, [stable, unset, "verdict=none", space]))
    (tuned,) = [step for step in searched if step.stage == "tune" and step.experiment == "synthetic"]
    assert tuned.needs["weights/few-step"].label == fetched, "its trials draw images themselves"
    set_too = load_study(SMALL_STUDY, [stable, ADAPTER, "generate.steps=8", "generate.guidance=1.5"])
    (generate, *_) = [experiment.generate for experiment in set_too.experiments]
    assert (generate.guidance, generate.steps) == (1.5, 8)
    assert "few_step" not in Generate().model_dump(), "keys stay"
    with pytest.raises(
        ConfigError, match=r"generate.few_step: has no meaning with generator: pixel, which has no base"
    ):
        load_study(SMALL_STUDY, [ADAPTER])
    with pytest.raises(ConfigError, match=r"steps: must be <= 50 with few_step.scheduler: lcm, got 51"):
        load_study(SMALL_STUDY, [stable, ADAPTER, "generate.steps=51"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("{adapter: folder}", "must be a file"),
        ("{adapter: a/b/c}", "must be a file"),
        ("{adapter: s3://bucket/folder}", "must be a file"),
        ("{adapter: x.safetensors, revision: a}", "revision: has no meaning with the file x.safetensors"),
        ("{adapter: x.safetensors, file: b.safetensors}", "file: has no meaning with the file"),
        ("{adapter: a/b, file: c.bin}", "file: must be a safetensors file"),
        ("{adapter: a/b, scheduler: ddim}", "scheduler"),
        ("{}", "adapter"),
    ],
)
def test_a_lora_for_few_steps_that_is_none(values: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(
            SMALL_STUDY, ["finetune={generator: stable-diffusion, resolution: 32}", f"generate.few_step={values}"]
        )


SIMILAR = "generate.image_to_image={share: 0.5, start_from: similar}"


def test_starting_from_similar_classes_reaches_generate_and_the_arms_and_keys_of_others_stay() -> None:
    study = load_study(SMALL_STUDY, [SIMILAR, "synthetic.label_power=0.5"])
    configs = [step.config for step in plan(study)]
    (made, *_) = [config for config in configs if isinstance(config, GenerateConfig)]
    assert made.generate.starts_from_similar
    assert [e.synthetic.label_power for e in study.experiments] == [0.5] * 3
    again = load_study(SMALL_STUDY, [SIMILAR])
    keys = {json.dumps(config.model_dump(mode="json")) for config in configs if isinstance(config, GenerateConfig)}
    others = [step.config for step in plan(again) if isinstance(step.config, GenerateConfig)]
    assert keys == {json.dumps(config.model_dump(mode="json")) for config in others}, (
        "soft labels generate nothing again"
    )
    assert set(ImageToImage().model_dump()) == {"share", "strength"}, "keys stay"
    assert "label_power" not in Synthetic().model_dump(), "keys stay"


def test_an_experiment_may_set_a_default_that_the_study_does_not_have() -> None:
    sets = [
        SIMILAR,
        "generate.guidance_interval=[0.2, 0.8]",
        "experiments.placebo.generate={image_to_image: {start_from: own}, guidance_interval: null}",
    ]
    *_, synthetic, placebo = load_study(SMALL_STUDY, sets).experiments
    assert synthetic.generate.starts_from_similar
    assert not placebo.generate.starts_from_similar
    assert (synthetic.generate.guidance_interval, placebo.generate.guidance_interval) == ((0.2, 0.8), None)
    assert {"generate.guidance_interval", "generate.image_to_image"} <= set(placebo.pinned)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["synthetic.label_power=0.5"], r"^synthetic\.label_power: has no meaning without images that have soft labels; .*, got 0\.5"),
        (["search.space.synthetic.label_power={low: 0.2, high: 1.0}"], r"'synthetic\.label_power' has no meaning without images that"),
        (["generate.image_to_image={similar_classes: 2}"], r"similar_classes: has no meaning without start_from: similar"),
        (["generate.image_to_image={start_from: other}"], r"generate\.image_to_image\.start_from: must be"),
        ([SIMILAR, "synthetic.label_power=0"], r"synthetic\.label_power: must be > 0, got 0"),
        ([SIMILAR, "generate.image_to_image.similar_classes=0"], r"similar_classes: must be >= 1, got 0"),
    ],
)  # fmt: skip
def test_settings_of_soft_labels_without_a_meaning_are_refused(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_study(SMALL_STUDY, settings)


FOLDED = {"source": "folder", "root": "data", "resolution": 32, "split": {"test": "folds"}}
ARMS = [{"name": "real"}, {"name": "synthetic", "images": "real+synthetic"}]
SEARCH = {"trials": 12, "space": {"training.lr": {"low": 0.001, "high": 0.01}}}


def test_folds_are_one_per_repetition() -> None:
    verdict = {"baseline": "real"}
    study = study_from_tree(tree(dataset=FOLDED, verdict=verdict, experiments=ARMS, search=SEARCH, final={"seeds": 6}))
    assert study.folds
    assert [study.fold(n) for n in (0, 5)] == [Fold(number=0, count=6), Fold(number=5, count=6)]
    shared = study_from_tree(tree(experiments=ARMS))
    assert (shared.folds, shared.fold(0)) == (False, None)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "folds needs a verdict, whose repetitions test on a fold each, got verdict: none; take that out, or set"),
        (
            {"verdict": {"generators": "one"}},
            "folds needs verdict.generators: each, since one generator would have seen the test images of all repetitions, got one; set it to each, or",
        ),
        (
            {"verdict": {"provisional": True}, "final": {"seeds": 1}, "search": {**SEARCH, "trials": 2}},
            r"folds needs at least 2 repetitions \(final.seeds\), got 1; raise it, or set dataset.split.test to a share such as 0.15",
        ),
    ],
)
def test_folds_need_a_verdict_with_a_generator_per_repetition(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"dataset.split.test: {said}"):
        study_from_tree(
            tree(**{"dataset": FOLDED, "experiments": ARMS, "search": SEARCH, "final": {"seeds": 6}, **values})
        )
