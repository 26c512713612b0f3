"""Tests what each outcome means for the user, on studies whose trainings are invented and whose scores are computed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from jobs.__main__ import cli
from shared.config.prices import Prices
from shared.config.search import Verdict
from shared.config.stages import ReportConfig
from shared.metrics.forecast import PowerForecast
from shared.report.answer import interval_text, points
from shared.report.class_readings import read_classes
from shared.report.inputs import Results, StageResult, read_study
from shared.report.lineage import lineage_entries
from shared.report.money import cost_in_money
from shared.report.next_steps import Facts, next_steps
from shared.report.recommended import best_of, recommend
from shared.report.scores import judge, score_study
from tests.support.report_study import StudyMaker, report_config, three_arms

PRICES = Prices(currency="EUR", per_hour={"H100": 2.5})


def facts_of(config: ReportConfig, results: Results) -> Facts:
    study = read_study(config, results)
    scores = score_study(study)
    rule = config.verdict if isinstance(config.verdict, Verdict) else None
    judged = judge(rule, config.experiments, scores) if rule else None
    validation = {e.config.name: best_of(study, e) for e in study.experiments if e.finals}
    entries = lineage_entries(results)
    recommended = recommend(config, validation, judged)
    cost = cost_in_money(entries, config.prices)
    return Facts(study, scores, judged, read_classes(study, scores), recommended, validation, entries, cost)


class Said:
    """Holds the steps of a study by title, after looking at what all steps must have."""

    def __init__(self, config: ReportConfig, results: Results) -> None:
        self.facts = facts_of(config, results)
        steps = next_steps(self.facts)
        self.titles = [step.title for step in steps]
        self.by_title = {step.title: step for step in steps}
        assert len(self.by_title) == len(steps)
        for step in steps:
            assert step.title.endswith(".")
            assert not re.search(r"None|nan|\{|  |\.\.", step.text.replace("`", "")), step.text
            for command in step.commands:
                assert command.startswith("- {name: ") or parsed(command)

    def text(self, title: str) -> str:
        return self.by_title[title].text

    def commands(self, title: str) -> list[str]:
        return list(self.by_title[title].commands)

    def gain(self, name: str, arm: str) -> str:
        """Returns the gain of a class in an arm, as steps say it."""
        reading = self.facts.classes.of(name)
        mean = reading.gain[arm].mean
        assert mean is not None
        return f"{name}, {points(mean)} points of F1 (95 % interval {interval_text(reading.gain[arm].interval)}, {reading.test_images} test images)"


def parsed(command: str) -> click.Context:
    """Returns what the command line makes of a command; raises UsageError if it has no such command or option."""
    program, *words = shlex.split(command)
    assert program == "tailfill"
    found: click.Command = cli
    while isinstance(found, click.Group):
        found = found.commands[words.pop(0)]
    return found.make_context(str(found.name), words)


def model_step(said: Said, experiment: str) -> str:
    """Asserts that a step names the repetition that is the best on validation, with both commands, and returns its text."""
    scores = said.facts.validation[experiment].by_repetition
    best = max(scores, key=lambda n: scores[n])
    title = f"Use the model of “{experiment}”, repetition {best}."
    assert said.commands(title) == [
        f"tailfill predict IMAGES --experiment {experiment}",
        f"tailfill export model DIR --experiment {experiment}",
    ]
    text = said.text(title)
    assert f"Repetition {best} is the best of its {len(scores)} on the validation split" in text
    assert f"({100 * scores[best]:.1f} % there)" in text.replace("rare macro-F1 ", "").replace("macro-F1 ", "")
    test = said.facts.scores.spread(experiment, "rare_macro_f1")
    if said.facts.judged is not None and test.mean is not None and test.sd is not None:
        assert f"has rare macro-F1 {100 * test.mean:.1f} ± {100 * test.sd:.1f} %." in text
    return text


def test_images_help(tmp_path: Path) -> None:
    said = Said(*three_arms(tmp_path, seeds=8, gain=0.9))
    assert said.titles[0].startswith("Use the model of “synthetic”, repetition ")
    assert said.facts.judged is not None
    (verdict,) = said.facts.judged.verdicts
    against = verdict.against_baseline
    assert against.difference is not None
    numbers = f"{points(against.difference)} points of rare macro-F1 against “real” (95 % interval {interval_text(against.interval)}"
    assert model_step(said, "synthetic").startswith(f"The verdict recommends this arm: {numbers}")
    keep = said.text("Keep the generated images of “synthetic”.")
    assert keep.startswith("They are the cause, and not the recipe alone: +")
    best = max(said.facts.classes.judged, key=lambda r: r.gain["synthetic"].mean or 0)
    assert f"By class it gains most {said.gain(best.name, 'synthetic')}" in keep
    weakest = min(said.facts.classes.judged, key=lambda r: r.f1["synthetic"].mean or 0)
    label = said.text(f"Label more images of {weakest.name}.")
    assert f"F1 {100 * (weakest.f1['synthetic'].mean or 0):.1f} % (95 % interval " in label
    assert f"It has {weakest.train_images} training images and {weakest.test_images} test images; " in label
    assert f"; {20 - weakest.test_units} more for testing would make the 20" in label


def test_the_recipe_helps_and_copies_as_well(tmp_path: Path) -> None:
    config, results = three_arms(tmp_path, seeds=8, gain=0.9, placebo_gain=0.9)
    said = Said(config.model_copy(update={"prices": PRICES}), results)
    model_step(said, "synthetic")
    doubt = said.text("Keep the recipe of “synthetic”, and doubt that it needs generated images.")
    assert said.facts.judged is not None
    against, copies = said.facts.judged.verdicts[0].against_placebos[0], said.facts.judged.placebos[0]
    for comparison, other in ((against, "placebo"), (copies, "real")):
        assert comparison.difference is not None
        assert f"{points(comparison.difference)} points of rare macro-F1 against “{other}” (95 % interval " in doubt
    assert "To settle an effect of 1 point takes " in doubt
    hours = sum(e.device_seconds for e in said.facts.entries if e.stage == "finetune") / 3600
    assert re.search(
        rf"Making and scoring images took {hours:.2f} GPU-hours \+ \S+ CPU-hours \({hours * 2.5:.2f} EUR\)\.", doubt
    )


def test_the_recipe_helps_and_there_is_no_placebo(tmp_path: Path) -> None:
    config, results = three_arms(tmp_path, seeds=8, gain=0.9)
    config = config.model_copy(update={"experiments": config.experiments[:2]})
    said = Said(config, {role: result for role, result in results.items() if "placebo" not in role})
    title = "Add a placebo, to learn whether it is the images."
    assert said.commands(title) == ["- {name: placebo, images: real+copies}"]
    assert said.text(title).startswith("Copies of real images may do as well, without a generator. Making and scoring")
    recipes = config.model_copy(update={"verdict": Verdict(compares="recipes")})
    assert "Keep the recipe “synthetic” as a whole." in Said(recipes, results).titles


def test_an_arm_that_hurts_is_dropped(tmp_path: Path) -> None:
    said = Said(*three_arms(tmp_path, seeds=8, gain=-0.9))
    assert said.titles[0] == "Drop the arm “synthetic”."
    worst = min(said.facts.classes.judged, key=lambda r: r.gain["synthetic"].mean or 0)
    drop = said.text(said.titles[0])
    assert drop.startswith("It loses: −")
    assert f"it loses most {said.gain(worst.name, 'synthetic')}" in drop
    assert "GPU-hours" in drop
    assert "EUR" not in drop
    assert model_step(said, "real").startswith("It is the baseline, and the verdict recommends no other arm.")
    look = "Before another try, look at the images."
    assert said.commands(look) == ["tailfill export generated DIR --experiment synthetic --review"]
    assert f"those of {worst.name} first" in said.text(look)


def test_no_effect_says_what_settles_it(tmp_path: Path) -> None:
    config, results = three_arms(tmp_path, seeds=8, gain=0.0)
    said = Said(config.model_copy(update={"prices": PRICES}), results)
    assert model_step(said, "real").startswith("It is the baseline")
    title = "Settle it, or drop the arm “synthetic”."
    text = said.text(title)
    assert said.facts.judged is not None
    against = said.facts.judged.verdicts[0].against_baseline
    assert against.table is not None
    assert f"An effect of {100 * (against.smallest_effect or 0):.1f} points would have been found" in text
    repetitions = int(re.search(r"about (\d+) repetitions", text)[1])  # type: ignore[index]
    factor = float(re.search(r"([\d.]+) times as many test images", text)[1])  # type: ignore[index]
    units = round(factor * against.table.units)
    power = PowerForecast(against.table.components, 0.05)
    assert power.smallest_effect(repetitions, units) == pytest.approx(0.01, rel=0.06)
    assert power.smallest_effect(repetitions // 2, units) > 0.011
    counts = {r.name: r.test_images for r in said.facts.classes.judged}
    named = re.findall(r"([\w/]+) (\d+) → (\d+)", text)
    assert {name: int(now) for name, now, _ in named} == counts
    assert all(int(then) == pytest.approx(factor * int(now), rel=0.06, abs=1) for _, now, then in named)
    assert said.commands(title) == [f"tailfill run sample.yaml --set final.seeds={repetitions}"]
    took = re.search(r"A repetition took about ([\d.]+) GPU-hours \+ [\d.]+ CPU-hours \(([\d.]+) EUR\), all arms", text)
    seconds = sum(e.device_seconds for e in said.facts.entries if e.stage in ("finetune", "tune", "final"))
    assert took is not None
    assert float(took[1]) == pytest.approx(seconds / 3600 / 8, abs=0.005)
    assert float(took[2]) == pytest.approx(2.5 * seconds / 3600 / 8, abs=0.005)
    widest = max(said.facts.classes.judged, key=lambda r: (i := r.gain["synthetic"].interval or (0, 0))[1] - i[0])
    assert said.titles[-1] == f"Label more images of {widest.name} first."
    assert said.gain(widest.name, "synthetic").partition(", ")[2] in said.text(said.titles[-1])


def test_an_effect_of_a_point_is_ruled_out(tmp_path: Path) -> None:
    config, results = three_arms(tmp_path, seeds=6, gain=0.0)
    for repeat in range(6):  # the same answers as without generated images
        arm = results[f"final/synthetic/{repeat}"]
        results[f"final/synthetic/{repeat}"] = StageResult(arm.manifest, results[f"final/real/{repeat}"].files)
    said = Said(config, results)
    title = "Drop the arm “synthetic”: the question is settled to a point."
    assert said.titles[0] == title
    assert (
        "An effect of 0.0 points would have been found in 80 % of such studies, and what was found is ±0.0"
        in said.text(title)
    )
    model_step(said, "real")


def test_too_few_repetitions(tmp_path: Path) -> None:
    config, results = three_arms(tmp_path, seeds=2, gain=0.9)
    for role in ("tune/real", "tune/synthetic", "tune/placebo"):
        manifest = results[role].manifest
        config_of = {**manifest.config, "search": {**manifest.config["search"], "trials": 8}}
        results[role] = StageResult(manifest.model_copy(update={"config": config_of}), results[role].files)
    said = Said(config, results)
    assert said.titles[0] == "Run 6 repetitions."
    assert said.text(said.titles[0]).startswith(
        "With 2 paired repetitions no p value can be below 0.5, whatever the images do; from 6 on"
    )
    assert "so 4 more would take about " in said.text(said.titles[0])
    assert said.commands(said.titles[0]) == ["tailfill run sample.yaml --set final.seeds=6 --set search.trials=24"]
    model_step(said, "real")


def test_no_verdict_is_asked(tmp_path: Path) -> None:
    config, results = three_arms(tmp_path, seeds=2, gain=0.9)
    said = Said(config.model_copy(update={"verdict": "none"}), results)
    best = max(said.facts.validation.items(), key=lambda item: item[1].mean_worth)
    title = f"Choose a model by the validation split: “{best[0]}”, repetition {best[1].best}."
    assert said.titles[:2] == [title, "Ask for a verdict if you want to know whether generated images help."]
    assert said.commands(title)[0] == f"tailfill predict IMAGES --experiment {best[0]}"
    for name, scores in said.facts.validation.items():
        assert f"“{name}” repetition {scores.best} ({100 * scores.by_repetition[scores.best]:.1f} %)" in said.text(
            title
        )
    assert "set `final.seeds` to 6 or more, now 2." in said.text(said.titles[1])
    assert said.commands(said.titles[1]) == []
    alone = config.model_copy(update={"verdict": "none", "experiments": config.experiments[:1]})
    single = Said(alone, {role: result for role, result in results.items() if "synthetic" not in role})
    assert model_step(single, "real").startswith("It is the only experiment of the study.")
    assert single.commands(single.titles[1]) == [
        "- {name: synthetic, images: real+synthetic}",
        "- {name: placebo, images: real+copies}",
    ]


def maker_of(folder: Path, arms: dict[str, float], rare_skill: float | None = None) -> StudyMaker:
    maker = StudyMaker(folder, train=200, test=120)
    counts = (maker.labels[: maker.train] == 1).sum(axis=0)
    rare = tuple(name for name, n in zip(maker.schema.class_names, counts, strict=True) if 0 < n < 40)
    for name, skill in arms.items():
        for repeat in range(6):
            maker.final(name, "real", repeat, 3.0, skill if rare_skill is None else rare_skill, rare)
    return maker


def test_without_generated_images_an_arm_is_to_be_added(tmp_path: Path) -> None:
    maker = maker_of(tmp_path, {"real": 2.0, "other": 2.2})
    said = Said(report_config([("real", "real"), ("other", "real")]), maker.results)
    assert said.titles[1] == "Add an arm with generated images."
    assert len(said.commands(said.titles[1])) == 2
    model_step(said, "real")


def test_nothing_is_recognised(tmp_path: Path) -> None:
    maker = maker_of(tmp_path, {"real": 0, "synthetic": 0}, rare_skill=-60.0)
    said = Said(report_config([("real", "real"), ("synthetic", "real+synthetic")]), maker.results)
    title = "Get a classifier that recognises these classes at all."
    assert said.titles[0] == title
    judged = said.facts.classes.judged
    fewest, most = (f(r.train_images for r in judged) for f in (min, max))
    assert said.text(title).startswith("rare macro-F1 is 0 in all 12 trainings, so no model")
    assert f"The classes that count have {fewest} to {most} training images." in said.text(title)
    rarest = min(judged, key=lambda r: r.train_images)
    assert said.titles[1] == f"Label more images of {rarest.name}."
    assert not any(title.startswith("Use") for title in said.titles)


def test_several_arms_each_have_their_steps(tmp_path: Path) -> None:
    maker = maker_of(tmp_path, {"real": 2.0, "best": 4.5, "bad": -1.0, "good": 3.8})
    arms = [("real", "real"), ("best", "real+synthetic"), ("bad", "real+synthetic"), ("good", "real+synthetic")]
    config = report_config(arms).model_copy(update={"verdict": Verdict(alpha=0.2)})
    said = Said(config, maker.results)
    assert said.facts.judged is not None
    assert [v.outcome for v in said.facts.judged.verdicts] == ["recipe helps", "hurts", "recipe helps"]
    assert "of the 2 arms that help it is the best on the validation split" in model_step(said, "best")
    assert said.titles[1] == "Drop the arm “bad”."
    assert said.titles[0].startswith("Use the model of “best”")


def test_nothing_is_trained(tmp_path: Path) -> None:
    said = Said(report_config([("real", "real")]), StudyMaker(tmp_path, train=100, test=50).results)
    assert said.titles == ["Run the study to its end."]
    assert said.commands(said.titles[0]) == ["tailfill run sample.yaml"]


def test_an_unpriced_gpu_is_not_free(tmp_path: Path) -> None:
    config, results = three_arms(tmp_path, seeds=2)
    other: dict[str, Any] = {"prices": Prices(currency="EUR", per_hour={"A100": 1.0, "cpu": 0.1})}
    said = Said(config.model_copy(update=other), results)
    assert "GPU-hours" in said.text("Run 6 repetitions.")
    assert "EUR" not in said.text("Run 6 repetitions.")
