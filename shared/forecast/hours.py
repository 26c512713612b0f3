"""Forecasts how long each step of a study takes, from timings of its kinds of work.

The constants at the top are from a run on two cores; the report of each run shows how near its forecast came.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shared.benchmark import QUANTILES, Range, exactly
from shared.config.resolve import ResolvedExperiment, ResolvedStudy, generation_settings
from shared.config.search import Choice
from shared.config.stages import (
    STAGES,
    FinalConfig,
    FinetuneConfig,
    GenerateConfig,
    JudgeConfig,
    PrepareConfig,
    ScoreConfig,
    TuneConfig,
)
from shared.config.training import Training
from shared.forecast.timings import Timing
from shared.forecast.work import Workbench
from shared.pipeline.plan import Step
from shared.pipeline.slots import Slots

EPOCH_SECONDS = 0.1
"""Estimates the work in seconds around an epoch of a trial: the report to the database, the pruner and the checkpoint."""
TRIAL_SECONDS = 1.0
"""Estimates the same around a trial: its parameters are asked for, and its result is told."""
RESULT_SECONDS = 2.0
"""Estimates the work in seconds to read a step's inputs and to commit its result."""
SHEET_IMAGES = 24
"""Estimates the images of the sheet that shows what a generator has learned."""
CONTROL_SECONDS = 3.0
"""Estimates the work in seconds of a process that trains nothing: `prepare`, a search's coordinator."""
REPORT_SECONDS = 15.0
"""Estimates the same for `report`, which draws figures."""
BESIDE = 1.12
"""Estimates how many times as long processes take if others work at the same time: they share caches, memory and the database, and wait for each
other's last results. Four studies on two idle cores took 1.06 to 1.18 times as long (benchmarks/README.md)."""


@dataclass(frozen=True)
class ImageCounts:
    """Counts the images that the steps work on."""

    train: int
    val: int
    test: int
    generated: int
    """Counts the generated images of one pool."""
    rare: int
    """Counts the rare classes."""

    @property
    def real(self) -> int:
        """Returns the number of all real images."""
        return self.train + self.val + self.test


@dataclass
class StepTimes:
    """Holds what is known of the time of each step."""

    seconds: dict[str, Range] = field(default_factory=dict)
    """Maps the id of a step to the seconds of work of all its processes, low, middle and high; a step that is not timed is missing."""
    processes: dict[str, int] = field(default_factory=dict)
    """Maps the id of each of these steps to the number of processes that may share its work."""


def trials_of(experiment: ResolvedExperiment) -> int:
    """Returns the number of trials of an experiment's search."""
    search = experiment.search
    return search.trials * (len(search.space) if search.strategy == "sequential" else 1)


def generated_sets(experiment: ResolvedExperiment) -> int:
    """Returns how many sets of images the experiment's search may need: one per combination of settings, but at most one per trial."""
    choices = [experiment.search.space[path] for path in generation_settings(experiment)]
    return min(math.prod(len(c.values) for c in choices if isinstance(c, Choice)), max(trials_of(experiment), 1))


class Times:
    """Computes the time of each step of a plan."""

    def __init__(
        self,
        study: ResolvedStudy,
        steps: Sequence[Step],
        counts: ImageCounts,
        prepare: Range,
        bench: Workbench,
        slots: Slots,
        workers: int | None = None,
    ) -> None:
        """Prepares the forecast; `prepare` has the seconds that `prepare` takes per image. `workers` replaces the study's number per search."""
        self.study, self.steps, self.counts, self.bench, self.slots = study, steps, counts, bench, slots
        self._prepare, self._workers = prepare, workers
        self._seen: set[str] = set()
        self._kept: list[list[Any]] = []
        self._finals = Counter(step.stage for step in steps)["final"]

    def all(self) -> StepTimes:
        """Returns the times of all steps that can be timed."""
        times = StepTimes()
        for step in self.steps:
            found = self._seconds(step)
            if found is not None:
                times.seconds[step.id] = found
                times.processes[step.id] = self._processes(step)
        return times

    def _processes(self, step: Step) -> int:
        if isinstance(step.config, TuneConfig):
            return min(self.slots.count, self._workers or step.config.search.workers)
        return self.slots.count if STAGES[step.stage].sharded else 1

    def generator(self) -> Timing | None:
        """Returns the timing of the generator, which is that of the first experiment with generated images."""
        for experiment in self.study.experiments:
            if experiment.images != "real":
                return self.bench.generator(experiment.finetune, experiment.generate)
        return None

    def timing(self, step: Step) -> Timing | None:
        """Returns the timing of a step's main work; None if it has none."""
        match step.config:
            case FinetuneConfig() | GenerateConfig():
                return self.generator()
            case JudgeConfig() | ScoreConfig() as judges:
                return self.bench.classifier(judges)
            case TuneConfig() | FinalConfig() as config:
                return self.bench.classifier(config.arm)
        return None

    def _seconds(self, step: Step) -> Range | None:
        if isinstance(step.config, PrepareConfig):
            return exactly(CONTROL_SECONDS) + self.counts.real * self._prepare
        if step.stage == "report":
            return exactly(REPORT_SECONDS)
        timing = self.timing(step)
        if timing is None:
            return None
        match step.config:
            case FinetuneConfig() as config:
                trainings = config.finetune.trainings(self.counts.rare)
                training = timing.range("start") + config.finetune.steps * timing.range("step")
                return trainings * training + SHEET_IMAGES * timing.range("image") + RESULT_SECONDS
            case GenerateConfig():
                return self._generate(step, timing)
            case JudgeConfig() as config:
                return self._judge(config, timing)
            case ScoreConfig() as config:
                comparisons = self.bench.comparisons()
                return self._score(config, timing, comparisons) if comparisons is not None else None
            case TuneConfig() as config:
                return self._tune(step, config, timing)
            case FinalConfig() as config:
                return self._final(config, timing)
        return None

    def _generate(self, step: Step, timing: Timing) -> Range:
        made = step.from_search is not None  # by the trials
        images = 0 if made else self.counts.generated
        return self.slots.count * (timing.range("start") + RESULT_SECONDS) + images * timing.range("image")

    def _judge(self, config: JudgeConfig, timing: Timing) -> Range:
        seen = round(self.counts.train * (config.folds - 1) / config.folds)
        training = _training(timing, config.training, seen, config.epochs) + timing.range("build")
        return timing.range("start") + self._inputs(timing) + config.folds * training + RESULT_SECONDS

    def _score(self, config: ScoreConfig, timing: Timing, comparisons: Timing) -> Range:
        images = self.counts.generated
        # a prediction is the forward pass of a training step, about a third of it
        judged = config.folds * (timing.range("build") + images * timing.range("image") / 3)
        compared = self._comparisons(comparisons, images)
        found = timing.range("start") + self._features(timing, images, 1) + judged + compared + RESULT_SECONDS
        if "score" not in self._seen:  # only the first pool gets a classifier that is trained on its images
            self._seen.add("score")
            views = self._features(timing, images, timing.numbers["views"])
            found = found + views + timing.range("build") + _training(timing, config.training, images, config.epochs)
        return found

    def _comparisons(self, timing: Timing, generated: int) -> Range:
        """Returns the seconds to look for copies: generated images and some validation images are compared with each training and test image."""
        counts = self.counts
        queries, references = generated + min(counts.val, timing.numbers["held_out"]), counts.train + counts.test
        looks = (counts.real + generated) * timing.range("look")
        return looks + references * (timing.range("parts") + queries * timing.range("pair"))

    def _tune(self, step: Step, config: TuneConfig, timing: Timing) -> Range | None:
        experiment = next(e for e in self.study.experiments if e.name == step.experiment)
        trials, sets, epochs = trials_of(experiment), generated_sets(experiment), config.search.epochs
        pools = self.study.pools if config.arm.images != "real" or self.study.folds else 1
        training = _training(timing, config.arm.training, self.counts.train, epochs)
        found = exactly(CONTROL_SECONDS) + trials * (TRIAL_SECONDS + epochs * EPOCH_SECONDS + training)
        found = found + self._inputs(timing) + pools * sets * timing.range("build")
        if self.study.folds and not timing.range("view")[1]:
            found = found + (pools - 1) * self._inputs(timing)  # those of each fold
        if "worker" not in self._seen:  # the workers take trials of all searches
            self._seen.add("worker")
            found = found + self.slots.count * timing.range("start")
        if config.arm.images == "real+synthetic":
            # other arms on the same pools find the outputs in the cache, and `score` has trained on the first pool
            drawn = {needed.id for needed in step.needs.values() if needed.stage == "generate"} or {step.id}
            new = pools - int(self.study.scored(experiment)) if drawn - self._seen else 0
            self._seen |= drawn
            found = found + new * self._features(timing, self.counts.generated, timing.numbers["views"])
        if generation_settings(experiment):
            generator = self.generator()
            if generator is None:
                return None
            found = found + pools * sets * self.counts.generated * generator.range("image")
        return found

    def _final(self, config: FinalConfig, timing: Timing) -> Range:
        start = self.slots.count * timing.range("start") / self._finals  # a process runs one training after the other
        training = _training(timing, config.arm.training, self.counts.train, config.final.epochs)
        tested = exactly(0.0)
        if "test" not in self._seen:
            self._seen.add("test")
            tested = self._features(timing, self.counts.real if self.study.folds else self.counts.test, 1)
        built = 2 * timing.range("build")  # to train and to test
        return start + self._inputs(timing) + tested + built + training + RESULT_SECONDS

    def _inputs(self, timing: Timing) -> Range:
        """Returns the seconds to decode the real images for a training, and to run them through the frozen backbone.

        The latter is done by the first step that needs it; the others find the outputs in the cache.
        """
        if timing.range("view")[1] == 0:
            return (self.counts.train + self.counts.val) * timing.range("decode")
        if timing.work in self._kept:
            return exactly(0.0)
        self._kept.append(timing.work)
        trained = self.counts.real if self.study.folds else self.counts.train  # each image in most of the folds
        views = self._features(timing, trained, timing.numbers["views"])
        return views + self._features(timing, self.counts.val, 1)

    def _features(self, timing: Timing, images: int, views: int) -> Range:
        return images * (timing.range("decode") + views * timing.range("view"))


def _training(timing: Timing, training: Training, images: int, epochs: int) -> Range:
    """Returns the seconds of a training with its refit; an epoch takes as many images as there are real ones."""
    steps = math.ceil(images / training.batch_size)
    epoch = timing.range("epoch") + steps * timing.range("step") + images * timing.range("image")
    return (epochs + training.refit_epochs) * epoch


def wall_seconds(steps: Sequence[Step], times: StepTimes, slots: int) -> Range:
    """Returns the seconds from the start of a run to its end, if so many processes run at a time, and earlier steps of the plan come first.

    A step's work is divided equally among its processes. Steps that are not timed take no time.
    """
    beside = BESIDE if slots > 1 else 1.0
    return beside * np.array([_wall_seconds(steps, times, slots, place) for place in range(len(QUANTILES))])


def _wall_seconds(steps: Sequence[Step], times: StepTimes, slots: int, place: int) -> float:
    """Returns the seconds at one place of the ranges: each process starts as soon as a slot is free and the steps that it needs have ended."""
    processes = {step.id: min(times.processes.get(step.id, 1), slots) for step in steps}
    unfinished = dict(processes)
    waiting = [step for step in steps for _ in range(processes[step.id])]
    running: list[tuple[float, str]] = []
    now = 0.0
    while unfinished:
        left = []
        for number, step in enumerate(waiting):
            if len(running) == slots:
                left += waiting[number:]
                break
            if any(needed.id in unfinished for needed in step.needs.values()):
                left.append(step)
                continue
            work = float(times.seconds[step.id][place]) if step.id in times.seconds else 0.0
            heapq.heappush(running, (now + work / processes[step.id], step.id))
        waiting = left
        now, ended = heapq.heappop(running)
        unfinished[ended] -= 1
        if not unfinished[ended]:
            del unfinished[ended]
    return now
