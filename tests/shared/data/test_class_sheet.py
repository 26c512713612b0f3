from __future__ import annotations

import numpy as np

from shared.data.class_sheet import COLUMNS, SIDE, class_sheet
from shared.data.schema import LabelGroup, LabelSchema


def test_a_row_a_class_the_rarest_first_and_unusable_images_left_out() -> None:
    schema = LabelSchema(groups=(LabelGroup(name="colour", classes=("red", "blue")),))
    labels = np.array([[1, 0]] * 12 + [[0, 1]] * 3, np.int8)
    colours = {True: (255, 0, 0), False: (0, 0, 255)}

    def thumbnail(image: int) -> np.ndarray | None:  # type: ignore[type-arg]
        return None if image == 12 else np.full((SIDE, SIDE, 3), colours[image < 12], np.uint8)

    pixels = np.asarray(class_sheet(schema, labels, thumbnail)).reshape(-1, 3)
    assert (pixels == (0, 0, 255)).all(axis=1).sum() == 2 * SIDE * SIDE
    assert (pixels == (255, 0, 0)).all(axis=1).sum() == COLUMNS * SIDE * SIDE
    assert (pixels == (0, 0, 255)).all(axis=1).argmax() < (pixels == (255, 0, 0)).all(axis=1).argmax()
