from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from shared.data.schema import LabelGroup
from shared.deploy.answers import answer
from shared.deploy.description import Description, Preprocessing
from shared.deploy.listing import ListedImage
from shared.deploy.output import as_csv, as_json, as_table, measured_text
from shared.deploy.predict import Predicted
from shared.metrics.abstention import LIMITS, Abstention

COUNTS = Abstention(
    known=100,
    answered=tuple(100 if p < 0.9 else 40 if p < 0.99 else 0 for p in LIMITS),
    wrong=tuple(9 if p < 0.9 else 1 if p < 0.99 else 0 for p in LIMITS),
)
DESCRIPTION = Description(
    study="s",
    experiment="real",
    repetitions=(0,),
    chosen="real: it was asked for",
    groups=(
        LabelGroup(name="kind", classes=("=cat", "dog")),
        LabelGroup(name="tags", kind="any", classes=("new", "worn", "sale")),
    ),
    preprocessing=Preprocessing(
        stored_resolution=32, fit="squash", resolution=32, mean=(0, 0, 0), std=(1, 1, 1), most_pixels=1 << 26
    ),
    temperatures={"kind": 1.0, "tags": 1.0},
    thresholds={"tags/new": 0.5, "tags/worn": 0.2, "tags/sale": 0.5},
    abstention={"kind": COUNTS, "tags": COUNTS},
    head=(),
)
SURE = np.array([0.91, 0.09, 0.95, 0.3, 0.02], np.float32)
UNSURE = np.array([0.45, 0.55, 0.6, 0.1, 0.4], np.float32)


def predicted() -> list[Predicted]:
    return [
        (ListedImage("a.png", Path("a.png")), SURE),
        (ListedImage("=HYPERLINK(1).png", Path("b.png")), UNSURE),
        (ListedImage("bad\x1b[31m\n.png", Path("c.png")), "not an image: is in none of the formats"),
    ]


def test_labels_above_their_thresholds_are_answered() -> None:
    kind, tags = answer(DESCRIPTION, SURE, 0.0)
    assert (kind.labels, kind.withheld) == (("=cat",), ())
    assert tags.labels == ("new", "worn")  # 0.3 is above 0.2, the threshold of `worn`
    assert kind.probability == pytest.approx(0.91)


def test_below_the_confidence_nothing_is_said() -> None:
    kind, tags = answer(DESCRIPTION, UNSURE, 0.7)
    assert (kind.labels, kind.withheld) == ((), ("dog",))
    assert tags.labels == ()
    assert tags.withheld == ("new", "sale")  # that it is not worn is sure, with 0.9


def test_the_table_is_for_a_person() -> None:
    lines = list(as_table(DESCRIPTION, predicted(), 0.7))
    assert [line.split("  ")[0] for line in lines] == [
        "image",
        "a.png",
        "=HYPERLINK(1).png",
        "bad\\u001b[31m\\u000a.png",
    ]
    assert "=cat 91 %" in lines[1]
    assert "new 95 %; don't know: worn 30 %" in lines[1]
    assert "don't know (dog 55 %)" in lines[2]
    assert "error: not an image" in lines[3]
    assert lines[0].index("tags") == lines[1].index("new 95")


def test_cells_of_a_csv_are_no_formulas() -> None:
    rows = list(csv.DictReader(line + "\n" for line in as_csv(DESCRIPTION, predicted(), 0.0)))
    assert rows[2]["image"] == "bad\x1b[31m\n.png"
    assert rows[0]["kind"] == "'=cat"
    assert rows[1]["image"] == "'=HYPERLINK(1).png"
    assert rows[0]["tags"] == "new|worn"
    assert rows[0]["tags/worn"] == "0.3000"
    assert rows[0]["kind_probability"] == "0.9100"
    assert rows[0]["error"] == ""


def test_a_csv_says_what_is_not_known_and_what_cannot_be_read() -> None:
    rows = list(csv.DictReader(line + "\n" for line in as_csv(DESCRIPTION, predicted(), 0.7)))
    assert (rows[1]["kind"], rows[1]["tags"], rows[1]["tags_unsure"]) == ("don't know", "", "new|sale")
    assert rows[2]["error"].startswith("not an image")
    assert rows[2]["kind"] == rows[2]["tags/new"] == ""


def test_json_is_one_object_with_risk_and_coverage() -> None:
    tree = json.loads("".join(as_json(DESCRIPTION, predicted(), 0.9)))
    assert tree["model"]["experiment"] == "real"
    measured = tree["measured"]["kind"]
    assert (measured["split"], measured["answered"], measured["wrong"]) == ("test", 40, 1)
    assert measured["risk"] == pytest.approx(1 / 40)
    first, second, third = tree["images"]
    assert first["groups"]["kind"]["label"] == "=cat"
    assert second["groups"]["kind"]["label"] is None
    assert set(second["groups"]["tags"]) == {"labels", "unsure", "probabilities"}
    assert third == {"image": "bad\x1b[31m\n.png", "error": "not an image: is in none of the formats"}
    assert json.loads("".join(as_json(DESCRIPTION, [], 0.0)))["images"] == []


def test_the_risk_is_said_in_words_with_its_interval_and_its_split() -> None:
    kind, tags = measured_text(DESCRIPTION, 0.93)
    assert kind.startswith("kind: 2.5 % of answers were wrong (95 % interval 0.4 to 12.9) and 40.0 % were given")
    assert "at confidence 0.93 on the 100 known labels of the study's test split" in kind
    assert "answers to single classes" in tags
    assert all("nothing is known of the risk" in line for line in measured_text(DESCRIPTION, 1.0))
