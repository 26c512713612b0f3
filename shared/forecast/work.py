"""Times the kinds of work of a study, each in a second or a few, unless a timing of it is kept."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from shared.artifacts.keys import canonical_digest
from shared.artifacts.open import is_s3
from shared.benchmark import NotTimed, Range, exactly
from shared.config.dataset import Rare
from shared.config.generation import AnyFinetune, Generate
from shared.config.search import Resources
from shared.config.stages import Arm, Judges
from shared.diffusion.generators import generator_kind
from shared.forecast.busy import busy_cores
from shared.forecast.timings import KeptTimings, Timing
from shared.isolation import isolated_children
from shared.log import Log
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.classifier.timing import TrainingTime
    from shared.data.schema import LabelSchema
    from shared.diffusion.generator import Time
    from shared.score.timing import ComparisonTime

CLASSIFIER = "shared.classifier.timing"
"""Names the module that times a classifier. It imports what a stage imports that trains one."""

COMPARISONS = "shared.score.timing"
"""Names the module that times the search for near-duplicates."""

log = Log("forecast")

_refused: dict[str, str] = {}
"""Maps the digest of work that this process could not time to the reason, so that it is tried once."""


@dataclass
class Workbench:
    """Finds or measures the timings of a study's kinds of work."""

    kept: KeptTimings
    resources: Resources
    settings: Settings
    schema: LabelSchema
    resolution: int
    """Gives the side in pixels of the data set's images."""
    measures: bool = True
    """Says whether a kind of work that has no kept timing is timed now."""
    check: Callable[[], None] = lambda: None
    """Raises an error for weights that cannot be used. It is called before anything is timed."""
    used: dict[str, Timing] = field(default_factory=dict)
    """Holds the timings that were found or measured, by a digest of the work."""
    why_not: str = ""
    """Says why the last kind of work that has no timing has none."""

    def classifier(self, trained: Arm | Judges) -> Timing | None:
        """Returns the timing of a classifier's training: see `shared.classifier.timing.TrainingTime`; None if none is kept and none is measured now.

        Raises what its training raises.
        """
        classifier, training = trained.classifier, trained.training
        side = classifier.resolution or self.resolution
        work = [
            "classifier", classifier.model_dump(mode="json", exclude={"revision"}), _stamp(classifier.pretrained), side, self.resolution, trained.augmentation,
            training.erasing, training.views, training.refit_epochs > 0, training.optimizer, training.loss, self.schema.width,
        ]  # fmt: skip

        def measure() -> tuple[dict[str, Range], dict[str, int]]:
            start = import_seconds(CLASSIFIER)
            arm = Arm(
                rare=Rare(below=None),
                accept=None,
                classifier=classifier,
                augmentation=trained.augmentation,
                images="real",
                training=training,
                synthetic=None,
            )
            found = import_module(CLASSIFIER).time_training(arm, self.resolution, self.schema, self.resources)
            seconds, numbers = _parts(found)
            return seconds | {"start": exactly(start)}, numbers

        return self._timing(work, measure, f"a few training steps of {classifier.model} at {side} px")

    def generator(self, finetune: AnyFinetune, generate: Generate) -> Timing | None:
        """Returns the timing of a generator: the parts `step`, `image` and `start`; None if it cannot be timed, or not now."""
        timed = generator_kind(finetune.generator).time
        settings = finetune.model_dump(
            mode="json", exclude={"steps", "checkpoint_every", "learning_rate", "warmup_steps", "ema"}
        )
        sampler = generate.model_dump(
            mode="json", include={"guidance", "steps", "guidance_interval", "batch_size", "few_step"}
        )
        work = ["generator", settings, sampler, self.schema.width]

        def measure() -> tuple[dict[str, Range], dict[str, int]]:
            start = import_seconds(timed.partition(":")[0])
            time_it: Time = resolve_name(timed)
            step, image = time_it(finetune, generate, self.schema, self.resources, self.settings)
            return {"step": step, "image": image, "start": exactly(start)}, {}

        side = f" at {finetune.resolution} px" if finetune.resolution is not None else ""
        return self._timing(work, measure, f"a few steps of the {finetune.generator} generator{side}")

    def comparisons(self) -> Timing | None:
        """Returns the timing of the search for near-duplicates: see `shared.score.timing.ComparisonTime`; None if it is not timed now."""

        def measure() -> tuple[dict[str, Range], dict[str, int]]:
            return _parts(import_module(COMPARISONS).time_comparisons(self.resolution, self.schema))

        return self._timing(["comparisons", self.resolution], measure, f"comparisons of images of {self.resolution} px")

    def _timing(
        self, work: list[Any], measure: Callable[[], tuple[dict[str, Range], dict[str, int]]], what: str
    ) -> Timing | None:
        name = canonical_digest(work)
        found = self.used.get(name) or self.kept.find(work)
        if found is None and self.measures and name not in _refused:
            try:
                found = self._measure(work, measure, what)
            except NotTimed as error:
                log.warning(f"{what} cannot be timed", reason=str(error))
                _refused[name] = str(error)
        if found is None:
            self.why_not = _refused.get(name, "no timing of it is kept")
        else:
            self.used[name] = found
        return found

    def _measure(
        self, work: list[Any], measure: Callable[[], tuple[dict[str, Range], dict[str, int]]], what: str
    ) -> Timing:
        log.info(f"timing {what}")
        import_seconds(CLASSIFIER)  # first, as the check and the threads import torch, too
        self.check()
        busy = busy_cores()
        with _threads(self.kept.threads):
            seconds, numbers = measure()
        return self.kept.keep(work, seconds, numbers | {"memory": _peak_memory()}, busy)


def _parts(found: TrainingTime | ComparisonTime) -> tuple[dict[str, Range], dict[str, int]]:
    """Returns what was timed by name: the seconds of each part, and what is a number."""
    parts = {each.name: getattr(found, each.name) for each in fields(found)}
    numbers = {name: value for name, value in parts.items() if isinstance(value, int)}
    return {name: value for name, value in parts.items() if name not in numbers}, numbers


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Lets torch compute with as many threads as a stage process has."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def import_seconds(module: str) -> float:
    """Returns the seconds of work that it takes a new process to import a module.

    If this process has not imported torch yet, what it imports is timed here: first what a classifier needs, then the module, which counts both.
    """
    here = _imports_here()
    before = 0.0 if module == CLASSIFIER or not here else import_seconds(CLASSIFIER)
    if here:
        began = time.process_time()
        import_module(module)
        return before + time.process_time() - began
    command = [sys.executable, "-c", f"import time, {module}; print(time.process_time())"]
    with isolated_children():
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


@cache
def _imports_here() -> bool:
    """Returns whether this process had not imported torch when it first timed an import."""
    return "torch" not in sys.modules


def _peak_memory() -> int:
    """Returns the most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _stamp(pretrained: bool | str) -> list[int] | None:
    """Returns what changes if a file of weights on this machine is replaced: then its classifier is looked at and timed again."""
    if not isinstance(pretrained, str) or is_s3(pretrained):
        return None
    path: Path | None = Path(pretrained)
    if pretrained.startswith("package:"):
        module = find_spec(pretrained.removeprefix("package:").partition("/")[0])
        path = Path(module.origin) if module is not None and module.origin is not None else None
    if path is None or not path.exists():
        return [0, 0]
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
