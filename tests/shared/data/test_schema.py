from __future__ import annotations

import numpy as np
import pytest

from shared.data.schema import LabelGroup, LabelSchema, class_counts, class_weights

SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="sleeve", classes=("long", "short")),
        LabelGroup(name="tags", kind="any", classes=("new", "sale", "short")),
    )
)


def test_columns_and_names() -> None:
    assert SCHEMA.width == 5
    assert SCHEMA.class_names == ("sleeve/long", "sleeve/short", "tags/new", "tags/sale", "tags/short")
    assert SCHEMA.slices() == {"sleeve": slice(0, 2), "tags": slice(2, 5)}
    for column, name in enumerate(SCHEMA.class_names):
        assert SCHEMA.column(name) == column
        assert SCHEMA.group_of(column).name == name.split("/")[0]
    assert SCHEMA.group("tags").kind == "any"


def test_what_is_not_there() -> None:
    with pytest.raises(KeyError):
        SCHEMA.group("fabric")
    with pytest.raises(ValueError, match="not in tuple"):
        SCHEMA.column("sleeve/none")
    for column in (5, -1):
        with pytest.raises(IndexError):
            SCHEMA.group_of(column)


def test_counts_leave_unknown_out() -> None:
    labels = np.array([[1, 0, 1, 1, 0], [0, 1, -1, 0, 0], [-1, -1, 0, 1, 0]], np.int8)
    assert class_counts(labels).tolist() == [1, 1, 1, 2, 0]


def test_weights_are_the_papers() -> None:
    assert class_weights(np.array([250, 11, 0])).tolist() == pytest.approx([1 / 11, 250 / 121, 0])
