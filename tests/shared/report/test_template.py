from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from shared.report.template import page_template, style_sheet


def test_values_are_escaped_and_a_name_without_a_value_is_an_error() -> None:
    template = page_template("tests.shared.report", "small.html.j2", twice=lambda text: text * 2)
    assert template.render(name="<b>", plot="<svg/>") == "&lt;b&gt;&lt;b&gt; <svg/>"
    with pytest.raises(UndefinedError, match="plot"):
        template.render(name="a")


def test_a_style_sheet_is_put_in_as_it_is() -> None:
    style = style_sheet("shared.report", "report.css")
    assert "body" in style
    assert style.__html__() == style
