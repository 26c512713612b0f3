from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared.config.generation import Accept
from shared.data.accept import (
    IMPLAUSIBLE,
    LEAK,
    NEAR_COPY,
    TOO_PLAUSIBLE,
    accept_mask,
    accepted_images,
    refusals,
)
from shared.data.imageset import ImageSet
from shared.data.review import Review, image_ids, read_review
from shared.data.schema import LabelGroup, LabelSchema
from shared.errors import DataError
from tests.support.generated_study import SCORES, generated


def table(plausibility: object, as_near: object, copy_of: object = None, leak_of: object = None) -> pa.Table:
    count = len(np.asarray(plausibility))
    return pa.table(
        {
            "plausibility": np.asarray(plausibility, np.float32),
            "as_near": np.asarray(as_near, np.float32),
            "copy_of": pa.array(copy_of or [None] * count, pa.string()),
            "leak_of": pa.array(leak_of or [None] * count, pa.string()),
        }
    )


def test_bounds_are_inclusive_in_the_precision_of_the_scores() -> None:
    scores = table([0.2, 0.1999, 0.95, 0.951, 0.5], [1, 1, 1, 1, 1])
    assert accept_mask(Accept(plausibility=(0.2, 0.95)), scores).tolist() == [True, False, True, False, True]


def test_copies_are_refused_whatever_their_plausibility() -> None:
    scores = table([0.5] * 4, [0.0, 0.5, 0.01, 0.0099], copy_of=[None, "a.png", None, None])
    any_image = Accept(plausibility=(0.0, 1.0))
    assert accept_mask(any_image, scores).tolist() == [False, False, True, False]
    assert accept_mask(any_image.model_copy(update={"copies": "allow"}), scores).all()


def test_without_copies_nothing_is_refused() -> None:
    assert accept_mask(Accept(plausibility=(0.0, 1.0)), table([0.5] * 100, [0.4] * 100)).all()


def test_leaks_are_refused_always() -> None:
    scores = table([0.5] * 2, [1.0] * 2, leak_of=[None, "test/a.png"])
    for copies in ("refuse", "allow"):
        accept = Accept(plausibility=(0.0, 1.0), copies=copies, copy_quantile=0.0)
        assert accept_mask(accept, scores).tolist() == [True, False]


def test_no_rows_give_an_empty_mask() -> None:
    assert accept_mask(Accept(), table([], [])).shape == (0,)


@pytest.mark.parametrize("name", ["plausibility", "as_near", "copy_of", "leak_of"])
def test_a_missing_column_is_named(name: str) -> None:
    with pytest.raises(DataError, match=f"no column '{name}'; .* run `score` again"):
        accept_mask(Accept(), table([0.5], [1]).drop_columns([name]))


def images(count: int) -> ImageSet:
    schema = LabelSchema(groups=(LabelGroup(name="tone", classes=("dark", "light")),))
    labels = np.tile(np.array([1, 0], np.int8), (count, 1))
    return ImageSet(schema, [b""] * count, [""] * count, np.full(count, "generated"), labels)


def test_scores_and_images_must_fit() -> None:
    with pytest.raises(DataError, match=r"has 1 rows for 2 images; run `score` again"):
        accepted_images(Accept(), images(2), table([0.5], [1]))
    assert accepted_images(Accept(), images(2), table([0.5, 1.0], [1, 1])).tolist() == [True, False]


@given(
    arrays(np.float32, 40, elements=st.floats(0, 1, width=32)),
    arrays(np.float32, 40, elements=st.floats(0, 1, width=32)),
)
def test_a_stricter_filter_never_lets_in_more(plausibility: np.ndarray, as_near: np.ndarray) -> None:
    scores = table(plausibility, as_near)
    loose = accept_mask(Accept(plausibility=(0.1, 0.95), copy_quantile=0.05), scores)
    strict = accept_mask(Accept(plausibility=(0.2, 0.9), copy_quantile=0.25), scores)
    assert not (strict & ~loose).any()


@pytest.fixture
def reviewed(tmp_path: Path) -> tuple[Accept, Review, list[str]]:
    """Returns what a person decided about five generated images, of which the scores accept the second."""
    ids = image_ids(generated())
    path = tmp_path / "reviewed.csv"
    path.write_text(f"image,decision\n{ids[0]},keep\n{ids[1]},reject\n{ids[2]},keep\n{ids[3]},keep\n")
    return Accept(reviewed=str(path)), read_review(path), ids


def scored() -> pa.Table:
    return pa.table({name: pa.array(values) for name, values in SCORES.items()})


def test_a_person_s_decision_comes_before_the_scores_but_for_a_leak(
    reviewed: tuple[Accept, Review, list[str]],
) -> None:
    accept, review, _ = reviewed
    assert refusals(accept, scored()).tolist() == [IMPLAUSIBLE, "", NEAR_COPY, LEAK, TOO_PLAUSIBLE]
    assert accept_mask(accept, scored()).tolist() == [False, True, False, False, False]
    assert accepted_images(accept, generated(), scored(), review).tolist() == [True, False, True, False, False]


def test_a_review_that_was_not_read_is_an_error(reviewed: tuple[Accept, Review, list[str]]) -> None:
    with pytest.raises(DataError, match=r"accept\.reviewed: .* was not read"):
        accepted_images(reviewed[0], generated(), scored())


def test_an_arm_with_a_review_never_takes_all(reviewed: tuple[Accept, Review, list[str]]) -> None:
    everything = Accept(plausibility=(0.0, 1.0), copies="allow")
    assert everything.takes_all
    with_review = everything.model_copy(update={"reviewed": "reviewed.csv"})
    assert not with_review.takes_all
    accepted = accepted_images(with_review, generated(), scored(), reviewed[1])
    assert accepted.tolist() == [True, False, True, False, True]
