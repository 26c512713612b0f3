"""Says what a study's outcome means for its user: what to do next, with the study's own numbers and the very commands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.metrics.forecast import ENOUGH_UNITS, TO_SETTLE
from shared.metrics.table import metric_named
from shared.metrics.verdict import ArmVerdict, Comparison
from shared.report.answer import interval_text, p_text, points
from shared.report.class_readings import ClassReading, ClassReadings, Estimate
from shared.report.inputs import StudyInputs
from shared.report.lineage import LineageEntry
from shared.report.money import Cost, spent_text
from shared.report.recommended import HELPS, Recommended, ValidationScores
from shared.report.scores import Comparisons, StudyScores
from shared.report.settling import MOST_NAMED, price_of_repetitions, repetitions_of, run_command, to_settle

OF_IMAGES = ("finetune", "generate", "judge", "score")
"""Lists the stages that make and score generated images."""
SYNTHETIC = "- {name: synthetic, images: real+synthetic}"
PLACEBO = "- {name: placebo, images: real+copies}"
SHOWN = 0.0005
"""Sets the least difference that is not shown as ±0.0 points."""


@dataclass(frozen=True)
class NextStep:
    """Holds one thing to do."""

    title: str
    text: str
    """Says why, and with which numbers. What stands between backticks is code."""
    commands: tuple[str, ...] = ()
    """Lists commands, or lines of a study file."""


@dataclass(frozen=True)
class Facts:
    """Holds all from which the steps are written."""

    study: StudyInputs
    scores: StudyScores
    judged: Comparisons | None
    classes: ClassReadings
    recommended: Recommended | None
    validation: Mapping[str, ValidationScores]
    """Maps each trained experiment to its scores on the validation split."""
    entries: Sequence[LineageEntry]
    cost: Cost | None


def next_steps(facts: Facts) -> list[NextStep]:
    """Returns the steps for the study's outcome, the most urgent first."""
    judged, writer = facts.judged, _Writer(facts)
    if not facts.classes.worst:
        text = "No final training of this study is finished, so there is no model and no score."
        return [NextStep("Run the study to its end.", text, (f"tailfill run {facts.study.config.study}.yaml",))]
    if judged is None:
        model = writer.use_model() or writer.choose_model()
        return [*model, writer.ask_for_a_verdict(), *writer.label_weakest()]
    if not judged.verdicts:
        return [*writer.use_model(), writer.add_generated_images(), *writer.label_weakest()]
    if judged.all_zero:
        return [writer.learn_at_all(judged), *writer.label_rarest()]
    if any(verdict.outcome == "too few repetitions" for verdict in judged.verdicts):
        return [writer.repeat(judged.verdicts), *writer.use_model(), *writer.label_weakest()]
    drops, others, labels = [], [], []
    for verdict in judged.verdicts:
        match verdict.outcome:
            case "images help":
                others.append(writer.keep_images(verdict))
            case "recipe helps":
                others.append(writer.images_or_recipe(verdict, judged))
            case "hurts":
                drops.append(writer.drop(verdict))
                others.append(writer.look_at_images(verdict))
            case _ if _ruled_out(verdict.against_baseline.smallest_effect):
                drops.append(writer.settled(verdict))
            case _:
                others.append(writer.settle(verdict))
                labels += writer.label_least_certain(verdict)
    helped = any(verdict.outcome in HELPS for verdict in judged.verdicts)
    first = [*writer.use_model(), *drops] if helped else [*drops, *writer.use_model()]
    steps = [*first, *others, *(labels[:1] or writer.label_weakest())]
    return [step for i, step in enumerate(steps) if step.title not in {earlier.title for earlier in steps[:i]}]


def _ruled_out(effect: float | None) -> bool:
    """Returns whether the smallest effect that would have been found is so small that the question is settled."""
    return effect is not None and effect <= TO_SETTLE


class _Writer:
    """Writes the steps of one study."""

    def __init__(self, facts: Facts) -> None:
        self.facts, self.study, self.classes = facts, facts.study, facts.classes

    def use_model(self) -> list[NextStep]:
        """Returns the step that names the model to use; none without a verdict that recommends one of several."""
        chosen = self.facts.recommended
        if chosen is None:
            return []
        metric, test = metric_named(chosen.metric).label, self.facts.scores.spread(chosen.experiment, chosen.metric)
        best = "its only one" if chosen.among == 1 else f"the best of its {chosen.among} on the validation split"
        value = f" ({metric} {_per_cent(chosen.validation)} there)" if chosen.validation is not None else ""
        text = f"{self._why(chosen.experiment)} Repetition {chosen.repeat} is {best}{value}."
        if test.mean is not None:
            spread = f" ± {100 * test.sd:.1f}" if test.sd is not None else ""
            where = "On all images, each tested once," if self.study.folds else "On the test split"
            text += f" {where} this experiment has {metric} {100 * test.mean:.1f}{spread} %."
        title = f"Use the model of “{chosen.experiment}”, repetition {chosen.repeat}."
        return [NextStep(title, f"{text} Both commands take this repetition.", _commands(chosen.experiment))]

    def _why(self, name: str) -> str:
        judged = self.facts.judged
        if judged is None or len(self.study.experiments) == 1:
            return "It is the only experiment of the study."
        helping = {v.arm: v.against_baseline for v in judged.verdicts if v.outcome in HELPS}
        if not helping:
            return "It is the baseline, and the verdict recommends no other arm."
        among = (
            f"; of the {len(helping)} arms that help it is the best on the validation split" if len(helping) > 1 else ""
        )
        return f"The verdict recommends this arm: {_numbers(helping[name])}{among}."

    def choose_model(self) -> list[NextStep]:
        """Returns the step of a study without a verdict that has several experiments."""
        ranked = sorted(self.facts.validation.items(), key=lambda item: -item[1].mean_worth)
        (first, scores), metric = ranked[0], metric_named(ranked[0][1].metric).label
        named = ", ".join(
            f"“{name}” repetition {found.best} ({_per_cent(found.by_repetition[found.best])})"
            for name, found in ranked[:MOST_NAMED]
        )
        text = (
            f"No verdict recommends one. By {metric} on the validation split the best repetitions are {named}; on average “{first}” is the best. That is a "
            "choice and no finding: nothing here says that one experiment is better than another."
        )
        title = f"Choose a model by the validation split: “{first}”, repetition {scores.best}."
        return [NextStep(title, text, _commands(first))]

    def ask_for_a_verdict(self) -> NextStep:
        """Returns the step that says how a study that asks for no verdict gets one."""
        lines = self._lacking()
        add = f" Add {'this arm' if len(lines) == 1 else 'these arms'} under `experiments:`." if lines else ""
        text = (
            f"Take out `verdict: none` and set `final.seeds` to 6 or more, now {repetitions_of(self.study)}. Each repetition is then the whole procedure "
            f"anew, and the report says whether generated images help.{add}"
        )
        return NextStep("Ask for a verdict if you want to know whether generated images help.", text, lines)

    def add_generated_images(self) -> NextStep:
        """Returns the step of a study without an arm with generated images."""
        lines = self._lacking()
        what = "the arm, and the placebo that tells images from recipe" if len(lines) > 1 else "the arm"
        text = f"No arm of this study has generated images, so it cannot say whether they help. Under `experiments:` this adds {what}."
        return NextStep("Add an arm with generated images.", text, lines)

    def _lacking(self) -> tuple[str, ...]:
        """Returns the lines of a study file that add the arms which a verdict needs and the study lacks."""
        images = {e.config.images for e in self.study.experiments}
        lines = {"real": "- {name: real, images: real}", "real+synthetic": SYNTHETIC, "real+copies": PLACEBO}
        return tuple(line for kind, line in lines.items() if kind not in images)

    def learn_at_all(self, judged: Comparisons) -> NextStep:
        """Returns the step of a study in which no arm recognises anything that is judged."""
        trainings = [final for e in self.study.experiments for final in e.finals.values()]
        counts = [r.train_images for r in self._candidates()]
        few = f" The classes that count have {min(counts):,} to {max(counts):,} training images." if counts else ""
        text = (
            f"{metric_named(judged.rule.metric).label} is 0 in all {len(trainings)} trainings, so no model of this study is of use for these classes.{few} "
            "Raise `final.epochs` and `search.epochs`, take a pretrained or larger `classifier.model`, or set `training.loss: weighted`."
        )
        return NextStep("Get a classifier that recognises these classes at all.", text)

    def repeat(self, verdicts: Sequence[ArmVerdict]) -> NextStep:
        """Returns the step of a study with too few repetitions for a verdict."""
        short = [v.against_baseline for v in verdicts if v.outcome == "too few repetitions"]
        have, least = min(c.n for c in short), max(c.least for c in short)
        text = (
            f"With {have} paired {'repetition' if have == 1 else 'repetitions'} no p value can be below {2 / 2**have if have else 1:.2g}, whatever the images "
            f"do; from {least} on there can be a verdict. {self._price(least - have)}"
        )
        return NextStep(f"Run {least} repetitions.", text.strip(), run_command(self.study, least))

    def keep_images(self, verdict: ArmVerdict) -> NextStep:
        """Returns the step if the images of an arm help."""
        beaten = ", and ".join(_numbers(c) for c in verdict.against_placebos)
        text = f"They are the cause, and not the recipe alone: {beaten}. {self._extremes(verdict.arm)}"
        command = f"tailfill export generated DIR --experiment {verdict.arm} --accepted"
        return NextStep(f"Keep the generated images of “{verdict.arm}”.", text.strip(), (command,))

    def images_or_recipe(self, verdict: ArmVerdict, judged: Comparisons) -> NextStep:
        """Returns the step if the recipe of an arm helps, but its images are not shown to."""
        extremes, spent = self._extremes(verdict.arm), spent_text(self.facts.entries, self.facts.cost, OF_IMAGES)
        took = f" Making and scoring images took {spent}." if spent else ""
        if judged.rule.compares == "recipes":
            text = f"The recipes may differ in more than their images, so the gain may come from any part of this one.{took} {extremes}"
            return NextStep(f"Keep the recipe “{verdict.arm}” as a whole.", text.strip())
        if not verdict.against_placebos:
            text = f"Copies of real images may do as well, without a generator.{took} Under `experiments:` this adds the arm that tells. {extremes}"
            return NextStep("Add a placebo, to learn whether it is the images.", text.strip(), (PLACEBO,))
        closest = min(verdict.against_placebos, key=lambda c: -math.inf if c.difference is None else c.difference)
        copies = " ".join(f"The copies alone: {_numbers(c)}." for c in judged.placebos if c.arm == closest.baseline)
        settle = to_settle(closest, self._candidates())
        text = f"The images are not shown to do better than copies of real ones: {_numbers(closest)}. {copies} {settle}{took} {extremes}"
        title = f"Keep the recipe of “{verdict.arm}”, and doubt that it needs generated images."
        return NextStep(title, " ".join(text.split()))

    def drop(self, verdict: ArmVerdict) -> NextStep:
        """Returns the step if an arm hurts."""
        spent = spent_text(self.facts.entries, self.facts.cost, OF_IMAGES)
        took = f" Making and scoring images took {spent}, which need not be spent again." if spent else ""
        text = f"It loses: {_numbers(verdict.against_baseline)}. {self._extremes(verdict.arm)}{took}"
        return NextStep(f"Drop the arm “{verdict.arm}”.", text)

    def look_at_images(self, verdict: ArmVerdict) -> NextStep:
        """Returns the step that precedes another try with an arm that hurts."""
        lost = [r for r in self._candidates() if _known(r.gain.get(verdict.arm)) < 0]
        most = min(lost, key=lambda r: _known(r.gain[verdict.arm]), default=None)
        begin = f", those of {most.name} first, which lost most" if most else ""
        text = f"Reject the bad ones{begin}. `accept.reviewed` in the study takes what you decide, and nothing is generated again."
        command = f"tailfill export generated DIR --experiment {verdict.arm} --review"
        return NextStep("Before another try, look at the images.", text, (command,))

    def settled(self, verdict: ArmVerdict) -> NextStep:
        """Returns the step if no effect was found and one of a point would have been."""
        against = verdict.against_baseline
        text = (
            f"An effect of {_size(against.smallest_effect)} would have been found in 80 % of such studies, and what was found is {_numbers(against)}: if "
            "these images help at all, then hardly by more than that interval's upper end."
        )
        return NextStep(f"Drop the arm “{verdict.arm}”: the question is settled to a point.", text)

    def settle(self, verdict: ArmVerdict) -> NextStep:
        """Returns the step if no effect was found and one of a point could have been missed."""
        against, title = verdict.against_baseline, f"Settle it, or drop the arm “{verdict.arm}”."
        found = f"So far: {_numbers(against)}."
        design, effect = against.to_settle, against.smallest_effect
        if design is None or effect is None:
            return NextStep(title, found)
        more = design.repetitions - against.n
        missed = f"An effect of {_size(effect)} would have been found in 80 % of such studies."
        text = f"{found} {missed} {to_settle(against, self._candidates())} {self._price(more)}"
        return NextStep(title, text.strip(), run_command(self.study, design.repetitions) if more > 0 else ())

    def _price(self, more: int) -> str:
        return price_of_repetitions(self.study, self.facts.entries, self.facts.cost, more)

    def label_least_certain(self, verdict: ArmVerdict) -> list[NextStep]:
        """Returns the step that names the class whose gain is the least certain."""
        known = [r for r in self._candidates() if (e := r.gain.get(verdict.arm)) and e.interval]
        if not known:
            return []
        least = max(known, key=lambda r: _width(r.gain[verdict.arm]))
        text = f"Its gain is the least certain of the classes that count: {self._gain(least, verdict.arm)}. {self._counts(least)}"
        return [NextStep(f"Label more images of {least.name} first.", text)]

    def label_weakest(self) -> list[NextStep]:
        """Returns the step that names the class with the lowest F1 in the experiment whose model is recommended, else in the first one."""
        chosen = self.facts.recommended
        name = chosen.experiment if chosen else self.classes.worst[0].experiment
        known = [r for r in self._candidates() if (e := r.f1.get(name)) and e.mean is not None]
        if not known:
            return []
        weakest = min(known, key=lambda r: _known(r.f1[name]))
        f1 = weakest.f1[name]
        interval = ""
        if f1.interval is not None:
            interval = f" ({self._confidence} interval {100 * f1.interval[0]:.1f} to {100 * f1.interval[1]:.1f})"
        text = f"Of the classes that count “{name}” knows it worst: F1 {_per_cent(f1.mean)}{interval}. {self._counts(weakest)}"
        return [NextStep(f"Label more images of {weakest.name}.", text)]

    def label_rarest(self) -> list[NextStep]:
        """Returns the step that names the class with the fewest training images."""
        rarest = min(self._candidates(), key=lambda r: r.train_images, default=None)
        if rarest is None:
            return []
        text = f"It has the fewest of the classes that count. {self._counts(rarest)}"
        return [NextStep(f"Label more images of {rarest.name}.", text)]

    def _counts(self, reading: ClassReading) -> str:
        """Returns how many images a class has, and how many test images it lacks for an interval that keeps its word."""
        text = f"It has {_count(reading.train_images, 'training')} and {_count(reading.test_images, 'test')}"
        if self.study.folds:
            text = f"It has {reading.test_images:,} images, each tested once, and a repetition trains on about {reading.train_images:,} of them"
        lacking, candidates = ENOUGH_UNITS - reading.test_units, self._candidates()
        if lacking > 0:
            text += (
                f"; {lacking} more for testing would make the {ENOUGH_UNITS} from which on an interval can be relied on"
            )
        few = sum(r.few for r in candidates)
        others = (
            f" Of the {len(candidates)} classes that count, {few} have fewer than {ENOUGH_UNITS}." if few > 1 else ""
        )
        return f"{text}.{others}"

    def _candidates(self) -> list[ClassReading]:
        """Returns the classes that the verdict counts, else the rare ones, else all, as far as the test split has them."""
        rare = {self.study.schema.class_names[i] for i in self.study.rare}
        tested = [r for r in self.classes.classes if r.test_units]
        return self.classes.judged or [r for r in tested if r.name in rare] or tested

    def _extremes(self, arm: str) -> str:
        """Returns which of the classes that count gained and lost most in an arm."""
        known = [r for r in self._candidates() if (e := r.gain.get(arm)) and e.mean is not None]
        if not known:
            return ""
        least, most = (choose(known, key=lambda r: _known(r.gain[arm])) for choose in (min, max))
        parts = [
            f"{word} most {r.name}, {self._gain(r, arm)}"
            for word, r, sign in (("gains", most, 1), ("loses", least, -1))
            if sign * _known(r.gain[arm]) >= SHOWN
        ]
        return f"By class it {'; it '.join(parts)}." if parts else ""

    def _gain(self, reading: ClassReading, arm: str) -> str:
        gain = reading.gain[arm]
        interval = f"{self._confidence} interval {interval_text(gain.interval)}, " if gain.interval else ""
        return f"{points(_known(gain))} points of F1 ({interval}{_count(reading.test_images, 'test')})"

    @property
    def _confidence(self) -> str:
        return f"{100 * (1 - self.classes.alpha):g} %"


def _commands(experiment: str) -> tuple[str, ...]:
    return (
        f"tailfill predict IMAGES --experiment {experiment}",
        f"tailfill export model DIR --experiment {experiment}",
    )


def _numbers(comparison: Comparison) -> str:
    """Returns a comparison: `+1.8 points of rare macro-F1 against “real” (95 % interval +0.4 to +3.1, p = 0.012)`."""
    metric = metric_named(comparison.metric).label
    if comparison.difference is None:
        return f"{metric} has no paired repetition with “{comparison.baseline}”"
    return (
        f"{points(comparison.difference)} points of {metric} against “{comparison.baseline}” ({(1 - comparison.alpha) * 100:g} % interval "
        f"{interval_text(comparison.interval)}, {p_text(comparison.p_adjusted)})"
    )


def _known(estimate: Estimate | None) -> float:
    return estimate.mean if estimate is not None and estimate.mean is not None else 0.0


def _width(estimate: Estimate) -> float:
    return estimate.interval[1] - estimate.interval[0] if estimate.interval else 0.0


def _per_cent(share: float | None) -> str:
    return "not defined" if share is None or math.isnan(share) else f"{100 * share:.1f} %"


def _size(effect: float | None) -> str:
    text = f"{100 * (effect or 0.0):.1f}"
    return f"{text} {'point' if text == '1.0' else 'points'}"


def _count(n: int, kind: str) -> str:
    return f"{n:,} {kind} {'image' if n == 1 else 'images'}"
