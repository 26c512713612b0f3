"""Holds hostile and damaged files of the kinds that `init` joins: Pascal VOC's XML, tables of pixels, lists, and joined tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shared.config.dataset import CsvSource, Dataset, FolderSource
from shared.data.infer_source import infer_source
from shared.data.problems import Problems
from shared.data.sources.table import open_source
from tests.corpus.case import Case
from tests.corpus.folders import picture

Text = str | bytes


def read(files: Mapping[str, Text], images: tuple[str, ...] = (), **settings: Any) -> Callable[[Path], object]:
    """Returns an attempt that infers the source as `init` does, changes its settings, reads it under `on_bad: fail`, and describes what was read."""

    def attempt(folder: Path) -> object:
        root = folder / "data"
        root.mkdir()
        _write(root, files, images)
        source = infer_source(root)
        boxes = {"least_size": 1} if "least_size" in type(source.dataset).model_fields else {}
        return _described(source.dataset.model_copy(update={**boxes, **settings}), source.root)

    return attempt


def study(
    kind: type[CsvSource | FolderSource], files: Mapping[str, Text], images: tuple[str, ...], **settings: Any
) -> Callable[[Path], object]:
    """Returns an attempt that reads data by a study that a person wrote."""

    def attempt(folder: Path) -> object:
        root = folder / "data"
        root.mkdir()
        _write(root, files, images)
        name = "csv" if kind is CsvSource else "folder"
        return _described(kind.model_validate({"source": name, "root": str(root), **settings}), root)

    return attempt


def _write(root: Path, files: Mapping[str, Text], images: tuple[str, ...]) -> None:
    for name in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture())
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def _described(dataset: Dataset, root: Path) -> str:
    problems = Problems("fail")
    listing = open_source(dataset, root, 0, problems)
    images = list(listing.images)
    problems.raise_if_failing()
    splits = Counter(image.split or "undivided" for image in images)
    return f"{dataset.source} {dict(sorted(splits.items()))} {','.join(listing.schema.class_names)} {' '.join(listing.notes)}"


IMAGES = ("a.png", "b.png")
OBJECT = "<object><name>{}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>6</ymax></bndbox></object>"
XML = f"<annotation><filename>{{}}</filename>{OBJECT.format('cat')}{OBJECT.format('dog')}</annotation>"
LAUGHS = "<!DOCTYPE x [" + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha"}">' for n in range(12)) + "]>"
OUTSIDE = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>'


def voc(second: Text) -> Callable[[Path], object]:
    return read({"a.xml": XML.format("a.png"), "b.xml": second}, IMAGES)


GREY = "label," + ",".join(f"pixel{n}" for n in range(64))
ROWS = [f"{n % 2}," + ",".join(str((n * 9 + i) % 256) for i in range(64)) for n in range(6)]


def pixels(*rows: str, header: str = GREY) -> Callable[[Path], object]:
    return read({"digits.csv": "\n".join([header, *ROWS, *rows]) + "\n"})


FLAT = tuple(f"img/{n:03d}.png" for n in range(12))
LABELS = "id,label\n" + "".join(f"{n:03d},{['cat', 'dog'][n % 2]}\n" for n in range(12))
GROUPS = {"label": {"column": "label"}}


def joined(text: Text, **part: Any) -> Callable[[Path], object]:
    settings = {"file": "labels.csv", "path_column": "id", "lookup": "name", "image_folder": "img"}
    more = ({"file": "more.csv", "on": "id", **part},)

    def attempt(folder: Path) -> object:
        from shared.config.dataset import CsvFile, CsvGroup

        made = {"groups": {"label": CsvGroup(column="label")}, "more": tuple(map(CsvFile.model_validate, more))}
        return study(CsvSource, {"labels.csv": LABELS, "more.csv": text}, FLAT, **settings, **made)(folder)

    return attempt


CLASSES = tuple(f"{name}/{n}.png" for name in ("cat", "dog") for n in range(4))


def lists(train: Text, test: Text = "cat/3\ndog/3\n", file: str = "train.txt") -> Callable[[Path], object]:
    return study(
        FolderSource,
        {"train.txt": train, "test.txt": test},
        CLASSES,
        lists={"train": file, "test": "test.txt"},
        skip=("*.txt",),
    )


CASES = [
    Case("voc", voc(XML.format("b.png")), 0, ("voc {'undivided': 4} label/cat,label/dog",)),
    Case("voc: entities that unpack", voc(LAUGHS + XML.format("&l11;")), 2, ("b.xml: declares a document type or entities", "remove them"), ("haha",)),
    Case("voc: an entity that reads a file", voc(OUTSIDE + XML.format("&f;")), 2, ("declares a document type or entities",), ("root:",)),
    Case("voc: a name that leaves the folder", voc(XML.format("../../../etc/passwd.png")), 2, ("missing file", "passwd")),
    Case("voc: an absolute name", voc(XML.format("/etc/b.png")), 0, ("'undivided': 4",)),
    Case("voc: cut off", voc(XML.format("b.png")[:-20]), 2, ("b.xml: must be XML", "export it again")),
    Case("voc: not UTF-8", voc(XML.format("b.png").encode() + b"<!--\xff-->"), 2, ("b.xml: is not UTF-8 text",)),
    Case("voc: another root", voc("<html><object/></html>"), 2, ("must hold an `annotation`", "'html'")),
    Case("voc: nested without end", voc("<annotation>" * 50_000), 2, ("b.xml: must be XML",)),
    Case("voc: no name of a class", voc(XML.format("b.png").replace("cat", " ")), 2, ("b.xml object 1", "must have a name")),
    Case("voc: a box of words", voc(XML.format("b.png").replace("<xmax>5", "<xmax>five")), 2, ("unusable box", "xmin < xmax")),
    Case("voc: a box without end", voc(XML.format("b.png").replace("<xmax>5", "<xmax>inf")), 2, ("unusable box",)),
    Case("voc: no box", voc(XML.format("b.png").replace("bndbox", "polygon")), 2, ("unusable box",)),
    Case("pixels", pixels(), 0, ("arrays {'undivided': 6} label/0,label/1",)),
    Case("pixels: a word", pixels("1,x" + ",0" * 63), 2, ("digits.csv line 8: must hold a class number and pixels",)),
    Case("pixels: too bright", pixels("1,256" + ",0" * 63), 2, ("line 8: its pixels must be 0 to 255",)),
    Case("pixels: not a number", pixels("1,nan" + ",0" * 63), 2, ("line 8: its pixels must be 0 to 255",)),
    Case("pixels: a cell too few", pixels("1" + ",0" * 63), 2, ("line 8: must have as many cells as the first line",)),
    Case("pixels: a cell too many", pixels("1" + ",0" * 65), 2, ("line 8: must have as many cells as the first line",)),
    Case("pixels: a class below 0", pixels("-1" + ",0" * 64), 2, ("line 8: its pixels must be 0 to 255 and its class at least 0",)),
    Case("pixels: no square", read({"digits.csv": f"{GREY},pixel64\n" + "".join(f"{row},1\n" for row in ROWS)}), 2, ("65 pixels make no square image",)),
    Case("join", joined("id,site\n000,x\n"), 0, ("csv {'undivided': 12}",)),
    Case("join: a key twice", joined("id,site\n000,x\n000,y\n"), 2, ("more.csv line 3", "has other cells than on line 2")),
    Case("join: no such column", joined("name,site\n000,x\n"), 2, ("dataset.more.0.key", "no column 'id'")),
    Case("join: not UTF-8", joined(b"id,site\n000,\xff\n"), 2, ("more.csv: is not UTF-8 text",)),
    Case("join: a file that leaves the folder", joined("", file="../../etc/passwd"), 2, ("dataset.more.0.file: must lie inside dataset.root",)),
    Case("join: a file that is not there", joined("", file="absent.csv"), 2, ("absent.csv: not found",)),
    Case("join: an empty file", joined(""), 2, ("more.csv: is empty",)),
    Case("lists", lists("cat/0\ncat/1.png\n./dog/0.png\n"), 0, ("folder {'test': 2, 'train': 3}", "3 images are in no list of a split")),
    Case("lists: an image in two", lists("cat/3\ncat/0\n"), 2, ("'cat/3' is listed for train, too",)),
    Case("lists: names of nothing", lists("x\n", "y\n"), 2, ("name no image below data/",)),
    Case("lists: not UTF-8", lists(b"cat/0\n\xff\n"), 2, ("train.txt: is not UTF-8 text",)),
    Case("lists: a file that leaves the folder", lists("", file="../train.txt"), 2, ("dataset.lists",)),
]  # fmt: skip
