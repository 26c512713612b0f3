import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.data.imageset import ImageSet
from shared.data.schema import LabelGroup, LabelSchema
from shared.errors import DataError
from shared.score.judges import assign_folds

SCHEMA = LabelSchema(groups=(LabelGroup(name="kind", classes=("rare", "frequent")),))


def training_images(rare: int, n: int, products: list[str | None] | None = None) -> ImageSet:
    labels = np.zeros((n, 2), np.int8)
    labels[:rare, 0] = 1
    labels[rare:, 1] = 1
    paths = [f"{i}.png" for i in range(n)]
    extra = pa.table({"unit": pa.array(products, pa.string())}) if products else None
    return ImageSet(SCHEMA, [b""] * n, paths, np.full(n, "train"), labels, extra)


@given(st.integers(6, 80), st.integers(2, 5), st.integers(0, 9))
def test_folds_are_even_and_every_fold_has_its_part_of_each_rare_class(n: int, folds: int, seed: int) -> None:
    rare = max(n // 5, folds)
    images = training_images(rare, n)
    fold = assign_folds(images, folds, seed)
    assert np.ptp(np.bincount(fold, minlength=folds)) <= 2
    assert np.ptp(np.bincount(fold[:rare], minlength=folds)) <= 1
    assert fold.tolist() == assign_folds(images, folds, seed).tolist()


@given(st.integers(2, 4), st.integers(0, 9))
def test_images_of_one_product_are_in_one_fold(folds: int, seed: int) -> None:
    products = [f"product {i // 3}" if i < 60 else None for i in range(90)]
    fold = assign_folds(training_images(30, 90, products), folds, seed)
    assert all(len(set(fold[i : i + 3])) == 1 for i in range(0, 60, 3))
    assert np.bincount(fold[:30], minlength=folds).min() >= 6
    assert np.bincount(fold, minlength=folds).min() >= 18


def test_fewer_products_than_folds() -> None:
    with pytest.raises(DataError, match=r"score\.folds: must be at most the 2 products"):
        assign_folds(training_images(2, 6, ["a", "a", "a", "b", "b", "b"]), 3, 0)
