"""Renders figures as SVG inside the page, with its colours and fonts, light or dark, and as PNG files beside it.

It uses only Matplotlib's object-oriented interface: no pyplot, no global state, no window system.
"""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.style import context as style_context

# The colours of figures. In the page each becomes the CSS variable of that name (report.css), so that it follows light and dark.
# The series are Okabe and Ito's colours, which colour-blind readers can tell apart, without the yellow, which is too faint on white.
INK, MUTED, LINE = "#1b1f27", "#626b7a", "#d9dde4"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9")
RARE = "#b3004b"
VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", RARE: "--rare"} | {
    colour: f"--series-{i}" for i, colour in enumerate(SERIES)
}
MARKERS = ("o", "D", "s", "^", "v", "P")
"""Lists the markers: each series has its own, for readers who cannot tell colours apart."""
STYLE = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10, "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": LINE, "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.labelsize": 9.5, "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelsize": 9, "ytick.labelsize": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.8,
    "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 9, "lines.linewidth": 1.8, "hatch.linewidth": 0.8,
    "xtick.major.size": 0, "ytick.major.size": 0, "axes.unicode_minus": True,
    "text.parse_math": False,  # a class may be called `$\\frac{$`
}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """Holds a rendered figure, as SVG for the page and as PNG for a file."""

    name: str
    svg: str
    """Holds the figure for use inside HTML: without XML header, with unique ids, and CSS variables for colours."""
    png: bytes
    alt: str
    """Gives the alternative text."""
    width: int
    """Limits the width in CSS pixels."""


def style() -> AbstractContextManager[None]:
    """Returns a context in which figures have the report's style, whatever `matplotlibrc` the user has."""
    context: AbstractContextManager[None] = style_context(STYLE, after_reset=True)
    return context


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Returns a figure of a size in inches (96 CSS pixels each on the page) and its axes side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)
    return figure, list(axes.flat)


def finish(figure: Figure, name: str, alt: str) -> Plot:
    """Renders a figure that was drawn inside `style()`; `name` must be unique on the page."""
    FigureCanvasAgg(figure)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=192, facecolor="white")
    figure.set_layout_engine("none")  # keeps the layout: computing it again takes half the time
    svg = io.StringIO()
    figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Plot(name, _for_page(svg.getvalue(), name, alt), png.getvalue(), alt, round(figure.get_figwidth() * 96))


def _for_page(svg: str, name: str, alt: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for pattern in (r'\bid="', r'href="#', r"url\(#"):
        svg = re.sub(pattern, lambda match: f"{match.group(0)}{name}-", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    # the page's fonts in the figure's sizes
    svg = re.sub(r"font: ([^;\"]*?)px [^;\"]*", r"font: \1px var(--sans)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", svg)
    label = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
