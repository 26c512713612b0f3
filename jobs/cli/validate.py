"""Implements `tailfill validate`: checks a study file, and with `--plan` forecasts what it would do.

`shared.forecast` counts images in the data, and measures times on this machine; here is how it is said.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shared.artifacts.open import is_s3
from shared.config.load import load_study
from shared.config.resolve import ResolvedExperiment, ResolvedStudy
from shared.config.search import Verdict
from shared.config.stages import STAGES
from shared.data.review import KEEP, REJECT, Review, pool_of, study_reviews
from shared.diffusion.generators import generator_kind
from shared.log import duration
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.forecast.forecast import Forecast

ENOUGH_GENERATED = 20
"""Sets the number of generated images of a class below which the plan says why there are so few."""


def validate(file: Path, sets: Sequence[str], show_plan: bool, as_json: bool) -> str:
    """Returns the text for stdout; raises ConfigError for a wrong study, and with `show_plan` DataError if the data cannot be listed."""
    study = load_study(file, sets)
    reviews = study_reviews(study, Settings.from_environment(), buckets=show_plan)
    if not show_plan:
        names = [experiment.name for experiment in study.experiments]
        if as_json:
            return json.dumps({"study": study.name, "experiments": names})
        return "\n".join([f"{file}: valid ({', '.join(names)})", *base_lines(study), *review_lines(study, reviews)])
    from shared.forecast.forecast import forecast_study
    from shared.stop import StopSignal
    from shared.weights.hub_data import ensure_data

    ensure_data(study.dataset.root, Settings.from_environment(), StopSignal())
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


def adapter_lines(study: ResolvedStudy, rare: int) -> list[str]:
    """Returns a line for each kind of generator that has adapters for each of the rare classes: what that costs."""
    generators = study.pools if study.generators == "each" else 1
    lines = []
    for experiment in study.experiments:
        finetune = experiment.finetune
        if experiment.images != "real" and (trainings := finetune.trainings(rare)) > 1:
            steps = finetune.steps * trainings * generators
            count = "1 generator" if generators == 1 else f"{generators} generators"
            times = f"{trainings} rare classes × {finetune.steps:,} steps × {count}"
            lines.append(f"adapters per class: {times} = {steps:,} steps")
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


def describe(study: ResolvedStudy, forecast: Forecast) -> str:
    """Returns the forecast as text."""
    lines = [
        f"study {study.name}: {sum(forecast.stages.values())} stages ({', '.join(f'{n} {s}' for s, n in forecast.stages.items())})"
    ]
    counts = ", ".join(f"{n} {split}" for split, n in forecast.images.items())
    each = (
        f" in each of {study.repetitions} repetitions, which test on every image once together" if study.folds else ""
    )
    lines.append(f"images: {counts}{each}{_images_note(forecast)}")
    for name, fill in forecast.fill.items():
        lines.append(f"fill {name}: {fill['real']} real, {fill['generate']} to generate{_why_few(study, name, **fill)}")
    lines.append(f"search: {forecast.trials} trials; final: {forecast.finals} trainings")
    lines += verdict_lines(study, forecast)
    lines += [*base_lines(study), *adapter_lines(study, len(forecast.fill))]
    for name in forecast.weights:
        pinned = "" if "@" in name else ", not pinned: the newest commit is used; set its revision"
        lines.append(f"weights: {name} is downloaded once from the Hugging Face hub{pinned}")
    lines += table(forecast, None if study.prices is None else study.prices.currency)
    if forecast.cache_gib > study.resources.cache_gib:
        lines.append(
            f"resources.cache_gib: {study.resources.cache_gib:g} GiB of disk hold the frozen network's outputs for some of the images, and those of "
            f"the others may be computed anew in each epoch; {forecast.cache_gib} hold all of them"
        )
    if forecast.not_timed:
        lines.append(f"{', '.join(forecast.not_timed)}: not timed; {forecast.why_not_timed}")
    return "\n".join([*lines, *time_lines(forecast)])


def table(forecast: Forecast, currency: str | None) -> list[str]:
    """Returns a row of text per stage and one for all: steps, hours of all processes, device, disk, memory of a process and, with prices, the price."""
    rows = [
        ["stage", "steps", "hours", "from", "to", "device", "disk GiB", "memory GiB", *([currency] if currency else [])]
    ]
    for stage in (name for name in STAGES if name in forecast.stages):
        steps = forecast.stages[stage]
        timed = stage in forecast.hours
        hours = map(_hours, (forecast.hours[stage], *forecast.hours_range[stage])) if timed else ("–", "–", "–")
        price = [_span(*forecast.prices[stage]) if stage in forecast.prices else "–"] if currency else []
        disk, memory = _gib(forecast.disk.get(stage, 0.0)), _gib(forecast.memory.get(stage, 0.0))
        rows.append([stage, str(steps), *hours, forecast.devices.get(stage, "–"), disk, memory, *price])
    low, high = (sum(ends[i] for ends in forecast.hours_range.values()) for i in (0, 1))
    total = map(_hours, (sum(forecast.hours.values()), low, high))
    price = (
        [_span(*map(sum, zip(*forecast.prices.values(), strict=True))) if forecast.prices else "–"] if currency else []
    )
    memory = _gib(max(forecast.memory.values(), default=0.0))
    rows.append(["total", str(sum(forecast.stages.values())), *total, "", _gib(forecast.gib), memory, *price])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    left = {0, 5}  # words
    return [
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def time_lines(forecast: Forecast) -> list[str]:
    """Returns how long a run takes, how busy the machine is, and how busy it was when it was timed."""
    low, middle, high = (hours * 3600 for hours in forecast.run_hours)
    cores = len(os.sched_getaffinity(0))
    together = "one process" if forecast.processes == 1 else f"{forecast.processes} processes"
    but = f", not counting {' and '.join(forecast.not_timed)}" if forecast.not_timed else ""
    lines = [
        f"a run takes about {duration(middle)} ({duration(low)} to {duration(high)}){but}, with {together} at a time, if the machine does nothing else"
    ]
    if forecast.slowdown > 1:
        lines.append(
            f"the machine is busy now (other programs use {forecast.busy_cores:.1f} of its {cores} cores): while it stays so, a run takes about "
            f"{forecast.slowdown:.1f} times as long, {duration(middle * forecast.slowdown)}"
        )
    lines.append(
        f"timed while other programs used at most {forecast.timed_busy_cores:.1f} of {cores} cores; timings are kept for this machine"
    )
    return lines


def generating(study: ResolvedStudy) -> ResolvedExperiment | None:
    """Returns the first experiment with generated images, or None."""
    return next((experiment for experiment in study.experiments if experiment.images != "real"), None)


def _hours(hours: float) -> str:
    return "<0.01" if 0 < hours < 0.005 else f"{hours:.2f}"


def _gib(gib: float) -> str:
    return "<0.01" if 0 < gib < 0.005 else f"{gib:.2f}"


def _span(low: float, high: float) -> str:
    return f"{low:.2f}–{high:.2f}"


def _why_few(study: ResolvedStudy, name: str, real: int, generate: int) -> str:
    """Returns why so few images of a class are generated that they can hardly matter, or nothing if there are enough."""
    arm = generating(study)
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
        have, what = forecast.images["test"], "test images"
        if study.folds:
            have, what = sum(forecast.images.values()), "images"
        lines.append(f"verdict: to find an effect of 1 point takes about {design_text(design, have, what)}")
    if few := {name: n for name, n in forecast.test_images.items() if n < ENOUGH_UNITS}:
        named = ", ".join(f"{name} has {n}" for name, n in few.items())
        lines.append(
            f"verdict: few test images: {named}; a judged class needs {ENOUGH_UNITS} for its interval to hold what it says"
        )
    return lines


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
