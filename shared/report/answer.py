"""The study's answer in plain words: one sentence, and what a reader needs to interpret it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shared.config.stages import ReportConfig
from shared.metrics.table import metric_named
from shared.metrics.verdict import Comparison, Interval
from shared.report.scores import Comparisons

Tone = Literal["good", "bad", "neutral", "open"]
TONES: dict[str, Tone] = {"helps": "good", "hurts": "bad", "no effect found": "neutral", "too few seeds": "open"}


@dataclass(frozen=True)
class Answer:
    """The answer at the top of the page."""

    tone: Tone
    sentence: str
    readings: tuple[str, ...]
    """Further sentences: the other arms, the placebo, other test images."""
    warning: str | None
    """Why the result is not a verdict, or None if it is one."""
    caution: str | None = None
    """Another reason to read the comparison with care: arms that were not tuned equally."""


def points(value: float) -> str:
    """Returns a difference of shares in percentage points with its sign: `+1.8`."""
    text = f"{value * 100:+.1f}"
    return "±0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def p_text(p: float) -> str:
    """Returns a p value as text, `p = 0.031`, and a tiny one as a bound."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def interval_text(interval: Interval | None) -> str:
    """Returns an interval in points: `+0.4 to +3.1`."""
    return "not defined" if interval is None else f"{points(interval[0])} to {points(interval[1])}"


def numbers(comparison: Comparison, alpha: float) -> str:
    """Returns a comparison in numbers: `rare macro-F1 +1.8 points (95 % interval +0.4 to +3.1, p = 0.012, 10 seeds)`."""
    metric = metric_named(comparison.metric).label
    if comparison.difference is None:
        return f"{metric} has no paired repetition"
    seeds = f"{comparison.n} {'seed' if comparison.n == 1 else 'seeds'}"
    parts = (interval_words(comparison, alpha), p_text(comparison.p_holm), seeds)
    return f"{metric} {points(comparison.difference)} points ({', '.join(parts)})"


def interval_words(comparison: Comparison, alpha: float) -> str:
    """Returns the interval over test images and seeds, with its confidence."""
    return f"{(1 - alpha) * 100:g} % interval {interval_text(comparison.image_interval)}"


def find_answer(config: ReportConfig, judged: Comparisons | None, caution: str | None = None) -> Answer:
    """Returns the answer to whether generated images helped; if no arm has them, it is about the first arm beside the baseline."""
    if judged is None:
        return Answer("open", "This study asks for no verdict; its results are below.", (), None)
    if not judged.comparisons:
        return Answer("open", "There is one experiment, and nothing to compare it with.", (), None)
    if judged.all_zero:
        return Answer("open", _nothing_recognised(judged.rule.metric), (), _warning(judged), caution)
    main = _main(config, judged)
    others = [c for c in judged.comparisons if c is not main]
    readings = [f"{_subject(config, c)} {_predicate(c)}: {numbers(c, judged.rule.alpha)}." for c in others]
    readings[:0] = _placebo_readings(config, judged, main) + _image_reading(main)
    sentence = f"{_subject(config, main)} {_predicate(main)}: {numbers(main, judged.rule.alpha)}."
    return Answer(TONES[main.outcome], sentence, tuple(readings), _warning(judged), caution)


def _nothing_recognised(name: str) -> str:
    metric = metric_named(name)
    what = "the rare classes" if metric.rare else "any class"
    return (
        f"No arm recognises {what} at all: {metric.label} is 0 in every training of every arm, so there is nothing to compare. "
        "Train longer (final.epochs, search.epochs) or search a stronger classifier, then run the study again."
    )


def _main(config: ReportConfig, judged: Comparisons) -> Comparison:
    """Returns the comparison of the headline: that of the first synthetic arm, or else the first one."""
    synthetic = [e.name for e in config.experiments if e.images == "real+synthetic"]
    return next((c for c in judged.comparisons if c.arm in synthetic), judged.comparisons[0])


def _subject(config: ReportConfig, comparison: Comparison) -> str:
    by_name = {e.name: e for e in config.experiments}
    images = by_name[comparison.arm].images
    alone = sum(e.images == images for e in config.experiments) == 1
    if by_name[comparison.baseline].images == "real" and images != "real":
        words = "Generated images" if images == "real+synthetic" else "Copies of real images"
        return words if alone else f"{words} (“{comparison.arm}”)"
    return f"The arm “{comparison.arm}”"


def _predicate(comparison: Comparison) -> str:
    return {
        "helps": "helped",
        "hurts": "hurt",
        "no effect found": "made no difference that this study could find",
        "too few seeds": "cannot be judged yet",
    }[comparison.outcome]


def _placebo_readings(config: ReportConfig, judged: Comparisons, main: Comparison) -> list[str]:
    """Returns sentences that compare the arm with the same recipe on copies of real images."""
    readings = []
    for contrast in (c for c in judged.against_placebo if c.arm == main.arm):
        if contrast.difference is None or contrast.outcome == "too few seeds":
            continue
        interval = interval_words(contrast, judged.rule.alpha)
        detail = (
            f"{points(contrast.difference)} points against “{contrast.baseline}” ({interval}, {p_text(contrast.p)})"
        )
        if main.outcome == "helps" and contrast.outcome == "helps":
            readings.append(f"They did more than copies of real images under the same recipe do: {detail}.")
        elif main.outcome == "helps" and contrast.outcome == "no effect found":
            readings.append(
                f"But only as much as copies of real images do, as far as this study can tell: {detail}; "
                "the gain may be the recipe's, not the images'."
            )
        elif contrast.outcome == "hurts":
            readings.append(f"Copies of real images under the same recipe did better: {detail}.")
        else:
            readings.append(f"Beside copies of real images under the same recipe: {detail}.")
    return readings


def _image_reading(main: Comparison) -> list[str]:
    if main.outcome not in ("helps", "hurts") or not main.image_interval_has_zero:
        return []
    return [
        "The interval over test images and seeds holds zero: the difference is clear on these test images, "
        "and another test set of this size might not show it."
    ]


def _warning(judged: Comparisons) -> str | None:
    short = [c for c in judged.comparisons if c.outcome == "too few seeds"]
    if not short:
        return None
    have, least = min(c.n for c in short), max(c.least for c in short)
    m = len(judged.comparisons)
    return (
        f"Not a verdict: {have} paired {'seed' if have == 1 else 'seeds'}, and {m} "
        f"{'comparison needs' if m == 1 else 'comparisons need'} at least {least} (the smallest two-sided p is 2/2ⁿ, and it must come to "
        f"{judged.rule.alpha:g}/{m}). Set final.seeds to {least} or more and run the study again: what is finished is kept."
    )
