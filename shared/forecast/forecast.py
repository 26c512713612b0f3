"""Forecasts what a study would do on this machine: its steps and images, what its verdict would find, and its hours, disk, memory and price."""

from __future__ import annotations

import math
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.benchmark import Range, exactly
from shared.classifier.feature_cache import DISK_SHARE
from shared.config.dataset import Dataset
from shared.config.resolve import ResolvedExperiment, ResolvedStudy
from shared.config.search import Verdict
from shared.config.stages import STAGES, JudgeConfig, WeightsConfig
from shared.data.preview import Preview, preview
from shared.forecast.busy import busy_cores
from shared.forecast.hours import ImageCounts, StepTimes, Times, trials_of, wall_seconds
from shared.forecast.timings import FOLDER, KeptTimings, Machine
from shared.forecast.work import Workbench
from shared.memory import memory_share, spare_memory
from shared.pipeline.plan import Step, plan
from shared.pipeline.slots import Slots
from shared.settings import Settings

GIB = 2**30
PROCESS_BYTES = 200 << 20
"""Estimates the memory of a process that trains nothing."""
IMAGE_BYTES = 1 << 10
"""Estimates the memory that a process needs for the path, the labels and the like of an image, whose content is in a file."""
REPORT_BYTES = 10 << 20
"""Estimates the size of a report."""
READ_SECONDS = 1.0
"""Limits the time in which a few images are brought into canonical form."""
BUSY = 1.25
"""Says from which slowdown on the machine counts as busy."""


@dataclass
class Forecast:
    """Describes the work that a study would do."""

    stages: dict[str, int]
    """Counts the steps by stage."""
    images: dict[str, int]
    """Counts the images by split, before `prepare` decodes them; if each repetition tests on a fold of its own, those of the first."""
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
    """Estimates the hours by stage, over all of its processes, if the machine does nothing else."""
    hours_range: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Estimates the same at the pace of the fastest tenth and of the slowest tenth of what was timed."""
    not_timed: tuple[str, ...] = ()
    """Lists the stages whose hours are not in `hours`."""
    why_not_timed: str = ""
    """Says why, if there are such stages."""
    devices: dict[str, str] = field(default_factory=dict)
    """Names the device by stage: a GPU, or `cpu`."""
    disk: dict[str, float] = field(default_factory=dict)
    """Estimates the GiB by stage that its results, or what it caches, take."""
    memory: dict[str, float] = field(default_factory=dict)
    """Estimates the GiB of memory by stage that one of its processes takes."""
    prices: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Estimates the price by stage, low and high, of those whose device has one."""
    processes: int = 1
    """Counts the processes that run at the same time."""
    run_hours: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Estimates the hours from the start of a run to its end, low, middle and high, if the machine does nothing else."""
    slowdown: float = 1.0
    """Estimates how many times as long it takes while the machine is as busy as now; 1 on an idle one."""
    busy_cores: float = 0.0
    """Gives how many cores other programs use now."""
    timed_busy_cores: float = 0.0
    """Gives how many cores they used at most when the timings were made."""
    cache_gib: int = 0
    """Gives the value of `resources.cache_gib` with which the frozen network sees each image once; 0 if no arm has one, or it was not timed."""
    weights: tuple[str, ...] = ()
    """Lists the weights that would be downloaded from the Hugging Face hub: the name, and after `@` the commit if one pins them."""
    smallest_effect: float | None = None
    """Gives the smallest difference, as a share, that the verdict would find with a power of 80 %, if the variances are those of
    `shared.metrics.forecast`; None without a verdict, or if it has too few repetitions or no test image of a judged class."""
    to_settle: dict[str, int] = field(default_factory=dict)
    """Holds the numbers of `repetitions` and `test_images` that would find a difference of one percentage point."""
    test_images: dict[str, int] = field(default_factory=dict)
    """Counts the test images of each judged class, or all of them if the metric counts all images equally; each once, with folds."""
    gib: float = 0.0
    """Estimates the size in GiB of the results in the store and of what is cached, without the weights of a pretrained generator."""


def forecast_study(study: ResolvedStudy, measures: bool = True, workers: int | None = None) -> Forecast:
    """Returns a forecast: lists the images, counts what would be generated and trained, and times a few steps of each kind of work.

    What was timed before is not timed again, and without `measures` nothing is. `workers` replaces the study's number per search.
    Raises DataError if the data cannot be listed, and ConfigError or DataError for weights that cannot be used.
    """
    from shared.artifacts.remote import local_folder
    from shared.weights.check import check_files

    settings = Settings.from_environment()
    check_files(study)  # first, as it takes the least time
    busy = busy_cores()
    with tempfile.TemporaryDirectory(prefix="tailfill-") as scratch:
        root = None
        if study.dataset.root is not None:
            root = local_folder(study.dataset.root, settings, Path(scratch))
        data = preview(study.dataset, root, study.seed, study.fold(0))  # the other folds are as large
        prepare = reading_seconds(data, study.dataset)
    return forecast_work(study, data, prepare, busy, settings, measures, workers)


def forecast_work(
    study: ResolvedStudy,
    data: Preview,
    prepare: Range,
    busy: float,
    settings: Settings,
    measures: bool = True,
    workers: int | None = None,
) -> Forecast:
    """Returns the forecast for images that are listed; see `forecast_study`.

    `prepare` has the seconds to read one of them, and `busy` the number of cores that other programs use.
    """
    steps, experiments = plan(study), study.experiments
    forecast = Forecast(stages=dict(Counter(step.stage for step in steps)), images=data.sizes())
    named = [step.config for step in steps if isinstance(step.config, WeightsConfig)]
    forecast.weights = tuple(f"{c.name}@{c.revision}" if c.revision else c.name for c in named)
    forecast.files, forecast.files_opened = data.files, data.opened
    forecast.trials = sum(map(trials_of, experiments))
    forecast.finals = sum(e.final.seeds for e in experiments)
    generated = _count_images(study, data, forecast)
    foresee_verdict(study, data, forecast)
    slots = Slots.of_machine(study)
    bench = workbench(study, data, settings, slots, measures)
    forecast.busy_cores = busy
    sizes = forecast.images
    counts = ImageCounts(sizes["train"], sizes["val"], sizes["test"], generated, len(forecast.fill))
    times = Times(study, steps, counts, prepare, bench, slots, workers)
    _fill_hours(study, steps, times.all(), slots, bench, forecast)
    _fill_sizes(study, steps, counts, data, times, forecast)
    return forecast


def workbench(study: ResolvedStudy, data: Preview, settings: Settings, slots: Slots, measures: bool) -> Workbench:
    """Returns what times the study's work, or finds its timings, on the device and with the threads that a stage process would have."""
    from shared.weights.check import check_weights

    machine = Machine.here()
    threads = max(1, machine.cores // slots.count)
    device = settings.device or study.resources.device
    kept = KeptTimings(settings.cache / FOLDER, machine, machine.device(device), threads)
    resources = study.resources.model_copy(update={"device": device})
    return Workbench(
        kept, resources, settings, data.schema, study.dataset.resolution, measures, lambda: check_weights(study)
    )


def reading_seconds(data: Preview, dataset: Dataset) -> Range:
    """Returns the seconds of work to bring an image into canonical form, measured on a few of them; an unusable one is left to `prepare`."""
    from shared.data.canonical import Reading, canonical
    from shared.data.problems import BadImage

    reading, found = Reading.of(dataset), list[float]()
    ends = time.monotonic() + READ_SECONDS
    with reading.limiting():
        for image in data.sample:
            began = time.process_time()
            try:
                canonical(image.content, dataset.resolution, dataset.fit, image.box, reading)
            except BadImage:
                continue
            found.append(time.process_time() - began)
            if time.monotonic() > ends:
                break
    return np.quantile(found, (0.1, 0.5, 0.9)) if found else exactly(0.0)


def generating(experiments: tuple[ResolvedExperiment, ...]) -> ResolvedExperiment | None:
    """Returns the first experiment with generated images, or None; the forecast assumes that the others have the same generator."""
    return next((experiment for experiment in experiments if experiment.images != "real"), None)


def _count_images(study: ResolvedStudy, data: Preview, forecast: Forecast) -> int:
    """Fills in `fill`, and returns how many images one pool of the first arm with generated images has."""
    from shared.data.schema import class_counts
    from shared.diffusion.quota import plan_images

    arm = generating(study.experiments)
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
    from shared.metrics.forecast import PowerForecast, assumed_components
    from shared.metrics.outer_folds import OuterFolds
    from shared.metrics.table import metric_named
    from shared.metrics.two_way import TwoWay

    arms = [e for e in study.experiments if e.images == "real+synthetic"]
    if not isinstance(study.verdict, Verdict) or not arms:
        return
    metric, rare = metric_named(study.verdict.metric), data.rare(study.written.rare)
    tested = np.ones(len(data.labels), bool) if study.folds else data.split == "test"
    counts = class_counts(data.labels[tested])
    units = sum(forecast.images.values()) if study.folds else forecast.images["test"]
    if metric.by_class:
        columns = rare if metric.rare else range(data.schema.width)
        forecast.test_images = {data.schema.class_names[c]: int(counts[c]) for c in columns}
    else:
        forecast.test_images = {"all": units}
    judged = [n for n in forecast.test_images.values() if n]
    if not judged:
        return
    components = assumed_components(judged, units) if metric.by_class else assumed_components([], units)
    level = study.verdict.alpha / sum(e.name != study.verdict.baseline for e in arms)
    power, repetitions = PowerForecast(components, level, OuterFolds if study.folds else TwoWay), arms[0].final.seeds
    effect = power.smallest_effect(repetitions, units)
    forecast.smallest_effect = effect if math.isfinite(effect) else None
    design = power.needed(repetitions, units)
    forecast.to_settle = {"repetitions": design.repetitions, "test_images": design.units}


def _fill_hours(
    study: ResolvedStudy, steps: list[Step], times: StepTimes, slots: Slots, bench: Workbench, forecast: Forecast
) -> None:
    for step in steps:
        forecast.devices[step.stage] = (
            bench.kept.device if STAGES[step.stage].on_device or step.stage == "tune" else "cpu"
        )
    for stage in forecast.stages:
        ids = [step.id for step in steps if step.stage == stage]
        if not all(number in times.seconds for number in ids):
            if stage != "weights":  # a download, which no forecast knows
                forecast.not_timed += (stage,)
                forecast.why_not_timed = bench.why_not
            continue
        low, middle, high = (sum((times.seconds[number] for number in ids), exactly(0.0)) / 3600).tolist()
        forecast.hours[stage], forecast.hours_range[stage] = middle, (low, high)
        price = study.prices.of(forecast.devices[stage]) if study.prices is not None else None
        if price is not None:
            forecast.prices[stage] = (low * price, high * price)
    forecast.processes = slots.count
    low, middle, high = (wall_seconds(steps, times, slots.count) / 3600).tolist()
    forecast.run_hours = (low, middle, high)
    forecast.timed_busy_cores = max((timing.busy_cores for timing in bench.used.values()), default=0.0)
    cores = bench.kept.machine.cores
    wanted = (forecast.busy_cores + min(slots.count, cores)) / cores
    forecast.slowdown = wanted if wanted > BUSY else 1.0


def _fill_sizes(
    study: ResolvedStudy, steps: list[Step], counts: ImageCounts, data: Preview, times: Times, forecast: Forecast
) -> None:
    """Fills in what each stage takes of disk and memory. A process holds decoded images or features as far as `cache_gib` allows, beside what the
    process that timed it had; encoded images are in a file."""
    encoded = data.bytes_per_image(study.dataset.resolution)
    cached, share = 0.0, memory_share(forecast.processes)
    for step in steps:
        config, stage = step.config, step.stage
        disk, memory = 0.0, float(PROCESS_BYTES)
        images = counts.real
        match stage:
            case "prepare":
                disk = counts.real * encoded
            case "generate":
                disk = counts.generated * encoded
            case "report":
                disk = float(REPORT_BYTES)
        timing = times.timing(step)
        if timing is not None:
            images += counts.generated if stage != "finetune" else 0
            memory = float(timing.numbers["memory"])
            if "weight_bytes" in timing.numbers:
                kept = images * max(timing.numbers["views"], 1) * timing.numbers["view_bytes"]
                memory += min(kept, study.resources.cache_gib * GIB, spare_memory(share, memory))
                results = config.folds if isinstance(config, JudgeConfig) else stage == "final"
                disk += results * timing.numbers["weight_bytes"]
                if timing.numbers["views"]:
                    cached = max(
                        cached,
                        (counts.real + counts.generated * study.pools)
                        * max(timing.numbers["views"], 1)
                        * timing.numbers["view_bytes"],
                    )
        memory += images * IMAGE_BYTES
        forecast.disk[stage] = forecast.disk.get(stage, 0.0) + disk / GIB
        forecast.memory[stage] = max(forecast.memory.get(stage, 0.0), memory / GIB)
    if "tune" in forecast.disk:
        forecast.disk["tune"] += min(cached / GIB, study.resources.cache_gib)
    forecast.cache_gib = math.ceil(cached / DISK_SHARE / GIB)
    forecast.gib = sum(forecast.disk.values())
