"""Reads a person's review of generated images, and says which image each of its rows is about.

A review is a CSV with the columns `image` and `decision`, which is `keep` or `reject`. An image is named by its pool, its index there and
the beginning of the SHA-256 of its file, like `p0-000012-9f86d081884c`. So a review that was made of other images is refused, and is never applied
to an image that nobody saw.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.artifacts.open import is_s3, open_bucket, split_s3
from shared.artifacts.remote import expanded, local_file
from shared.config.generation import Accept
from shared.config.resolve import ResolvedStudy
from shared.data.problems import Problems
from shared.data.sources.csv_file import find_delimiter, first_row, read_table
from shared.digests import file_digest
from shared.errors import DataError
from shared.names import shown
from shared.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shared.data.imageset import ImageSet

IMAGE, DECISION = "image", "decision"
UNDECIDED, KEEP, REJECT = 0, 1, -1
DECISIONS: Mapping[str, int] = {"keep": KEEP, "reject": REJECT}
HOW = "take the file that review.html of `tailfill export generated --review` downloads"
MOST_BYTES = 64 << 20  # over a million rows
_ID = re.compile(r"p([0-9]{1,9})-([0-9]{6,12})-([0-9a-f]{12})")


@dataclass(frozen=True)
class Review:
    """Holds what a person decided about generated images."""

    file: Path
    decisions: Mapping[str, int]
    """Maps the ids of images to KEEP or REJECT."""
    digest: str
    """Holds the SHA-256 of the file."""

    def decisions_of(self, generated: ImageSet) -> NDArray[np.int8]:
        """Returns KEEP, REJECT or UNDECIDED for each image of a pool, `[n]`.

        Raises DataError if the review names an image of this pool that is not among them.
        """
        import numpy as np

        ids = image_ids(generated)
        pools, known = {pool_of(name) for name in ids}, set(ids)
        others = [name for name in self.decisions if pool_of(name) in pools and name not in known]
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise DataError(
                f"accept.reviewed: {self.file.name}: {others[0]}{more} is none of the {len(ids)} images of pool {pool_of(others[0])}: they "
                "are another experiment's, or were generated again since; export these and review them, or set accept.reviewed for the "
                "experiment whose images it is about"
            )
        return np.array([self.decisions.get(name, UNDECIDED) for name in ids], np.int8)


def image_ids(generated: ImageSet) -> list[str]:
    """Returns the ids of generated images, by which a review names them; raises DataError if their pool and index are missing."""
    columns = generated.extra.column_names if generated.extra is not None else []
    if generated.extra is None or not {"pool", "index"} <= set(columns):
        raise DataError("generated images: have no columns 'pool' and 'index'; run `generate` again (--rerun generate)")
    numbers = zip(generated.extra["pool"].to_pylist(), generated.extra["index"].to_pylist(), strict=True)
    return [
        f"p{pool}-{index:06d}-{hashlib.sha256(data).hexdigest()[:12]}"
        for (pool, index), data in zip(numbers, generated.encoded, strict=True)
    ]


def pool_of(name: str) -> int:
    """Returns the pool of the image with this id."""
    return int(name[1:].partition("-")[0])


def read_review(path: Path) -> Review:
    """Reads a review; other columns than `image` and `decision` are left out, and blank decisions are none.

    Raises DataError, with the line, if the file is no such table, is too large, or says both of an image.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path.name}: has over {MOST_BYTES >> 20} MiB, so it is no review; {HOW}")
        delimiter = find_delimiter(path)
        _check_columns(path, first_row(path, delimiter))
        problems = Problems("fail")
        table = read_table(path, problems, delimiter)
        problems.raise_if_failing()
    except OSError as error:
        raise DataError(f"accept.reviewed: {path}: cannot be read ({error.strerror})") from error
    except DataError as error:
        raise DataError(f"accept.reviewed: {error}") from error
    names = {name.lower(): name for name in table.columns}
    found: dict[str, int] = {}
    for row in table.rows:
        name, word = row.cells[names[IMAGE]], row.cells[names[DECISION]]
        where = f"accept.reviewed: {path.name} line {row.line}"
        if _ID.fullmatch(name) is None:
            raise DataError(f"{where}: {shown(name)} is no image's id, like p0-000012-9f86d081884c; {HOW}")
        if not word:
            continue
        if (decision := DECISIONS.get(word.lower())) is None:
            raise DataError(f"{where}: the decision must be keep or reject, got {shown(word)}")
        if found.setdefault(name, decision) != decision:
            raise DataError(f"{where}: {name} is both kept and rejected; leave one of both rows")
    if not found:
        raise DataError(f"accept.reviewed: {path.name}: decides about no image; {HOW}, or remove accept.reviewed")
    return Review(path, found, file_digest(path))


def _check_columns(path: Path, columns: list[str]) -> None:
    names = [column.strip("\ufeff").strip().lower() for column in columns]
    for wanted in (IMAGE, DECISION):
        if (count := names.count(wanted)) != 1:
            what = "no column" if count == 0 else f"{count} columns"
            raise DataError(
                f"{path.name}: has {what} {wanted!r}; the first row must name {IMAGE} and {DECISION}; {HOW}"
            )


def fetch_review(location: str, settings: Settings, scratch: Path | None = None) -> Review:
    """Reads the review at a path or at `s3://bucket/key`, of which `scratch`, or the cache if that is None, gets a copy.

    Raises DataError if there is none, and what the bucket raises.
    """
    try:
        if is_s3(location):
            bucket, key = split_s3(location)
            if not key:
                raise DataError(f"{shown(location)}: names no object; name the CSV as s3://bucket/key")
            stored = open_bucket(bucket, "", settings).stat(key)
            if stored is not None and stored.size > MOST_BYTES:
                raise DataError(f"{location}: has over {MOST_BYTES >> 20} MiB, so it is no review; {HOW}")
        elif expanded(location).is_dir():
            raise DataError(f"{shown(location)}: is a folder; name the CSV in it")
        path = local_file(location, settings, scratch)
    except DataError as error:
        raise DataError(f"accept.reviewed: {error}") from error
    return read_review(path)


def arm_review(
    accept: Accept | None, digests: Mapping[str, str], settings: Settings, scratch: Path | None
) -> Review | None:
    """Returns the review that an arm's `accept` names, or None; raises DataError if it is not the one whose digest the key contains."""
    if accept is None or accept.reviewed is None:
        return None
    review = fetch_review(accept.reviewed, settings, scratch)
    if review.digest != digests[accept.reviewed]:
        raise DataError(
            f"accept.reviewed: {accept.reviewed} was changed since this run began; run the study again, on a cluster with the new "
            "review under another name"
        )
    return review


def study_reviews(study: ResolvedStudy, settings: Settings, buckets: bool = True) -> dict[str, Review]:
    """Reads the reviews that a study names, by location, without `buckets` only files of this machine.

    Raises DataError if one is no review, or is about a pool that the study has not.
    """
    locations = [location for location in review_locations(study) if buckets or not is_s3(location)]
    reviews = {location: fetch_review(location, settings) for location in locations}
    for location, review in reviews.items():
        if beyond := [name for name in review.decisions if pool_of(name) >= study.pools]:
            raise DataError(
                f"accept.reviewed: {shown(location)}: {beyond[0]} is of pool {pool_of(beyond[0])}, but the study has {study.pools} "
                f"{'pool' if study.pools == 1 else 'pools'} of images, from 0; it is another study's review"
            )
    return reviews


def review_locations(study: ResolvedStudy) -> list[str]:
    """Returns where the reviews are that a study names, each once."""
    accepts = [experiment.accept for experiment in study.experiments if experiment.images != "real"]
    return list(dict.fromkeys(accept.reviewed for accept in accepts if accept.reviewed is not None))


def review_digests(study: ResolvedStudy, settings: Settings) -> dict[str, str]:
    """Returns the SHA-256 of each review that a study names, by location; raises what `study_reviews` raises."""
    return {location: review.digest for location, review in study_reviews(study, settings).items()}
