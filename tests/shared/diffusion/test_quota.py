from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.config.generation import Generate, ImageToImage
from shared.data.schema import LabelGroup, Labels, LabelSchema, class_counts
from shared.diffusion.quota import (
    PlannedImage,
    StartingPoints,
    image_seed,
    plan_images,
    starting_points,
    wanted_images,
)
from shared.errors import ConfigError

SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="fabric", classes=("cotton", "leather", "faux")),
        LabelGroup(name="neck", classes=("crew", "square")),
    )
)
LEATHER, FAUX, SQUARE = "fabric/leather", "fabric/faux", "neck/square"


def labels_of(*combinations: tuple[int, int, int]) -> Labels:
    """Returns the labels of combinations (fabric, neck, number of images)."""
    rows = [(fabric, neck) for fabric, neck, count in combinations for _ in range(count)]
    labels = np.zeros((len(rows), SCHEMA.width), np.int8)
    for row, (fabric, neck) in enumerate(rows):
        labels[row, [fabric, 3 + neck]] = 1
    return labels


LABELS = labels_of((0, 0, 100), (1, 0, 18), (1, 1, 2), (2, 0, 5), (0, 1, 8))
RARE = np.array([1, 2, 4])  # leather 20, faux 5, square 10


def plan(generate: Generate, seed: int = 0, labels: Labels = LABELS, pool: int = 0) -> list[PlannedImage]:
    return plan_images(generate, SCHEMA, labels, RARE, seed, pool)


def carried(images: list[PlannedImage], labels: Labels = LABELS) -> dict[str, int]:
    counts = class_counts(labels[[image.source for image in images]])
    return {name: int(counts[SCHEMA.column(name)]) for name in (LEATHER, FAUX, SQUARE)}


def test_fill_to_counts_every_rare_class_that_an_image_carries_and_the_cap_holds() -> None:
    assert carried(plan(Generate(fill_to=50, cap=5))) == {LEATHER: 30, FAUX: 25, SQUARE: 40}


def test_total_is_exact_and_in_proportion_to_what_each_class_lacks() -> None:
    images = plan(Generate(fill_to=50, cap=5, total=50))  # they lack 30, 25 and 40
    assert Counter(image.filled for image in images) == {LEATHER: 16, FAUX: 13, SQUARE: 21}


def test_quota_is_exact_by_class_and_by_crossing_and_the_rest_is_filled() -> None:
    crossing = f"{LEATHER} & {SQUARE}"
    images = plan(Generate(fill_to=50, quota={FAUX: 7, crossing: 11}))
    made = Counter(image.filled for image in images)
    assert (made[FAUX], made[crossing]) == (7, 11)
    assert carried(images) == {FAUX: 7, LEATHER: 30, SQUARE: 40}
    assert all(LABELS[i.source, [1, 4]].tolist() == [1, 1] for i in images if i.filled == crossing)


def test_quota_is_part_of_total() -> None:
    images = plan(Generate(fill_to=50, total=50, quota={FAUX: 7}))
    assert (len(images), sum(image.filled == FAUX for image in images)) == (50, 7)


def test_each_source_is_used_once_before_any_is_used_twice() -> None:
    sources = [image.source for image in plan(Generate(quota={FAUX: 12, LEATHER: 0, SQUARE: 0}))]
    assert sorted(Counter(sources).values()) == [2, 2, 2, 3, 3]


def test_image_to_image_starts_its_exact_share_from_the_source_itself() -> None:
    images = plan(
        Generate(quota={FAUX: 20, LEATHER: 0, SQUARE: 0}, image_to_image=ImageToImage(share=0.35, strength=0.7))
    )
    started = [image for image in images if image.start is not None]
    assert len(started) == 7
    assert all(image.start == image.source and image.strength == 0.7 for image in started)
    assert all(image.strength is None for image in images if image.start is None)


def test_any_beginning_of_the_plan_holds_the_classes_evenly() -> None:
    images = plan(Generate(quota={FAUX: 20, LEATHER: 40, SQUARE: 0}))
    half = images[: len(images) // 2]
    assert Counter(image.filled for image in half) == {FAUX: 10, LEATHER: 20}


def test_pools_differ_in_their_sources_and_seeds_and_not_in_their_numbers() -> None:
    first, second = (plan(Generate(quota={FAUX: 20, LEATHER: 40, SQUARE: 0}), pool=pool) for pool in (0, 1))
    assert [image.source for image in first] != [image.source for image in second]
    assert not {image.seed for image in first} & {image.seed for image in second}
    assert Counter(image.filled for image in first) == Counter(image.filled for image in second)
    assert {image.pool for image in second} == {1}


def test_seeds_follow_from_study_pool_and_index() -> None:
    images = plan(Generate(fill_to=50), seed=4, pool=2)
    assert [image.seed for image in images] == [image_seed(4, 2, i) for i in range(len(images))]
    assert (
        len({image_seed(seed, pool, index) for seed in range(10) for pool in range(2) for index in range(500)})
        == 10_000
    )


@pytest.mark.parametrize(
    ("generate", "rare", "message"),
    [
        (Generate(quota={"fabric/lether": 3}), RARE, r"generate.quota: 'fabric/lether'.*did you mean fabric/leather"),
        (Generate(quota={f"{FAUX} & {SQUARE}": 3}), RARE, "asks for 3 images, but no training image has it"),
        (Generate(quota={FAUX: 9}, total=8), RARE, r"generate.total: must be at least the 9 images .* got 8"),
        (Generate(quota={FAUX: 9, LEATHER: 0, SQUARE: 0}, total=10), RARE, r"generate.total: must be exactly the 9"),
        (Generate(fill_to=10, cap=9), np.array([1]), r"no rare class lacks images at 10 .*fabric/leather 20"),
        (Generate(), np.array([], np.int64), r"rare: no class is rare.*fabric/faux 5, neck/square 10"),
    ],
)
def test_what_cannot_be_planned_is_one_line_with_the_counts(generate: Generate, rare: np.ndarray, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        plan_images(generate, SCHEMA, LABELS, rare, 0, 0)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(1, 30)), min_size=1, max_size=6),
    fill_to=st.integers(1, 80),
    cap=st.floats(0.5, 6),
    total=st.none() | st.integers(1, 200),
    share=st.floats(0, 1),
    pool=st.integers(0, 3),
    seed=st.integers(0, 2**32),
)
def test_any_plan_keeps_its_promises(
    counts: list[tuple[int, int, int]],
    fill_to: int,
    cap: float,
    total: int | None,
    share: float,
    pool: int,
    seed: int,
) -> None:
    labels = labels_of(*counts)
    generate = Generate(fill_to=fill_to, cap=cap, total=total, image_to_image=ImageToImage(share=share))
    rare = np.array([c for c in RARE if class_counts(labels)[c]], np.int64)
    try:
        wanted = wanted_images(generate, SCHEMA, class_counts(labels), rare)
    except ConfigError:
        with pytest.raises(ConfigError):
            plan_images(generate, SCHEMA, labels, rare, seed, pool)
        return
    images = plan_images(generate, SCHEMA, labels, rare, seed, pool)
    assert images == plan_images(generate, SCHEMA, labels, rare, seed, pool)
    assert [image.index for image in images] == list(range(len(images)))
    assert total is None or len(images) == total
    counted = class_counts(labels[[image.source for image in images]])
    made = Counter(image.filled for image in images)
    for name, number in wanted.items():
        assert made[name] == number if total is not None else made[name] <= number <= counted[SCHEMA.column(name)]
    assert all(labels[image.source, SCHEMA.column(image.filled)] == 1 for image in images)


SIMILAR = ImageToImage(share=0.5, strength=0.7, start_from="similar")
LEATHER_AND_FAUX = np.array([1, 2])


def similar_plan(similar: Any = None, seed: int = 0, pool: int = 0, quota: int = 40) -> list[PlannedImage]:
    generate = Generate(quota={FAUX: quota, LEATHER: 0}, image_to_image=SIMILAR)
    return plan_images(generate, SCHEMA, LABELS, LEATHER_AND_FAUX, seed, pool, similar)


def test_images_start_from_another_class_of_the_group_that_is_not_rare_and_keep_the_labels_of_their_source() -> None:
    images = similar_plan()
    own = plan_images(
        Generate(quota={FAUX: 40, LEATHER: 0}, image_to_image=ImageToImage(share=0.5, strength=0.7)),
        SCHEMA, LABELS, LEATHER_AND_FAUX, 0, 0,
    )  # fmt: skip
    assert [replace(image, start=None) for image in images] == [replace(image, start=None) for image in own]
    started = [image for image in images if image.start is not None]
    assert len(started) == 20
    assert all(LABELS[image.source, 2] == 1 for image in images)
    assert all(LABELS[image.start, 0] == 1 for image in started), (
        "cotton is the only class of the group that is not rare"
    )
    assert len({image.start for image in started}) > 10


def test_starts_follow_from_seed_pool_and_index_and_a_beginning_of_the_plan_stays_what_it_is() -> None:
    starts = [image.start for image in similar_plan()]
    assert starts == [image.start for image in similar_plan()]
    assert starts[:10] == [image.start for image in similar_plan(quota=80)][:10]
    assert starts != [image.start for image in similar_plan(seed=1)]
    assert starts != [image.start for image in similar_plan(pool=1)]


def test_the_caller_chooses_among_the_classes_and_each_that_it_chooses_is_as_likely() -> None:
    asked: list[StartingPoints] = []

    def choose(points: Sequence[StartingPoints]) -> dict[str, list[np.ndarray]]:
        asked.extend(points)
        return {FAUX: [np.array([3]), np.arange(10, 100)]}

    starts = [image.start for image in similar_plan(choose, quota=400) if image.start is not None]
    assert [(point.target, point.own.tolist()) for point in asked] == [(FAUX, list(range(120, 125)))]
    assert {column: rows.tolist() for column, rows in asked[0].rows.items()} == {0: [*range(100), *range(125, 133)]}
    assert set(starts) <= {3, *range(10, 100)}
    assert 80 <= starts.count(3) <= 120, "half of the 200 that start from an image, though the other class has 90"


def test_a_crossing_starts_from_classes_like_the_rarer_of_its_two() -> None:
    point = starting_points(SCHEMA, LABELS, np.array([1]), f"{LEATHER} & {SQUARE}")
    assert list(point.rows) == [3], "square has 10 images and leather 20"
    assert (LABELS[point.own, 4] == 1).all()


def test_a_class_of_an_any_group_starts_from_images_that_do_not_have_it() -> None:
    schema = LabelSchema(groups=(LabelGroup(name="marks", kind="any", classes=("logo", "stripe", "tear")),))
    labels = np.array([[1, 0, 0], [1, 0, 1], [1, 0, -1], [0, 1, 0], [0, 0, 1]], np.int8)
    point = starting_points(schema, labels, np.array([2]), "marks/tear")
    assert {column: rows.tolist() for column, rows in point.rows.items()} == {0: [0], 1: [3]}


def test_a_group_without_a_frequent_class_is_an_error_that_names_it() -> None:
    generate = Generate(quota={LEATHER: 4}, image_to_image=SIMILAR)
    with pytest.raises(
        ConfigError, match=r"start_from: similar needs another class of the group fabric .* fabric/leather"
    ):
        plan_images(generate, SCHEMA, LABELS, np.array([0, 1, 2]), 0, 0)
    without = labels_of((1, 0, 20), (2, 0, 5))
    with pytest.raises(ConfigError, match="that is not rare and has training images"):
        plan_images(generate, SCHEMA, without, np.array([1, 2]), 0, 0)
