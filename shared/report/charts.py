"""Draws figures of the results: verdicts, class distribution (the paper's Figure 3), training curves (Figure 5), classes, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from shared.metrics.table import metric_named
from shared.metrics.verdict import Comparison
from shared.report.class_readings import ClassReading
from shared.report.scores import Spread
from shared.report.svg import INK, LINE, MARKERS, MUTED, RARE, SERIES, Plot, finish, new_figure, style

WIDE = 9.8  # inches, 940 CSS pixels: as wide as the tables
NARROW = 5.6  # inches, 540 CSS pixels: its text can be read if a phone shows all of it


def series(index: int) -> dict[str, Any]:
    """Returns the colour and marker of a series by its number; they repeat from the seventh series on."""
    return {"color": SERIES[index % len(SERIES)], "marker": MARKERS[index % len(MARKERS)]}


def forest(
    comparisons: Sequence[Comparison], labels: Mapping[str, str], series_numbers: Mapping[str, int], alpha: float
) -> Plot:
    """Draws each arm's difference from the baseline: a dot per repetition, the mean, and the interval over repetitions and test images."""
    with style():
        figure, (axes,) = new_figure(WIDE, 0.7 + 0.62 * len(comparisons))
        axes.axvline(0, color=INK, linewidth=1)
        for row, comparison in enumerate(comparisons):
            line_style = series(series_numbers[comparison.arm])
            values = np.array(comparison.differences) * 100
            axes.plot(values, np.full(len(values), row + 0.24), linestyle="", markersize=4, alpha=0.55, **line_style)
            if comparison.interval is not None:
                low, high = comparison.interval
                axes.plot([100 * low, 100 * high], [row, row], color=line_style["color"], linewidth=4.0, alpha=0.6)
            if comparison.difference is not None:
                axes.plot(100 * comparison.difference, row, markersize=9, markeredgecolor=INK, **line_style)
        axes.set_yticks(range(len(comparisons)), [labels[c.arm] for c in comparisons])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(len(comparisons) - 0.45, -0.45)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(
            f"{metric_named(comparisons[0].metric).label}, points against {labels[comparisons[0].baseline]}"
        )
        said = "; ".join(f"{labels[c.arm]} {100 * (c.difference or 0):+.1f} points" for c in comparisons)
        return finish(
            figure,
            "verdicts",
            f"Difference of each arm from the baseline with {(1 - alpha) * 100:g} % intervals: {said}.",
        )


@dataclass(frozen=True)
class ClassBar:
    """Counts the training images of a class."""

    name: str
    real: int
    accepted: int
    refused: int
    rare: bool


def class_distribution(bars: Sequence[ClassBar], below: int | None) -> Plot:
    """Draws the paper's Figure 3, with the generated images stacked on the real ones."""
    rows = np.arange(len(bars))
    real, accepted, refused = (np.array([getattr(b, k) for b in bars]) for k in ("real", "accepted", "refused"))
    with style():
        figure, (axes,) = new_figure(WIDE, 1.15 + 0.235 * len(bars))
        for chosen, colour, label in ((True, RARE, "real, rare class"), (False, SERIES[0], "real")):
            where = np.array([b.rare == chosen for b in bars])
            if where.any():
                axes.barh(rows[where], real[where], color=colour, height=0.72, label=label)
        if accepted.any():
            axes.barh(rows, accepted, left=real, color=SERIES[1], height=0.72, label="generated, accepted")
        if refused.any():
            axes.barh(
                rows, refused, left=real + accepted, facecolor="none", edgecolor=SERIES[1], hatch="////", linewidth=0.8, height=0.72,
                label="generated, refused",
            )  # fmt: skip
        for row, bar in enumerate(bars):
            text = f"{bar.real:,}" + (f" + {bar.accepted:,}" if bar.accepted else "")
            axes.annotate(
                text, (bar.real + bar.accepted + bar.refused, row), xytext=(5, 0), textcoords="offset points", va="center",
                fontsize=8.5, color=INK if bar.rare else MUTED,
            )  # fmt: skip
        if below is not None and below < real.max() * 1.2:
            axes.axvline(below, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=f"rare: below {below:,}")
        axes.set_yticks(rows, [b.name for b in bars])
        for tick, bar in zip(axes.get_yticklabels(), bars, strict=True):
            tick.set_color(RARE if bar.rare else INK)
            tick.set_fontweight("bold" if bar.rare else "normal")
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("training images")
        figure.legend(loc="outside upper left", ncols=5)
        rare = ", ".join(f"{b.name} {b.real} real and {b.accepted} generated" for b in bars if b.rare) or "none"
        return finish(figure, "class-distribution", f"Training images of each class. Rare classes: {rare}.")


CURVES = (
    ("loss", (("train_loss", "training", SERIES[0]), ("val_loss", "validation", SERIES[1]))),
    ("accuracy", (("train_accuracy", "training", SERIES[0]), ("val_accuracy", "validation", SERIES[1]))),
    (
        "validation F1",
        (
            ("val_macro_f1", metric_named("macro_f1").label, SERIES[2]),
            ("val_rare_macro_f1", metric_named("rare_macro_f1").label, SERIES[3]),
        ),
    ),
)
"""Lists the panels of the training curves, each with the key, the label and the colour of its curves."""


def curves(name: str, title: str, histories: Sequence[Sequence[Mapping[str, Any]]]) -> Plot:
    """Draws the paper's Figure 5 for one experiment: losses, accuracies and validation F1, with a faint line per seed and a strong one for the mean."""
    last = [history[-1] for history in histories if history]
    ends = []
    with style():
        figure, panels = new_figure(WIDE, 2.6, columns=len(CURVES))
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        for axes, (what, lines) in zip(panels, CURVES, strict=True):
            for key, label, colour in lines:
                _curve(axes, histories, key, label, colour)
            axes.set_xlabel("epoch")
            axes.set_title(what, fontsize=9.5, fontweight="normal", color=MUTED)
            axes.legend(loc="best", handlelength=1.2)
            means = [(label, _mean_of(last, key)) for key, label, _ in lines]
            defined = ", ".join(f"{label} {mean:.3f}" for label, mean in means if mean is not None)
            ends.append(f"{what}: {defined or 'not defined'}")
        seeds = f"{len(histories)} {'seed' if len(histories) == 1 else 'seeds'}"
        said = f"Training curves of {title} over {seeds}; at the end: {'; '.join(ends)}."
        return finish(figure, f"curves-{name}", said)


def _mean_of(records: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [r[key] for r in records if r.get(key) is not None]
    return float(np.mean(values)) if values else None


def _curve(axes: Axes, histories: Sequence[Sequence[Mapping[str, Any]]], key: str, label: str, colour: str) -> None:
    lines = [np.array([np.nan if r.get(key) is None else r[key] for r in history], np.float64) for history in histories]
    lines = [line for line in lines if np.isfinite(line).any()]
    if not lines:
        return
    length = min(map(len, lines))
    epochs = np.arange(1, length + 1)
    for line in lines if len(lines) > 1 else ():
        axes.plot(np.arange(1, len(line) + 1), line, color=colour, linewidth=0.7, alpha=0.3)
    axes.plot(epochs, np.mean([line[:length] for line in lines], axis=0), color=colour, label=label)


def class_scores(
    classes: Sequence[str], spreads: Mapping[str, Sequence[Spread]], series_numbers: Mapping[str, int], metric: str
) -> Plot:
    """Draws the score of each class in every arm side by side, with its standard deviation over seeds."""
    with style():
        figure, (axes,) = new_figure(WIDE, 1.0 + (0.16 + 0.09 * len(spreads)) * len(classes))
        offsets = np.linspace(-0.26, 0.26, len(spreads)) if len(spreads) > 1 else np.zeros(1)
        for offset, (label, values) in zip(offsets, spreads.items(), strict=True):
            means = np.array([np.nan if s.mean is None else s.mean for s in values])
            deviations = np.array([s.sd or 0.0 for s in values])
            line_style = series(series_numbers[label])
            rows = np.arange(len(classes)) + offset
            axes.errorbar(
                means, rows, xerr=deviations, linestyle="", markersize=6, elinewidth=1.4, label=label, **line_style
            )
        axes.set_yticks(range(len(classes)), classes)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(len(classes) - 0.4, -0.6)
        axes.set_xlim(left=max(0.0, axes.get_xlim()[0]))
        axes.set_xlabel(f"{metric} on the test images, mean and standard deviation over seeds")
        figure.legend(loc="outside upper left", ncols=3)
        return finish(
            figure,
            "class-scores",
            f"{metric} of the rare classes ({', '.join(classes)}) in {len(spreads)} arms; the numbers are in the table below.",
        )


def class_gains(
    rows: Sequence[ClassReading], arms: Mapping[str, str], series_numbers: Mapping[str, int], baseline: str
) -> Plot:
    """Draws how much each arm gains over the baseline in each class: the mean, and its interval over repetitions and test images.

    `arms` maps the names of the experiments to their labels. It is narrow enough to be read on a phone.
    """
    with style():
        figure, (axes,) = new_figure(NARROW, 1.0 + 0.1 * len(arms) + (0.2 + 0.11 * len(arms)) * len(rows))
        axes.axvline(0, color=INK, linewidth=1)
        offsets = np.linspace(-0.28, 0.28, len(arms)) if len(arms) > 1 else np.zeros(1)
        for offset, (name, label) in zip(offsets, arms.items(), strict=True):
            line_style, drawn = series(series_numbers[name]), False
            for row, reading in enumerate(rows):
                gain = reading.gain[name]
                if gain.mean is None:
                    continue
                if gain.interval is not None:
                    ends = [100 * end for end in gain.interval]
                    axes.plot(ends, [row + offset] * 2, color=line_style["color"], linewidth=2.2, alpha=0.6)
                line = axes.plot(
                    100 * gain.mean, row + offset, markersize=6, linestyle="", label=None if drawn else label, **line_style
                )  # fmt: skip
                if reading.few:
                    line[0].set_markerfacecolor("none")
                drawn = True
        axes.set_yticks(range(len(rows)), [f"{r.name} ({r.test_images:,})" for r in rows])
        for tick, reading in zip(axes.get_yticklabels(), rows, strict=True):
            tick.set_color(RARE if reading.judged else INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"F1, points against {baseline}")
        figure.legend(loc="outside upper left", ncols=1)
        said = "; ".join(
            f"{r.name} {', '.join(f'{label} {100 * (r.gain[name].mean or 0):+.1f}' for name, label in arms.items())}"
            for r in rows
        )
        return finish(figure, "class-gains", f"Gain of each class over {baseline} in points of F1: {said}.")


def reliability(
    lines: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], series_numbers: Mapping[str, int]
) -> Plot:
    """Draws the reliability diagram: accuracy by confidence, a line per arm; the diagonal is perfect calibration."""
    with style():
        figure, (axes,) = new_figure(5.0, 3.8)
        axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.5, linestyle=(0, (4, 3)))
        for label, (confidence, right) in lines.items():
            axes.plot(confidence, right, markersize=5, label=label, **series(series_numbers[label]))
        axes.set_xlabel("confidence of the prediction")
        axes.set_ylabel("accuracy")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.legend(loc="upper left")
        return finish(
            figure,
            "calibration",
            f"Reliability of {', '.join(lines)}: the nearer to the diagonal, the better calibrated.",
        )
