"""The copy gate: which of many copies and of many honest images it refuses, at the sizes of small data sets."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from shared.config.generation import Accept
from shared.data.accept import accepted_images
from shared.data.imageset import ImageSet
from shared.score import near_duplicates
from shared.score.near_duplicates import Images, NearDuplicates, copies_sheet, find_near_duplicates
from shared.score.table import score_table, started_from
from shared.stop import StopSignal
from tests.support.copied_images import COPIES, copied, garments, generated_set

N, LEAKS, HONEST, VAL = 60, 40, 300, 300
ANY = Accept(plausibility=(0.0, 1.0))


class Gate:
    """A drawn data set, and generated images: copies of training images in every way, copies of test images, and honest drawings."""

    def __init__(self, side: int) -> None:
        sets = garments(side, 600, VAL + HONEST, 100)
        honest = sets["val"].take(np.arange(VAL, VAL + HONEST))
        self.val, self.train, self.test = sets["val"].take(np.arange(VAL)), sets["train"], sets["test"]
        encoded = [data for how in COPIES for data in copied(self.train, range(N), how)]
        encoded += [*self.test.encoded[:LEAKS], *honest.encoded]
        self.images = Images(self.train, self.val, self.test, generated_set(self.train, encoded))
        self.found, self.scores = scored(self.images)

    def accepted(self, accept: Accept) -> dict[str, int]:
        """Returns how many images of each kind are accepted."""
        mask = accepted_images(accept, self.images.generated, self.scores)
        kinds = [how for how in COPIES for _ in range(N)] + ["leak"] * LEAKS + ["honest"] * HONEST
        return {kind: int(mask[np.array(kinds) == kind].sum()) for kind in dict.fromkeys(kinds)}


def scored(images: Images) -> tuple[NearDuplicates, pa.Table]:
    found = find_near_duplicates(images, started_from(images.generated), StopSignal())
    even = np.full((len(images.generated), images.train.schema.width), 0.5, np.float32)
    return found, score_table(images, even, found)


@pytest.fixture(scope="module", params=[28, 64])
def gate(request: pytest.FixtureRequest) -> Gate:
    return Gate(request.param)


def test_copies_are_refused_and_honest_images_are_not(gate: Gate) -> None:
    accepted = gate.accepted(ANY)
    assert accepted.pop("honest") >= 0.97 * HONEST
    assert accepted.pop("exact") == accepted.pop("leak") == 0
    assert max(accepted.values()) <= 3, accepted


def test_copies_of_test_images_are_refused_even_if_copies_are_allowed(gate: Gate) -> None:
    accepted = gate.accepted(Accept(plausibility=(0.0, 1.0), copies="allow"))
    assert accepted.pop("leak") == 0
    assert accepted == {**dict.fromkeys(COPIES, N), "honest": HONEST}


def test_what_is_merely_near_to_a_test_image_is_reported_and_accepted(gate: Gate) -> None:
    cut = copied(gate.test, range(N), "cut by 6 %")
    images = Images(gate.train, gate.val, gate.test, generated_set(gate.train, cut))
    found, scores = scored(images)
    assert found.summary()["near_test_copies"] >= N - 3
    assert accepted_images(ANY, images.generated, scores).sum() >= 0.95 * N


def test_the_hash_alone_confuses_no_honest_images(gate: Gate) -> None:
    accepted = gate.accepted(Accept(plausibility=(0.0, 1.0), copy_quantile=0.0))
    assert accepted["honest"] == HONEST
    assert [accepted[how] for how in ("exact", "mirrored")] == [0, 0]


def test_a_smaller_quantile_refuses_no_more(gate: Gate) -> None:
    accepted = [gate.accepted(Accept(plausibility=(0.0, 1.0), copy_quantile=q))["honest"] for q in (0.0, 0.01, 0.2)]
    assert accepted == sorted(accepted, reverse=True)
    assert abs(accepted[-1] / HONEST - 0.8) < 0.08


def test_an_image_made_from_a_real_one_may_be_near_to_that_one_alone(gate: Gate) -> None:
    cut = [*copied(gate.train, range(N), "cut by 6 %"), *copied(gate.train, range(N), "exact")]
    own: list[int | None] = [*range(N), *range(N)]
    other: list[int | None] = [*range(N, 2 * N), *range(N, 2 * N)]
    from_own = Images(gate.train, gate.val, gate.test, generated_set(gate.train, cut, own))
    from_other = Images(gate.train, gate.val, gate.test, generated_set(gate.train, cut, other))
    accepted = accepted_images(ANY, from_own.generated, scored(from_own)[1])
    assert accepted[:N].sum() >= 0.95 * N
    assert not accepted[N:].any(), "an exact copy is one whatever it was made from"
    assert not accepted_images(ANY, from_other.generated, scored(from_other)[1]).any()


def test_the_sheet_shows_copies_first(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    sheet = near_duplicates.contact_sheet

    def recorded(pixels: list[np.ndarray], captions: list[str], columns: int) -> object:
        shown.extend(captions)
        return sheet(pixels, captions, columns)

    monkeypatch.setattr(near_duplicates, "contact_sheet", recorded)
    assert copies_sheet(gate.images, gate.found).width > 300
    assert shown[:2] == ["generated\ncopy: 0 bits", "nearest\nreal image"]
    few = gate.images.generated.take(np.arange(len(gate.images.generated) - 20, len(gate.images.generated)))
    honest = Images(gate.train, gate.val, gate.test, few)
    shown.clear()
    copies_sheet(honest, scored(honest)[0])
    ratios = [float(caption.split()[-1]) for caption in shown[::2]]
    assert ratios == sorted(ratios)


def test_the_summary_counts(gate: Gate) -> None:
    summary = gate.found.summary()
    assert summary["leaks"] == LEAKS
    assert summary["copies"] >= 5 * N
    assert summary["near_copies"] >= len(COPIES) * (N - 3)
    assert summary["median_ratio"] < summary["held_out_median_ratio"]


def test_equal_training_images_hide_no_copy(gate: Gate) -> None:
    rows = np.concatenate([np.arange(len(gate.train)), np.repeat(np.arange(20), 3)])
    train: ImageSet = gate.train.take(rows)
    images = Images(train, gate.val, gate.test, generated_set(train, copied(train, range(20), "cut by 6 %")))
    assert accepted_images(ANY, images.generated, scored(images)[1]).sum() <= 1


def test_some_of_many_validation_images_are_compared(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "HELD_OUT", 100)
    fewer = scored(gate.images)[0]
    assert len(fewer.held_out) == 100
    assert len(gate.found.held_out) == VAL
    np.testing.assert_allclose(fewer.train_ratio, gate.found.train_ratio, rtol=1e-5)
    assert np.abs(fewer.as_near - gate.found.as_near).max() < 0.15
