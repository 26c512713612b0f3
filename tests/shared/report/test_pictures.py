"""Tests that thumbnails are small, and are data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from shared.data.encode import encode_image
from shared.data.imageset import ImageSet
from shared.data.schema import LabelGroup, LabelSchema
from shared.report.pictures import class_pictures, label_words, manual_pairs, sheet_uri, thumbnail, thumbnail_side

SCHEMA = LabelSchema(
    groups=(LabelGroup(name="cut", classes=("long_sleeve", "v")), LabelGroup(name="fabric", classes=("faux", "knit")))
)


def images(n: int, filled: list[str] | None = None) -> ImageSet:
    out = io.BytesIO()
    Image.new("RGB", (300, 300), "teal").save(out, "JPEG")
    labels = np.tile(np.array([0, 1, 1, 0], np.int8), (n, 1))
    extra = pa.table({"filled": filled}) if filled else None
    return ImageSet(
        SCHEMA, [out.getvalue()] * n, [f"{i}.jpg" for i in range(n)], np.array(["train"] * n), labels, extra
    )


def opened(uri: str) -> Image.Image:
    head, data = uri.split(",", 1)
    assert head in ("data:image/jpeg;base64", "data:image/png;base64")
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize(("side", "kind"), [(28, "PNG"), (96, "JPEG")])
def test_small_images_stay_as_they_are(side: int, kind: str) -> None:
    found = opened(thumbnail(np.zeros((side, side, 3), np.uint8)))
    assert (found.size, found.format) == ((side, side), kind)


def test_real_and_accepted_images_of_a_class() -> None:
    generated = images(5, ["fabric/faux"] * 4 + ["cut/v"])
    (shown,) = class_pictures(images(9), generated, np.array([True, False, True, False, True]), [2], side=96)
    assert shown.name == "fabric/faux"
    assert (len(shown.real), len(shown.generated), shown.refused) == (6, 2, False)
    assert shown.real[0].caption == "v"
    assert shown.generated[0].alt == "generated image of fabric/faux: v"
    assert opened(shown.real[0].uri).size == (96, 96)


def test_refused_images_are_shown_if_none_was_accepted() -> None:
    (shown,) = class_pictures(images(2), images(2, ["fabric/faux"] * 2), np.zeros(2, bool), [2], side=96)
    assert (len(shown.generated), shown.refused) == (2, True)
    assert shown.generated[0].alt == "refused generated image of fabric/faux: v"
    (alone,) = class_pictures(images(2), None, None, [2], side=96)
    assert (alone.generated, alone.refused) == ([], False)
    (other,) = class_pictures(images(2), images(2, ["cut/v"] * 2), np.zeros(2, bool), [2], side=96)
    assert (other.generated, other.refused) == ([], False)


def test_originals_stand_beside_their_manual_copies() -> None:
    train = images(20)
    train.encoded[10] = encode_image(Image.effect_noise((64, 64), 20).convert("RGB"))
    first, middle, _ = manual_pairs(train, np.array([1, 4, 10, 11, 12]), side=64, most=3)
    assert first.original.alt == "training image: v, faux"
    assert first.copy.alt == "copy with more contrast and sharper edges: v, faux"
    assert first.original.caption == first.copy.caption == "v, faux"
    before, after = (np.asarray(opened(picture.uri)).astype(float) for picture in (middle.original, middle.copy))
    assert after.std() > 1.3 * before.std()
    assert len(manual_pairs(train, np.array([1, 4]), side=64)) == 2
    assert manual_pairs(train, np.zeros(0, np.int64), side=64) == []


def test_words() -> None:
    assert label_words(np.array([1, 0, -1, -1], np.int8), SCHEMA) == "long sleeve"


def test_a_sheet_is_bounded() -> None:
    out = io.BytesIO()
    Image.new("RGB", (1600, 6000)).save(out, "PNG")
    assert opened(sheet_uri(out.getvalue())).size == (1200, 3600)


def test_images_that_may_not_be_passed_on_are_thumbnails() -> None:
    assert [thumbnail_side("deepfashion", 224), thumbnail_side("csv", 224), thumbnail_side("fashion-mnist", 28)] == [
        96,
        112,
        28,
    ]
