"""Holds reviews of generated images, and studies that name them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.cli.validate import validate
from shared.config.generation import Accept
from shared.config.load import load_study
from shared.data.accept import accepted_images
from shared.data.review import KEEP, MOST_BYTES, fetch_review, read_review
from shared.pipeline.local_session import check_locations
from shared.settings import Settings
from tests.corpus.case import Case
from tests.support.generated_study import SCORES, generated
from tests.support.small_study import SMALL_STUDY

Make = Callable[[Path], object]
FIRST, SECOND = "p0-000000-9f86d081884c", "p0-000001-000000000000"
HEAD = "image,decision\n"


def _checked(make: Make, *sets: str) -> Callable[[Path], str]:
    """Returns an attempt that validates a study with what `make` puts in place of its review, and says what the review decides."""

    def attempt(folder: Path) -> str:
        path = folder / "reviewed.csv"
        make(path)
        said = validate(SMALL_STUDY, (f"accept.reviewed={path}", *sets), False, False)
        decided = read_review(path).decisions
        words = {name: "keep" if decision == KEEP else "reject" for name, decision in decided.items()}
        return f"{said.splitlines()[-1]} {json.dumps(words)}"

    return attempt


def _text(content: str | bytes) -> Make:
    data = content.encode() if isinstance(content, str) else content
    return lambda path: path.write_bytes(data)


def _refused(name: str, content: str | bytes, *says: str) -> Case:
    return Case(name, _checked(_text(content)), 2, ("accept.reviewed", *says))


def _read(name: str, content: str | bytes, *says: str) -> Case:
    return Case(name, _checked(_text(content)), 0, ("review ", *says))


def _named(name: str, make: Make, *says: str) -> Case:
    return Case(name, _checked(make), 2, ("accept.reviewed", *says))


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)


def _study(*sets: str) -> Callable[[Path], str]:
    return lambda folder: validate(SMALL_STUDY, sets, False, False)


def _located(location: str) -> Callable[[Path], object]:
    """Returns an attempt that looks at where a study's files are, as `tailfill run` does first."""
    return lambda folder: check_locations(load_study(SMALL_STUDY, [f"accept.reviewed={location}"]), folder / "work")


def _applied(content: Callable[[list[str]], str], pool: int = 0, guidance: float = 2.0) -> Callable[[Path], str]:
    """Returns an attempt that applies a review, written with the ids of a study's images, to the images of a pool as a stage does."""

    def attempt(folder: Path) -> str:
        from shared.data.review import image_ids

        path = folder / "reviewed.csv"
        path.write_text(content(image_ids(generated())))
        scores = pa.table({name: pa.array(values) for name, values in SCORES.items()})
        accept = Accept(reviewed=str(path))
        accepted = accepted_images(accept, generated(guidance, pool), scores, read_review(path))
        return f"accepted {np.flatnonzero(accepted).tolist()}"

    return attempt


HOW = "review.html"
FILES = [
    _named("a review that does not exist", lambda path: None, "there is no such file"),
    _named("a folder", lambda path: path.mkdir(), "is a folder"),
    _named("a pipe", os.mkfifo, "there is no such file"),
    _named("a broken link", lambda path: path.symlink_to("gone"), "there is no such file"),
    _named("a circle of links", lambda path: path.symlink_to(path.name), "there is no such file"),
    _named("over a million rows", _huge, "has over 64 MiB"),
    _refused("an empty file", "", "is empty"),
    _refused("blank lines", "\n \n\n", "is empty"),
    _refused("a byte order mark alone", b"\xef\xbb\xbf", "is empty"),
    _refused("a header alone", HEAD, "decides about no image", HOW),
    _refused("only blank decisions", f"{HEAD}{FIRST},\n", "decides about no image"),
    _refused("a spreadsheet's own format", b"PK\x03\x04\xff\xfe\x00\x99" * 9, "UTF-8"),
    _refused("an image", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "UTF-8"),
    _refused("Latin-1", f"{HEAD}{FIRST},keep,\xe9\n".encode("latin-1"), "UTF-8"),
    _refused("null characters in the header", b"im\0age,decision\n", "no column 'image'"),
    _refused("null characters in an id", HEAD.encode() + b"p0-\0,keep\n", "line 2", "is no image's id"),
    _refused("null characters in a decision", f"{HEAD}{FIRST},ke\0ep\n", "line 2", "must be keep or reject"),
    _refused("an open quote", f'{HEAD}"{FIRST},keep\n', "fix the quotes"),
]  # fmt: skip
TABLES = [
    _refused("no header", f"{FIRST},keep\n", "no column 'image'", "first row must name image and decision"),
    _refused("no column of decisions", f"image\n{FIRST}\n", "no column 'decision'"),
    _refused("another column of images", f"file_name,decision\n{FIRST},keep\n", "no column 'image'"),
    _refused("two columns of decisions", f"image,decision,decision\n{FIRST},keep,reject\n", "2 columns 'decision'"),
    _refused("two columns of images in other letters", f"image,Image,decision\n{FIRST},{FIRST},keep\n", "2 columns 'image'"),
    _refused("another word", f"{HEAD}{FIRST},keep\n{SECOND},delete\n", "line 3", "must be keep or reject, got 'delete'"),
    _refused("a number", f"{HEAD}{FIRST},1\n", "must be keep or reject, got '1'"),
    _refused("a word that commands a terminal", f"{HEAD}{FIRST},\x1b[2J\n", "must be keep or reject", "\\x1b"),
    _refused("a long word", f"{HEAD}{FIRST},{'x' * 5000}\n", "must be keep or reject"),
    _refused("both of an image", f"{HEAD}{FIRST},keep\n{SECOND},keep\n{FIRST},reject\n", "line 4", "is both kept and rejected"),
    _refused("the name of a file", f"{HEAD}pool-0/000000.png,keep\n", "line 2", "is no image's id", "p0-000012-9f86d081884c"),
    _refused("no id", f"{HEAD},keep\n", "is no image's id"),
    _refused("an id in capitals", f"{HEAD}{FIRST.upper()},keep\n", "is no image's id"),
    _refused("an id of other digits", f"{HEAD}p٠-000000-9f86d081884c,keep\n", "is no image's id"),
    _refused("a negative pool", f"{HEAD}p-1-000000-9f86d081884c,keep\n", "is no image's id"),
    _refused("a pool of 30 digits", f"{HEAD}p{'9' * 30}-000000-9f86d081884c,keep\n", "is no image's id"),
    _refused("a formula", f"{HEAD}=1+1,keep\n", "is no image's id"),
    _refused("a path", f"{HEAD}../../etc/passwd,keep\n", "is no image's id"),
    _refused("a pool that the study has not", f"{HEAD}p1-000000-9f86d081884c,keep\n", "is of pool 1, but the study has 1 pool", "another study's"),
    _refused("a row with too few cells", f"{HEAD}{FIRST}\n", "line 2", "must have 2 cells"),
    _refused("a row with too many cells", f"{HEAD}{FIRST},keep,because,of\n", "line 2", "must have 2 cells"),
    _read("a review", f"{HEAD}{FIRST},keep\n{SECOND},reject\n", "1 kept, 1 rejected", "a cluster reads it only from s3://", f'"{SECOND}": "reject"'),
    _read("a byte order mark and Windows' lines", f"\ufeff{HEAD}{FIRST},keep\n".replace("\n", "\r\n"), "1 kept, 0 rejected"),
    _read("old lines of a Mac", f"{HEAD}{FIRST},keep\n".replace("\n", "\r"), "1 kept"),
    _read("UTF-16", f"{HEAD}{FIRST},reject\n".encode("utf-16"), "0 kept, 1 rejected"),
    _read("semicolons", f"image;decision\n{FIRST};keep\n", "1 kept"),
    _read("tabs", f"image\tdecision\n{FIRST}\tkeep\n", "1 kept"),
    _read("capitals and blanks", f"Image , Decision\n {FIRST} , Keep \n", "1 kept"),
    _read("quotes", f'"image","decision"\n"{FIRST}","reject"\n', "1 rejected"),
    _read("more columns", f"note,decision,image\n\u00e9 <b>,keep,{FIRST}\n", "1 kept"),
    _read("the same row twice", f"{HEAD}{FIRST},keep\n{FIRST},keep\n", "1 kept, 0 rejected"),
    _read("blank decisions among others", f"{HEAD}{FIRST},\n{SECOND},keep\n", "1 kept, 0 rejected"),
    _read("no line end at the end", f"{HEAD}{FIRST},keep", "1 kept"),
    _read("blank lines at the end", f"{HEAD}{FIRST},keep\n\n\n", "1 kept"),
]  # fmt: skip
STUDIES = [
    Case(
        "a review of one pool of several",
        _checked(_text(f"{HEAD}p1-000000-9f86d081884c,keep\n"), "verdict={provisional: true}"),
        0, ("1 kept, 0 rejected; it decides about no image of 1 of 2 pools",),
    ),
    Case("a review without a name", _study("accept.reviewed="), 2, ("accept.reviewed", "got \"\"")),
    Case("a review that is a number", _study("accept.reviewed=3"), 2, ("accept.reviewed", "got 3")),
    Case("a list of reviews", _study("accept.reviewed=[a.csv]"), 2, ("accept.reviewed",)),
    Case("a name with a NUL", _study('accept.reviewed="a\\0b"'), 2, ("accept.reviewed", "NUL")),
    Case("a name that is too long", _study(f"accept.reviewed={'x' * 300}"), 2, ("accept.reviewed", "over 255 bytes")),
    Case("a user without a home", _study("accept.reviewed=~nobody-here/a.csv"), 2, ("accept.reviewed", "no home folder")),
    Case(
        "a search over reviews",
        _study("search.space={accept.reviewed: {values: [a.csv, b.csv]}}"), 2, ("'accept.reviewed' cannot be searched",),
    ),
    Case(
        "a review of images that trials make",
        _checked(_text(f"{HEAD}{FIRST},keep\n"), "experiments.synthetic.search.space={generate.guidance: {values: [1.0, 2.0]}}"),
        2, ("accept.reviewed", "nobody has reviewed the images that trials make", "generate.guidance"),
    ),
    Case("a review in a bucket of no named server", _located("s3://data/reviewed.csv"), 2, ("accept.reviewed: s3://data", "TAILFILL_STORE")),
    Case("a bucket alone", lambda _: fetch_review("s3://data", Settings.from_environment({})), 2, ("accept.reviewed: 's3://data': names no object",)),
    Case("a bucket and a slash", lambda _: fetch_review("s3://data/", Settings.from_environment({})), 2, ("names no object",)),
    Case("a bucket without a key", _located("s3://"), 2, ("accept.reviewed",)),
    Case("a review that no arm needs", _study("accept.reviewed=gone.csv", "experiments=[{name: real}]"), 0, ("valid (real)",)),
]  # fmt: skip
IMAGES = [
    Case("nothing but what the scores say", _applied(lambda ids: f"{HEAD}{ids[1]},keep\n"), 0, ("accepted [1]",)),
    Case("a kept implausible image", _applied(lambda ids: f"{HEAD}{ids[0]},keep\n"), 0, ("accepted [0, 1]",)),
    Case("a kept near copy and a rejected image", _applied(lambda ids: f"{HEAD}{ids[2]},keep\n{ids[1]},reject\n"), 0, ("accepted [2]",)),
    Case("a kept copy of a test image", _applied(lambda ids: f"{HEAD}{ids[3]},keep\n"), 0, ("accepted [1]",)),
    Case("everything rejected", _applied(lambda ids: HEAD + "".join(f"{name},reject\n" for name in ids)), 0, ("accepted []",)),
    Case("a review of another pool", _applied(lambda ids: f"{HEAD}{ids[0]},keep\n", pool=1), 0, ("accepted [1]",)),
    Case(
        "images that were generated again", _applied(lambda ids: f"{HEAD}{ids[0]},keep\n{ids[1]},reject\n", guidance=3.0),
        2, ("and 1 more is none of the 5 images of pool 0", "generated again since"),
    ),
    Case("an index beyond the images", _applied(lambda ids: f"{HEAD}p0-000005-{'0' * 12},keep\n"), 2, ("is none of the 5 images of pool 0",)),
    Case("the digest of another image", _applied(lambda ids: f"{HEAD}p0-000001-{ids[0][-12:]},keep\n"), 2, ("is none of the 5 images",)),
]  # fmt: skip
CASES = [*FILES, *TABLES, *STUDIES, *IMAGES]
