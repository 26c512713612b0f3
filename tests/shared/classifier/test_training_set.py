from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shared.classifier.training_set import effective_training_set
from shared.data.imageset import ImageSet
from shared.data.review import image_ids, read_review
from shared.errors import DataError
from tests.support.tiny_arms import make_arm

RARE = np.array([2])
ACCEPT = {"plausibility": [0.2, 0.9], "copies": "refuse"}


def scores(n: int, **columns: list[float]) -> pa.Table:
    values = {name: np.full(n, 0.5, np.float32) for name in ("plausibility", "as_near", "p_colour", "p_shade")}
    values |= {name: np.array(v, np.float32) for name, v in columns.items()}
    return pa.table(values | dict.fromkeys(("copy_of", "leak_of"), pa.nulls(n, pa.string())))


def test_real_is_the_training_split(train: ImageSet, generated: ImageSet) -> None:
    found = effective_training_set(make_arm(), train, generated, scores(20), RARE)
    assert found.images.paths == train.paths
    assert not found.generated.any()
    assert found.loss_mask.all()


def test_synthetic_adds_the_accepted_images(train: ImageSet, generated: ImageSet) -> None:
    plausibility = [0.1 if i == 3 else 0.5 for i in range(20)]
    arm = make_arm(images="real+synthetic", accept=ACCEPT, synthetic={})
    found = effective_training_set(arm, train, generated, scores(20, plausibility=plausibility), RARE)
    assert found.images.paths[60:] == [f"generated/{i}.png" for i in range(20) if i != 3]
    assert found.generated.tolist() == [False] * 60 + [True] * 19
    assert found.loss_mask.shape == (79, 2)


def test_the_placebo_has_the_same_labels_and_masks_with_real_pixels(train: ImageSet, generated: ImageSet) -> None:
    p_shade = [0.1 if i % 4 == 0 else 0.5 for i in range(20)]
    sets = [
        effective_training_set(
            make_arm(images=images, accept=ACCEPT, synthetic={"groups": "checked"}),
            train, generated, scores(20, p_shade=p_shade), RARE,
        )
        for images in ("real+synthetic", "real+copies")
    ]  # fmt: skip
    synthetic, placebo = sets
    assert np.array_equal(synthetic.images.labels, placebo.images.labels)
    assert np.array_equal(synthetic.generated, placebo.generated)
    assert np.array_equal(synthetic.loss_mask, placebo.loss_mask)
    assert not synthetic.loss_mask[60:, 1].all()
    assert synthetic.loss_mask[60:, 0].all()
    assert placebo.images.encoded[62] == train.encoded[4]
    assert synthetic.images.encoded[62] == generated.encoded[2]


def test_manual_images_are_added_as_real_ones(train: ImageSet) -> None:
    rare = int((train.labels[:, 2] == 1).sum())
    found = effective_training_set(make_arm(training={"manual_images": "rare"}), train, None, None, RARE)
    assert len(found) == 60 + rare
    assert not found.generated.any()
    assert (found.images.labels[60:, 2] == 1).all()
    pixels = found.images.take(np.arange(58, 62)).pixels(32)
    assert pixels.shape == (4, 32, 32, 3)
    every = effective_training_set(make_arm(training={"manual_images": "all"}), train, None, None, RARE)
    assert len(every) == 120
    before, after = (images.pixels(32).astype(float) for images in (train, every.images.take(np.arange(60, 120))))
    assert after.std(axis=(1, 2, 3)).mean() > 1.2 * before.std(axis=(1, 2, 3)).mean()


def test_an_arm_that_takes_all_images_needs_no_scores(train: ImageSet, generated: ImageSet) -> None:
    everything = {"plausibility": [0, 1], "copies": "allow"}
    found = effective_training_set(make_arm(images="real+synthetic", accept=everything), train, generated, None, RARE)
    assert list(found.images.encoded[len(train) :]) == list(generated.encoded)
    assert found.loss_mask.all()
    copies = effective_training_set(make_arm(images="real+copies", accept=everything), train, generated, None, RARE)
    assert len(copies) == len(found)
    for accept, synthetic in ((ACCEPT, {}), (everything, {"groups": "checked"})):
        arm = make_arm(images="real+synthetic", accept=accept, synthetic=synthetic)
        with pytest.raises(DataError, match="needs the scores of the generated images; run `score` first"):
            effective_training_set(arm, train, generated, None, RARE)


def test_missing_or_unfitting_scores_are_errors(train: ImageSet, generated: ImageSet) -> None:
    arm = make_arm(images="real+synthetic", accept=ACCEPT, synthetic={"groups": "checked"})
    with pytest.raises(DataError, match="needs generated images"):
        effective_training_set(arm, train, None, None, RARE)
    with pytest.raises(DataError, match="has 7 rows for 20"):
        effective_training_set(arm, train, generated, scores(7), RARE)
    with pytest.raises(DataError, match="no column 'p_colour'"):
        effective_training_set(arm, train, generated, scores(20).drop_columns(["p_colour"]), RARE)


def test_a_review_chooses_images_and_stands_for_the_judges(
    train: ImageSet, generated: ImageSet, tmp_path: Path
) -> None:
    assert generated.extra is not None
    numbers = pa.table({"pool": [0] * 20, "index": list(range(20))})
    columns = {
        **{name: generated.extra[name] for name in generated.extra.column_names},
        **dict(zip(numbers.column_names, numbers.columns, strict=True)),
    }
    made = replace(generated, extra=pa.table(columns))
    ids, path = image_ids(made), tmp_path / "reviewed.csv"
    path.write_text(f"image,decision\n{ids[3]},keep\n{ids[4]},reject\n")
    accept = {**ACCEPT, "reviewed": str(path)}
    arm = make_arm(images="real+synthetic", accept=accept, synthetic={"groups": "checked"})
    low = [0.1 if i in (3, 5) else 0.5 for i in range(20)]
    table = scores(20, plausibility=low, p_shade=low, p_colour=low)
    found = effective_training_set(arm, train, made, table, RARE, read_review(path))
    assert found.images.paths[60:] == [f"generated/{i}.png" for i in range(20) if i not in (4, 5)]
    assert found.loss_mask.all(), "a kept image counts in the groups that the judges doubt"
    with pytest.raises(DataError, match="was not read"):
        effective_training_set(arm, train, made, table, RARE)


def soft(generated: ImageSet, train: ImageSet) -> tuple[ImageSet, int]:
    """Returns the images with a start of another class for the third, whose row it also returns, and the others from noise."""
    assert generated.extra is not None
    own = generated.labels[2, :3]
    start = int(np.flatnonzero((train.labels[:, 0] >= 0) & (train.labels[:, :3] != own).any(axis=1))[0])
    nothing: list[float | None] = [None] * 20
    extra = generated.extra.append_column("start", pa.array([*nothing[:2], start, *nothing[3:]], pa.int64()))
    extra = extra.append_column("noise_share", pa.array([*nothing[:2], 0.64, *nothing[3:]], pa.float64()))
    return replace(generated, extra=extra), start


def test_an_image_that_starts_from_another_class_has_a_soft_label(train: ImageSet, generated: ImageSet) -> None:
    made, start = soft(generated, train)
    plausibility = [0.1 if i == 0 else 0.5 for i in range(20)]  # the first is refused, so that rows move
    arm = make_arm(images="real+synthetic", accept=ACCEPT, synthetic={}, training={"manual_images": "rare"})
    found = effective_training_set(arm, train, made, scores(20, plausibility=plausibility), RARE)
    row = found.images.paths.index("generated/2.png")
    assert row == len(found) - 18
    assert found.soft is not None
    assert found.soft.own_share(0.5)[row] == pytest.approx(0.8)
    assert found.soft.own_share(1.0)[row] == pytest.approx(0.64)
    assert found.images.labels[row].tolist() == generated.labels[2].tolist()
    assert found.soft.labels[row].tolist() == train.labels[start].tolist()
    others = np.arange(len(found)) != row
    assert (found.soft.own_share(0.5)[others] == 1).all()
    assert np.array_equal(found.soft.labels[others], found.images.labels[others])


def test_copies_and_images_that_start_from_their_own_class_have_hard_labels(
    train: ImageSet, generated: ImageSet
) -> None:
    made, _ = soft(generated, train)
    placebo = make_arm(images="real+copies", accept=ACCEPT, synthetic={})
    assert effective_training_set(placebo, train, made, scores(20), RARE).soft is None
    assert made.extra is not None
    own = replace(made, extra=made.extra.drop_columns(["noise_share"]))
    arm = make_arm(images="real+synthetic", accept=ACCEPT, synthetic={})
    assert effective_training_set(arm, train, own, scores(20), RARE).soft is None
    assert effective_training_set(make_arm(), train, None, None, RARE).soft is None
