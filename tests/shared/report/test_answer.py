"""Tests the first sentence of the page, for each outcome."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shared.config.dataset import Rare
from shared.config.search import Verdict
from shared.config.stages import ReportConfig, ReportedExperiment
from shared.metrics.verdict import Comparison, compare, contrast
from shared.report.answer import Answer, find_answer, interval_text, p_text, points
from shared.report.scores import Comparisons

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
    synthetic: float, placebo: float, n: int = 10, interval: tuple[float, float] = (0.004, 0.031)
) -> Comparisons:
    """Returns arms that differ from the baseline by about these amounts; the seeds vary a little."""
    wobble = [0.001 * (-1) ** r * (r % 3) for r in range(n)]
    values: dict[str, dict[int, float | None]] = {
        "real": dict.fromkeys(range(n), 0.5),
        "synthetic": {r: 0.5 + synthetic + wobble[r] for r in range(n)},
        "placebo": {r: 0.5 + placebo - wobble[r] for r in range(n)},
    }

    def found(*_: Any) -> tuple[float, float]:
        return interval

    comparisons: list[Comparison] = compare(values, "real", "rare_macro_f1", 0.05, found)
    return Comparisons(Verdict(), comparisons, [contrast(values, "synthetic", "placebo", "rare_macro_f1", 0.05, found)])


def said(*args: Any, **options: Any) -> Answer:
    return find_answer(config(), judged(*args, **options))


def test_a_gain() -> None:
    found = said(0.018, 0.0)
    assert (
        found.sentence
        == "Generated images helped: rare macro-F1 +1.8 points (95 % interval +0.4 to +3.1, p = 0.004, 10 seeds)."
    )
    assert (found.tone, found.warning) == ("good", None)
    assert found.readings[0].startswith(
        "They did more than copies of real images under the same recipe do: +1.8 points"
    )
    assert found.readings[-1].startswith(
        "Copies of real images made no difference that this study could find: rare macro-F1 ±0.0"
    )


def test_a_gain_that_copies_have_too() -> None:
    found = said(0.018, 0.0181)
    assert found.sentence.startswith("Generated images helped")
    assert "only as much as copies of real images do" in found.readings[0]
    assert any(r.startswith("Copies of real images helped") for r in found.readings)


def test_a_gain_that_copies_exceed() -> None:
    assert (
        said(0.018, 0.05).readings[0].startswith("Copies of real images under the same recipe did better: −3.2 points")
    )


def test_a_loss_and_nothing() -> None:
    assert said(-0.018, 0.0).sentence.startswith("Generated images hurt: rare macro-F1 −1.8 points")
    assert said(-0.018, 0.0).tone == "bad"
    nothing = said(0.0, 0.0)
    assert nothing.sentence.startswith(
        "Generated images made no difference that this study could find: rare macro-F1 ±0.0"
    )
    assert nothing.tone == "neutral"


def test_nothing_recognised_is_no_comparison() -> None:
    found = find_answer(config(), replace(judged(0.0, 0.0), all_zero=True))
    assert found.sentence.startswith(
        "No arm recognises the rare classes at all: rare macro-F1 is 0 in every training of every arm, so there is nothing to compare."
    )
    assert (found.tone, found.readings) == ("open", ())
    assert "±0.0" not in found.sentence
    assert find_answer(config(), replace(judged(0.0, 0.0, n=2), all_zero=True)).warning is not None


def test_an_interval_over_images_with_zero_is_said() -> None:
    assert any(
        "another test set of this size might not show it" in r
        for r in said(0.018, 0.0, interval=(-0.01, 0.04)).readings
    )


def test_too_few_seeds_are_said_at_the_top() -> None:
    found = said(0.018, 0.0, n=2)
    assert found.sentence.startswith("Generated images cannot be judged yet: rare macro-F1")
    assert found.tone == "open"
    assert found.warning is not None
    assert found.warning.startswith("Not a verdict: 2 paired seeds, and 2 comparisons need at least 7")
    assert "helped" not in " ".join([found.sentence, *found.readings])


def test_arms_of_one_kind_are_named() -> None:
    values: dict[str, dict[int, float | None]] = {
        n: dict.fromkeys(range(8), 0.5 + s) for n, s in (("base", 0.0), ("a", 0.1), ("b", 0.2))
    }
    comparisons = Comparisons(Verdict(baseline="base"), compare(values, "base", "accuracy", 0.05, lambda *_: None), [])
    two = find_answer(config((("base", "real"), ("a", "real+synthetic"), ("b", "real+synthetic"))), comparisons)
    assert two.sentence.startswith("Generated images (“a”) helped: accuracy +10.0 points")
    plain = find_answer(config((("base", "real"), ("a", "real"), ("b", "real"))), comparisons)
    assert plain.sentence.startswith("The arm “a” helped")


def test_no_verdict_and_nothing_to_compare() -> None:
    assert "asks for no verdict" in find_answer(config(), None).sentence
    assert "nothing to compare" in find_answer(config(ARMS[:1]), Comparisons(Verdict(), [], [])).sentence


@pytest.mark.parametrize(("value", "text"), [(0.018, "+1.8"), (-0.0321, "−3.2"), (0.0004, "±0.0"), (-0.0004, "±0.0")])
def test_points(value: float, text: str) -> None:
    assert points(value) == text


def test_words_for_numbers() -> None:
    assert [p_text(p) for p in (0.0002, 0.0312, 0.25, 1.0)] == ["p < 0.001", "p = 0.031", "p = 0.25", "p = 1.00"]
    assert interval_text(None) == "not defined"
    assert interval_text((-0.01, 0.02)) == "−1.0 to +2.0"
