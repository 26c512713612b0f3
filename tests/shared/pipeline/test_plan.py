"""Tests which stages a study needs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shared.config.load import load_study
from shared.errors import ConfigError
from shared.pipeline.plan import Step, plan

STUDIES = Path(__file__).parents[3] / "studies"


def told(step: Step) -> dict[str, Any]:
    """Returns the config of a step as JSON."""
    return step.config.model_dump(mode="json", by_alias=True)


def test_equal_stages_of_several_arms_are_one() -> None:
    steps = plan(load_study(STUDIES / "demo.yaml"))
    counts = Counter(step.stage for step in steps)
    # synthetic and placebo share generator, images and scores, but each arm has its own search
    assert counts == {"prepare": 1, "finetune": 1, "generate": 1, "score": 1, "tune": 3, "final": 6, "report": 1}


def test_each_step_stands_behind_what_it_needs() -> None:
    seen: set[str] = set()
    for step in plan(load_study(STUDIES / "paper.yaml")):
        assert all(needed.id in seen for needed in step.needs.values())
        seen.add(step.id)


def test_the_paper_s_chain_of_parameters() -> None:
    steps = {step.label: step for step in plan(load_study(STUDIES / "paper.yaml"))}
    tunes = [label for label in steps if label.startswith("tune")]
    assert tunes == [f"tune row-{i}" for i in (1, 2, 3, 6, 7, 8, 9, 13, 14)]
    assert steps["tune row-3"].needs["parameters"] is steps["tune row-2"]
    # rows without a search take the parameters of the last search above them in their chain
    assert steps["final row-4 0"].needs["parameters"] is steps["tune row-2"]
    assert steps["tune row-6"].needs["parameters"] is steps["tune row-3"]
    assert steps["final row-12 0"].needs["parameters"] is steps["tune row-6"]
    assert steps["final row-7 0"].needs["tune"] is steps["tune row-7"]
    assert "parameters" not in steps["tune row-8"].needs


def test_a_threshold_generates_nothing_again() -> None:
    path = STUDIES / "demo.yaml"
    before = {step.id: step.stage for step in plan(load_study(path))}
    after = {step.id: step.stage for step in plan(load_study(path, ["accept.copies=0.1"]))}
    changed = {after[step] for step in after.keys() - before.keys()}
    assert changed == {"tune", "final", "report"}
    assert Counter(after[s] for s in after.keys() & before.keys())["final"] == 2  # the real arm has no threshold


def test_data_that_changed_are_prepared_again() -> None:
    study = load_study(STUDIES / "fashion-mnist.yaml")
    before, after = ({step.id for step in plan(study, digest)} for digest in ("a", "b"))
    assert not before & after


def test_more_seeds_keep_those_that_are_there() -> None:
    path = STUDIES / "demo.yaml"
    before = {step.id for step in plan(load_study(path)) if step.stage != "report"}
    after = {step.id for step in plan(load_study(path, ["final.seeds=7", "search.workers=4"]))}
    assert before < after


def test_resources_are_in_no_key() -> None:
    path = STUDIES / "demo.yaml"
    assert [s.id for s in plan(load_study(path))] == [s.id for s in plan(load_study(path, ["resources.cache_gib=1"]))]


SETTINGS = "{generate.guidance: {values: [1.0, 2.0]}, training.lr: {low: 0.001, high: 0.01}}"


def test_images_that_a_search_varies_are_made_by_its_trials_and_then_for_the_final_trainings() -> None:
    study = load_study(STUDIES / "demo.yaml", ["verdict=none", f"experiments.synthetic.search={{space: {SETTINGS}}}"])
    steps = plan(study)
    (tune,) = (step for step in steps if step.label == "tune synthetic")
    assert tune.needs.keys() == {"prepare", "finetune"}
    assert told(tune)["images"]["versions"] == {"generate": 1, "score": 3}
    searched, given = (next(s for s in steps if s.label == f"final {arm} 0") for arm in ("synthetic", "placebo"))
    assert searched.needs["generate"].needs["tune"] is tune
    assert searched.needs["generate"].from_search == ("generate.guidance",)
    assert told(searched)["arm"]["generate"] is None
    # the placebo's search does not vary the images, so it has those of the study
    assert "tune" not in given.needs["generate"].needs


def test_settings_that_a_search_found_go_on_to_who_takes_its_parameters() -> None:
    sets = [
        "verdict=none",
        f"experiments.synthetic.search={{space: {SETTINGS}}}",
        "experiments.placebo.parameters_from=synthetic",
        "experiments.placebo.search.trials=0",
    ]
    steps = {step.label: step for step in plan(load_study(STUDIES / "demo.yaml", sets))}
    assert steps["final placebo 0"].needs["generate"] is steps["final synthetic 0"].needs["generate"]
    pinned = {
        step.label: step
        for step in plan(load_study(STUDIES / "demo.yaml", [*sets, "experiments.placebo.generate.guidance=3"]))
    }
    assert pinned["final placebo 0"].needs["generate"].from_search == ()
    assert told(pinned["final placebo 0"].needs["generate"])["generate"]["guidance"] == 3


def test_arms_that_share_images_share_their_judges() -> None:
    for study in ("paper-replay.yaml", "paper.yaml"):  # its rows differ in training and augmentation
        counts = Counter(step.stage for step in plan(load_study(STUDIES / study)))
        assert counts["generate"] == counts["score"] == 1
    demo = STUDIES / "demo.yaml"
    (dropout, folds) = (
        Counter(step.stage for step in plan(load_study(demo, [f"experiments.placebo.{setting}"])))["score"]
        for setting in ("training.dropout=0.4", "score.folds=3")
    )
    assert (dropout, folds) == (1, 2)  # its own `score:` still has an effect


HUB = ["finetune={generator: stable-diffusion, base: some/model, resolution: 32}", "classifier.pretrained=true"]


def needs(step: Step) -> set[str]:
    return {role for role in step.needs if role.startswith("weights/")}


def test_hub_weights_are_fetched_once_and_given_to_who_reads_them() -> None:
    steps = {step.label: step for step in plan(load_study(STUDIES / "demo.yaml", HUB))}
    assert [label for label in steps if label.startswith("weights")] == ["weights some/model", "weights test_resnet"]
    assert told(steps["weights some/model"]) == {"kind": "stable-diffusion", "name": "some/model", "revision": None}
    assert needs(steps["finetune"]) == needs(steps["generate"]) == {"weights/base"}
    assert needs(steps["score"]) == {"weights/judges"}
    assert needs(steps["tune synthetic"]) == needs(steps["final real 0"]) == {"weights/test_resnet"}
    assert steps["score"].needs["weights/judges"] is steps["final real 0"].needs["weights/test_resnet"]
    assert {"weights/some/model", "weights/test_resnet"} < steps["report"].needs.keys()


def test_only_a_hub_s_name_is_fetched(tmp_path: Path) -> None:
    for base in (tmp_path, "s3://bucket/base", "a/b/c", "./some/model"):
        sets = [HUB[0], f"finetune.base={base}"]
        assert not [s for s in plan(load_study(STUDIES / "demo.yaml", sets)) if s.stage == "weights"]


def test_a_pin_is_in_the_key_of_the_weights_and_of_all_behind_them() -> None:
    def ids(*sets: str) -> dict[str, str]:
        return {step.label: step.id for step in plan(load_study(STUDIES / "demo.yaml", [*HUB, *sets]))}

    before = ids()
    classifier, base = ids(f"classifier.revision={'a' * 40}"), ids(f"finetune.revision={'b' * 40}")
    assert f"weights test_resnet@{'a' * 8}" in classifier
    assert f"weights some/model@{'b' * 8}" in base
    assert {label for label, step in before.items() if classifier.get(label) == step} == {
        "prepare", "finetune", "generate", "weights some/model",
    }  # fmt: skip
    assert {label for label, step in before.items() if base.get(label) == step} >= {"tune real", "final real 0"}


def test_weights_that_a_search_may_choose() -> None:
    space = "{classifier.pretrained: {values: [true, false]}, classifier.model: {values: [test_resnet, test_vit]}}"
    sets = [
        "verdict=none",
        f"experiments.real.search={{space: {space}}}",
        "experiments.placebo.parameters_from=real",
        "experiments.placebo.search.trials=0",
    ]
    study = STUDIES / "demo.yaml"
    steps = {step.label: step for step in plan(load_study(study, sets))}
    both = {"weights/test_resnet", "weights/test_vit"}
    assert needs(steps["tune real"]) == needs(steps["final real 0"]) == needs(steps["final placebo 0"]) == both
    assert not needs(steps["tune synthetic"]) | needs(steps["score"])
    pinned = [*sets, "experiments.placebo.classifier={pretrained: false}"]
    steps = {step.label: step for step in plan(load_study(study, pinned))}
    assert not needs(steps["final placebo 0"])
    with pytest.raises(ConfigError, match=r"classifier\.revision: pins the weights of one model"):
        load_study(study, [*sets, "classifier.revision=abc"])


def test_trials_that_make_their_own_images_are_given_what_these_need() -> None:
    sets = [*HUB, "verdict=none", f"experiments.synthetic.search={{space: {SETTINGS}}}", "score.model=test_vit"]
    steps = {step.label: step for step in plan(load_study(STUDIES / "demo.yaml", sets))}
    assert needs(steps["tune synthetic"]) == {"weights/base", "weights/judges", "weights/test_resnet"}
    assert told(steps["tune synthetic"].needs["weights/judges"])["name"] == "test_vit"
    assert needs(steps["final synthetic 0"]) == {"weights/test_resnet"}
