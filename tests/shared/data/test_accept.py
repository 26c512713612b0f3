import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared.config.generation import Accept
from shared.data.accept import accept_mask
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


@given(
    arrays(np.float32, 40, elements=st.floats(0, 1, width=32)),
    arrays(np.float32, 40, elements=st.floats(0, 10, width=32)),
)
def test_a_stricter_filter_never_lets_in_more(plausibility: np.ndarray, ratio: np.ndarray) -> None:
    scores = table(plausibility, ratio)
    loose = accept_mask(Accept(plausibility=(0.1, 0.95), copies=0.05), scores)
    strict = accept_mask(Accept(plausibility=(0.2, 0.9), copies=0.25), scores)
    assert not (strict & ~loose).any()
