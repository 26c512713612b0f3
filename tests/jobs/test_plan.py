"""Which stages a study needs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from jobs.plan import plan, version
from shared.config.load import load_study

STUDIES = Path(__file__).parents[2] / "studies"


def test_equal_stages_of_several_arms_are_one() -> None:
    steps = plan(load_study(STUDIES / "demo.yaml"))
    counts = Counter(step.stage for step in steps)
    # synthetic and placebo share generator, images and scores; each arm has its own search
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
    # rows without a search take the parameters of the last search up their chain
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
    assert tune.config["images"]["versions"] == {"generate": version("generate"), "score": version("score")}
    searched, given = (next(s for s in steps if s.label == f"final {arm} 0") for arm in ("synthetic", "placebo"))
    assert searched.needs["generate"].needs["tune"] is tune
    assert searched.needs["generate"].settled == ("generate.guidance",)
    assert searched.config["arm"]["generate"] is None
    assert "tune" not in given.needs["generate"].needs  # the placebo's search varies no images: it has the study's


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
    assert pinned["final placebo 0"].needs["generate"].settled == ()
    assert pinned["final placebo 0"].needs["generate"].config["generate"]["guidance"] == 3


def test_arms_that_share_images_share_their_judges() -> None:
    for study in ("paper-replay.yaml", "paper.yaml"):  # its rows differ in training and augmentation
        counts = Counter(step.stage for step in plan(load_study(STUDIES / study)))
        assert counts["generate"] == counts["score"] == 1
    demo = STUDIES / "demo.yaml"
    (dropout, folds) = (
        Counter(step.stage for step in plan(load_study(demo, [f"experiments.placebo.{setting}"])))["score"]
        for setting in ("training.dropout=0.4", "score.folds=3")
    )
    assert (dropout, folds) == (1, 2)  # its own `score:` still counts
