"""Tests the first sentence of the page, for each outcome."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shared.config.dataset import Rare
from shared.config.search import Verdict
from shared.config.stages import ReportConfig, ReportedExperiment
from shared.metrics.verdict import Measured, compare, give_verdicts
from shared.report.answer import Answer, find_answer, interval_text, p_text, points
from shared.report.scores import Comparisons, FewImages

ARMS = (("real", "real"), ("synthetic", "real+synthetic"), ("placebo", "real+copies"))


def config(arms: tuple[tuple[str, str], ...] = ARMS) -> ReportConfig:
    """Returns the config of a report on these (name, images) arms."""
    reported = [
        {"name": n, "title": None, "paper_row": None, "images": i, "augmentation": "soft", "parameters_from": None}
        for n, i in arms
    ]
    return ReportConfig(
        study="s", seed=0, verdict=Verdict(), rare=Rare(), experiments=tuple(ReportedExperiment.model_validate(r) for r in reported)
    )  # fmt: skip


def judged(
    arms: tuple[tuple[str, str], ...], shifts: dict[str, float], n: int = 10, of_unit: float = 0.0, **rule: Any
) -> Comparisons:
    """Arms that differ from the first one by these amounts, give or take a little in each repetition, and in each of 400 test images."""
    baseline = arms[0][0]
    values, influences = {}, {}
    for index, (name, _) in enumerate(arms):
        random = np.random.default_rng(index)
        own = random.normal(0, of_unit, 400)
        wobble = [0.001 * (-1) ** (r + index) * (r % 3) * (index > 0) for r in range(n)]
        values[name] = {r: 0.5 + shifts.get(name, 0.0) + wobble[r] for r in range(n)}
        influences |= {(name, r): own - own.mean() for r in range(n)}
    measured = Measured("rare_macro_f1", values, influences)

    def of(images: str) -> list[str]:
        return [name for name, what in arms if what == images and name != baseline]

    verdict = Verdict(baseline=baseline, **rule)
    placebos = of("real+copies") if verdict.compares == "images" else []
    return Comparisons(
        verdict,
        give_verdicts(measured, baseline, of("real+synthetic"), placebos, 0.05),
        [compare(measured, name, baseline, 0.05) for name in of("real+copies")],
        [compare(measured, name, baseline, 0.05) for name in of("real")],
    )


def said(
    synthetic: float, placebo: float | None = None, arms: tuple[tuple[str, str], ...] = ARMS, **options: Any
) -> Answer:
    shown = arms if placebo is not None else tuple(arm for arm in arms if arm[1] != "real+copies")
    return find_answer(config(shown), judged(shown, {"synthetic": synthetic, "placebo": placebo or 0.0}, **options))


def test_images_help() -> None:
    found = said(0.018, 0.0)
    assert found.sentence == (
        "Generated images help on this training set: rare macro-F1 +1.8 points against real images (95 % interval +1.7 to +1.9, p = 0.002, "
        "10 repetitions), and +1.8 points against the placebo, copies of real images (+1.6 to +2.0, p = 0.002); together p = 0.002."
    )
    assert (found.tone, found.warning, found.cautions) == ("good", None, ())
    (reading,) = found.readings  # of the placebo: the arm against the placebo is in the headline
    assert reading.startswith("A reading, no verdict: “placebo” ±0.0 points against “real” (95 % interval")
    assert reading.endswith(", not corrected).")


def test_the_recipe_helps_as_copies_do_as_well() -> None:
    for placebo, difference in ((0.0181, "±0.0"), (0.05, "−3.2")):
        found = said(0.018, placebo)
        assert found.sentence.startswith(
            "The recipe with generated images helps on this training set: rare macro-F1 +1.8 points against real images ("
        )
        assert f"It is not shown that the images do: {difference} points against the placebo, copies" in found.sentence
        assert "Generated images help" not in " ".join([found.sentence, *found.readings])
        assert found.tone == "good"


def test_without_a_placebo_the_headline_says_what_it_cannot_say() -> None:
    for shift, verb in ((0.018, "helps"), (-0.018, "hurts")):
        found = said(shift)
        assert found.sentence.startswith(f"The recipe with generated images {verb} on this training set: ")
        assert found.sentence.endswith(
            " Without a placebo this study cannot say whether images or recipe are the cause."
        )
    assert said(0.0).sentence.endswith(
        "Without a placebo this study cannot say whether images or recipe would be the cause of one."
    )


def test_a_loss() -> None:
    found = said(-0.018, 0.0)
    assert found.sentence.startswith(
        "The recipe with generated images hurts on this training set: rare macro-F1 −1.8 points"
    )
    assert found.tone == "bad"
    assert found.readings[0].startswith("A reading, no verdict: “synthetic” −1.8 points against “placebo” (")


def test_nothing_found_and_what_would_have_been() -> None:
    found = said(0.0, 0.0)
    assert found.sentence.startswith(
        "No effect of generated images was found on this training set: rare macro-F1 ±0.0 points against real images ("
    )
    assert "; one of 0.1 points would have been found in 80 % of such studies." in found.sentence
    assert found.tone == "neutral"
    assert not any("To settle" in r for r in found.readings)  # it could have found a point
    unsure = said(0.0, 0.0, of_unit=0.3)
    assert "To settle an effect of 1 point takes about " in unsure.readings[0]
    assert "times as many test images of every class" in unsure.readings[0]


def test_repetitions_are_asked_for_if_they_can_settle_it() -> None:
    measured = judged(ARMS[:2], {"synthetic": 0.0})
    values = {
        arm: {r: 0.5 + 0.03 * (-1) ** r * (arm == "synthetic") for r in range(10)} for arm in ("real", "synthetic")
    }
    quiet = Measured("rare_macro_f1", values, {(arm, r): np.zeros(400) for arm in values for r in range(10)})
    verdicts = give_verdicts(quiet, "real", ["synthetic"], [], 0.05)
    found = find_answer(config(ARMS[:2]), replace(measured, verdicts=verdicts))
    (settle,) = found.readings
    assert settle.startswith("To settle an effect of 1 point takes about ")
    assert settle.endswith(" repetitions.")
    assert 60 < int(settle.split()[-2]) < 120  # about (2.8 · 3.2 points)² = 80


def test_one_generator_is_said_in_the_headline() -> None:
    assert said(0.018, 0.0, generators="one").sentence.startswith(
        "Generated images help on this training set with this generator: "
    )
    assert "with this generator" not in said(0.018, 0.0).sentence


def test_recipes_are_spoken_of_if_arms_differ_in_more() -> None:
    sentences = {
        0.018: "The recipe “synthetic” helps",
        -0.018: "The recipe “synthetic” hurts",
        0.0: "No effect of the recipe “synthetic”",
    }
    for shift, words in sentences.items():
        found = said(shift, 0.0, compares="recipes")
        assert found.sentence.startswith(words)
        assert found.sentence.endswith(
            "The recipes may differ in more than their images, so this is no answer about the images alone."
        )
        assert "enerated images" not in found.sentence


def test_nothing_recognised_is_no_comparison() -> None:
    found = find_answer(config(), replace(judged(ARMS, {}), all_zero=True))
    assert found.sentence.startswith(
        "No arm recognises the rare classes at all: rare macro-F1 is 0 in every training of every arm, so there is nothing to compare."
    )
    assert (found.tone, found.readings) == ("open", ())
    assert "±0.0" not in found.sentence
    assert find_answer(config(), replace(judged(ARMS, {}, n=2), all_zero=True)).warning is not None


def test_few_test_images_are_said_at_the_top() -> None:
    few = [FewImages(f"g/{letter}", 3) for letter in "abcdefgh"]
    found = find_answer(config(), replace(judged(ARMS, {}), few=few), ["Other: a caution."])
    assert found.cautions[0] == "Other: a caution."
    assert found.cautions[1].startswith("Few test images: g/a has 3, g/b has 3,")
    assert ", and 2 more, and a judged class needs 20." in found.cautions[1]


def test_too_few_repetitions_are_said_at_the_top() -> None:
    found = said(0.018, 0.0, n=2)
    assert found.sentence.startswith("Generated images cannot be judged yet: rare macro-F1")
    assert found.tone == "open"
    assert found.warning is not None
    assert found.warning.startswith("Not a verdict: 2 paired repetitions, and 1 comparison needs at least 6")
    assert "help" not in " ".join([found.sentence, *found.readings])


def test_several_arms_with_generated_images_are_named() -> None:
    arms = (("base", "real"), ("a", "real+synthetic"), ("b", "real+synthetic"), ("other", "real"))
    found = find_answer(config(arms), judged(arms, {"a": 0.1, "b": 0.2, "other": 0.3}))
    assert found.sentence.startswith(
        "The recipe “a” helps on this training set: rare macro-F1 +10.0 points against “base”"
    )
    assert found.readings[0].startswith("The recipe “b” helps")
    assert found.readings[1].startswith("A reading, no verdict: “other” +30.0 points against “base”")
    copies = (*arms, ("copies", "real+copies"))
    helped = find_answer(config(copies), judged(copies, {"a": 0.1, "b": 0.2}))
    assert helped.sentence.startswith("Generated images (“a”) help")


def test_real_arms_alone_are_readings() -> None:
    arms = (("base", "real"), ("a", "real"))
    found = find_answer(config(arms), judged(arms, {"a": 0.1}))
    assert found.sentence.startswith("No arm of this study has generated images, so it gives no verdict")
    assert found.tone == "open"
    assert found.readings[0].startswith("A reading, no verdict: “a” +10.0 points")


def test_no_verdict_and_nothing_to_compare() -> None:
    assert "asks for no verdict" in find_answer(config(), None).sentence
    assert "nothing to compare" in find_answer(config(ARMS[:1]), Comparisons(Verdict(), [], [], [])).sentence


@pytest.mark.parametrize(("value", "text"), [(0.018, "+1.8"), (-0.0321, "−3.2"), (0.0004, "±0.0"), (-0.0004, "±0.0")])
def test_points(value: float, text: str) -> None:
    assert points(value) == text


def test_words_for_numbers() -> None:
    assert [p_text(p) for p in (0.0002, 0.0312, 0.25, 1.0)] == ["p < 0.001", "p = 0.031", "p = 0.25", "p = 1.00"]
    assert interval_text(None) == "not defined"
    assert interval_text((-0.01, 0.02)) == "−1.0 to +2.0"
