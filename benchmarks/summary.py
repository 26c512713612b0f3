"""Summarises the comparison as numbers, and as a table for people."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

from benchmarks.outcome import Outcome
from benchmarks.tables import markdown, spread, times


@dataclass(frozen=True)
class Summary:
    """Holds all measurements, and the settings and the machine that they were made with."""

    model: str
    trainable: str
    augmentation: str
    views: int | None
    images: int
    val_images: int
    epochs: int
    search_trials: int
    device: str
    cores: int
    instructions: str
    workers: int
    load: list[float]
    """The load averages over one minute, before the first pair of trainings and after each pair."""
    trials: list[Outcome]
    """The trials. The setup of the first computed everything; the others read it from disk."""
    plain: list[Outcome]

    @property
    def caching(self) -> float:
        """The seconds of what is computed once."""
        return self.trials[0].setup_seconds

    @property
    def trial(self) -> float:
        """The mean seconds of a trial's epochs."""
        return mean(outcome.seconds for outcome in self.trials)

    @property
    def loop(self) -> float:
        """The mean seconds of the plain loop."""
        return mean(outcome.seconds for outcome in self.plain)


def table(found: Summary) -> str:
    """Returns the comparison as a Markdown table."""
    single, share = found.caching + found.trial, found.caching / found.search_trials + found.trial
    rows = [
        ("", "trial", "plain loop", "ratio"),
        ("decoding and caching, once (s)", f"{found.caching:.1f}", "", ""),
        ("epochs (s)", f"{found.trial:.1f}", f"{found.loop:.1f}", times(found.loop / found.trial)),
        ("a single trial, caching included (s)", f"{single:.1f}", f"{found.loop:.1f}", times(found.loop / single)),
        (f"a trial of {found.search_trials}, caching shared (s)", f"{share:.1f}", f"{found.loop:.1f}", times(found.loop / share)),
        ("val accuracy", spread([o.accuracy for o in found.trials]), spread([o.accuracy for o in found.plain]), ""),
        ("val macro-F1", spread([o.macro_f1 for o in found.trials]), spread([o.macro_f1 for o in found.plain]), ""),
    ]  # fmt: skip
    views = "" if found.views is None else f", {found.views} views per image"
    lines = [
        markdown(rows),
        "",
        f"{found.model}, trainable {found.trainable}, augmentation {found.augmentation}{views}; {found.images} training and "
        f"{found.val_images} validation images, {found.epochs} epochs, {len(found.trials)} seeds.",
        f"{found.device}, {found.cores} cores ({found.instructions}), {found.workers} loader processes for the plain loop; "
        f"load average {min(found.load):.1f} to {max(found.load):.1f}.",
    ]
    return "\n".join(lines)
