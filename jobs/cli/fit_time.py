"""Fits a new study to the time that there is: forecasts it as `validate --plan` does, and trades its choices until the forecast fits."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cli.choose_backbone import choose_backbone
from jobs.cli.choose_split import SplitChoice
from jobs.cli.study_text import SIDES, DataSummary, Design, study_text, usual_side
from shared.config.load import study_from_tree
from shared.config.search import Resources, Verdict
from shared.config.study import LEAST_REPETITIONS, least_seeds
from shared.log import duration
from shared.look.backbone import Backbone

if TYPE_CHECKING:
    from shared.config.resolve import ResolvedStudy
    from shared.forecast.forecast import Forecast

CPU_HOURS, GPU_HOURS = 1.0, 8.0
"""Set the hours of a study if the user names none."""
MOST, AIM, LEAST = 1.0, 0.9, 0.8
"""Set which shares of the hours a forecast may have at most, should have, and should have at least."""
LEAST_STEPS, MOST_STEPS = 300, 6000
"""Bound the training steps of the pixel generator: with fewer its images are noise, and more help a small set no further."""
MOST_REPETITIONS = 20
"""Limits the repetitions."""
MOST_TRIALS = 8
"""Limits the trials per repetition."""
NO_TIME_FOR_FOLDS = (
    "split: one test split serves all repetitions, as a generator for each repetition, which a fold of its own needs, takes more than the time "
    "that there is"
)


@dataclass(frozen=True)
class Fitted:
    """Holds what fits the time."""

    design: Design
    lines: tuple[str, ...]
    """Says how long it takes and what was traded for that."""


WORDS = {
    "pixel": "generated images of {after} px, not {before}",
    "trials": "{after} trials per repetition, not {before}",
    "sampler_steps": "{after} steps to draw an image, not {before}",
    "cap": "at most {after} generated images per real one, not {before}",
    "repetitions": "{after} repetitions, not {before}",
    "side": "the frozen network sees images of at most {after} px, not {before}",
    "final_epochs": "{after} epochs of a final training, not {before}",
    "search_epochs": "{after} epochs of a trial, not {before}",
}
"""Says what is traded, by the field of the design."""
TRADES = (
    ("pixel", 32),
    ("trials", 3),
    ("sampler_steps", 12),
    ("cap", 3),
    ("repetitions", 8),
    ("side", SIDES[1]),
    ("trials", 2),
    ("repetitions", LEAST_REPETITIONS),  # or as many as a verdict over several bases needs
    ("cap", 2),
    ("side", SIDES[2]),
    ("final_epochs", 15),
    ("search_epochs", 8),
    ("cap", 1),
)
"""Lists what is traded, in this order, if the time is too short: first what costs an answer least."""


def least_repetitions(bases: Sequence[str]) -> int:
    """Returns the least number of repetitions of a verdict over the images of these bases, or of one generator without any."""
    return least_seeds(len(bases), Verdict().alpha)


def _with(design: Design, name: str, value: int) -> Design:
    """Returns the design with another value of a number."""
    changed: dict[str, Any] = {name: value}
    return replace(design, **changed)


def fit_time(
    summary: DataSummary, name: str, split: SplitChoice, hours: float | None, bases: tuple[str, ...] = ()
) -> Fitted:
    """Returns the design of a study for these images whose forecast fits the hours, with lines that say so; by default 1 hour, or 8 on a GPU.

    `split` says how its repetitions test. With `bases`, it compares these as generators.

    It measures what is not kept. Raises what the work that is timed raises.
    """
    from shared.forecast.timings import Machine

    gpu = Machine.here().device("auto") != "cpu"
    wanted = hours if hours is not None else GPU_HOURS if gpu else CPU_HOURS
    most = min(MOST_REPETITIONS, split.most_repetitions or MOST_REPETITIONS)
    fitting = _Fitting(summary, name, least_repetitions(bases), most)
    usual = split.of(Design(steps=LEAST_STEPS, stable_diffusion=gpu, bases=bases))

    def traded_with(backbone: Backbone | None) -> Design:
        return fitting.traded(replace(usual, backbone=backbone), wanted)

    def seen_side(backbone: Backbone) -> int | None:
        design = traded_with(backbone)
        return min(usual_side(summary), design.side) if fitting.hours(design) <= MOST * wanted else None

    choice = choose_backbone(summary, seen_side)
    design = traded_with(choice.backbone)
    if design.folds and fitting.hours(design) > MOST * wanted:
        single = fitting.traded(replace(usual, backbone=choice.backbone, folds=False), wanted)
        if fitting.hours(single) <= MOST * wanted:
            design, split = single, SplitChoice(None, (NO_TIME_FOR_FOLDS,))
            fitting.most_repetitions = MOST_REPETITIONS
    if not fitting.forecast(design).not_timed:  # else work of unknown length would be repeated as often as possible
        design = fitting.filled(design, wanted)
    design = replace(design, cache_gib=max(design.cache_gib, fitting.forecast(design).cache_gib))
    lower = (name for name in WORDS if getattr(design, name) < getattr(usual, name))
    traded = [WORDS[name].format(after=getattr(design, name), before=getattr(usual, name)) for name in lower]
    study = "study with a verdict" if summary.tail.fill_to else "study"
    lines = _lines(fitting.forecast(design), design, wanted, traded, study)
    return Fitted(design, (*split.lines, *lines, *choice.lines))


def _lines(forecast: Forecast, design: Design, wanted: float, traded: list[str], study: str) -> Iterator[str]:
    low, middle, high = (hours * 3600 for hours in forecast.run_hours)
    asked = duration(wanted * 3600)
    together = "one process" if forecast.processes == 1 else f"{forecast.processes} processes"
    yield f"time: a run takes about {duration(middle)} ({duration(low)} to {duration(high)}) of the {asked} that it may take, with {together} at a time"
    if forecast.not_timed:
        untimed = " and ".join(forecast.not_timed)
        yield f"time: this does not count {untimed}, which were not timed, so the study has the usual repetitions and trials: {forecast.why_not_timed}"
    if middle > MOST * wanted * 3600:
        enough = math.ceil(middle / 3600 / MOST * 100) / 100
        yield f"time: no {study} is shorter; it takes more than the {asked}, so give it --hours {enough:g} or more"
    elif middle < LEAST * wanted * 3600 and not forecast.not_timed:
        yield "time: more of it would hardly make the answer surer; more test images would"
    if not design.pretrained and "finetune" in forecast.stages:
        yield f"time: the generator is trained for {design.steps:,} steps, the study has {design.repetitions} repetitions of {design.trials} trials each"
    if design.cache_gib > Resources().cache_gib:
        free = shutil.disk_usage(Path.cwd()).free / 2**30
        yield f"disk: the frozen network's outputs for all images take up to {design.cache_gib:g} GiB (resources.cache_gib), of {free:.0f} that are free here"
    if traded:
        yield f"traded for the time: {'; '.join(traded)}"
    if forecast.slowdown > 1:
        busy = f"other programs use {forecast.busy_cores:.1f} of its cores"
        yield f"time: the machine is busy now ({busy}); while it stays so, a run takes about {forecast.slowdown:.1f} times as long"


class _Fitting:
    """Forecasts designs, each once."""

    def __init__(self, summary: DataSummary, name: str, least_repetitions: int, most_repetitions: int) -> None:
        from shared.forecast.busy import busy_cores
        from shared.forecast.forecast import reading_seconds

        self.summary, self.name = summary, name
        self.least_repetitions, self.most_repetitions = least_repetitions, most_repetitions
        self._folded: dict[int, DataSummary] = {}
        self._prepare = reading_seconds(summary.preview, self._study(Design()).dataset)
        self._busy = busy_cores()
        self._forecasts: dict[Design, Forecast] = {}

    def _study(self, design: Design) -> ResolvedStudy:
        from shared.config.plain_yaml import parse

        tree, _ = parse(self._text(design), self.name)
        return study_from_tree(tree)

    def _of(self, design: Design) -> DataSummary:
        """Returns the properties of the images as the repetitions of a design see them."""
        if not design.folds:
            return self.summary
        if design.repetitions not in self._folded:
            self._folded[design.repetitions] = self.summary.with_folds(design.repetitions)
        return self._folded[design.repetitions]

    def _text(self, design: Design) -> str:
        return study_text(self._of(design), self.name, design)

    def forecast(self, design: Design) -> Forecast:
        """Returns the forecast of a design."""
        from shared.forecast.forecast import forecast_work
        from shared.settings import Settings

        if design not in self._forecasts:
            study = self._study(design)
            self._forecasts[design] = forecast_work(
                study, self._of(design).preview, self._prepare, self._busy, Settings.from_environment()
            )
        return self._forecasts[design]

    def hours(self, design: Design) -> float:
        """Returns the hours of a design from the start of a run to its end."""
        return self.forecast(design).run_hours[1]

    def changes(self, one: Design, other: Design) -> bool:
        """Returns whether two designs make two studies: a set of small images is not seen at fewer pixels."""
        return self._text(one) != self._text(other)

    def traded(self, design: Design, wanted: float) -> Design:
        """Returns the design after as many trades as the hours ask for."""
        for field, value in TRADES:
            if self.hours(design) <= MOST * wanted:
                break
            least = self.least_repetitions if field == "repetitions" else 0
            shorter = _with(design, field, min(max(value, least), getattr(design, field)))
            if self.changes(design, shorter):
                design = shorter
        return design

    def filled(self, design: Design, wanted: float) -> Design:
        """Returns the design with as many steps, trials and repetitions more as the hours allow."""
        aim = AIM * wanted
        generates = bool(self.summary.tail.fill_to) and not design.pretrained
        usual = Design().steps
        if generates:
            design = self._most(design, "steps", range(design.steps, usual + 1, 100), aim)
        design = self._most(design, "repetitions", range(design.repetitions, self.most_repetitions + 1, 2), aim)
        design = self._most(design, "trials", range(design.trials, MOST_TRIALS + 1), aim)
        if generates:
            design = self._most(design, "steps", range(design.steps, MOST_STEPS + 1, 100), aim)
        return design

    def _most(self, design: Design, name: str, values: range, aim: float) -> Design:
        """Returns the design with the largest of the values with which it takes at most `aim` hours, the first of them in any case."""
        low, high = 0, len(values) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.hours(_with(design, name, values[middle])) <= aim:
                low = middle
            else:
                high = middle - 1
        return _with(design, name, values[low]) if len(values) else design
