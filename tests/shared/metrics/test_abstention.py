from __future__ import annotations

import numpy as np
import pytest

from shared.data.schema import LabelGroup, LabelSchema
from shared.metrics.abstention import LIMITS, Abstention, measure_abstention

SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="kind", classes=("a", "b")),
        LabelGroup(name="tags", kind="any", classes=("new", "sale")),
    )
)
P = np.array([[0.9, 0.1, 0.8, 0.3], [0.4, 0.6, 0.2, 0.95], [0.7, 0.3, 0.5, 0.5]])
Y = np.array([[1, 0, 1, 1], [1, 0, 0, -1], [-1, -1, -1, -1]], np.int8)
HALF = np.full(4, 0.5)


def test_answers_are_counted_by_their_confidence() -> None:
    found = measure_abstention(SCHEMA, P, Y, HALF)
    kind = found["kind"].at(0.0)  # 0.9 right, 0.6 wrong; the third image's kind is unknown
    assert (kind.known, kind.answered, kind.wrong) == (2, 2, 1)
    assert (kind.coverage, kind.risk) == (1.0, 0.5)
    above = found["kind"].at(0.61)
    assert (above.answered, above.wrong, above.coverage, above.risk) == (1, 0, 0.5, 0.0)
    tags = found["tags"].at(0.75)  # 0.8 yes and right, 0.7 no and wrong, 0.8 no and right
    assert (tags.known, tags.answered, tags.wrong) == (3, 2, 0)
    assert found["tags"].at(0.7).wrong == 1


def test_a_threshold_away_from_a_half_makes_a_decision_less_sure() -> None:
    low = measure_abstention(SCHEMA, P, Y, np.array([0.5, 0.5, 0.5, 0.25]))["tags"]
    assert low.at(0.29).answered == 3
    assert low.at(0.31).answered == 2  # the yes at 0.3 is withheld, though it is above its threshold
    assert low.at(0.0).wrong == 0


def test_it_answers_for_the_limit_at_or_below_what_is_asked() -> None:
    found = measure_abstention(SCHEMA, P, Y, HALF)["kind"]
    assert [found.at(value).confidence for value in (0, 0.9, 0.9099, 0.997, 1)] == [0.0, 0.9, 0.9, 0.995, 0.999]
    assert len(found.answered) == len(found.wrong) == len(LIMITS)
    assert Abstention.model_validate_json(found.model_dump_json()) == found


def test_without_answers_nothing_is_claimed() -> None:
    nothing = measure_abstention(SCHEMA, P, np.full_like(Y, -1), HALF)["kind"].at(0.5)
    assert (nothing.coverage, nothing.risk, nothing.interval) == (None, None, None)


def test_the_interval_is_wilsons() -> None:
    found = Abstention(known=50, answered=(50,) * len(LIMITS), wrong=(5,) * len(LIMITS)).at(0.5)
    assert found.interval == pytest.approx(
        (0.0434, 0.2136), abs=1e-4
    )  # statsmodels' proportion_confint(5, 50, method="wilson")
