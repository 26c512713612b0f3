import numpy as np
import pytest

from shared.config.dataset import GarmentsSource
from shared.data.garments.labels import COUNTS, draw_labels, garment_schema, proportional
from shared.data.schema import class_counts

SOURCE = GarmentsSource(source="garments", resolution=48)


def test_the_schema_is_the_papers() -> None:
    schema = garment_schema()
    assert [len(group.classes) for group in schema.groups] == [7, 3, 3, 4, 6, 3]
    assert all(sum(classes.values()) == 5000 for classes in COUNTS.values())


@pytest.mark.parametrize("size", [150, 2400, 5000])
def test_training_images_have_deepfashions_proportions(size: int) -> None:
    labels = draw_labels(SOURCE.model_copy(update={"train": size}), "train", seed=5)
    assert len(labels) == size
    expected = np.concatenate([np.array(list(classes.values())) for classes in COUNTS.values()]) / 5000 * size
    # a class that would have none has one, at the expense of the largest
    assert (np.abs(class_counts(labels) - np.maximum(expected, 1)) <= 2).all()
    assert (class_counts(labels) >= 1).all()


def test_every_image_has_one_class_a_group() -> None:
    labels = draw_labels(SOURCE, "val", seed=1)
    for columns in garment_schema().slices().values():
        assert (labels[:, columns].sum(axis=1) == 1).all()


@pytest.mark.parametrize("split", ["val", "test"])
def test_rare_classes_have_as_many_images_as_asked(split: str) -> None:
    labels = draw_labels(SOURCE.model_copy(update={"rare_eval": 40}), split, seed=2)
    assert class_counts(labels).min() >= 40
    plain = draw_labels(SOURCE.model_copy(update={"rare_eval": 0}), split, seed=2)
    assert len(plain) == {"val": SOURCE.val, "test": SOURCE.test}[split]


def test_groups_hang_together_as_clothes_do() -> None:
    labels = draw_labels(SOURCE.model_copy(update={"train": 5000}), "train", seed=0)
    column = garment_schema().column
    knit, chiffon = labels[:, column("fabric/knit")] == 1, labels[:, column("fabric/chiffon")] == 1
    sleeves = labels[:, column("sleeve/long_sleeve")] == 1
    assert sleeves[knit].mean() > 1.5 * sleeves[chiffon].mean()


def test_labels_follow_from_seed_and_split() -> None:
    assert (draw_labels(SOURCE, "train", 3) == draw_labels(SOURCE, "train", 3)).all()
    assert (draw_labels(SOURCE, "train", 3) != draw_labels(SOURCE, "train", 4)).any()


def test_shares_are_whole_and_complete() -> None:
    shares = proportional(np.array([2408, 109, 1], np.int64), 101)
    assert shares.sum() == 101
    assert shares.tolist() == [96, 4, 1]
