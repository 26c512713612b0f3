import numpy as np

from shared.data.schema import LabelGroup, LabelSchema
from shared.score.plausibility import group_accuracy, out_of_fold_mean, target_probabilities

SCHEMA = LabelSchema(
    groups=(LabelGroup(name="one", classes=("a", "b")), LabelGroup(name="any", kind="any", classes=("x", "y", "z")))
)
PROBABILITIES = np.array([[0.7, 0.3, 0.9, 0.2, 0.5], [0.4, 0.6, 0.1, 0.8, 0.5]], np.float32)


def test_wanted_probabilities() -> None:
    labels = np.array([[1, 0, 1, 0, -1], [-1, -1, -1, -1, -1]], np.int8)
    found = target_probabilities(SCHEMA, PROBABILITIES, labels)
    np.testing.assert_allclose(found[0], [0.7, (0.9 + 0.8) / 2], rtol=1e-6)
    assert np.isnan(found[1]).all()


def test_accuracy_masks_unknown_labels() -> None:
    labels = np.array([[0, 1, 1, 1, -1], [-1, -1, 0, -1, -1]], np.int8)
    assert group_accuracy(SCHEMA, PROBABILITIES, labels) == {"one": 0.0, "any": 2 / 3}
    unknown = np.full((2, 5), -1, np.int8)
    assert group_accuracy(SCHEMA, PROBABILITIES, unknown) == {"one": None, "any": None}


def test_an_image_made_from_a_real_one_is_judged_by_who_did_not_see_it() -> None:
    judges = [np.full((3, 5), value, np.float32) for value in (0.1, 0.5)]
    fold = np.array([0, 1])
    found = out_of_fold_mean(judges, fold, np.array([-1, 0, 1]))
    np.testing.assert_allclose(found[:, 0], [0.3, 0.1, 0.5], rtol=1e-6)
