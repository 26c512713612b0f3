"""Tests the figures as the page embeds them."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import matplotlib
from PIL import Image

from shared.report.svg import SERIES, VARIABLES, finish, new_figure, style


def draw(name: str) -> tuple[str, bytes]:
    with style():
        figure, (axes,) = new_figure(3, 2)
        axes.plot([0, 1], [0, 1], color=SERIES[0], marker="o", label="a & b")
        axes.legend()
        plot = finish(figure, name, 'Two "points" & <a line>')
    return plot.svg, plot.png


def test_the_svg_takes_its_colours_and_fonts_from_the_page() -> None:
    svg, png = draw("first")
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == 'Two "points" & <a line>'
    assert not any(colour in svg for colour in VARIABLES)
    assert "var(--series-0)" in svg
    assert "DejaVu" not in svg
    assert "a &amp; b" in svg
    assert Image.open(io.BytesIO(png)).size == (576, 384)


def test_two_figures_share_no_id_and_refer_to_their_own() -> None:
    (first, _), (second, _) = draw("first"), draw("second")
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]
    assert not ids[0] & ids[1]
    for svg, own in zip((first, second), ids, strict=True):
        assert set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg)) <= own


def test_drawing_leaves_the_global_style_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    draw("first")
    assert dict(matplotlib.rcParams) == before


def test_a_person_s_matplotlibrc_changes_nothing() -> None:
    _, expected = draw("first")
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "savefig.bbox": "tight"}):
        assert draw("first")[1] == expected
