"""Looks at a page of ours in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def check_page(browser: Any, path: Path, width: int, scheme: str) -> None:
    """Asserts that a page asks for nothing else, says no error, does not scroll sideways, and shows all images and texts in its colours."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert said == []
    assert page.locator("h1").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
        "the page itself scrolls sideways"
    )
    broken = "[...document.images].filter(i => !i.complete || i.naturalWidth === 0).length"
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate(broken) == 0
    undefined = (
        """[...document.querySelectorAll('svg text')].filter(t => getComputedStyle(t).fill === 'rgb(0, 0, 0)').length"""
    )
    assert page.evaluate(undefined) == 0, "a figure's text does not follow the page's colours"
    page.close()
