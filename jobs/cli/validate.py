"""`tailfill validate`: checks a study file, and with `--plan` says what it would do: counts from the data, times measured here."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from shared.config.load import load_study
from shared.config.resolve import ResolvedExperiment, ResolvedStudy, generation_settings
from shared.config.search import Choice
from shared.config.stages import WeightsConfig
from shared.diffusion.generators import generator_kind
from shared.log import Log, duration
from shared.pipeline.plan import arm_of, plan
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.data.preview import Preview
    from shared.diffusion.generator import Time

log = Log("validate")


@dataclass
class Forecast:
    """What a study would do."""

    stages: dict[str, int]
    images: dict[str, int]
    """Split → images, before `prepare` decodes them."""
    files: int = 0
    """Images that are files."""
    files_opened: int = 0
    """Of these, those whose head was read."""
    fill: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rare class → `real` and `generate`."""
    trials: int = 0
    finals: int = 0
    hours: dict[str, float] = field(default_factory=dict)
    """Stage → hours of one process on this machine's device, as it was used by others just then."""
    hours_range: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Stage → the same by the fast and by the slow ones of the timed steps (a tenth were faster, a tenth slower)."""
    not_timed: tuple[str, ...] = ()
    """Stages whose hours are not in `hours`."""
    weights: tuple[str, ...] = ()
    """Weights that the Hugging Face hub is asked for: name, `@` the commit that pins them, where one does."""
    gib: float = 0.0
    """What the store will hold, without the weights of a generator that is not timed."""


def validate(file: Path, sets: Sequence[str], show_plan: bool, as_json: bool) -> str:
    """The text for stdout; raises ConfigError for a wrong study, and with `show_plan` DataError where the data cannot be listed."""
    study = load_study(file, sets)
    if not show_plan:
        names = [experiment.name for experiment in study.experiments]
        return (
            json.dumps({"study": study.name, "experiments": names})
            if as_json
            else f"{file}: valid ({', '.join(names)})"
        )
    forecast = look_ahead(study)
    return json.dumps(forecast.__dict__, indent=1) if as_json else describe(study, forecast)


def look_ahead(study: ResolvedStudy) -> Forecast:
    """Lists the source, counts what would be made and trained, and times each kind of work for a few steps on this machine."""
    from shared.artifacts.remote import local_folder
    from shared.data.preview import preview

    experiments = study.experiments
    with tempfile.TemporaryDirectory(prefix="tailfill-") as scratch:
        root = None
        if study.dataset.root is not None:
            root = local_folder(study.dataset.root, Settings.from_environment(), Path(scratch))
        found = preview(study.dataset, root, study.seed)
    steps = plan(study)
    forecast = Forecast(stages=dict(Counter(step.stage for step in steps)), images=found.sizes())
    named = [step.config for step in steps if isinstance(step.config, WeightsConfig)]
    forecast.weights = tuple(f"{c.name}@{c.revision}" if c.revision else c.name for c in named)
    forecast.files, forecast.files_opened = found.files, found.opened
    forecast.trials = sum(map(_trials, experiments))
    forecast.finals = sum(e.final.seeds for e in experiments)
    made = _count_images(study, experiments, found, forecast)
    _time(study, experiments, found, made, forecast)
    return forecast


def _trials(experiment: ResolvedExperiment) -> int:
    search = experiment.search
    return search.trials * (len(search.space) if search.strategy == "sequential" else 1)


def _generating(experiments: tuple[ResolvedExperiment, ...]) -> ResolvedExperiment | None:
    """Returns the first experiment that wants generated images; the forecast takes the others' generator to be like its."""
    return next((experiment for experiment in experiments if experiment.images != "real"), None)


def generated_sets(experiment: ResolvedExperiment) -> int:
    """Sets of images that its search may have made, at most: one a combination of settings, or a trial."""
    choices = [experiment.search.space[path] for path in generation_settings(experiment)]
    return min(math.prod(len(c.values) for c in choices if isinstance(c, Choice)), max(_trials(experiment), 1))


def _count_images(
    study: ResolvedStudy, experiments: tuple[ResolvedExperiment, ...], found: Preview, forecast: Forecast
) -> int:
    """Fills in `fill`; returns how many images are generated over all pools of the first arm that wants any."""
    from shared.data.schema import class_counts
    from shared.diffusion.quota import plan_images

    arm = _generating(experiments)
    if arm is None:
        return 0
    labels = found.labels[found.split == "train"]
    images = plan_images(arm.generate, found.schema, labels, found.rare(arm.rare), study.seed)
    counts = dict(zip(found.schema.class_names, class_counts(labels).tolist(), strict=True))
    for name, n in Counter(image.filled for image in images).items():
        forecast.fill[name] = {"real": counts.get(name, 0), "generate": n}
    return len(images)


def _time(
    study: ResolvedStudy, experiments: tuple[ResolvedExperiment, ...], found: Preview, made: int, forecast: Forecast
) -> None:
    from shared.benchmark import Range, exactly
    from shared.classifier.data import kept_views
    from shared.classifier.timing import time_training

    train = forecast.images["train"]
    seconds: dict[str, Range] = {stage: exactly(0.0) for stage in ("tune", "final", "score")}
    rates: dict[str, Any] = {}
    for experiment in experiments:
        kind = json.dumps(
            [
                experiment.classifier.model_dump(mode="json"),
                experiment.augmentation,
                experiment.training.erasing,
                kept_views(arm_of(experiment)),
            ]
        )
        if kind not in rates:
            log.info("timing a few training steps", model=experiment.classifier.model)
            rates[kind] = time_training(arm_of(experiment), study.dataset.resolution, found.schema, study.resources)
        timed = rates[kind]
        images = train + (0 if experiment.images == "real" else made // experiment.generate.replicates)
        trials = _trials(experiment)
        epochs = trials * experiment.search.epochs
        seconds["tune"] += timed.setup(images) * bool(trials) + epochs * images * timed.seconds_an_image
        runs = experiment.final.seeds
        seconds["final"] += runs * (timed.setup(images) + experiment.final.epochs * images * timed.seconds_an_image)
        forecast.gib += runs * timed.weight_bytes / 2**30
    arm = _generating(experiments)
    if arm is not None:
        timed = next(iter(rates.values()))
        seen = train * (arm.score.folds - 1)  # by all judges together
        seconds["score"] = timed.setup(seen) + arm.score.epochs * seen * timed.seconds_an_image
        generator = generator_kind(arm.finetune.generator)
        if generator.time is not None:
            log.info("timing a few steps of the generator")
            measure: Time = resolve_name(generator.time)
            step, image = measure(arm.finetune, arm.generate, found.schema, study.resources)
            sets = max(generated_sets(e) for e in experiments)
            seconds |= {"finetune": step * arm.finetune.steps, "generate": image * made * sets}
        else:
            forecast.not_timed = ("finetune", "generate")
    for stage, (low, middle, high) in ((stage, (s / 3600).tolist()) for stage, s in seconds.items() if s.any()):
        forecast.hours[stage], forecast.hours_range[stage] = middle, (low, high)
    forecast.gib += (sum(forecast.images.values()) + made) * found.bytes_per_image(study.dataset.resolution) / 2**30


def describe(study: ResolvedStudy, forecast: Forecast) -> str:
    """The forecast for people."""
    lines = [
        f"study {study.name}: {sum(forecast.stages.values())} stages ({', '.join(f'{n} {s}' for s, n in forecast.stages.items())})"
    ]
    lines.append("images: " + ", ".join(f"{n} {split}" for split, n in forecast.images.items()) + _read(forecast))
    for name, counts in forecast.fill.items():
        lines.append(f"fill {name}: {counts['real']} real, {counts['generate']} to generate")
    lines.append(f"search: {forecast.trials} trials; final: {forecast.finals} trainings")
    for name in forecast.weights:
        pinned = "" if "@" in name else ", not pinned: the newest commit is taken; set its revision"
        lines.append(f"weights: {name} is fetched once from the Hugging Face hub{pinned}")
    for stage, hours in forecast.hours.items():
        lines.append(f"{stage}: {_about(hours, *forecast.hours_range[stage])} of one process")
    if forecast.not_timed and (arm := _generating(study.experiments)):
        why = generator_kind(arm.finetune.generator).untimed
        lines.append(f"{', '.join(forecast.not_timed)}: not timed; {why}")
    low, high = (sum(ends[i] for ends in forecast.hours_range.values()) for i in (0, 1))
    lines.append(
        f"in all {_about(sum(forecast.hours.values()), low, high)} of one process; disk {forecast.gib:.2g} GiB"
    )
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    lines.append(f"times are of this machine as it is loaded now: a load average of {load:.1f} on {cores} cores")
    return "\n".join(lines)


def _about(hours: float, low: float, high: float) -> str:
    """`about 12m05s (11m20s to 14m10s)`."""
    return f"about {duration(hours * 3600)} ({duration(low * 3600)} to {duration(high * 3600)})"


def _read(forecast: Forecast) -> str:
    """What the counts of images rest on."""
    if not forecast.files:
        return ", before prepare leaves out those that stand alike in two splits"
    opened = (
        "their files"
        if forecast.files_opened == forecast.files
        else f"{forecast.files_opened} of {forecast.files} files"
    )
    return f" ({opened} were opened, none decoded: prepare also leaves out damaged ones and those that stand alike in two splits)"
