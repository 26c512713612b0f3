"""Draws contact sheets: many images at a glance, each with a caption."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

MARGIN = 4  # pixels between cells and around captions


def contact_sheet(
    images: Sequence[NDArray[np.uint8]],
    captions: Sequence[str],
    columns: int,
    side: int = 96,
    lines: int | None = None,
) -> Image.Image:
    """Arranges images `[h, w, 3]` (RGB 0 to 255) in rows of `columns`, each with its caption (`\\n` starts a new line) below.

    Every image is resized to `side` x `side` pixels: enlarged by whole pixels if it is small, area-averaged if it is large.
    `lines` is the height of the captions, by default that of the longest one. Raises ValueError if the counts differ or there is no image.
    """
    if not images or len(images) != len(captions) or columns < 1:
        raise ValueError(f"a contact sheet needs as many captions as images, got {len(images)} and {len(captions)}")
    font = ImageFont.load_default(size=10)
    height = lines if lines is not None else max(caption.count("\n") + 1 if caption else 0 for caption in captions)
    line_height = 12
    cell = (side + MARGIN, side + MARGIN + height * line_height)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * cell[0] + MARGIN, rows * cell[1] + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for position, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
        left = MARGIN + position % columns * cell[0]
        top = MARGIN + position // columns * cell[1]
        sheet.paste(_cell_image(pixels, side), (left, top))
        for number, line in enumerate(caption.split("\n")[:height]):
            draw.text((left, top + side + number * line_height), _shorten(line, font, side), fill="black", font=font)
    return sheet


def _cell_image(pixels: NDArray[np.uint8], side: int) -> Image.Image:
    image = Image.fromarray(pixels)
    smaller = max(image.size) < side
    return image.resize((side, side), Image.Resampling.NEAREST if smaller else Image.Resampling.BOX)


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Returns the text, cut off with an ellipsis if it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
