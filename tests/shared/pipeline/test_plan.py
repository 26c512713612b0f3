"""Tests which stages a study needs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shared.config.generation import SD_15, SD_15_COMMIT, StableDiffusionFinetune
from shared.config.load import load_study
from shared.config.stages import STAGES, TuneConfig
from shared.config.task import Input
from shared.errors import ConfigError
from shared.pipeline.plan import SearchedParameters, Step, plan
from shared.search.identity import search_name
from tests.support.pinned import demo_manifests
from tests.support.small_study import SMALL_STUDY

STUDIES = Path(__file__).parents[3] / "studies"
VERDICT = "verdict={provisional: true}"


def told(step: Step) -> dict[str, Any]:
    """Returns the config of a step as JSON."""
    return step.config.model_dump(mode="json", by_alias=True)


def test_equal_stages_of_several_arms_are_one() -> None:
    steps = plan(load_study(SMALL_STUDY, [VERDICT]))
    counts = Counter(step.stage for step in steps)
    # synthetic and placebo share generators, images and scores, of which each repetition has its own; each arm has its own search
    assert counts == {
        "prepare": 1,
        "finetune": 2,
        "generate": 2,
        "judge": 1,
        "score": 2,
        "tune": 3,
        "final": 6,
        "report": 1,
    }


def test_one_generator_draws_the_images_of_all_repetitions() -> None:
    steps = {step.label: step for step in plan(load_study(SMALL_STUDY, [VERDICT, "verdict.generators=one"]))}
    assert [label for label in steps if label.startswith("finetune")] == ["finetune"]
    assert [label for label in steps if label.startswith("generate")] == ["generate 0", "generate 1"]
    assert all(steps[f"generate {pool}"].needs["finetune"] is steps["finetune"] for pool in range(2))


def test_a_repetition_has_its_own_images_seed_and_parameters() -> None:
    steps = {step.label: step for step in plan(load_study(SMALL_STUDY, [VERDICT]))}
    tune = steps["tune synthetic"]
    assert {f"{stage}/{pool}" for stage in ("generate", "score") for pool in range(2)} < tune.needs.keys()
    finals = [steps[f"final {arm} {repeat}"] for arm in ("real", "synthetic") for repeat in range(2)]
    assert [step.needs["tune"].label for step in finals] == ["tune real"] * 2 + ["tune synthetic"] * 2
    assert [step.from_search and step.from_search.repetition for step in finals] == [0, 1, 0, 1]
    seeds = [told(step)["seed"] for step in finals]
    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]
    for repeat, step in enumerate(finals[2:]):
        assert step.needs["generate"] is tune.needs[f"generate/{repeat}"]
        assert step.needs["score"].needs["generate"] is step.needs["generate"]
        assert told(step.needs["generate"])["pool"] == repeat
    assert told(steps["finetune 0"])["seed"] != told(steps["finetune 1"])["seed"]


def test_all_repetitions_share_one_search_and_one_pool_without_a_verdict() -> None:
    steps = {step.label: step for step in plan(load_study(SMALL_STUDY, ["verdict=none"]))}
    assert {"finetune", "generate", "score"} < steps.keys()
    finals = [steps[f"final synthetic {repeat}"] for repeat in range(2)]
    assert [step.from_search and step.from_search.repetition for step in finals] == [None, None]
    assert finals[0].needs["generate"] is finals[1].needs["generate"]
    assert told(steps["tune synthetic"])["repetitions"] is None


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
    assert steps["final row-4 0"].needs["tune"] is steps["tune row-2"]
    assert steps["tune row-6"].needs["parameters"] is steps["tune row-3"]
    assert steps["final row-12 0"].needs["tune"] is steps["tune row-6"]
    assert steps["final row-7 0"].needs["tune"] is steps["tune row-7"]
    assert "parameters" not in steps["tune row-8"].needs


def test_a_threshold_generates_nothing_again() -> None:
    path = SMALL_STUDY
    before = {step.id: step.stage for step in plan(load_study(path))}
    after = {step.id: step.stage for step in plan(load_study(path, ["accept.copies=allow"]))}
    changed = {after[step] for step in after.keys() - before.keys()}
    assert changed == {"tune", "final", "report"}
    assert Counter(after[s] for s in after.keys() & before.keys())["final"] == 2  # the real arm has no threshold


def test_data_that_changed_are_prepared_again() -> None:
    study = load_study(STUDIES / "fashion-mnist.yaml")
    before, after = ({step.id for step in plan(study, digest)} for digest in ("a", "b"))
    assert not before & after


def test_more_seeds_keep_those_that_are_there() -> None:
    path = SMALL_STUDY
    before = {step.id for step in plan(load_study(path, ["verdict=none"])) if step.stage != "report"}
    after = {step.id for step in plan(load_study(path, ["verdict=none", "final.seeds=7", "search.workers=4"]))}
    assert before < after


def test_more_repetitions_keep_the_images_and_continue_the_searches() -> None:
    path, more = SMALL_STUDY, [VERDICT, "final.seeds=7", "search.trials=14"]
    before, after = plan(load_study(path, [VERDICT])), plan(load_study(path, more))
    made = ("prepare", "finetune", "generate", "judge", "score")
    assert {step.id for step in before if step.stage in made} < {step.id for step in after if step.stage in made}

    def names(steps: list[Step]) -> list[str]:
        searches = [step for step in steps if step.stage == "tune"]
        inputs = [{role: Input(stage=s.stage, key=s.id, digest=s.id) for role, s in t.needs.items()} for t in searches]
        configs = [step.config for step in searches]
        return [search_name("demo", c, i, 0) for c, i in zip(configs, inputs, strict=True) if isinstance(c, TuneConfig)]

    assert names(before) == names(after)
    assert names(before) != names(plan(load_study(path, [VERDICT, "generate.guidance=3"])))


def parameters(step: Step, searches: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The parameters of a final training, if the searches ended with these summaries."""
    assert step.from_search is not None
    tune = next(m for m in demo_manifests().values() if m.stage == "tune")
    return step.from_search.of(tune.model_copy(update={"summary": searches[step.needs["tune"].label]}))


def test_a_final_training_s_parameters_are_its_repetition_s() -> None:
    steps = {step.label: step for step in plan(load_study(SMALL_STUDY, [VERDICT]))}
    summary = {"parameters": {"training.lr": 9.0}, "repetitions": [{"training.lr": 1.0}, {"training.lr": 2.0}]}
    found = [parameters(steps[f"final real {repeat}"], {"tune real": summary}) for repeat in range(2)]
    assert found == summary["repetitions"]


def test_what_an_experiment_sets_itself_is_not_taken_over() -> None:
    sets = ["verdict=none", "experiments.placebo.parameters_from=synthetic", "experiments.placebo.search.trials=0"]
    steps = {s.label: s for s in plan(load_study(SMALL_STUDY, [*sets, "experiments.placebo.training.lr=1"]))}
    summary = {"tune synthetic": {"parameters": {"training.lr": 9.0, "training.dropout": 0.5}}}
    assert parameters(steps["final placebo 0"], summary) == {"training.dropout": 0.5}
    assert parameters(steps["final synthetic 0"], summary) == {"training.lr": 9.0, "training.dropout": 0.5}


def test_resources_are_in_no_key() -> None:
    path = SMALL_STUDY
    assert [s.id for s in plan(load_study(path))] == [s.id for s in plan(load_study(path, ["resources.cache_gib=1"]))]


SETTINGS = "{generate.guidance: {values: [1.0, 2.0]}, training.lr: {low: 0.001, high: 0.01}}"


def test_images_that_a_search_varies_are_made_by_its_trials_and_then_for_the_final_trainings() -> None:
    study = load_study(SMALL_STUDY, ["verdict=none", f"experiments.synthetic.search={{space: {SETTINGS}}}"])
    steps = plan(study)
    (tune,) = (step for step in steps if step.label == "tune synthetic")
    assert tune.needs.keys() == {"prepare", "finetune/0", "judge"}
    versions = {stage: STAGES[stage].version for stage in ("generate", "score")}
    assert told(tune)["images"]["versions"] == versions
    searched, given = (next(s for s in steps if s.label == f"final {arm} 0") for arm in ("synthetic", "placebo"))
    assert searched.needs["generate"].needs["tune"] is tune
    assert searched.needs["generate"].from_search == SearchedParameters(("generate.guidance",))
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
    steps = {step.label: step for step in plan(load_study(SMALL_STUDY, sets))}
    assert steps["final placebo 0"].needs["generate"] is steps["final synthetic 0"].needs["generate"]
    pinned = {
        step.label: step for step in plan(load_study(SMALL_STUDY, [*sets, "experiments.placebo.generate.guidance=3"]))
    }
    assert pinned["final placebo 0"].needs["generate"].from_search is None
    assert told(pinned["final placebo 0"].needs["generate"])["generate"]["guidance"] == 3


def test_arms_that_share_images_share_their_judges() -> None:
    for study in ("paper-replay.yaml", "paper.yaml"):  # its rows differ in training and augmentation
        scored = ["accept={plausibility: [0.1, 1]}"]
        counts = Counter(step.stage for step in plan(load_study(STUDIES / study, scored)))
        assert counts["generate"] == counts["judge"] == counts["score"] == 1
    demo, one = SMALL_STUDY, "verdict=none"
    (dropout, folds) = (
        Counter(step.stage for step in plan(load_study(demo, [one, f"experiments.placebo.{setting}"])))
        for setting in ("training.dropout=0.4", "score.folds=3")
    )
    assert (dropout["judge"], folds["judge"]) == (1, 2)  # its own `score:` still has an effect
    assert (dropout["score"], folds["score"]) == (1, 2)


def test_judges_are_trained_once_for_all_pools_and_only_if_images_are_scored() -> None:
    steps = {step.label: step for step in plan(load_study(SMALL_STUDY, [VERDICT]))}
    judge = steps["judge"]
    assert judge.needs == {"prepare": steps["prepare"]}
    assert all(steps[f"score {pool}"].needs["judge"] is judge for pool in range(2))
    read = steps["report"].needs
    assert read["judge/synthetic"] is read["judge/placebo"] is judge
    assert "judge/real" not in read
    assert "judge" not in steps["final synthetic 0"].needs.keys() | steps["tune synthetic"].needs.keys()
    real = plan(load_study(SMALL_STUDY, ["verdict=none", "experiments=[{name: real, images: real}]"]))
    assert not [step for step in real if step.stage == "judge"]
    other = {step.label: step for step in plan(load_study(SMALL_STUDY, [VERDICT, "generate.guidance=3"]))}
    assert other["judge"].id == judge.id


def test_the_papers_rows_share_what_they_can() -> None:
    """Rows 1, 2, 3, 6, 7, 8, 9, 13 and 14 have searches of their own; every image is accepted, so nothing is scored."""
    shared = {"prepare": 1, "weights": 2, "finetune": 1, "generate": 1, "report": 1}
    assert Counter(step.stage for step in plan(load_study(STUDIES / "paper.yaml"))) == {
        **shared,
        "tune": 9,
        "final": 14,
    }
    replay = Counter(step.stage for step in plan(load_study(STUDIES / "paper-replay.yaml")))
    assert replay == {**shared, "final": 3 * 14}


TAKES_ALL = "accept={plausibility: [0, 1], copies: allow}"


@pytest.mark.parametrize(
    ("scored", "sets"),
    [
        (False, []),
        (True, ["accept.plausibility=[0.01, 1]"]),
        (True, ["accept.copies=refuse"]),
        (True, ["synthetic.groups=checked"]),
        (True, ["experiments.synthetic.search={space: {accept.copies: {values: [refuse, allow]}}}"]),
        (False, ["experiments.synthetic.search={space: {generate.guidance: {values: [1.0, 2.0]}}}"]),
    ],
)
def test_images_are_scored_only_if_an_arm_chooses_among_them(scored: bool, sets: list[str]) -> None:
    steps = plan(load_study(SMALL_STUDY, ["verdict=none", TAKES_ALL, *sets]))
    assert (
        {"judge", "score"} <= {step.stage for step in steps}
        if scored
        else not any(step.stage in ("judge", "score") for step in steps)
    )
    tunes = [step.config for step in steps if isinstance(step.config, TuneConfig) and step.config.images is not None]
    assert all(config.images is not None and (config.images.score is not None) == scored for config in tunes)


def test_a_filter_that_another_search_found_needs_scores_too() -> None:
    search = "experiments.synthetic.search={space: {accept.copies: {values: [refuse, allow]}}}"
    taken_over = ["experiments.placebo.parameters_from=synthetic", "experiments.placebo.search.trials=0"]
    study = load_study(SMALL_STUDY, ["verdict=none", TAKES_ALL, search, *taken_over])
    assert [study.scored(experiment) for experiment in study.experiments] == [False, True, True]
    own = load_study(
        SMALL_STUDY, ["verdict=none", TAKES_ALL, search, *taken_over, "experiments.placebo.accept={copies: allow}"]
    )
    assert [own.scored(experiment) for experiment in own.experiments] == [False, True, False]


def test_judges_with_a_model_of_their_own() -> None:
    sets = [
        "score.model=test_vit",
        "classifier.head=[32]",
        "classifier.resolution=64",
        "classifier.pretrained=s3://bucket/a",
    ]
    steps = {step.label: step for step in plan(load_study(SMALL_STUDY, ["verdict=none", *sets]))}
    for label in ("judge", "score"):
        found = told(steps[label])["classifier"]
        assert (found["model"], found["pretrained"], found["trainable"]) == ("test_vit", False, "all")
        assert (found["head"], found["resolution"]) == ([], 64)


HUB = [
    "verdict=none",
    "finetune={generator: stable-diffusion, base: some/model, resolution: 32}",
    "classifier.pretrained=true",
]


def needs(step: Step) -> set[str]:
    return {role for role in step.needs if role.startswith("weights/")}


def test_hub_weights_are_fetched_once_and_given_to_who_reads_them() -> None:
    steps = {step.label: step for step in plan(load_study(SMALL_STUDY, HUB))}
    assert [label for label in steps if label.startswith("weights")] == ["weights some/model", "weights test_resnet"]
    assert told(steps["weights some/model"]) == {"kind": "stable-diffusion", "name": "some/model", "revision": None}
    assert needs(steps["finetune"]) == needs(steps["generate"]) == {"weights/base"}
    assert needs(steps["judge"]) == needs(steps["score"]) == {"weights/judges"}
    assert needs(steps["tune synthetic"]) == needs(steps["final real 0"]) == {"weights/test_resnet"}
    assert steps["score"].needs["weights/judges"] is steps["final real 0"].needs["weights/test_resnet"]
    assert {"weights/some/model", "weights/test_resnet"} < steps["report"].needs.keys()


def test_a_study_that_names_no_base_has_a_pinned_one() -> None:
    """An experiment that names its own base does not inherit the pin."""
    sets = ["finetune={generator: stable-diffusion, resolution: 32}", "experiments.placebo.finetune={base: some/model}"]
    steps = plan(load_study(SMALL_STUDY, ["verdict=none", *sets]))
    named = {(told(step)["name"], told(step)["revision"]) for step in steps if step.stage == "weights"}
    assert named == {(SD_15, SD_15_COMMIT), ("some/model", None)}
    about = StableDiffusionFinetune.model_fields["base"].description or ""
    assert SD_15 in about
    assert SD_15_COMMIT in about


def test_only_a_hub_s_name_is_fetched(tmp_path: Path) -> None:
    for base in (tmp_path, "s3://bucket/base", "a/b/c", "./some/model"):
        sets = [*HUB[:2], f"finetune.base={base}"]
        assert not [s for s in plan(load_study(SMALL_STUDY, sets)) if s.stage == "weights"]


def test_a_pin_is_in_the_key_of_the_weights_and_of_all_behind_them() -> None:
    def ids(*sets: str) -> dict[str, str]:
        return {step.label: step.id for step in plan(load_study(SMALL_STUDY, [*HUB, *sets]))}

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
    study = SMALL_STUDY
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
    steps = {step.label: step for step in plan(load_study(SMALL_STUDY, sets))}
    assert needs(steps["tune synthetic"]) == {"weights/base", "weights/judges", "weights/test_resnet"}
    assert steps["tune synthetic"].needs["judge"] is steps["score synthetic"].needs["judge"] is steps["judge"]
    assert told(steps["tune synthetic"].needs["weights/judges"])["name"] == "test_vit"
    assert needs(steps["final synthetic 0"]) == {"weights/test_resnet"}


def test_a_review_is_in_the_keys_of_those_who_choose_images_and_of_no_other() -> None:
    settings = ["accept.reviewed=reviewed.csv"]
    without, one, other = (
        {step.label: step.id for step in plan(load_study(SMALL_STUDY, sets), weights=weights)}
        for sets, weights in (([], {}), (settings, {"reviewed.csv": "1" * 64}), (settings, {"reviewed.csv": "2" * 64}))
    )
    changed = {
        "tune synthetic",
        "tune placebo",
        *(f"final {arm} {i}" for arm in ("synthetic", "placebo") for i in (0, 1)),
        "report",
    }
    assert {label for label, name in one.items() if name != without[label]} == changed
    assert {label for label, name in other.items() if name != one[label]} == changed
    moved = plan(load_study(SMALL_STUDY, ["accept.reviewed=moved.csv"]), weights={"moved.csv": "1" * 64})
    assert {step.label: step.id for step in moved} == one, "where a review is does not matter"


def test_a_review_makes_scores_that_an_arm_which_takes_all_lacks() -> None:
    everything = ["accept.plausibility=[0, 1]", "accept.copies=allow"]
    without, reviewed = (
        {step.label: step.id for step in plan(load_study(SMALL_STUDY, [*everything, *more]))}
        for more in ([], ["accept.reviewed=reviewed.csv"])
    )
    assert reviewed.keys() - without.keys() == {"judge", "score"}
    assert reviewed["generate"] == without["generate"]


FOLDS = [
    "dataset={source: folder, root: data, resolution: 64, split: {test: folds}}", "verdict={provisional: true}", "final.seeds=3", "search.trials=6",
]  # fmt: skip


def test_each_repetition_has_the_data_set_of_its_fold_and_everything_that_is_made_from_it() -> None:
    steps = plan(load_study(SMALL_STUDY, FOLDS), "digest")
    counts = Counter(step.stage for step in steps)
    assert counts == {
        "prepare": 3, "finetune": 3, "generate": 3, "judge": 3, "score": 3, "tune": 3, "final": 9, "report": 1,
    }  # fmt: skip
    by_label = {step.label: step for step in steps}
    data_sets = [by_label[f"prepare {number}"] for number in range(3)]
    assert [told(step)["fold"] for step in data_sets] == [{"number": n, "count": 3} for n in range(3)]
    for number, data_set in enumerate(data_sets):
        chain = [f"{stage} {number}" for stage in ("finetune", "generate", "judge", "score")]
        chain += [f"final {arm} {number}" for arm in ("real", "synthetic", "placebo")]
        assert all(by_label[label].needs["prepare"] is data_set for label in chain)
        assert by_label[f"score {number}"].needs["judge"] is by_label[f"judge {number}"]
    assert by_label["tune real"].needs == {f"prepare/{number}": step for number, step in enumerate(data_sets)}
    assert by_label["tune synthetic"].needs.keys() == {
        f"{role}/{number}" for role in ("prepare", "finetune", "generate", "score") for number in range(3)
    }
    report = steps[-1]
    assert [report.needs[role] for role in ("prepare", "prepare/1", "prepare/2")] == data_sets
    assert {"judge/synthetic", "judge/synthetic/1", "judge/synthetic/2"} < report.needs.keys()


def test_trials_that_make_their_own_images_get_the_judges_of_each_fold() -> None:
    space = "{training.lr: {low: 0.0005, high: 0.01, log: true}, generate.guidance: {values: [1.0, 2.0]}}"
    steps = plan(
        load_study(
            SMALL_STUDY,
            [
                *FOLDS,
                f"experiments.synthetic.search={{space: {space}}}",
                "search.space={training.lr: {low: 0.0005, high: 0.01, log: true}}",
            ],
        ),
        "digest",
    )
    (tune,) = (step for step in steps if step.label == "tune synthetic")
    assert tune.needs.keys() == {f"{role}/{number}" for role in ("prepare", "finetune", "judge") for number in range(3)}
