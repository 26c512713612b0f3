"""Implements `tailfill validate`: checks a study file, and with `--plan` forecasts what it would do.

The forecast counts images in the data, and measures times on this machine.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from shared.artifacts.open import is_s3
from shared.config.load import load_study
from shared.config.resolve import ResolvedExperiment, ResolvedStudy, generation_settings
from shared.config.search import Choice, Verdict
from shared.config.stages import JudgeConfig, WeightsConfig
from shared.data.review import KEEP, REJECT, Review, pool_of, study_reviews
from shared.diffusion.generators import generator_kind
from shared.log import Log, duration
from shared.pipeline.plan import arm_of, plan
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.data.preview import Preview
    from shared.diffusion.generator import Time

log = Log("validate")

ENOUGH_GENERATED = 20
"""Sets the number of generated images of a class below which the plan says why there are so few."""


@dataclass
class Forecast:
    """Describes the work that a study would do."""

    stages: dict[str, int]
    """Counts the steps by stage."""
    images: dict[str, int]
    """Counts the images by split, before `prepare` decodes them."""
    files: int = 0
    """Counts the images that are files."""
    files_opened: int = 0
    """Counts those of these files whose headers were read."""
    fill: dict[str, dict[str, int]] = field(default_factory=dict)
    """Counts the images that one training sees, by rare class: `real` ones, and those to `generate`."""
    trials: int = 0
    """Counts the trials of all searches."""
    finals: int = 0
    """Counts the final trainings."""
    hours: dict[str, float] = field(default_factory=dict)
    """Estimates the hours by stage that one process would need on this machine's device, under its present load."""
    hours_range: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Estimates the same at the pace of the fastest tenth and of the slowest tenth of the timed steps."""
    not_timed: tuple[str, ...] = ()
    """Lists the stages whose hours are not in `hours`."""
    weights: tuple[str, ...] = ()
    """Lists the weights that would be downloaded from the Hugging Face hub: the name, and after `@` the commit if one pins them."""
    smallest_effect: float | None = None
    """Gives the smallest difference, as a share, that the verdict would find with a power of 80 %, if the variances are those of
    `shared.metrics.forecast`; None without a verdict, or if it has too few repetitions or no test image of a judged class."""
    to_settle: dict[str, int] = field(default_factory=dict)
    """Holds the numbers of `repetitions` and `test_images` that would find a difference of one percentage point."""
    test_images: dict[str, int] = field(default_factory=dict)
    """Counts the test images of each judged class, or all of them if the metric counts all images equally."""
    gib: float = 0.0
    """Estimates the size in GiB of the results in the store, without the weights of a generator that is not timed."""


def validate(file: Path, sets: Sequence[str], show_plan: bool, as_json: bool) -> str:
    """Returns the text for stdout; raises ConfigError for a wrong study, and with `show_plan` DataError if the data cannot be listed."""
    study = load_study(file, sets)
    reviews = study_reviews(study, Settings.from_environment(), buckets=show_plan)
    if not show_plan:
        names = [experiment.name for experiment in study.experiments]
        if as_json:
            return json.dumps({"study": study.name, "experiments": names})
        return "\n".join([f"{file}: valid ({', '.join(names)})", *base_lines(study), *review_lines(study, reviews)])
    forecast = forecast_study(study)
    if as_json:
        return json.dumps(forecast.__dict__, indent=1)
    return "\n".join([describe(study, forecast), *review_lines(study, reviews)])


def base_lines(study: ResolvedStudy) -> list[str]:
    """Returns a line for each pretrained base: its family, licence and gate, and the settings that follow from it."""
    lines = []
    for experiment in study.experiments:
        about = generator_kind(experiment.finetune.generator).about_base
        if about is not None and experiment.images != "real":
            lines.append(about(experiment.finetune, experiment.generate))
    return list(dict.fromkeys(lines))


def review_lines(study: ResolvedStudy, reviews: Mapping[str, Review]) -> list[str]:
    """Returns a line for each review of generated images: how many images a person kept and rejected, and which pools it leaves out."""
    lines = []
    for location, review in reviews.items():
        decided = Counter(review.decisions.values())
        without = sorted({*range(study.pools)} - {pool_of(name) for name in review.decisions})
        left_out = f"; it decides about no image of {len(without)} of {study.pools} pools" if without else ""
        local = "" if is_s3(location) else "; a cluster reads it only from s3://bucket/key"
        lines.append(f"review {location}: {decided[KEEP]} kept, {decided[REJECT]} rejected{left_out}{local}")
    return lines


def forecast_study(study: ResolvedStudy) -> Forecast:
    """Returns a forecast: lists the images, counts what would be generated and trained, and times a few steps of each kind of work."""
    from shared.artifacts.remote import local_folder
    from shared.data.preview import preview
    from shared.weights.check import check_weights

    check_weights(study)  # first, as it takes the least time
    experiments = study.experiments
    with tempfile.TemporaryDirectory(prefix="tailfill-") as scratch:
        root = None
        if study.dataset.root is not None:
            root = local_folder(study.dataset.root, Settings.from_environment(), Path(scratch))
        data = preview(study.dataset, root, study.seed)
    steps = plan(study)
    forecast = Forecast(stages=dict(Counter(step.stage for step in steps)), images=data.sizes())
    named = [step.config for step in steps if isinstance(step.config, WeightsConfig)]
    forecast.weights = tuple(f"{c.name}@{c.revision}" if c.revision else c.name for c in named)
    forecast.files, forecast.files_opened = data.files, data.opened
    forecast.trials = sum(map(_trials, experiments))
    forecast.finals = sum(e.final.seeds for e in experiments)
    generated = _count_images(study, data, forecast)
    foresee_verdict(study, data, forecast)
    judges = [step.config for step in steps if isinstance(step.config, JudgeConfig)]
    _time(study, data, generated, judges, forecast)
    return forecast


def _trials(experiment: ResolvedExperiment) -> int:
    search = experiment.search
    return search.trials * (len(search.space) if search.strategy == "sequential" else 1)


def _generating(experiments: tuple[ResolvedExperiment, ...]) -> ResolvedExperiment | None:
    """Returns the first experiment with generated images, or None; the forecast assumes that the others have the same generator."""
    return next((experiment for experiment in experiments if experiment.images != "real"), None)


def generated_sets(experiment: ResolvedExperiment) -> int:
    """Returns how many sets of images the experiment's search may need: one per combination of settings, but at most one per trial."""
    choices = [experiment.search.space[path] for path in generation_settings(experiment)]
    return min(math.prod(len(c.values) for c in choices if isinstance(c, Choice)), max(_trials(experiment), 1))


def _count_images(study: ResolvedStudy, data: Preview, forecast: Forecast) -> int:
    """Fills in `fill`, and returns how many images one pool of the first arm with generated images has."""
    from shared.data.schema import class_counts
    from shared.diffusion.quota import plan_images

    arm = _generating(study.experiments)
    if arm is None:
        return 0
    labels, rare = data.labels[data.split == "train"], data.rare(arm.rare)
    images = plan_images(arm.generate, data.schema, labels, rare, study.seed, 0)
    counts = dict(zip(data.schema.class_names, class_counts(labels).tolist(), strict=True))
    made = Counter(image.filled for image in images)
    for name in [*made, *(n for n in map(data.schema.class_names.__getitem__, rare) if n not in made)]:
        forecast.fill[name] = {"real": counts.get(name, 0), "generate": made[name]}
    return len(images)


def foresee_verdict(study: ResolvedStudy, data: Preview, forecast: Forecast) -> None:
    """Fills in what the verdict would find, with assumed variances."""
    from shared.data.schema import class_counts
    from shared.metrics.forecast import assumed_components, needed, smallest_effect
    from shared.metrics.table import metric_named

    arms = [e for e in study.experiments if e.images == "real+synthetic"]
    if not isinstance(study.verdict, Verdict) or not arms:
        return
    metric, rare = metric_named(study.verdict.metric), data.rare(study.written.rare)
    counts = class_counts(data.labels[data.split == "test"])
    if metric.by_class:
        columns = rare if metric.rare else range(data.schema.width)
        forecast.test_images = {data.schema.class_names[c]: int(counts[c]) for c in columns}
    else:
        forecast.test_images = {"all": forecast.images["test"]}
    judged = [n for n in forecast.test_images.values() if n]
    units, repetitions = forecast.images["test"], arms[0].final.seeds
    if not judged:
        return
    components = assumed_components(judged, units) if metric.by_class else assumed_components([], units)
    level = study.verdict.alpha / sum(e.name != study.verdict.baseline for e in arms)
    effect = smallest_effect(components, repetitions, units, level)
    forecast.smallest_effect = effect if math.isfinite(effect) else None
    design = needed(components, repetitions, units, level)
    forecast.to_settle = {"repetitions": design.repetitions, "test_images": design.units}


def _time(
    study: ResolvedStudy, data: Preview, generated: int, judges: Sequence[JudgeConfig], forecast: Forecast
) -> None:
    """Times a few steps of training and of the generator, and fills in the hours and the size of the results."""
    from shared.benchmark import Range, exactly
    from shared.classifier.data import kept_views
    from shared.classifier.timing import time_training

    train = forecast.images["train"]
    seconds: dict[str, Range] = {stage: exactly(0.0) for stage in ("judge", "score", "tune", "final")}
    rates: dict[str, Any] = {}
    for experiment in study.experiments:
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
            rates[kind] = time_training(arm_of(experiment), study.dataset.resolution, data.schema, study.resources)
        timed = rates[kind]
        images = train + (0 if experiment.images == "real" else generated)
        trials = _trials(experiment)
        # an epoch takes as many images as there are real ones
        epochs = trials * experiment.search.epochs
        seconds["tune"] += timed.setup(images) * bool(trials) + epochs * train * timed.seconds_an_image
        runs = experiment.final.seeds
        seconds["final"] += runs * (timed.setup(images) + experiment.final.epochs * train * timed.seconds_an_image)
        forecast.gib += runs * timed.weight_bytes / 2**30
    arm, pools = _generating(study.experiments), study.pools
    if arm is not None:
        timed = next(iter(rates.values()))
        for config in judges:
            seen = train * (config.folds - 1)  # by all judges together
            seconds["judge"] += timed.setup(seen) + config.epochs * seen * timed.seconds_an_image
            forecast.gib += config.folds * timed.weight_bytes / 2**30
        sets = max(generated_sets(e) for e in study.experiments)  # per pool
        # a classifier is trained on each set of the first pool; a judge sees an image in less time than a training step takes
        if judges:
            images = arm.score.epochs * generated * sets + arm.score.folds * generated * sets * pools
            seconds["score"] = timed.setup(generated) * sets * pools + images * timed.seconds_an_image
        generator = generator_kind(arm.finetune.generator)
        if generator.time is not None:
            log.info("timing a few steps of the generator")
            measure: Time = resolve_name(generator.time)
            step, image = measure(arm.finetune, arm.generate, data.schema, study.resources)
            generators = pools if study.generators == "each" else 1
            seconds |= {
                "finetune": step * arm.finetune.steps * generators,
                "generate": image * generated * sets * pools,
            }
        else:
            forecast.not_timed = ("finetune", "generate")
    for stage, (low, middle, high) in ((stage, (s / 3600).tolist()) for stage, s in seconds.items() if s.any()):
        forecast.hours[stage], forecast.hours_range[stage] = middle, (low, high)
    images = sum(forecast.images.values()) + generated * pools
    forecast.gib += images * data.bytes_per_image(study.dataset.resolution) / 2**30


def describe(study: ResolvedStudy, forecast: Forecast) -> str:
    """Returns the forecast as text."""
    lines = [
        f"study {study.name}: {sum(forecast.stages.values())} stages ({', '.join(f'{n} {s}' for s, n in forecast.stages.items())})"
    ]
    counts = ", ".join(f"{n} {split}" for split, n in forecast.images.items())
    lines.append(f"images: {counts}{_images_note(forecast)}")
    for name, fill in forecast.fill.items():
        lines.append(f"fill {name}: {fill['real']} real, {fill['generate']} to generate{_why_few(study, name, **fill)}")
    lines.append(f"search: {forecast.trials} trials; final: {forecast.finals} trainings")
    lines += verdict_lines(study, forecast)
    lines += base_lines(study)
    for name in forecast.weights:
        pinned = "" if "@" in name else ", not pinned: the newest commit is used; set its revision"
        lines.append(f"weights: {name} is downloaded once from the Hugging Face hub{pinned}")
    for stage, hours in forecast.hours.items():
        lines.append(f"{stage}: {_about(hours, *forecast.hours_range[stage])} of one process")
    if forecast.not_timed and (arm := _generating(study.experiments)):
        why = generator_kind(arm.finetune.generator).untimed
        lines.append(f"{', '.join(forecast.not_timed)}: not timed; {why}")
    low, high = (sum(ends[i] for ends in forecast.hours_range.values()) for i in (0, 1))
    lines.append(
        f"total: {_about(sum(forecast.hours.values()), low, high)} of one process; disk {forecast.gib:.2g} GiB"
    )
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    lines.append(
        f"times were measured on this machine under its present load: load average {load:.1f} on {cores} cores"
    )
    return "\n".join(lines)


def _why_few(study: ResolvedStudy, name: str, real: int, generate: int) -> str:
    """Returns why so few images of a class are generated that they can hardly matter, or nothing if there are enough."""
    arm = _generating(study.experiments)
    if arm is None or generate >= ENOUGH_GENERATED:
        return ""
    settings = arm.generate
    if name in settings.quota or settings.total is not None:
        why = f"generate.{'quota' if name in settings.quota else 'total'} asks for no more"
    elif settings.fill_to <= real:
        why = f"it has the {settings.fill_to} of generate.fill_to already; raise that, or take the class out of the rare ones"
    elif settings.cap * real < settings.fill_to - real:
        why = f"generate.cap allows {settings.cap:g} per real image; real images of this class would help most"
    elif settings.fill_to - real < ENOUGH_GENERATED:
        why = f"generate.fill_to is {settings.fill_to}; raise it, at most to what the other classes have"
    else:
        why = "images that are made for other rare classes have this class, too"
    return f", which is few: {why}"


def verdict_lines(study: ResolvedStudy, forecast: Forecast) -> list[str]:
    """Returns what the verdict would find, and what it lacks."""
    from shared.metrics.forecast import ENOUGH_UNITS, TO_SETTLE, Needed, design_text
    from shared.metrics.table import metric_named

    if not forecast.to_settle or not isinstance(study.verdict, Verdict):
        return []
    metric = metric_named(study.verdict.metric).label
    if forecast.smallest_effect is None:
        lines = ["verdict: none with so few repetitions (final.seeds)"]
    else:
        lines = [
            f"verdict: would find an effect of {100 * forecast.smallest_effect:.1f} points of {metric} in 80 % of such studies, with the variances of "
            "docs/statistics.md"
        ]
    if forecast.smallest_effect is None or forecast.smallest_effect > TO_SETTLE:
        design = Needed(forecast.to_settle["repetitions"], forecast.to_settle["test_images"])
        lines.append(
            f"verdict: to find an effect of 1 point takes about {design_text(design, forecast.images['test'])}"
        )
    if few := {name: n for name, n in forecast.test_images.items() if n < ENOUGH_UNITS}:
        named = ", ".join(f"{name} has {n}" for name, n in few.items())
        lines.append(
            f"verdict: few test images: {named}; a judged class needs {ENOUGH_UNITS} for its interval to hold what it says"
        )
    return lines


def _about(hours: float, low: float, high: float) -> str:
    """Returns hours as text: `about 12m05s (11m20s to 14m10s)`."""
    return f"about {duration(hours * 3600)} ({duration(low * 3600)} to {duration(high * 3600)})"


def _images_note(forecast: Forecast) -> str:
    """Returns how the images were counted, and which ones `prepare` may still remove."""
    if not forecast.files:
        return ", before prepare removes those that are in two splits"
    opened = (
        "their files"
        if forecast.files_opened == forecast.files
        else f"{forecast.files_opened} of {forecast.files} files"
    )
    return f" ({opened} were opened, none decoded: prepare also removes damaged ones and those that are in two splits)"
