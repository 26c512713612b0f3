"""Tests that classes, titles and files whose names are code are text in the report: on its page, in its figures and in its tables."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jobs import report as job
from shared.csv_cells import safe_cells
from shared.data.schema import LabelGroup, LabelSchema
from tests.support.report_study import StudyMaker, report_config

CODE = "<script>alert(1)</script>"
RARE = (
    f'{CODE}"><img src=x onerror=alert(2)>',
    "=HYPERLINK(1)",
    r"$\frac{$ {{ 7*7 }} {% raw",
    "\x1b[31mred\x00\n]]>&lt;",
    "\u202eedis",
)
SLEEVES = ("common", "']", 'a" onload="alert(3)')
HOSTILE = LabelSchema(
    groups=(LabelGroup(name="sleeve", classes=SLEEVES), LabelGroup(name="fabric", classes=("b", *RARE)))
)
WEIGHTS = (500, 20, 20, 20, 20, 20)
pytestmark = pytest.mark.filterwarnings("ignore:Glyph")  # no font has control characters


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns the report of a study whose classes and titles are hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    names = tuple(f"fabric/{name}" for name in RARE)
    maker = StudyMaker(folder / "in", schema=HOSTILE, weights={"sleeve": (9, 9, 9), "fabric": WEIGHTS})
    config = report_config([("real", "real"), ("synthetic", "real+synthetic")])
    titled = tuple(e.model_copy(update={"title": f"=1+{CODE}"}) for e in config.experiments)
    maker.generate("synthetic", names)
    for name, images in (("real", "real"), ("synthetic", "real+synthetic")):
        maker.tune(name)
        for repeat in range(6):
            maker.final(name, images, repeat, 3.0, 2.4, names)
    return job.report(config.model_copy(update={"experiments": titled}), maker.results, folder)


class Elements(HTMLParser):
    """Collects the elements of a page, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names, self.attributes, self.text = set[str](), set[str](), ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_are_text_on_the_page(report: dict[str, Path]) -> None:
    page = report["index.html"].read_text(encoding="utf-8")
    found = Elements(page)
    assert not found.names & {"script", "iframe", "object", "base", "form"}
    assert not {name for name in found.attributes if name.startswith("on")}
    assert found.text.count(CODE) > 3
    assert "<svg" in page
    assert "{{ 7*7 }}" in found.text
    assert "default-src 'none'" in page


def test_names_are_no_formulas_in_the_table(report: dict[str, Path]) -> None:
    rows = list(csv.reader(report["results.csv"].read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 13
    for row in rows:
        assert not [
            cell for cell in row if cell.startswith(("=", "@", "+")) or (cell.startswith("-") and not _number(cell))
        ]


def test_names_stay_as_they_are_for_programs(report: dict[str, Path]) -> None:
    rare = json.loads(report["results.json"].read_text())["rare"]
    assert rare == [f"fabric/{name}" for name in RARE]


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "cell", ["=1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1", "=cmd|' /C calc'!A0"]
)
def test_a_formula_is_text(cell: str) -> None:
    assert safe_cells([cell]) == [f"'{cell}"]


def test_all_else_is_written_as_it_is() -> None:
    cells = ["a=1", "1-2", "", " a", -1, -0.5, None, "images/-1.png"]
    assert safe_cells(cells) == cells
