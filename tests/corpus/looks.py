"""Holds data sets that `tailfill look` is shown, good and bad."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.cli.look import look
from tests.corpus.case import Case

SIDE = 32
Make = Callable[[Path], object]


def _picture(path: Path, number: int, level: int = 0) -> Path:
    """Draws noise around a grey level, so that classes can be told apart by it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(level, level + 60, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def _folders(**counts: int) -> Make:
    def make(root: Path) -> None:
        for place, (name, count) in enumerate(counts.items()):
            for number in range(count):
                _picture(root / name.replace("__", "/") / f"{number}.png", 1000 * place + number, 60 * (place % 4))

    return make


def _table(header: str, cells: Callable[[int], str], rows: int = 24) -> Make:
    def make(root: Path) -> None:
        for number in range(rows):
            _picture(root / f"{number}.png", number, 60 * (number % 2))
        lines = [header, *(f"{number}.png,{cells(number)}" for number in range(rows))]
        (root / "labels.csv").write_text("\n".join(lines) + "\n")

    return make


def _looked(make: Make, data: str = "data", out: str = "look", most: int = 1000, sets: tuple[str, ...] = ()) -> Make:
    """Returns an attempt that looks at what `make` makes in the folder `data`, and returns what is said with the tables and the page."""

    def attempt(folder: Path) -> object:
        (folder / "data").mkdir()
        make(folder / "data")
        lines = look(data, Path(out), most, sets)
        names = ("duplicates.csv", "lookalikes.csv", "suspects.csv", "odd.csv", "index.html")
        files = [(folder / out / name).read_text() for name in names]
        return "\n".join([*lines, *files])

    return attempt


def _with(make: Make, more: Make) -> Make:
    def both(root: Path) -> None:
        make(root)
        more(root)

    return both


TWO = _folders(a=8, b=8)


def _foreign(root: Path) -> None:
    TWO(root)
    _picture(root.parent / "look" / "holiday.png", 1)


def _look_twice(change: str) -> Make:
    def attempt(folder: Path) -> object:
        TWO(folder / "data")
        look("data", Path("look"), 100)
        if change:
            with (folder / "look" / change).open("a") as file:
                file.write("mine\n")
        return "\n".join(look("data", Path("look"), 100))

    return attempt


def _float_images(root: Path) -> None:
    for name, level in (("a", 0.1), ("b", 0.6)):
        (root / name).mkdir()
        for number in range(6):
            values = np.random.default_rng(number).uniform(level, level + 0.3, (SIDE, SIDE)).astype(np.float32)
            Image.fromarray(values).save(root / name / f"{number}.tiff")


def _float16_array(root: Path) -> None:
    images = np.random.default_rng(0).random((12, SIDE, SIDE)).astype(np.float16)
    np.savez(root / "set.npz", train_images=images, train_labels=np.arange(12) % 2)


def _hostile_names(root: Path) -> None:
    TWO(root)
    shutil.move(root / "a", root / "<script>alert(1)<")
    _picture(root / "b" / "=1+1.png", 5000, 60).write_text("no image")


def _study(text: str) -> Make:
    def make(root: Path) -> None:
        TWO(root)
        (root.parent / "study.yaml").write_text(text)

    return make


STUDY = """\
name: x
seed: 0
dataset: {source: garments, resolution: 32, train: 100, val: 50, test: 50, rare_eval: 0}
finetune: {generator: pixel, resolution: 32}
verdict: none
experiments: [{name: real, images: real}]
"""


CASES = [
    Case(
        "two classes",
        _looked(TWO),
        0,
        ("images: 16; label (2 classes)", "labels of label: 0 suspicious of 16", "index.html"),
    ),
    Case("a class of one image", _looked(_folders(a=8, b=8, c=1)), 0, ("of 16", "Too few images to be judged: c")),
    Case(
        "two images in all", _looked(_folders(a=1, b=1)), 0, ("not judged, since fewer than two classes have 5 images",)
    ),
    Case("a single class", _looked(_folders(a=6)), 2, ("1 class folders",)),
    Case(
        "a class without a name in a table",
        _looked(_table("path,kind", lambda i: ["x", "y", ""][i % 3])),
        0,
        ("8 images have no label in kind",),
    ),
    Case(
        "a multi-label table",
        _looked(_table("path,tags", lambda i: ["bright|big", "big", "bright"][i % 3])),
        0,
        ("tags (2 classes)", "together"),
    ),
    Case(
        "train and test without val",
        _looked(_folders(train__a=6, train__b=6, test__a=3, test__b=3)),
        0,
        ("12 train, 6 test",),
    ),
    Case(
        "a copy in two splits",
        _looked(
            _with(
                _folders(train__a=6, train__b=6, test__a=3, test__b=3),
                lambda root: shutil.copy(root / "train/a/0.png", root / "test/a/x.png"),
            )
        ),
        0,
        (
            "Mend these before you train: 1 image is in two splits",
            "test/a/x.png,train/a/0.png,0,exact,test,train,1,agree",
        ),
    ),
    Case(
        "a copy with another label",
        _looked(_with(TWO, lambda root: shutil.copy(root / "a/0.png", root / "b/x.png"))),
        0,
        ("1 pair of copies has different labels", "a/0.png,b/x.png,0,exact,,,0,conflict,a,b"),
    ),
    Case(
        "all images black",
        _looked(_with(TWO, lambda root: [Image.new("RGB", (SIDE, SIDE)).save(p) for p in root.rglob("*.png")])),
        0,
        ("copies: 15 pairs", "not judged", "one colour"),
    ),
    Case(
        "an unreadable image",
        _looked(_with(TWO, lambda root: (root / "a" / "0.png").write_text("x"))),
        0,
        ("1 image cannot be read", "a/0.png,,,not an image"),
    ),
    Case(
        "an empty file and a cut one",
        _looked(
            _with(
                TWO,
                lambda root: [
                    (root / "a" / "0.png").write_bytes(b""),
                    (root / "b" / "0.png").write_bytes((root / "b" / "1.png").read_bytes()[:200]),
                ],
            )
        ),
        0,
        ("2 images cannot be read", "empty file", "truncated"),
    ),
    Case(
        "only unreadable images",
        _looked(_with(TWO, lambda root: [p.write_text("x") for p in root.rglob("*.png")])),
        2,
        ("no usable image", "is in none of the formats"),
    ),
    Case(
        "a missing image",
        _looked(_with(_table("path,kind", lambda i: "xy"[i % 2]), lambda root: (root / "3.png").unlink())),
        0,
        ("1 image cannot be read", "missing file"),
    ),
    Case("float images", _looked(_float_images), 0, ("images: 12",)),
    Case("an array of float16", _looked(_float16_array, "data/set.npz"), 0, ("images: 12",)),
    Case(
        "a long thin image and a tiny one",
        _looked(
            _with(
                TWO,
                lambda root: [
                    Image.linear_gradient("L").resize((400, 20)).save(root / "a/long.png"),
                    Image.linear_gradient("L").resize((4, 4)).save(root / "b/tiny.png"),
                ],
            )
        ),
        0,
        ("a/long.png,400,20,long and thin", "b/tiny.png,4,4,tiny"),
    ),
    Case(
        "more images than are looked at",
        _looked(_folders(a=9, b=3), most=6),
        0,
        ("images: 12, 6 of them looked at", "note: 6 of 12 images were looked at", "--max-images"),
    ),
    Case(
        "names of a page and of a formula",
        _looked(_hostile_names),
        0,
        ("&lt;script&gt;alert(1)&lt;", "b/=1+1.png"),
        ("<script>alert(1)",),
    ),
    Case("nothing there", _looked(TWO, "nowhere"), 2, ("nowhere: not found",)),
    Case("an empty folder", _looked(lambda root: None), 2, ("holds neither images in class folders nor a CSV",)),
    Case(
        "one image",
        _looked(lambda root: _picture(root / "x.png", 1), "data/x.png"),
        2,
        ("is an image; name the folder",),
    ),
    Case("a page inside of the data", _looked(TWO, out="data/look"), 2, ("lies inside of the data", "--out")),
    Case(
        "a page over a file",
        _looked(_with(TWO, lambda root: (root.parent / "look").write_text("x"))),
        2,
        ("look: is a file", "--out"),
    ),
    Case(
        "a page among other files",
        _looked(_foreign),
        2,
        ("holds holiday.png, which is not of an earlier look", "--out"),
    ),
    Case("a look again", _look_twice(""), 0, ("images: 16",)),
    Case(
        "a look over a changed table",
        _look_twice("suspects.csv"),
        2,
        ("holds suspects.csv, which was changed since it was written", "move it away"),
    ),
    Case(
        "a record of what was written that is none",
        _looked(
            _with(
                TWO, lambda root: [(root.parent / "look").mkdir(), (root.parent / "look/written.json").write_text("[1")]
            )
        ),
        0,
        ("images: 16",),
    ),
    Case(
        "a study of drawn images",
        _looked(
            _study(STUDY),
            "study.yaml",
            most=100,
        ),
        0,
        ("pattern (7 classes)", "100 of them looked at"),
    ),
    Case(
        "a study with a wrong key",
        _looked(_study(STUDY.replace("rare_eval", "rare_evil")), "study.yaml"),
        2,
        ("study.yaml",),
    ),
    Case(
        "a YAML file that is no mapping", _looked(_study("- a\n"), "study.yaml"), 2, ("study.yaml: must be a mapping",)
    ),
    Case(
        "a setting without a study",
        _looked(TWO, sets=("dataset.fit=pad",)),
        2,
        ("--set: replaces values of a study file",),
    ),
]
