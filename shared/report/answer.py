"""Writes the study's answer in plain words: a headline, and what a reader needs to interpret it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shared.config.stages import ReportConfig
from shared.metrics.forecast import ENOUGH_UNITS, TO_SETTLE, design_text
from shared.metrics.table import metric_named
from shared.metrics.verdict import ArmVerdict, Comparison, Interval, Outcome
from shared.report.scores import Comparisons

Tone = Literal["good", "bad", "neutral", "open"]
TONES: dict[Outcome, Tone] = {
    "images help": "good",
    "recipe helps": "good",
    "hurts": "bad",
    "no effect found": "neutral",
    "too few repetitions": "open",
}


@dataclass(frozen=True)
class Answer:
    """Holds the answer at the top of the page."""

    tone: Tone
    sentence: str
    readings: tuple[str, ...]
    """Holds further sentences: what it would take to settle the question, the other arms, and comparisons that are no verdicts."""
    warning: str | None
    """Says why the result is not a verdict, or None if it is one."""
    cautions: tuple[str, ...] = ()
    """Lists other reasons to read the result with care: arms that were not tuned equally, classes with few test images."""


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


def find_answer(config: ReportConfig, judged: Comparisons | None, cautions: Sequence[str] = ()) -> Answer:
    """Returns the answer to whether generated images help; of several arms with generated images, the first is in the headline."""
    if judged is None:
        return Answer("open", "This study asks for no verdict; its results are below.", (), None)
    if not judged.with_baseline:
        return Answer("open", "There is one experiment, and nothing to compare it with.", (), None)
    cautions = (*cautions, *([_few_images(judged)] if judged.few else []))
    if judged.all_zero:
        return Answer("open", _nothing_recognised(judged.rule.metric), (), _warning(judged), cautions)
    words = _Words(config, judged)
    if not judged.verdicts:
        sentence = "No arm of this study has generated images, so it gives no verdict; its arms are compared below."
        return Answer("open", sentence, tuple(map(words.reading, judged.readings)), None, cautions)
    main, *others = judged.verdicts
    readings = [
        *words.to_settle(main),
        *(words.headline(verdict) for verdict in others),
        *(words.reading(c) for c in judged.readings if not words.in_headline(c)),
    ]
    return Answer(TONES[main.outcome], words.headline(main), tuple(readings), _warning(judged), cautions)


@dataclass(frozen=True)
class _Words:
    """Writes the sentences about the arms of a study."""

    config: ReportConfig
    judged: Comparisons

    def headline(self, verdict: ArmVerdict) -> str:
        """Returns what the study says of an arm with generated images, and what it cannot say of it."""
        against = verdict.against_baseline
        where = " on this training set" + (" with this generator" if self.judged.rule.generators == "one" else "")
        if self.judged.folds:
            where = " on this data set, with every image tested once"
        numbers = f"{where}: {self._numbers(against)}"
        match verdict.outcome:
            case "images help":
                beaten = " and ".join(self._against(c) for c in verdict.against_placebos)
                return f"{self._images(verdict.arm)} help{numbers}, and {beaten}; together {p_text(verdict.p)}."
            case "recipe helps":
                said = (
                    f"{self._recipe(verdict.arm)} helps{numbers}. {self._not_of_images(verdict, 'that the images do')}"
                )
            case "hurts":
                said = (
                    f"{self._recipe(verdict.arm)} hurts{numbers}. {self._not_of_images(verdict, 'that the images do')}"
                )
            case "no effect found":
                effect = against.smallest_effect
                found = f"; one of {_size(effect)} would have been found in 80 % of such studies" if effect else ""
                subject = self._recipe(verdict.arm, "the") if self._recipes else self._images(verdict.arm).lower()
                said = f"No effect of {subject} was found{numbers}{found}. {self._not_of_images(verdict, '')}"
            case "too few repetitions":
                said = f"{self._images(verdict.arm)} cannot be judged yet: {self._numbers(against)}."
        return said.strip()

    def reading(self, comparison: Comparison) -> str:
        """Returns a comparison that is no verdict, in numbers and without a claim."""
        if comparison.difference is None:
            return f"A reading, no verdict: “{comparison.arm}” and “{comparison.baseline}” have no paired repetition."
        return (
            f"A reading, no verdict: “{comparison.arm}” {points(comparison.difference)} points against “{comparison.baseline}” "
            f"({self._interval(comparison)}, {p_text(comparison.p)}, not corrected)."
        )

    def in_headline(self, comparison: Comparison) -> bool:
        """Returns whether the headline of an arm has this comparison with a placebo."""
        shown = (v for v in self.judged.verdicts if v.outcome in ("images help", "recipe helps"))
        return any(comparison in verdict.against_placebos for verdict in shown)

    def to_settle(self, verdict: ArmVerdict) -> list[str]:
        """Returns what it takes to settle an effect of one point, if no effect was found and this study could not."""
        against = verdict.against_baseline
        effect, design = against.smallest_effect, against.to_settle
        if verdict.outcome != "no effect found" or effect is None or effect <= TO_SETTLE:
            return []
        if design is None or against.table is None:
            return []
        what = "images" if self.judged.folds else "test images"
        return [f"To settle an effect of 1 point takes about {design_text(design, against.table.units, what)}."]

    @property
    def _recipes(self) -> bool:
        return self.judged.rule.compares == "recipes"

    def _not_of_images(self, verdict: ArmVerdict, claim: str) -> str:
        """Returns what the verdict leaves open of the images alone; `claim` is empty if no effect was found."""
        if self._recipes:
            return "The recipes may differ in more than their images, so this is no answer about the images alone."
        if not verdict.against_placebos:
            open_question = (
                "whether images or recipe are the cause"
                if claim
                else "whether images or recipe would be the cause of one"
            )
            return f"Without a placebo this study cannot say {open_question}."
        if verdict.outcome == "recipe helps":
            return f"It is not shown {claim}: {' and '.join(self._against(c) for c in verdict.against_placebos)}."
        return ""

    def _images(self, arm: str) -> str:
        if self._recipes:
            return self._recipe(arm)
        return "Generated images" if len(self.judged.verdicts) == 1 else f"Generated images (“{arm}”)"

    def _recipe(self, arm: str, article: str = "The") -> str:
        alone = len(self.judged.verdicts) == 1 and not self._recipes
        return f"{article} recipe with generated images" if alone else f"{article} recipe “{arm}”"

    def _numbers(self, comparison: Comparison) -> str:
        """Returns a comparison in numbers: `rare macro-F1 +1.8 points against real images (95 % interval +0.4 to +3.1, p = 0.012, 10 repetitions)`."""
        metric = metric_named(comparison.metric).label
        if comparison.difference is None:
            return f"{metric} has no paired repetition"
        repetitions = f"{comparison.n} {'repetition' if comparison.n == 1 else 'repetitions'}"
        details = f"{self._interval(comparison)}, {p_text(comparison.p_adjusted)}, {repetitions}"
        return f"{metric} {points(comparison.difference)} points against {self._name(comparison.baseline)} ({details})"

    def _against(self, comparison: Comparison) -> str:
        """Returns a comparison with a placebo: `+1.6 points against the placebo, copies of real images (+0.2 to +3.0, p = 0.020)`."""
        if comparison.difference is None:
            return f"no paired repetition with {self._name(comparison.baseline)}"
        return (
            f"{points(comparison.difference)} points against {self._name(comparison.baseline)} "
            f"({interval_text(comparison.interval)}, {p_text(comparison.p)})"
        )

    def _name(self, arm: str) -> str:
        images = next(e.images for e in self.config.experiments if e.name == arm)
        alone = sum(e.images == images for e in self.config.experiments) == 1
        if images == "real+copies" and alone:
            return "the placebo, copies of real images"
        return "real images" if images == "real" and alone else f"“{arm}”"

    def _interval(self, comparison: Comparison) -> str:
        return f"{(1 - comparison.alpha) * 100:g} % interval {interval_text(comparison.interval)}"


def _size(effect: float) -> str:
    text = f"{effect * 100:.1f}"
    return f"{text} {'point' if text == '1.0' else 'points'}"


def _nothing_recognised(name: str) -> str:
    metric = metric_named(name)
    what = "the rare classes" if metric.rare else "any class"
    return (
        f"No arm recognises {what} at all: {metric.label} is 0 in every training of every arm, so there is nothing to compare. "
        "Train longer (final.epochs, search.epochs) or search a stronger classifier, then run the study again."
    )


def _few_images(judged: Comparisons) -> str:
    few = judged.few
    named = ", ".join(f"{c.name} has {c.units}" for c in few[:6]) + (
        f", and {len(few) - 6} more" if len(few) > 6 else ""
    )
    more = "label more images" if judged.folds else "give the test split more images"
    return (
        f"Few test images: {named}, and a judged class needs {ENOUGH_UNITS}. With fewer, an interval of {(1 - judged.rule.alpha) * 100:g} % may hold "
        f"the true difference less often than it says. Read the result with that in mind, or {more}."
    )


def _warning(judged: Comparisons) -> str | None:
    short = [v.against_baseline for v in judged.verdicts if v.outcome == "too few repetitions"]
    if not short:
        return None
    have, least = min(c.n for c in short), max(c.least for c in short)
    m = len(judged.verdicts)
    return (
        f"Not a verdict: {have} paired {'repetition' if have == 1 else 'repetitions'}, and {m} "
        f"{'comparison needs' if m == 1 else 'comparisons need'} at least {least} (the smallest two-sided p is 2/2ⁿ, and it must come to "
        f"{judged.rule.alpha:g}/{m}). Set final.seeds to {least} or more and run the study again: what is finished is kept."
    )
