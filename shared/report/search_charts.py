"""Draws figures of a search and of the generated images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.report.svg import INK, LINE, MUTED, SERIES, Plot, finish, new_figure, style


def search_history(
    name: str,
    title: str,
    numbers: NDArray[np.int64],
    values: NDArray[np.float64],
    pruned: NDArray[np.bool_],
    maximise: bool,
    objective: str,
) -> Plot:
    """Draws the value of every trial in order, pruned ones hollow, and the best so far."""
    order = np.argsort(numbers)
    numbers, values, pruned = numbers[order], values[order], pruned[order]
    finished = np.where(pruned | ~np.isfinite(values), -np.inf if maximise else np.inf, values)
    best = np.maximum.accumulate(finished) if maximise else np.minimum.accumulate(finished)
    known = np.isfinite(best)
    with style():
        figure, (axes,) = new_figure(5.3, 2.9)
        axes.plot(numbers[~pruned], values[~pruned], "o", color=SERIES[0], markersize=5, label="complete")
        if pruned.any():
            axes.plot(
                numbers[pruned],
                values[pruned],
                "o",
                markerfacecolor="none",
                markeredgecolor=MUTED,
                markersize=5,
                label="pruned",
            )
        axes.step(numbers[known], best[known], where="post", color=SERIES[1], label="best so far")
        axes.set_xlabel("trial")
        axes.set_ylabel(objective)
        axes.set_title("history")
        axes.legend(loc="best")
        end = f"best {objective} {best[known][-1]:.4g}" if known.any() else "no trial is complete"
        return finish(
            figure, f"search-{name}", f"Search of {title}: {len(numbers)} trials, {int(pruned.sum())} pruned; {end}."
        )


@dataclass(frozen=True)
class Axis:
    """Holds one objective over the complete trials of a search."""

    objective: str
    values: NDArray[np.float64]
    maximise: bool

    @property
    def label(self) -> str:
        """Names the objective, and says whether more or less is better."""
        return f"{self.objective} ({'more' if self.maximise else 'less'} is better)"


def pareto_front(
    name: str, title: str, x: Axis, y: Axis, front: NDArray[np.bool_], taken: int, number: int, only_two: bool
) -> Plot:
    """Draws all complete trials by two objectives, and marks the front and the trial that was chosen from it (`taken`: its row).

    With `only_two` objectives a line along the front separates the trials that it dominates.
    """
    order = np.flatnonzero(front)[np.argsort(x.values[front], kind="stable")]
    with style():
        figure, (axes,) = new_figure(5.3, 3.3)
        axes.plot(
            x.values[~front], y.values[~front], "o", markerfacecolor="none", markeredgecolor=MUTED, markersize=5, label="other trials"
        )  # fmt: skip
        axes.plot(
            x.values[order], y.values[order], "o-" if only_two else "o", color=SERIES[0], markersize=6, linewidth=1.2,
            drawstyle="steps-pre" if x.maximise else "steps-post", label="Pareto front",
        )  # fmt: skip
        axes.plot(
            x.values[taken], y.values[taken], "D", color=SERIES[1], markersize=8, label=f"taken: trial {number}", zorder=3
        )  # fmt: skip
        axes.set_xlabel(x.label)
        axes.set_ylabel(y.label)
        axes.set_title("Pareto front")
        axes.legend(loc="best")
        return finish(
            figure, name,
            f"Search of {title}: {len(front)} complete trials by {x.objective} and {y.objective}, {int(front.sum())} of them on the Pareto "
            f"front; taken is trial {number} with {x.values[taken]:.4g} and {y.values[taken]:.4g}.",
        )  # fmt: skip


def importance(name: str, shares: Mapping[str, float]) -> Plot:
    """Draws the importance of each parameter: its share of the variation of the (first) objective."""
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    rows = np.arange(len(ordered))
    with style():
        figure, (axes,) = new_figure(5.3, 0.9 + 0.3 * len(ordered))
        axes.barh(rows, [share for _, share in ordered], color=SERIES[0], height=0.66)
        for row, (_, share) in enumerate(ordered):
            axes.annotate(
                f"{share:.0%}",
                (share, row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=INK,
            )
        axes.set_yticks(rows, [path.removeprefix("training.") for path, _ in ordered])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(len(ordered) - 0.4, -0.6)
        axes.margins(x=0.15)
        axes.grid(visible=False, axis="y")
        axes.set_title("importance")
        return finish(
            figure,
            f"importance-{name}",
            "Importance: " + ", ".join(f"{path} {share:.0%}" for path, share in ordered) + ".",
        )


def plausibility(
    name: str, values: NDArray[np.float64], bounds: tuple[float, float] | None, accepted: NDArray[np.bool_]
) -> Plot:
    """Draws a histogram of the judges' probability of the wanted label, with the bounds of acceptance."""
    edges = np.linspace(0, 1, 26).tolist()
    with style():
        figure, (axes,) = new_figure(5.3, 2.9)
        axes.hist(
            [values[accepted], values[~accepted]],
            bins=edges,
            stacked=True,
            color=[SERIES[1], LINE],
            label=["accepted", "refused"],
        )
        for bound in bounds or ():
            axes.axvline(bound, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlabel("judges' probability of the wanted label")
        axes.set_ylabel("generated images")
        axes.set_title("plausibility")
        axes.legend(loc="best")
        return finish(
            figure, f"plausibility-{name}",
            f"Plausibility of {len(values)} generated images: median {np.median(values):.2f}; {int(accepted.sum())} are accepted.",
        )  # fmt: skip


def neighbour_ratios(name: str, ratios: Sequence[tuple[str, NDArray[np.float64]]]) -> Plot:
    """Draws how near generated images are to training and test images; far below 1 is a copy."""
    top = max(2.0, float(np.quantile(np.concatenate([values for _, values in ratios]), 0.99)))
    with style():
        figure, (axes,) = new_figure(5.3, 2.9)
        for i, (label, values) in enumerate(ratios):
            axes.hist(
                np.minimum(values, top),
                bins=np.linspace(0, top, 31).tolist(),
                histtype="step",
                linewidth=1.8,
                color=SERIES[i],
                label=label,
            )
        axes.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlabel("neighbour ratio: distance to the nearest real image / that image's own")
        axes.set_ylabel("generated images")
        axes.set_title("nearest neighbours")
        axes.legend(loc="best")
        medians = ", ".join(f"{label} median {np.median(values):.2f}" for label, values in ratios)
        return finish(figure, f"neighbours-{name}", f"Nearest-neighbour ratios: {medians}.")
