"""Holds tables as people's tools write them: what `init` infers from each, and what is then read."""

from __future__ import annotations

import json
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from shared.config.dataset import CsvSource
from shared.data.infer_source import infer_source
from shared.data.problems import Problems
from shared.data.source import ImageListing
from shared.data.sources.csv_table import read_csv
from tests.corpus.case import Case

COUNT = 12
SPECIES = ["cat", "dog", "dog"]  # of the images in turn
HEAD = "path,species\n"
Rows = Callable[[int], str]


@cache
def _pixels() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (8, 8)).save(Path(folder) / "a.png")
        return (Path(folder) / "a.png").read_bytes()


def _images(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(_pixels())


def _names(count: int = COUNT, folder: str = "img", ending: str = ".png") -> list[str]:
    return [f"{folder}/{number:03d}{ending}" for number in range(count)]


def _rows(row: Rows, count: int = COUNT) -> str:
    return "".join(f"{row(i)}\n" for i in range(count))


def _plain(i: int) -> str:
    return f"img/{i:03d}.png,{SPECIES[i % 3]}"


PLAIN = HEAD + _rows(_plain)
TWO_CLASSES = "12 images; species one: cat 4, dog 8"


def _described(dataset: CsvSource, listing: ImageListing, problems: Problems, notes: Sequence[str]) -> str:
    images = list(listing.images)
    groups = []
    for group, columns in listing.schema.slices().items():
        kind = listing.schema.group(group)
        labels = [image.labels[columns] for image in images]
        counts = ", ".join(f"{name} {sum(row[i] == 1 for row in labels)}" for i, name in enumerate(kind.classes))
        unknown = sum((row == -1).all() for row in labels)
        groups.append(f"{group} {kind.kind}: {counts}{f', unknown {unknown}' if unknown else ''}")
    paths = sorted(image.path for image in images)
    missing = sum(isinstance(image.content, Path) and not image.content.is_file() for image in images)
    return (
        f"{len(images)} images; {'; '.join(groups)}; first {paths[0] if paths else ''}; missing {missing}; bad {problems.counts}; "
        f"prefix {dataset.path_prefix!r}; notes {list(notes)}"
    )


def _init(
    text: str | bytes | Callable[[Path], str], images: Sequence[str] = (), name: str = "labels.csv"
) -> Callable[[Path], object]:
    """Returns an attempt that infers the source of a table and reads it by what the study would then say."""

    def attempt(folder: Path) -> object:
        root = folder / "data"
        root.mkdir()
        _images(root, images or _names())
        content = text(root) if callable(text) else text
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        found = infer_source(root)
        dataset = CsvSource.model_validate_json(found.dataset.model_dump_json())
        problems = Problems("fail")
        listing = read_csv(dataset, found.root, problems)
        problems.raise_if_failing()
        return _described(dataset, listing, problems, found.notes)

    return attempt


def _read(
    text: str | bytes, images: Sequence[str] = (), on_bad: str = "fail", **config: Any
) -> Callable[[Path], object]:
    """Returns an attempt that reads a table by a study that a person wrote."""

    def attempt(folder: Path) -> object:
        root = folder / "data"
        root.mkdir()
        _images(root, images or _names())
        (root / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        tree = {
            "source": "csv",
            "root": "data",
            "groups": {"species": {"column": "species"}},
            "on_bad": on_bad,
            **config,
        }
        dataset = CsvSource.model_validate_json(json.dumps(tree))
        problems = Problems(dataset.on_bad)
        listing = read_csv(dataset, root, problems)
        problems.raise_if_failing()
        return _described(dataset, listing, problems, ())

    return attempt


def _labels(*values: str) -> str:
    """Returns a table whose label column has these values in turn."""
    return "path,y\n" + _rows(lambda i: f"img/{i:03d}.png,{values[i % len(values)]}")


def _paths(path: Rows) -> str:
    return "id,species\n" + _rows(lambda i: f"{path(i)},{SPECIES[i % 3]}")


def _list(*names: str, form: str = "python") -> str:
    text = {"python": repr(list(names)), "json": json.dumps(names), "postgres": f"{{{','.join(names)}}}"}[form]
    return '"' + text.replace('"', '""') + '"'


ANY = {"species": {"kind": "any", "column": "species", "separator": ","}}
NFC, NFD = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
LONG = HEAD + _rows(lambda i: _plain(i) + (f"\nimg/{i:03d}.png,small" if i % 2 else ""))
HEADERLESS = _rows(_plain)
WIDE = ",".join(f"c{n}" for n in range(20_000))


def _without_images(folder: Path) -> str:
    shutil.rmtree(folder / "img")
    return PLAIN


FORMS = [
    Case("a plain table", _init(PLAIN), 0, (TWO_CLASSES, "missing 0")),
    Case("with a byte-order mark", _init(PLAIN.encode("utf-8-sig")), 0, (TWO_CLASSES,)),
    Case("two byte-order marks", _init(("\ufeff" + PLAIN).encode("utf-8-sig")), 0, (TWO_CLASSES,)),
    Case("in UTF-16 with its mark", _init(PLAIN.encode("utf-16")), 0, (TWO_CLASSES,)),
    Case(
        "in UTF-16, tabs, as Excel's Unicode text", _init(PLAIN.replace(",", "\t").encode("utf-16")), 0, (TWO_CLASSES,)
    ),
    Case("in UTF-16 without a mark", _init(PLAIN.encode("utf-16-le")), 2, ("save it as UTF-8",)),
    Case("in UTF-32", _init(PLAIN.encode("utf-32")), 2, ("labels.csv", "save it as UTF-8")),
    Case(
        "in Latin-1",
        _init(PLAIN.replace("species", "esp\u00e8ce").encode("latin-1")),
        2,
        ("is not UTF-8 text", "save it as UTF-8"),
    ),
    Case(
        "in Latin-1 far below",
        _read((PLAIN + "img/x.png,th\u00e9\n").encode("latin-1")),
        2,
        ("is not UTF-8 text", "save it as UTF-8"),
    ),
    Case("a UTF-16 table cut within a character", _init(PLAIN.encode("utf-16")[:-1]), 2, ("save it as UTF-8",)),
    Case("semicolons", _init(PLAIN.replace(",", ";")), 0, (TWO_CLASSES,)),
    Case("tabs", _init(PLAIN.replace(",", "\t"), name="labels.tsv"), 0, (TWO_CLASSES,)),
    Case("bars", _init(PLAIN.replace(",", "|")), 0, (TWO_CLASSES,)),
    Case(
        "commas in a quoted header",
        _init('"path";"species";"a, b, c"\n' + _rows(lambda i: f"{_plain(i)};x".replace(",", ";"))),
        0,
        (TWO_CLASSES,),
    ),
    Case("lines that end in CR LF", _init(PLAIN.replace("\n", "\r\n")), 0, (TWO_CLASSES,)),
    Case("lines that end in CR", _init(PLAIN.replace("\n", "\r")), 0, (TWO_CLASSES,)),
    Case("no line end at the end", _init(PLAIN.rstrip()), 0, (TWO_CLASSES,)),
    Case("a line sep=;", _init("sep=;\n" + PLAIN.replace(",", ";")), 0, (TWO_CLASSES,)),
    Case(
        "a line sep=, with a mark and CR LF",
        _init(("sep=,\r\n" + PLAIN.replace("\n", "\r\n")).encode("utf-8-sig")),
        0,
        (TWO_CLASSES,),
    ),
    Case("a quoted line sep of tabs", _init('"sep=\t"\n' + PLAIN.replace(",", "\t")), 0, (TWO_CLASSES,)),
    Case("a comment at the top", _init("# exported 2024\n" + PLAIN), 0, (TWO_CLASSES,)),
    Case("comments of several lines and a blank one", _init("# exported\n#\n\n# by me\n" + PLAIN), 0, (TWO_CLASSES,)),
    Case("a comment at the end", _init(PLAIN + "# end of file\n"), 0, (TWO_CLASSES,)),
    Case("a comment in a study's table", _read("# exported\n" + PLAIN), 0, (TWO_CLASSES,)),
    Case("a column called #", _init("#,path,species\n" + _rows(lambda i: f"{i},{_plain(i)}")), 0, (TWO_CLASSES,)),
    Case("a comma at the end of all lines", _init(PLAIN.replace("\n", ",\n")), 0, (TWO_CLASSES,)),
    Case("three commas at the end of all lines", _init(PLAIN.replace("\n", ",,,\n")), 0, (TWO_CLASSES,)),
    Case("commas at the end of rows alone", _init(HEAD + _rows(lambda i: _plain(i) + ",,")), 0, (TWO_CLASSES,)),
    Case("rows of commas", _init(PLAIN + ",\n,\n"), 0, (TWO_CLASSES, "bad {}")),
    Case("a row of commas at the top", _init(",\n" + PLAIN), 0, (TWO_CLASSES,)),
    Case("blank lines", _init(PLAIN.replace("\n", "\n\n")), 0, (TWO_CLASSES,)),
    Case(
        "an index column without a name",
        _init(",path,species\n" + _rows(lambda i: f"{i},{_plain(i)}")),
        0,
        (TWO_CLASSES,),
    ),
    Case(
        "two index columns without names",
        _init(",,path,species\n" + _rows(lambda i: f"{i},{i},{_plain(i)}")),
        0,
        (TWO_CLASSES,),
    ),
    Case("blanks in the header", _init(" path , species \n" + _rows(_plain)), 0, (TWO_CLASSES,)),
    Case(
        "all cells quoted",
        _init('"path","species"\n' + _rows(lambda i: f'"img/{i:03d}.png","{SPECIES[i % 3]}"')),
        0,
        (TWO_CLASSES,),
    ),
    Case(
        "blanks before quotes",
        _init("path, species, n\n" + _rows(lambda i: f'img/{i:03d}.png, "{SPECIES[i % 3]}", "{i}, x"')),
        0,
        (TWO_CLASSES,),
    ),
    Case(
        "a stray quote in a text column",
        _init("path,species,text\n" + _rows(lambda i: _plain(i) + f', "{i} it said')),
        0,
        (TWO_CLASSES,),
    ),
    Case(
        "rows that lack cells",
        _init("path,species,n\n" + _rows(lambda i: _plain(i) + (f",{i}" if i % 2 else ""))),
        2,
        ("line 2", "must have 3 cells", "got 2"),
    ),
    Case("an unclosed quote", _init(PLAIN + '"img/000.png,cat\n'), 2, ("near line 14", "fix the quotes")),
    Case("a cell of 100 MB", _init(PLAIN + "a" * 100_000_000 + ",cat\n"), 2, ("near line 14", "cannot be read")),
    Case(
        "twenty thousand columns",
        _init(f"path,species,{WIDE}\n" + _rows(lambda i: _plain(i) + "," * 20_000, 6)),
        0,
        ("6 images", "cat 2, dog 4"),
    ),
    Case(
        "twenty thousand columns without images",
        _init(f"{WIDE}\n" + "x," * 19_999 + "x\n"),
        2,
        ("no column names image files",),
    ),
    Case(
        "a study's column that twenty thousand lack",
        _read(f"{WIDE}\n" + "x," * 19_999 + "x\n"),
        2,
        ("has no column 'path'", "and 19988 more"),
    ),
    Case(
        "a column named twice",
        _init("path,species,species\n" + _rows(lambda i: _plain(i) + ",x")),
        2,
        ("'species' is named twice", "rename one"),
    ),
    Case(
        "null characters in the header",
        _init("pa\0th,species\n" + _rows(_plain)),
        2,
        ("null characters", "save it as UTF-8"),
    ),
    Case("a null character in a path", _read(PLAIN + "img/\0.png,cat\n"), 2, ("line 14", "control character")),
    Case(
        "a null character in a class",
        _read(PLAIN + "img/000.png,c\0at\n".replace("000", "900")),
        2,
        ("line 14", "null character"),
    ),
    Case("an empty file", _init(""), 2, ("is empty",)),
    Case("a header alone", _init(HEAD), 2, ("has no rows",)),
    Case("only blanks", _init(" \n\n , \n"), 2, ("is empty",)),
    Case("no header", _init(HEADERLESS), 0, ("12 images; label one: cat 4, dog 8", "first img/000.png")),
    Case(
        "no header, and ids",
        _init(_rows(lambda i: f"{i:03d},{SPECIES[i % 3]}")),
        0,
        ("12 images; label one: cat 4, dog 8", "first 000.png"),
    ),
    Case(
        "no header, and an index",
        _init(_rows(lambda i: f"{i},{_plain(i)}")),
        0,
        ("12 images; label one: cat 4, dog 8",),
    ),
    Case(
        "no header, and ids with letters",
        _init(_rows(lambda i: f"ISIC_{i:03d},{SPECIES[i % 3]}"), [f"img/ISIC_{i:03d}.jpg" for i in range(12)]),
        0,
        ("12 images; label one: cat 4, dog 8",),
    ),
    Case(
        "no header, and cells that are alike in the first row",
        _init(_rows(lambda i: f"img/{i:03d}.png,{i % 2},{i % 3 % 2}")),
        0,
        ("12 images; labels any: column_2 6, column_3 4",),
    ),
    Case(
        "no header, and a first image that is missing",
        _init(_rows(_plain), _names()[1:]),
        0,
        ("12 images", "missing 1"),
    ),
    Case(
        "no header, ids, and cells that are alike in the first row",
        _init(_rows(lambda i: f"{i:03d},0,0")),
        2,
        ("named twice", "dataset.header"),
    ),
    Case(
        "no header, of a study",
        _read(HEADERLESS, path_column="img/000.png", groups={"cat": {"column": "cat"}}),
        2,
        ("line 1: names the image", "dataset.header"),
    ),
    Case(
        "no header, named by the study",
        _read(HEADERLESS, header=["path", "species"]),
        0,
        (TWO_CLASSES, "first img/000.png"),
    ),
    Case(
        "a header with fewer names than cells",
        _read(HEADERLESS, header=["path"], path_column="path"),
        2,
        ("has no column 'species'",),
    ),
    Case(
        "a header in another Unicode form",
        _read(
            PLAIN.replace("species", unicodedata.normalize("NFD", "esp\u00e8ce")),
            groups={"species": {"column": "esp\u00e8ce"}},
        ),
        0,
        (TWO_CLASSES,),
    ),
]

VALUES = [
    Case(
        "floats and blanks are whole numbers",
        _init(_labels("0.0", "1.0", "2.0", "")),
        0,
        ("y one: 0 3, 1 3, 2 3, unknown 3",),
    ),
    Case("floats of 0 and 1", _init(_labels("0.0", "1.0")), 0, ("y one: 0 6, 1 6",)),
    Case("whole numbers and floats mixed", _init(_labels("1", "1.0", "2")), 0, ("y one: 1 8, 2 4",)),
    Case("ten follows nine", _init(_labels("9.0", "10.0", "")), 0, ("y one: 9 4, 10 4, unknown 4",)),
    Case(
        "floats of a study whose classes are whole",
        _read(
            PLAIN.replace("cat", "0.0").replace("dog", "1.0"),
            groups={"species": {"column": "species", "classes": ["0", "1"]}},
        ),
        0,
        ("0 4, 1 8",),
    ),
    Case(
        "floats of a study keep their names",
        _read(PLAIN.replace("cat", "0.0").replace("dog", "1.0")),
        0,
        ("0.0 4, 1.0 8",),
    ),
    Case(
        "versions are no whole numbers", _read(PLAIN.replace("cat", "1.0").replace("dog", "1.1")), 0, ("1.0 4, 1.1 8",)
    ),
    Case("measurements are no classes", _init(_labels("0.5", "1.5")), 2, ("no column looks like labels",)),
    Case("exponents are measurements", _init(_labels("1e3", "2e3")), 2, ("no column looks like labels",)),
    Case("zeros in front stay", _init(_labels("001", "002", "010")), 0, ("001 4, 002 4, 010 4",)),
    Case("minus one and one", _init(_labels("-1", "1")), 0, ("-1 6, 1 6",)),
    Case(
        "two 0/1 columns with floats and blanks",
        _init("path,a,b\n" + _rows(lambda i: f"img/{i:03d}.png,{['1.0', '0.0', ''][i % 3]},{['0.0', '1.0'][i % 2]}")),
        0,
        ("labels any: a 4, b 6",),
    ),
    Case(
        "two 0/1 columns with NaN",
        _init("path,a,b\n" + _rows(lambda i: f"img/{i:03d}.png,{['1', '0', 'NaN'][i % 3]},{['0', '1'][i % 2]}")),
        0,
        ("labels any: a 4, b 6",),
    ),
    Case(
        "true and false in two columns",
        _init("path,a,b\n" + _rows(lambda i: f"img/{i:03d}.png,{i % 3 == 0},{i % 2 == 0}")),
        0,
        ("labels any: a 4, b 6",),
    ),
    Case("true and false", _init(_labels("True", "False")), 0, ("False 6, True 6",)),
    Case("yes and no", _init(_labels("yes", "no")), 0, ("no 6, yes 6",)),
    Case("nan is unknown", _init(_labels("cat", "dog", "nan")), 0, ("y one: cat 4, dog 4, unknown 4",)),
    Case("NULL is unknown", _init(_labels("cat", "dog", "NULL")), 0, ("y one: cat 4, dog 4, unknown 4",)),
    Case("<NA> is unknown", _init(_labels("cat", "dog", "<NA>")), 0, ("y one: cat 4, dog 4, unknown 4",)),
    Case("nan beside numbers", _init(_labels("1", "2", "nan")), 0, ("y one: 1 4, 2 4, unknown 4",)),
    Case(
        "nan that a study names as a class",
        _read(PLAIN.replace("cat", "nan"), groups={"species": {"column": "species", "classes": ["dog", "nan"]}}),
        0,
        ("dog 8, nan 4",),
    ),
    Case(
        "None is taken for unknown",
        _init(_labels("cat", "dog", "None")),
        0,
        ("y one: cat 4, dog 4, unknown 4", "(4 rows) is taken for unknown", "add it to `classes`"),
    ),
    Case(
        "NA among words is taken for unknown",
        _init(_labels("cat", "dog", "NA")),
        0,
        ("y one: cat 4, dog 4, unknown 4", "'NA' (4 rows) is taken for unknown"),
    ),
    Case(
        "NA among codes is taken for a class",
        _init(_labels("NA", "EU", "SA")),
        0,
        ("y one: EU 4, NA 4, SA 4", "'NA' (4 rows) is taken for a class", "take it out of `classes`"),
    ),
    Case("NA of a study is a class", _read(PLAIN.replace("cat", "NA")), 0, ("NA 4, dog 8",)),
    Case("only missing marks", _init(_labels("nan", "None")), 2, ("no column looks like labels",)),
    Case(
        "a patient that is nan is no group",
        _init("path,species,patient\n" + _rows(lambda i: _plain(i) + ",nan")),
        0,
        (TWO_CLASSES,),
    ),
    Case(
        "capitals are reported",
        _init(_labels("Cat", "cat", "dog")),
        0,
        ("Cat 4, cat 4, dog 4", "differ in capitals only", "write them alike"),
    ),
    Case("a blank of no width", _init(_labels("cat", "cat\u200b", "dog")), 0, ("y one: cat 8, dog 4",)),
    Case(
        "a blank that does not break, at the end",
        _init(_labels("cat", "cat\u00a0", "dog")),
        0,
        ("y one: cat 8, dog 4",),
    ),
    Case(
        "a blank that does not break, inside",
        _init(_labels("red fox", "red\u00a0fox", "dog")),
        0,
        ("dog 4, red fox 8",),
    ),
    Case("two Unicode forms of a class", _init(_labels(NFC, NFD, "tea")), 0, (f"{NFC} 8, tea 4",)),
    Case("two Unicode forms in a list", _init(_labels(f"{NFC}|tea", f"{NFD}|tea", "tea")), 0, (f"{NFC} 8, tea 12",)),
    Case("one Unicode form of a study keeps its name", _read(PLAIN.replace("cat", NFD)), 0, (f"{NFD} 4, dog 8",)),
    Case(
        "a class that a study names in the other form",
        _read(PLAIN.replace("cat", NFD), groups={"species": {"column": "species", "classes": [NFC, "dog"]}}),
        0,
        (f"{NFC} 4, dog 8",),
    ),
    Case("a slash", _init(_labels("T-shirt/top", "Trouser")), 0, ("T-shirt/top 6, Trouser 6",)),
    Case(
        "words that are classes are a list",
        _init(_labels("cat dog", "cat", "dog")),
        0,
        ("y any: cat 8, dog 8", "are taken for several classes"),
    ),
    Case("lists of Python", _init(_labels(_list("cat", "dog"), _list("cat"))), 0, ("y any: cat 12, dog 6",)),
    Case(
        "lists of Python, each with one name", _init(_labels(_list("cat"), _list("dog"))), 0, ("y any: cat 6, dog 6",)
    ),
    Case(
        "lists of Python with commas, brackets and quotes",
        _init(_labels(_list("cat, big", "it's"), _list("dog [x]"))),
        0,
        ("y any: cat, big 6, dog [x] 6, it's 6",),
    ),
    Case(
        "lists of JSON",
        _init(_labels(_list("cat", "dog", form="json"), _list("cat", form="json"))),
        0,
        ("y any: cat 12, dog 6",),
    ),
    Case(
        "lists of JSON with escapes",
        _init(_labels(_list(NFC, "\U0001f98a", form="json"), _list("a/b", form="json"))),
        0,
        (f"{NFC} 6", "\U0001f98a 6", "a/b 6"),
    ),
    Case(
        "lists of PostgreSQL",
        _init(_labels(_list("cat", "dog", form="postgres"), _list("cat", form="postgres"))),
        0,
        ("y any: cat 12, dog 6",),
    ),
    Case("lists of NumPy", _init(_labels("['cat' 'dog']", "['cat']")), 0, ("y any: cat 12, dog 6",)),
    Case("lists without quotes", _init(_labels('"[cat, dog]"', "[cat]")), 0, ("y any: cat 12, dog 6",)),
    Case("tuples", _init(_labels("\"('cat', 'dog')\"", "\"('cat',)\"")), 0, ("y any: cat 12, dog 6",)),
    Case(
        "an empty list has none of the classes",
        _init(_labels(_list("cat", "dog"), "[]", _list("dog"))),
        0,
        ("y any: cat 4, dog 8;",),
    ),
    Case(
        "an empty cell among lists is unknown",
        _init(_labels(_list("cat", "dog"), "", _list("dog"))),
        0,
        ("y any: cat 4, dog 8, unknown 4",),
    ),
    Case("lists and single names", _init(_labels(_list("cat", "dog"), "cat")), 0, ("y any: cat 12, dog 6",)),
    Case(
        "lists of a study",
        _read(HEAD + _rows(lambda i: f"img/{i:03d}.png,{_list('cat', 'dog') if i % 2 else _list('dog')}"), groups=ANY),
        0,
        ("species any: cat 6, dog 12",),
    ),
    Case("a list a thousand brackets deep", _init(_labels("[" * 1000 + "]" * 1000, "x")), 0, ("y one",)),
    Case("semicolons between names", _init(_labels("cat;dog", "cat", "dog")), 0, ("y any: cat 8, dog 8",)),
    Case("commas between names", _init(_labels('"cat, dog"', "cat", "dog")), 0, ("y any: cat 8, dog 8",)),
]

SPREAD = [*_names(6, "part_1"), *[f"part_2/{n:03d}.jpg" for n in range(6, 12)]]
PATHS = [
    Case(
        "absolute paths below the root",
        _init(lambda root: _paths(lambda i: f"{root}/img/{i:03d}.png")),
        0,
        (TWO_CLASSES, "first img/000.png", "missing 0"),
    ),
    Case(
        "absolute paths of another machine",
        _init(_paths(lambda i: f"/home/me/x/img/{i:03d}.png")),
        0,
        (TWO_CLASSES, "prefix '/home/me/x/'", "missing 0"),
    ),
    Case(
        "backslashes", _init(_paths(lambda i: f"img\\{i:03d}.png")), 0, (TWO_CLASSES, "first img/000.png", "missing 0")
    ),
    Case(
        "a drive letter",
        _init(_paths(lambda i: f"C:\\Users\\me\\d\\img\\{i:03d}.png")),
        0,
        (TWO_CLASSES, "prefix 'C:/Users/me/d/'", "missing 0"),
    ),
    Case("a dot in front", _init(_paths(lambda i: f"./img/{i:03d}.png")), 0, (TWO_CLASSES, "first img/000.png")),
    Case(
        "a dot and a backslash in front",
        _init(_paths(lambda i: f".\\img\\{i:03d}.png")),
        0,
        (TWO_CLASSES, "first img/000.png"),
    ),
    Case(
        "the root's own name in front",
        _init(_paths(lambda i: f"data/img/{i:03d}.png")),
        0,
        (TWO_CLASSES, "prefix 'data/'", "missing 0"),
    ),
    Case(
        "the root's own name before files",
        _init(_paths(lambda i: f"data/{i}.png"), [f"{i}.png" for i in range(12)]),
        0,
        (TWO_CLASSES, "first 0.png"),
    ),
    Case("blanks around", _init(_paths(lambda i: f" img/{i:03d}.png ")), 0, (TWO_CLASSES,)),
    Case("ids without ending", _init(_paths(lambda i: f"{i:03d}")), 0, (TWO_CLASSES, "first 000.png", "missing 0")),
    Case(
        "ids of two folders and endings",
        _init(_paths(lambda i: f"{i:03d}"), SPREAD),
        0,
        (TWO_CLASSES, "first part_1/000.png", "missing 0"),
    ),
    Case(
        "names of files of two folders",
        _init(_paths(lambda i: Path(SPREAD[i]).name), SPREAD),
        0,
        (TWO_CLASSES, "missing 0"),
    ),
    Case(
        "numbers as ids, and numbers as labels",
        _init("label,id\n" + _rows(lambda i: f"{i % 3},{i}"), [f"img/{i}.png" for i in range(12)]),
        0,
        ("12 images; label one: 0 4, 1 4, 2 4", "missing 0"),
    ),
    Case(
        "ids with dots",
        _init(_paths(lambda i: f"x.{i}"), [f"img/x.{i}.png" for i in range(12)]),
        0,
        (TWO_CLASSES, "missing 0"),
    ),
    Case(
        "an id that names two files",
        _init(_paths(lambda i: f"{i:03d}"), [*SPREAD, "part_2/000.png"]),
        2,
        ("line 2", "names 2 files", "write the paths"),
    ),
    Case(
        "ids of a folder, of which another has one",
        _init(_paths(lambda i: f"{i:03d}"), [*_names(), "a/000.png"]),
        0,
        (TWO_CLASSES, "missing 0"),
    ),
    Case(
        "ids of two folders alike",
        _init(_paths(lambda i: f"{i:03d}"), [*_names(), *_names(folder="masks")]),
        2,
        ("'img' and of 'masks'", "write the folder into"),
    ),
    Case(
        "names of two folders alike",
        _init(_paths(lambda i: f"{i:03d}.png"), [*_names(), *_names(folder="masks")]),
        2,
        ("'img' and of 'masks'", "write the folder into"),
    ),
    Case(
        "an id that names no file",
        _init(_paths(lambda i: f"{i + 1:03d}")),
        2,
        ("line 13", "no image below img/ has the name '012'"),
    ),
    Case("ids that lead out", _read(PLAIN + "../x,cat\n", lookup="name"), 2, ("no image below data/",)),
    Case("numbers of padded names", _init(_paths(str)), 2, ("holds '0'", "there is 'img/000.png'", "dtype=str")),
    Case(
        "another ending",
        _init(_paths(lambda i: f"img/{i:03d}.jpeg")),
        2,
        ("holds 'img/000.jpeg'", "there is '000.png'"),
    ),
    Case(
        "an ending in capitals",
        _init(_paths(lambda i: f"img/{i:03d}.PNG")),
        2,
        ("holds 'img/000.PNG'", "there is '000.png'"),
    ),
    Case(
        "a folder in capitals",
        _init(_paths(lambda i: f"IMG/{i:03d}.png")),
        2,
        ("holds 'IMG/000.png'", "there is 'img'"),
    ),
    Case(
        "URLs",
        _init(_paths(lambda i: f"https://example.org/img/{i:03d}.png")),
        2,
        ("these are URLs", "save the images"),
    ),
    Case("file URLs", _init(lambda root: _paths(lambda i: f"file://{root}/img/{i:03d}.png")), 2, ("these are URLs",)),
    Case("a URL of a study", _read(PLAIN + "https://example.org/a.png,cat\n"), 2, ("line 14", "is a URL")),
    Case(
        "paths that lead out",
        _init(_paths(lambda i: f"../data/img/{i:03d}.png")),
        2,
        ("lead out of that folder", "without `..`"),
    ),
    Case(
        "paths that lead out after a prefix",
        _read(PLAIN + "/x/../../etc/a.png,cat\n", path_prefix="/x/"),
        2,
        ("line 14", "leaves the folder"),
    ),
    Case(
        "an absolute path of a study",
        _read(PLAIN + "/etc/passwd,cat\n"),
        2,
        ("line 14", "is absolute", "dataset.path_prefix"),
    ),
    Case(
        "a drive letter of a study",
        _read(PLAIN + "C:\\a.png,cat\n"),
        2,
        ("line 14", "is absolute", "dataset.path_prefix"),
    ),
    Case("backslashes that lead out", _read(PLAIN + "..\\a.png,cat\n"), 2, ("line 14", "leaves the folder")),
    Case(
        "another file's absolute path",
        _init(_paths(lambda i: f"/etc/{i}.png"), [f"{i}.png" for i in range(12)]),
        2,
        ("these are absolute", "move the images"),
    ),
    Case("images that are missing", _init(_without_images), 2, ("no column names image files", "holds 'img/000.png'")),
    Case(
        "a path in another Unicode form",
        _init(_paths(lambda i: f"img/{NFC}{i}.png"), [f"img/{NFD}{i}.png" for i in range(12)]),
        0,
        (TWO_CLASSES, "missing 0"),
    ),
    Case(
        "a folder in another Unicode form",
        _read(HEAD + _rows(lambda i: f"{NFD}/{i}.png,{SPECIES[i % 3]}"), [f"{NFC}/{i}.png" for i in range(12)]),
        0,
        (TWO_CLASSES, "missing 0"),
    ),
]

ROWS = [
    Case("a row per label", _init(LONG), 0, ("12 images; species any: cat 4, dog 8, small 6", "stand on several rows")),
    Case(
        "a row per label of two groups",
        _init(
            "path,species,hospital\n"
            + _rows(lambda i: f"{_plain(i)},north\nimg/{i:03d}.png,small,north" if i % 2 else f"{_plain(i)},south")
        ),
        0,
        ("species any: cat 4, dog 8, small 6; hospital one: north 6, south 6",),
    ),
    Case(
        "a row per box, with one class",
        _init("path,species,x\n" + _rows(lambda i: f"{_plain(i)},1\n{_plain(i)},2")),
        0,
        (TWO_CLASSES, "bad {}"),
    ),
    Case(
        "rows per label with 0/1 columns",
        _init("path,a,b\n" + _rows(lambda i: f"img/{i:03d}.png,1,0" + (f"\nimg/{i:03d}.png,0,1" if i % 2 else ""))),
        0,
        ("12 images; labels any: a 12, b 6",),
    ),
    Case("a row per label, bars in a class", _init(LONG.replace("small", "a|b")), 0, ("species any",)),
    Case(
        "one image of twelve on a second row with another class",
        _init(PLAIN + "img/000.png,dog\n"),
        2,
        ("line 14: the image 'img/000.png' has other labels than at labels.csv line 2", "dataset.rows: label"),
    ),
    Case(
        "a row per label of a study",
        _read(LONG, on_bad="skip"),
        2,
        (
            "line 4: the image 'img/001.png' has other labels than at labels.csv line 3",
            "6 such rows",
            "dataset.rows: label",
        ),
    ),
    Case("a row per label of a study that fails", _read(LONG), 2, ("other labels", "dataset.rows: label")),
    Case(
        "a row per label and one class an image",
        _read(LONG, rows="label"),
        2,
        ("another class of the group species", "kind: any"),
    ),
    Case(
        "a row per label in two splits",
        _read(
            "path,species,part\n" + PLAIN.removeprefix(HEAD).replace("\n", ",train\n") + "img/000.png,cat,test\n",
            rows="label",
            split_column="part",
        ),
        2,
        ("another split",),
    ),
    Case(
        "a row twice", _read(PLAIN + "img/000.png,cat\n", on_bad="skip"), 0, (TWO_CLASSES, "bad {'duplicate path': 1}")
    ),
    Case(
        "a row twice that fails",
        _read(PLAIN + "img/000.png,cat\n"),
        2,
        ("line 14", "is already listed at labels.csv line 2"),
    ),
    Case(
        "a path twice in other words",
        _read(PLAIN + ".\\img/000.png,dog\n", on_bad="skip"),
        2,
        ("'img/000.png' has other labels",),
    ),
]

CASES = [*FORMS, *VALUES, *PATHS, *ROWS]
