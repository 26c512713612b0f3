"""Loads what pages are made from: templates, in which all values are escaped, and style sheets."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup


def page_template(package: str, name: str, **filters: Callable[..., Any]) -> Template:
    """Returns a package's template, with these filters and `svg`, which takes a text as it is; a name that has no value is an error in it."""
    environment = Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(svg=Markup, **filters)
    return environment.get_template(name)


def style_sheet(package: str, name: str) -> Markup:
    """Returns a package's style sheet, to be put into a page."""
    text = resources.files(package).joinpath(name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704 - our own file
