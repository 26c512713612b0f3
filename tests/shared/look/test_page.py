"""Looks at the page of a set that has everything wrong, in the system's Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.cli.look import look
from tests.support.browser import check_page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a page with pairs, suspects, several groups, long names, and odd and unreadable images."""
    folder = tmp_path_factory.mktemp("look")
    data, rows = folder / "data", ["path,kind,tags,part"]
    data.mkdir()
    for number in range(80):
        level = 60 * (number % 2)
        pixels = np.random.default_rng(number).integers(level, level + 60, (40 + number % 7, 48, 3), np.uint8)
        Image.fromarray(pixels).save(data / f"{number}.png")
        kind = "a-class-with-a-very-long-name-" * 3 if number % 2 else "<b>short</b>"
        tags = "|".join(name for place, name in enumerate(("big", "bright", "rare")) if number % (place + 2) == 0)
        rows.append(f"{number}.png,{kind},{tags},{('train', 'val', 'test')[number % 3]}")
    (data / "2.png").write_bytes((data / "1.png").read_bytes())
    (data / "4.png").write_text("no image")
    Image.new("RGB", (400, 20), "red").save(data / "6.png")
    (data / "labels.csv").write_text("\n".join(rows))
    look(str(data), folder / "out", 1000)
    return folder / "out" / "index.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(browser: Any, page: Path, width: int, scheme: str) -> None:
    text = page.read_text()
    assert "two splits</span>" in text
    assert "<b>short</b>" not in text
    assert 'id="together"' in text
    check_page(browser, page, width, scheme)
