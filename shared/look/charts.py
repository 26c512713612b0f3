"""Draws the figures of the page: images per class, and the sizes of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from shared.report.charts import WIDE
from shared.report.svg import INK, MUTED, RARE, SERIES, Plot, finish, new_figure, style

HEAD, TAIL = 12, 28
"""Limit the classes that are drawn: the largest and the smallest."""
NAME = 36  # characters of a class that are shown
DOTS = 1500


def class_bars(
    group: str, number: int, names: Sequence[str], counts: Mapping[str, NDArray[np.int64]], rare: Sequence[str]
) -> Plot:
    """Draws the images of each class, the largest first, stacked by split; `counts` are `[k]` per split, `rare` names classes."""
    total = np.sum(list(counts.values()), axis=0)
    order = np.argsort(-total, kind="stable")
    left_out = len(order) - HEAD - TAIL
    shown = [*order[:HEAD].tolist(), None, *order[-TAIL:].tolist()] if left_out > 1 else order.tolist()
    rows = np.array([row for row, column in enumerate(shown) if column is not None])
    columns = np.array([column for column in shown if column is not None])
    with style():
        figure, (axes,) = new_figure(WIDE, 1.1 + 0.25 * len(shown))
        start = np.zeros(len(columns))
        for place, (split, values) in enumerate(counts.items()):
            axes.barh(rows, values[columns], left=start, color=SERIES[place], height=0.72, label=split)
            start += values[columns]
        for row, column in zip(rows, columns, strict=True):
            axes.annotate(
                f"{total[column]:,}", (total[column], row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5,
                color=RARE if names[column] in rare else MUTED,
            )  # fmt: skip
        labels = [_short(names[column]) if column is not None else f"{left_out:,} more" for column in shown]
        axes.set_yticks(range(len(shown)), labels)
        for tick, column in zip(axes.get_yticklabels(), shown, strict=True):
            is_rare = column is not None and names[column] in rare
            tick.set_color(RARE if is_rare else INK if column is not None else MUTED)
            tick.set_fontweight("bold" if is_rare else "normal")
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.margins(x=0.1)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("images")
        if len(counts) > 1:
            figure.legend(loc="outside upper left", ncols=3)
        said = ", ".join(f"{names[c]} {total[c]:,}" for c in columns[: HEAD + TAIL])
        return finish(figure, f"classes-{number}", f"Images of each class of {group}: {said}.")


def size_dots(sizes: NDArray[np.int64], odd: NDArray[np.bool_]) -> Plot:
    """Draws width and height of images `[n, 2]` in pixels, a dot per size; `odd` `[n]` marks those that stand out."""
    kinds, first, number = np.unique(sizes, axis=0, return_index=True, return_counts=True)
    chosen = np.argsort(-number, kind="stable")[:DOTS]
    kinds, first, number = kinds[chosen], first[chosen], number[chosen]
    area = 14 + 220 * np.sqrt(number / max(len(sizes), 1))
    marked = odd[first]
    with style():
        figure, (axes,) = new_figure(5.4, 4.2)
        axes.set_xscale("log")
        axes.set_yscale("log")
        for which, colour, label in ((~marked, SERIES[0], "images"), (marked, SERIES[1], "stand out")):
            if which.any():
                axes.scatter(
                    kinds[which, 0], kinds[which, 1], s=area[which], color=colour, alpha=0.55, linewidths=0, label=label
                )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(base=2, numticks=12))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axis.set_minor_locator(NullLocator())
        low, high = sizes.min() / 1.3, sizes.max() * 1.3
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel("width (px)")
        axes.set_ylabel("height (px)")
        if marked.any():
            axes.legend(loc="upper left")
        widths, heights = sizes[:, 0], sizes[:, 1]
        said = f"Sizes of {len(sizes):,} images: {widths.min():,} to {widths.max():,} px wide, {heights.min():,} to {heights.max():,} px high."
        return finish(figure, "sizes", said)


def _short(name: str) -> str:
    text = " ".join(name.split())
    return text if len(text) <= NAME else f"{text[: NAME - 1]}…"
