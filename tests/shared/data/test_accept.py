import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared.config.generation import Accept
from shared.data.accept import accept_mask, accepted_images
from shared.data.imageset import ImageSet
from shared.data.schema import LabelGroup, LabelSchema
from shared.errors import DataError


def table(plausibility: object, ratio: object) -> pa.Table:
    return pa.table(
        {"plausibility": np.asarray(plausibility, np.float32), "neighbour_ratio": np.asarray(ratio, np.float32)}
    )


def test_bounds_are_inclusive_in_the_precision_of_the_scores() -> None:
    scores = table([0.2, 0.1999, 0.95, 0.951, 0.5], [1, 1, 1, 1, 1])
    mask = accept_mask(Accept(plausibility=(0.2, 0.95), copies=0.0), scores)
    assert mask.tolist() == [True, False, True, False, True]


def test_the_nearest_share_is_refused_whatever_its_plausibility() -> None:
    scores = table([0.5] * 10, [5, 1, 3, 2, 9, 8, 7, 6, 4, 10])
    mask = accept_mask(Accept(plausibility=(0.0, 1.0), copies=0.2), scores)
    assert np.flatnonzero(~mask).tolist() == [1, 3]


def test_of_equal_ratios_exactly_the_share_is_refused() -> None:
    mask = accept_mask(Accept(plausibility=(0.0, 1.0), copies=0.29), table([0.5] * 100, [1.0] * 100))
    assert (~mask).sum() == 29


def test_no_rows_give_an_empty_mask() -> None:
    assert accept_mask(Accept(), table([], [])).shape == (0,)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="no column 'neighbour_ratio'"):
        accept_mask(Accept(), pa.table({"plausibility": [0.5]}))


def images(**extra: list[int]) -> ImageSet:
    count = len(next(iter(extra.values())))
    schema = LabelSchema(groups=(LabelGroup(name="tone", classes=("dark", "light")),))
    labels = np.tile(np.array([1, 0], np.int8), (count, 1))
    return ImageSet(schema, [b""] * count, [""] * count, np.full(count, "generated"), labels, pa.table(extra))


def test_each_pool_is_filtered_by_itself() -> None:
    ratio = [1, 2, 9, 8, 3, 4, 7, 6, 5, 10]  # the two smallest are of pool 4
    accept = Accept(plausibility=(0.0, 1.0), copies=0.2)
    accepted = accepted_images(accept, images(pool=[4, 4, 7, 7, 4, 4, 7, 7, 4, 7]), table([0.5] * 10, ratio))
    assert np.flatnonzero(~accepted).tolist() == [0, 7]


def test_scores_and_images_must_fit() -> None:
    with pytest.raises(DataError, match=r"has 1 rows for 2 images; run `score` again"):
        accepted_images(Accept(), images(pool=[0, 0]), table([0.5], [1]))
    with pytest.raises(DataError, match=r"have no column 'pool'; run `generate` again"):
        accepted_images(Accept(), images(seed=[0, 0]), table([0.5] * 2, [1] * 2))


@given(
    arrays(np.float32, 40, elements=st.floats(0, 1, width=32)),
    arrays(np.float32, 40, elements=st.floats(0, 10, width=32)),
)
def test_a_stricter_filter_never_lets_in_more(plausibility: np.ndarray, ratio: np.ndarray) -> None:
    scores = table(plausibility, ratio)
    loose = accept_mask(Accept(plausibility=(0.1, 0.95), copies=0.05), scores)
    strict = accept_mask(Accept(plausibility=(0.2, 0.9), copies=0.25), scores)
    assert not (strict & ~loose).any()
