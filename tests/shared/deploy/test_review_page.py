from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shared.data.imageset import ImageSet
from shared.data.review import read_review
from shared.data.schema import LabelGroup, LabelSchema
from shared.deploy.generated import WrittenImage
from shared.deploy.image_folder import new_folder
from shared.deploy.review_page import write_review_page

SCHEMA = LabelSchema(groups=(LabelGroup(name="a", classes=("x", "<img src=x onerror=alert(1)>")),))
HOSTILE = SCHEMA.class_names[1]


def png(colour: tuple[int, int, int], side: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


def image_id(i: int) -> str:
    return f"p0-{i:06d}-{i:012x}"


def write_page(out: Path, count: int = 12, unscored: tuple[int, ...] = ()) -> Path:
    """Writes a page of images whose plausibility falls with their index, every third of which is of the second class; `unscored` ones have none."""
    labels = np.array([[1, 0]] * 4, np.int8)
    train = ImageSet(
        SCHEMA, [png((9, 99, i)) for i in range(4)], [f"{i}.jpg" for i in range(4)], np.full(4, "train"), labels
    )
    written = []
    with new_folder(out) as folder:
        for i in range(count):
            folder.write(f"pool-0/{i:06d}.png", png((i % 256, 40, 200 - i % 200)))
            facts = {
                "id": image_id(i), "source_image": "0.jpg", "neighbour": f"{i % 4}.jpg", "plausibility": 1 - i / count, "as_near": i / count,
                "refused": "less plausible than accepted" if i > count // 2 else None,
            }  # fmt: skip
            if i in unscored:
                facts |= {"plausibility": None, "as_near": None, "refused": None}
            written.append(WrittenImage(f"pool-0/{i:06d}.png", SCHEMA.class_names[int(i % 3 == 0)], ["a/x"], facts))
        write_review_page("study </script><b>", "synthetic", written, train, folder)
    return out / "review.html"


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Yields the open page of twelve images; fails if it says anything on the console or asks for anything but its folder's images."""
    file = write_page(tmp_path / "out")
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(file.as_uri())
    yield opened
    assert said == []
    own = file.parent.as_uri()
    assert [url for url in asked if not url.startswith((own, "blob:"))] == []
    context.close()


def downloaded(page: Any, to: Path) -> dict[str, str]:
    """Returns the decisions in the CSV that the page downloads, as a study reads them."""
    with page.expect_download() as waiting:
        page.click("#download")
    assert waiting.value.suggested_filename == "reviewed.csv"
    waiting.value.save_as(to / "reviewed.csv")
    words = {1: "keep", -1: "reject"}
    return {name: words[decision] for name, decision in read_review(to / "reviewed.csv").decisions.items()}


def current(page: Any) -> str:
    return str(page.inner_text("#id"))


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_keys_decide_and_the_csv_says_so(page: Any, tmp_path: Path) -> None:
    assert current(page) == image_id(11), "the least plausible image is first"
    assert page.inner_text("#progress") == "1 of 12 looked at, 0 kept, 0 rejected"
    assert page.is_disabled("#download")
    press(page, "x")  # 11, and goes on
    press(page, "Space")  # 10
    press(page, "j", "ArrowRight", "k", "x")  # 9, 8, 7, back to 8
    press(page, "ArrowLeft", "ArrowLeft", "u")  # 8, 9: clears nothing
    press(page, "Home", "u", "x", "Home", "x")  # 11 again
    assert downloaded(page, tmp_path) == {image_id(11): "reject", image_id(10): "keep", image_id(8): "reject"}
    assert page.inner_text("#progress") == "5 of 12 looked at, 1 kept, 2 rejected"


def test_a_range_is_decided_at_once(page: Any, tmp_path: Path) -> None:
    page.click(".cell >> nth=2")
    page.click(".cell >> nth=5", modifiers=["Shift"])
    assert page.locator(".cell.range").count() == 4
    press(page, "x")
    press(page, "Shift+ArrowRight", "Space")
    page.click(".cell >> nth=9")
    page.click(".cell >> nth=11", modifiers=["Shift"])
    press(page, "Escape", "x")  # the last alone
    assert downloaded(page, tmp_path) == {
        **{image_id(11 - i): "reject" for i in (2, 3, 4, 5, 11)}, image_id(5): "keep", image_id(4): "keep",
    }  # fmt: skip


def test_buttons_and_filters(page: Any, tmp_path: Path) -> None:
    page.select_option("#class", HOSTILE)
    assert page.locator(".cell").count() == 4
    page.click("#reject")
    page.click("#keep")
    press(page, "Space")  # the click has left the button
    page.select_option("#show", "undecided")
    assert page.locator(".cell").count() == 1
    page.click("#keep")
    page.select_option("#show", "unseen")
    assert page.inner_text("#empty").startswith("No image is left here")
    press(page, "x", "ArrowRight", "Space", "u")  # decides about nothing
    page.select_option("#class", "")
    page.select_option("#show", "refused")
    assert page.locator(".cell").count() == 5
    assert "refused: less plausible than accepted" in page.inner_text("#refused")
    page.select_option("#order", "index")
    page.select_option("#show", "")
    assert page.locator(".cell img").first.get_attribute("src") == "pool-0/000000.png"
    decided = {image_id(9): "reject", image_id(6): "keep", image_id(3): "keep", image_id(0): "keep"}
    assert downloaded(page, tmp_path) == decided


def test_images_without_scores_are_neither_accepted_nor_refused_by_them(browser: Any, tmp_path: Path) -> None:
    file = write_page(tmp_path / "out", unscored=(2, 11))
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(file.as_uri())
    counts = {}
    for show in ("", "accepted", "refused"):
        page.select_option("#show", show)
        counts[show] = page.locator(".cell").count()
    assert counts == {"": 12, "accepted": 6, "refused": 4}
    page.close()


def test_a_button_that_is_reached_by_the_keyboard_works(page: Any, tmp_path: Path) -> None:
    page.focus("#reject")
    press(page, "Space")
    assert downloaded(page, tmp_path) == {image_id(11): "reject"}


def test_the_browser_keeps_what_was_decided(page: Any, tmp_path: Path) -> None:
    press(page, "x", "Space")
    page.reload()
    assert page.inner_text("#progress") == "3 of 12 looked at, 1 kept, 1 rejected"
    assert downloaded(page, tmp_path) == {image_id(11): "reject", image_id(10): "keep"}


def test_names_are_shown_and_never_run(page: Any) -> None:
    press(page, "End")
    assert page.inner_text("#filled") == HOSTILE
    assert "study </script><b>" in page.inner_text("#title")
    assert page.get_attribute("#real", "src") == "__review__/000000.png"
    assert page.evaluate("document.querySelectorAll('dd img, h1 b, option img').length") == 0


def key_milliseconds(page: Any, keys: int) -> float:
    """Returns the time that the page computes per key, in milliseconds of its thread: a busy machine adds nothing to it."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> float:
        return float({m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}["TaskDuration"])

    before = spent()
    page.evaluate(
        """keys => {
          for (let i = 0; i < keys; i++) dispatchEvent(new KeyboardEvent("keydown", {key: "x"}));
          document.body.offsetHeight;
        }""",
        keys,
    )
    return 1000 * (spent() - before) / keys


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_thousands_of_images_stay_quick(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    file = write_page(tmp_path / "out", 3000)
    assert file.stat().st_size < 1_000_000, "images are not within the page"
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_function("document.getElementById('made').naturalWidth > 0")
    assert len(asked) < 1500, "images far below are fetched when they are scrolled to"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
    took = key_milliseconds(page, 50)
    assert took < 100, f"a key takes {took:.0f} ms"
    heights = page.evaluate(
        "[...document.querySelectorAll('.cell')].slice(0, 9).map(c => c.getBoundingClientRect().height)"
    )
    assert min(heights) > 60, f"images cover each other: {heights}"
    visible = page.evaluate("document.getElementById('reject').getBoundingClientRect().bottom <= innerHeight")
    assert visible, "the buttons are out of sight"
    page.close()
