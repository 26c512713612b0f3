from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

import pytest

from shared.artifacts.s3 import S3Store
from shared.config.generation import Accept
from shared.config.load import load_study
from shared.data.review import (
    KEEP,
    REJECT,
    UNDECIDED,
    arm_review,
    fetch_review,
    image_ids,
    pool_of,
    read_review,
    review_digests,
)
from shared.errors import DataError
from shared.services.s3 import BUCKET
from shared.settings import Settings
from tests.support.generated_study import generated
from tests.support.small_study import SMALL_STUDY

NONE = Settings.from_environment({})


def write(path: Path, decisions: dict[str, str]) -> Path:
    path.write_text("image,decision\n" + "".join(f"{name},{word}\n" for name, word in decisions.items()))
    return path


def test_an_id_names_pool_index_and_content() -> None:
    images = generated(pool=3)
    ids = image_ids(images)
    assert ids[2] == f"p3-000002-{hashlib.sha256(images.encoded[2]).hexdigest()[:12]}"
    assert [pool_of(name) for name in ids] == [3] * 5
    assert not set(ids) & set(image_ids(generated(pool=0)))
    with pytest.raises(DataError, match="no columns 'pool' and 'index'"):
        image_ids(generated().__class__(images.schema, images.encoded, images.paths, images.split, images.labels))


def test_one_file_reviews_several_pools(tmp_path: Path) -> None:
    first, second = (image_ids(generated(pool=pool)) for pool in (0, 1))
    review = read_review(write(tmp_path / "r.csv", {first[0]: "keep", second[1]: "reject"}))
    assert review.decisions_of(generated(pool=0)).tolist() == [KEEP] + [UNDECIDED] * 4
    assert review.decisions_of(generated(pool=1)).tolist() == [UNDECIDED, REJECT] + [UNDECIDED] * 3
    with pytest.raises(
        DataError, match=r"none of the 5 images of pool 0: they are another experiment's, or were generated again"
    ):
        review.decisions_of(generated(guidance=9.0))


def test_a_review_in_a_bucket(s3_server: Settings, tmp_path: Path) -> None:
    store, name = S3Store(BUCKET, "", s3_server), f"{uuid.uuid4().hex}/reviewed.csv"
    ids = image_ids(generated())
    file = write(tmp_path / "local.csv", {ids[0]: "reject"})
    store.put(name, file.read_bytes())
    location = f"s3://{BUCKET}/{name}"
    assert fetch_review(location, s3_server, tmp_path / "scratch").decisions == {ids[0]: REJECT}
    study = load_study(SMALL_STUDY, [f"accept.reviewed={location}"])
    digests = review_digests(study, s3_server)
    assert digests == {location: hashlib.sha256(file.read_bytes()).hexdigest()}
    accept = Accept(reviewed=location)
    assert arm_review(accept, digests, s3_server, tmp_path / "scratch") is not None
    store.put(name, write(file, {ids[0]: "keep"}).read_bytes())
    with pytest.raises(DataError, match="was changed since this run began"):
        arm_review(accept, digests, s3_server, tmp_path / "scratch")
    with pytest.raises(DataError, match=rf"accept\.reviewed: s3://{BUCKET}/gone\.csv: there is no such object"):
        fetch_review(f"s3://{BUCKET}/gone.csv", s3_server, tmp_path / "scratch")


def test_an_arm_without_a_review_reads_nothing(tmp_path: Path) -> None:
    assert arm_review(None, {}, NONE, tmp_path) is None
    assert arm_review(Accept(), {}, NONE, tmp_path) is None
    study = load_study(SMALL_STUDY, ["experiments=[{name: real, accept: {reviewed: gone.csv}}]"])
    assert review_digests(study, NONE) == {}
