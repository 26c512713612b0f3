from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.data.schema import LabelGroup, LabelSchema
from shared.diffusion.text_to_image.caption import Captioner
from shared.errors import ConfigError

PAPER = LabelSchema(
    groups=(
        LabelGroup(
            name="pattern", classes=("floral", "graphic", "striped", "embroidered", "pleated", "solid", "lattice")
        ),
        LabelGroup(name="sleeve", classes=("long_sleeve", "short_sleeve", "sleeveless")),
        LabelGroup(name="length", classes=("maxi_length", "mini_length", "no_dress")),
        LabelGroup(name="neckline", classes=("crew_neckline", "v_neckline", "square_neckline", "no_neckline")),
        LabelGroup(name="fabric", classes=("denim", "chiffon", "cotton", "leather", "faux", "knit")),
        LabelGroup(name="fit", classes=("tight", "loose", "conventional")),
    )
)
TAGS = LabelSchema(
    groups=(LabelGroup(name="kind", classes=("cat", "dog")), LabelGroup(name="tag", kind="any", classes=("big", "wet")))
)


def labels(schema: LabelSchema, *classes: str) -> np.ndarray:
    row = np.zeros(schema.width, np.int8)
    row[[schema.column(name) for name in classes]] = 1
    return row


def test_the_papers_caption() -> None:
    row = labels(
        PAPER,
        "pattern/lattice",
        "sleeve/sleeveless",
        "length/no_dress",
        "neckline/v_neckline",
        "fabric/cotton",
        "fit/conventional",
    )
    caption = Captioner(PAPER, "A person wearing {labels} clothes", {})
    assert caption(row) == "A person wearing lattice sleeveless no dress v neckline cotton conventional clothes"


@pytest.mark.parametrize(
    ("template", "classes", "expected"),
    [
        ("a photo of {labels}", ["kind/dog", "tag/big", "tag/wet"], "a photo of hound big soaking wet"),
        ("{tag} {kind} outside", ["kind/cat"], "cat outside"),
        ("{kind}, {tag}", ["kind/cat", "tag/big"], "cat, big"),
        ("an animal", ["kind/cat"], "an animal"),
        ("{labels}", [], ""),
    ],
)
def test_fields_and_phrases(template: str, classes: list[str], expected: str) -> None:
    caption = Captioner(TAGS, template, {"kind/dog": "hound", "tag/wet": "soaking wet"})
    assert caption(labels(TAGS, *classes)) == expected


def test_unknown_labels_are_left_out() -> None:
    row = labels(TAGS, "tag/big")
    row[:2] = -1
    assert Captioner(TAGS, "a {kind} that is {tag}", {})(row) == "a that is big"


@pytest.mark.parametrize(
    ("template", "phrases", "message"),
    [
        ("a {kin}", {}, "did you mean kind?"),
        ("a {}", {}, "there are kind, labels, tag"),
        ("a {kind", {}, "has no partner"),
        ("a {kind}", {"kind/dgo": "hound"}, "did you mean kind/dog"),
    ],
)
def test_mistakes_are_explained(template: str, phrases: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")) as error:
        Captioner(TAGS, template, phrases)
    assert "\n" not in str(error.value)


@given(
    template=st.text(alphabet="ab {}kindtaglabels"), row=st.lists(st.sampled_from([-1, 0, 1]), min_size=4, max_size=4)
)
def test_any_template_is_filled_or_refused(template: str, row: list[int]) -> None:
    try:
        caption = Captioner(TAGS, template, {})(np.array(row, np.int8))
    except ConfigError:
        return
    assert "{" not in caption
    assert caption == " ".join(caption.split())
