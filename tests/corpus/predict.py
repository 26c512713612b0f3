"""Holds images, tables, studies and exports as people hand them to `tailfill predict` and `tailfill export model`."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from click.testing import CliRunner
from PIL import Image

from jobs.__main__ import cli
from shared.errors import TailfillError
from tests.corpus.case import Case
from tests.support.trained_study import commit_report, run_study

Make = Callable[[Path], object]
GREEN = np.full((40, 40, 3), (40, 200, 40), np.uint8)


@cache
def _trained() -> Path:
    """Returns a folder with a study that was run, and its export as a graph in `export`."""
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    run_study(root, final={"epochs": 3, "seeds": 1})
    commit_report(root, {})
    _command(root, "export", "model", str(root / "export"), "--format", "onnx", "--workdir", str(root / "work/squares"))
    return root


def _command(root: Path, *words: str) -> str:
    """Returns exit code and output of the command, run with the study's store; raises our errors."""
    named = {"TAILFILL_STORE": str(root / "store"), "TAILFILL_CACHE": str(root / "cache")}
    with mock.patch.dict(os.environ, named):
        done = CliRunner().invoke(cli, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return f"exit {done.exit_code}\n{done.stdout}"


def _predict(make: Make, *words: str) -> Callable[[Path], str]:
    """Returns an attempt that makes files in the folder and labels `words` by the exported graph."""

    def attempt(folder: Path) -> str:
        make(folder)
        return _command(_trained(), "predict", *words, "--csv", "--model", str(_trained() / "export"))

    return attempt


def _green(*names: str) -> Make:
    def make(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(GREEN).save(folder / name)

    return make


def _table(text: str | bytes, *names: str) -> Make:
    def make(folder: Path) -> None:
        _green(*(names or ("a.png",)))(folder)
        (folder / "list.csv").write_bytes(text if isinstance(text, bytes) else text.encode())

    return make


def _file(name: str, content: bytes) -> Make:
    def make(folder: Path) -> None:
        _green("fine.png")(folder)
        (folder / name).write_bytes(content)

    return make


def _image(name: str, image: Callable[[], Image.Image], **options: Any) -> Make:
    return lambda folder: image().save(folder / name, **options)


def _truncated(folder: Path) -> None:
    _green("fine.png", "bad.png")(folder)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(folder / "bad.png")
    (folder / "bad.png").write_bytes((folder / "bad.png").read_bytes()[:30_000])


def _fifo(folder: Path) -> None:
    _green("fine.png")(folder)
    os.mkfifo(folder / "pipe.png")


def _study(change: Callable[[Path], object], *words: str, command: str = "predict") -> Callable[[Path], str]:
    """Returns an attempt that changes a copy of the trained study and labels an image by its weights, or exports its model to `out`."""

    def attempt(folder: Path) -> str:
        root = folder / "copy"
        shutil.copytree(_trained(), root, symlinks=True)
        for blob in (root / "cache").rglob("*"):  # the node's cache would hide what became of the store
            if blob.is_file():
                blob.unlink()
        change(root)
        _green("a.png")(folder)
        first = ("a.png", "--csv") if command == "predict" else ("model", "out")
        return _command(root, command, *first, "--workdir", str(root / "work/squares"), *words)

    return attempt


def _manifests(root: Path, stage: str) -> list[Path]:
    return sorted((root / "store").rglob(f"{stage}/*/manifest.json"))


def _blobs(root: Path, name: str) -> list[Path]:
    """Returns the files in the store that hold this file of the final trainings."""
    trees = [json.loads(path.read_bytes()) for path in _manifests(root, "final")]
    digests = {file["digest"] for tree in trees for file in tree["files"] if file["name"] == name}
    return [path for path in (root / "store").rglob("*") if path.is_file() and path.name in digests]


def _damaged(name: str) -> Callable[[Path], object]:
    return lambda root: [path.write_bytes(b"damaged") for path in _blobs(root, name)]


def _without(stage: str) -> Callable[[Path], object]:
    return lambda root: [path.unlink() for path in _manifests(root, stage)]


def _outcomes(value: object) -> Callable[[Path], object]:
    def change(root: Path) -> None:
        (path,) = _manifests(root, "report")
        tree = json.loads(path.read_bytes())
        tree["summary"]["outcomes"] = value
        path.write_text(json.dumps(tree))

    return change


def _export(change: Callable[[Path], object]) -> Callable[[Path], str]:
    """Returns an attempt that labels an image by a changed copy of the exported graph."""

    def attempt(folder: Path) -> str:
        copy = folder / "export"
        shutil.copytree(_trained() / "export", copy)
        change(copy)
        _green("a.png")(folder)
        return _command(folder, "predict", "a.png", "--csv", "--model", "export")

    return attempt


def _config(**changes: object) -> Callable[[Path], object]:
    """Returns what changes `config.json`; `a__b` is the key `b` within `a`."""

    def change(folder: Path) -> None:
        tree = json.loads((folder / "config.json").read_bytes())
        for name, value in changes.items():
            *parents, last = name.split("__")
            inner = tree["tailfill"]
            for parent in parents:
                inner = inner[parent]
            inner[last] = value
        (folder / "config.json").write_text(json.dumps(tree))

    return change


def _refused(name: str, make: Make, *words: str, says: tuple[str, ...]) -> Case:
    return Case(name, _predict(make, *words), 2, says)


def _partly(name: str, make: Make, *words: str, says: tuple[str, ...]) -> Case:
    """Returns a case of which one image is labelled, and another has an error of its own."""
    return Case(name, _predict(make, *words), 0, ("exit 2", ",green,", *says))


def _read(name: str, make: Make, *words: str, says: tuple[str, ...] = (",green,",)) -> Case:
    return Case(name, _predict(make, *words), 0, ("exit 0", *says))


NO_TABLE = "no column names image files below"
ARGUMENTS = [
    _refused("a file that does not exist", _green("a.png"), "b.png", says=("'b.png': does not exist", "name image files")),
    _refused("a name in other letters", _green("Photo.PNG"), "photo.png", says=("there is 'Photo.PNG'",)),
    _refused("a pattern that matches nothing", _green("a.png"), "*.jpg", says=("'*.jpg': does not exist",)),
    _refused("a URL", _green("a.png"), "https://example.org/a.png", says=("is a URL; save the image",)),
    _refused("a bucket", _green("a.png"), "s3://bucket/images", says=("is a URL",)),
    _refused("nothing but a blank", _green("a.png"), " ", says=("does not exist",)),
    _refused("a name that is too long", _green("a.png"), "x" * 300, says=("does not exist",)),
    _refused("a folder that is no folder", _green("a.png"), "a.png/b.png", says=("does not exist",)),
    _refused("an empty folder", lambda folder: (folder / "d").mkdir(), "d", says=("'d': holds no image (.avif",)),
    _refused("a folder of documents", lambda folder: ((folder / "d").mkdir(), (folder / "d/README.md").touch()), "d", says=("holds no image",)),
    _refused("a folder of hidden images", _green("d/.a.png", "d/._b.png"), "d", says=("holds no image",)),
    _refused("a broken link", lambda folder: (folder / "a.png").symlink_to("gone"), "a.png", says=("does not exist",)),
    _refused("a circle of links", lambda folder: (folder / "a.png").symlink_to("a.png"), "a.png", says=("does not exist",)),
    _refused("a confidence that is no number", _green("a.png"), "a.png", "--confidence", "nan", says=("--confidence: must be from 0 to 1",)),
    _refused("a study and an export", _green("a.png"), "a.png", "--experiment", "real", says=("--model: names an exported model",)),
    _refused("an ensemble of an export", _green("a.png"), "a.png", "--ensemble", says=("--model: names an exported model",)),
    _refused("text alone", _file("notes.txt", b"a.png"), "notes.txt", says=("'notes.txt': not an image: is in none", "name image files, a folder or a CSV")),
    _refused("documents alone", _file("a.pdf", b"%PDF-1.4"), "a.pdf", "gone.png", says=("'a.pdf': not an image", "no other of the 2 is an image")),
    _refused("an empty file alone", _file("a.png", b""), "a.png", says=("empty file",)),
    _refused("a spreadsheet", _file("labels.xlsx", b"PK\x03\x04"), "labels.xlsx", says=("is a spreadsheet; save it as a CSV",)),
    _partly("a spreadsheet beside an image", _file("labels.XLS", b"\xd0\xcf"), "labels.XLS", "fine.png", says=("is a spreadsheet",)),
    _partly("a missing file among others", _green("a.png"), "b.png", "a.png", says=("b.png,", "missing file: 'b.png' does not exist")),
    _partly("an empty file", _file("a.png", b""), "fine.png", "a.png", says=("empty file",)),
    _partly("text called an image", _file("a.png", b"hello"), "fine.png", "a.png", says=("not an image",)),
    _partly("a document", _file("a.pdf", b"%PDF-1.4"), "fine.png", "a.pdf", says=("not an image",)),
    _partly("a truncated image in a folder", _truncated, ".", says=("bad.png", "truncated")),
    _partly("a pipe", _fifo, "pipe.png", "fine.png", says=("not a file",)),
    _partly("a device", _green("fine.png"), "/dev/zero", "fine.png", says=("not a file",)),
    _partly("a folder called as an image", _green("fine.png", "d.png/x.txt.png"), "d.png/gone.png", "fine.png", says=("missing file",)),
    _partly("a URL beside an image", _green("fine.png"), "http://x.org/a.png", "fine.png", says=("is a URL",)),
    _read("a folder called as a table", _green("d.csv/a.png"), "d.csv"),
    _read("a name that is no UTF-8", _green(os.fsdecode(b"caf\xe9.png")), os.fsdecode(b"caf\xe9.png"), says=("caf\\udce9.png,green",)),
    _read("a folder with a name that is no UTF-8", _green(os.fsdecode(b"d/caf\xe9.png")), "d", says=("d/caf\\udce9.png,green",)),
    _read("a name that commands a terminal", _green("a\x1b[2J.png"), "a\x1b[2J.png", says=("a\\u001b[2J.png,green",)),
    _read("a name that is a formula", _green("=1+1.png"), "=1+1.png", says=("'=1+1.png,green",)),
    _read("a name with a dash below a folder", _green("-a.png"), "./-a.png", says=("'-a.png,green",)),
    _read("the same image twice", _green("a.png"), "a.png", "a.png", says=("a.png,green", "\na.png,green")),
    _read("a link to an image", lambda folder: (_green("a.png")(folder), (folder / "b.png").symlink_to("a.png")), "b.png"),
]  # fmt: skip
TABLES = [
    _refused("a table that does not exist", _green("a.png"), "list.csv", says=("list.csv: cannot be read",)),
    _refused("an empty table", _table(""), "list.csv", says=("list.csv: is empty",)),
    _refused("a table of blank lines", _table("\n\n  \n"), "list.csv", says=("is empty",)),
    _refused("a header alone", _table("path,n\n"), "list.csv", says=("list.csv: has no rows",)),
    _refused("a table without paths", _table("a,b\n1,2\n"), "list.csv", says=(NO_TABLE,)),
    _refused("a table of missing images", _table("path,n\nx.png,1\n"), "list.csv", says=(NO_TABLE, "'x.png'")),
    _refused("a table of URLs", _table("path,n\nhttps://x.org/a.png,1\n"), "list.csv", says=(NO_TABLE, "save the images")),
    _refused("a table of absolute paths elsewhere", _table("path,n\n/mnt/x.png,1\n"), "list.csv", says=(NO_TABLE, "absolute")),
    _refused("a table that leaves its folder", _table("path,n\n../../a.png,1\n"), "list.csv", says=(NO_TABLE, "lead out")),
    _refused("a column that is named twice", _table("path,path\na.png,a.png\n"), "list.csv", says=("named twice",)),
    _refused("an open quote", _table('path,n\n"a.png,1\n'), "list.csv", says=("fix the quotes",)),
    _refused("a spreadsheet's own format", _table(b"PK\x03\x04\xff\xfe\x00\x99"), "list.csv", says=("UTF-8",)),
    _refused("null characters", _table(b"path,n\0\na.png,1\n"), "list.csv", says=("null characters",)),
    _partly("a missing image in a table", _table("path,n\ngone.png,1\na.png,2\n"), "list.csv", says=("gone.png,", "missing file")),
    _partly("many missing images in a table", _table("path,n\nb.png,1\nc.png,1\na.png,2\n"), "list.csv", says=("b.png,", "c.png,")),
    _partly("a row with too many cells", _table("path,n\na.png,1\na.png,1,2,3\n"), "list.csv", says=("list.csv line 3", "must have 2 cells")),
    _partly("a blank cell", _table("path,n\n,1\na.png,2\n"), "list.csv", says=("no path", "line 2")),
    _partly("a URL in a table", _table("path,n\nhttps://x.org/b.png,1\na.png,2\n"), "list.csv", says=("is a URL",)),
    _partly("a row that leaves the folder", _table("path,n\n../b.png,1\na.png,2\n"), "list.csv", says=("leaves the folder",)),
    _partly("an absolute path in a table", _table("path,n\n/etc/passwd.png,1\na.png,2\n"), "list.csv", says=("must be relative to the folder",)),
    _partly("a null character in a cell", _table(b"path,n\nb\0.png,1\na.png,2\n"), "list.csv", says=("control character",)),
    _read("semicolons", _table("image;n\na.png;1\n"), "list.csv"),
    _read("tabs", _table("image\tn\na.png\t1\n"), "list.csv"),
    _read("UTF-16", _table("path,n\na.png,1\n".encode("utf-16")), "list.csv"),
    _read("a byte order mark and Windows' lines", _table("\ufeffpath,n\r\na.png,1\r\n"), "list.csv"),
    _read("no header", _table("a.png\nb.png\n", "a.png", "b.png"), "list.csv", says=("a.png,green", "b.png,green")),
    _read("ids without endings", _table("id,n\na,1\n"), "list.csv"),
    _read("backslashes", _table("path,n\nd\\a.png,1\n", "d/a.png"), "list.csv"),
    _read("a column of numbers beside a column of paths", _table("id,file\n1,2.png\n", "1.png", "2.png"), "list.csv", says=("2.png,green",)),
]  # fmt: skip
IMAGES = [
    _read("CMYK", _image("a.jpg", lambda: Image.fromarray(GREEN).convert("CMYK")), "a.jpg"),
    _read("a palette", _image("a.gif", lambda: Image.fromarray(GREEN).convert("P")), "a.gif"),
    _read("an alpha channel", _image("a.png", lambda: Image.fromarray(GREEN).convert("RGBA")), "a.png"),
    _read("several frames", _image("a.webp", lambda: Image.fromarray(GREEN), save_all=True, append_images=[Image.new("RGB", (40, 40), "red")]), "a.webp"),
    _read("one column of pixels", _image("a.png", lambda: Image.fromarray(GREEN[:, :1])), "a.png"),
    _read("a large image", _image("a.jpg", lambda: Image.fromarray(GREEN).resize((3000, 3000))), "a.jpg"),
    _read("grey", _image("a.png", lambda: Image.new("L", (9, 9), 90)), "a.png", says=("a.png,",)),
    _read("grey of 16 bits", _image("a.png", lambda: Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30))), "a.png", says=("a.png,",)),
    _read("floating point", _image("a.tif", lambda: Image.fromarray(np.ones((9, 9), np.float32))), "a.tif", says=("a.tif,",)),
]  # fmt: skip
STUDIES = [
    Case("a study that was run", _study(lambda root: None), 0, ("exit 0", "a.png,green,")),
    Case("an ensemble", _study(lambda root: None, "--ensemble"), 0, ("exit 0", "a.png,green,")),
    Case("an unknown experiment", _study(lambda root: None, "--experiment", "rael"), 2, ("no such experiment; did you mean real",)),
    Case("an experiment that commands a terminal", _study(lambda root: None, "--experiment", "a\x1b[2J"), 2, ("no such experiment",)),
    Case("a work directory without a study", _study(lambda root: shutil.rmtree(root / "work")), 2, ("holds no study that was run",)),
    Case("a damaged study", _study(lambda root: (root / "work/squares/study.json").write_text("{")), 2, ("is damaged", "run the study again")),
    Case("nothing trained", _study(_without("prepare")), 2, ("nothing is trained yet",)),
    Case("no final training", _study(_without("final")), 2, ("is not committed; `tailfill run` continues it",)),
    Case("no final training of the experiment", _study(_without("final"), "--experiment", "other"), 2, ("no final training of other",)),
    Case("no report", _study(_without("report")), 2, ("its report", "--experiment: real, other")),
    Case("no report, but an experiment", _study(_without("report"), "--experiment", "real"), 0, ("exit 0", "a.png,green,")),
    Case("a report without outcomes", _study(_outcomes(None)), 2, ("has no outcomes", "--rerun report")),
    Case("a report of another study", _study(_outcomes({"nobody": "images help"})), 2, ("has no outcomes",)),
    Case("damaged weights", _study(_damaged("model.safetensors")), 2, ("store",)),
    Case("damaged calibration", _study(_damaged("calibration.json")), 2, ("store",)),
    Case("missing weights", _study(lambda root: [path.unlink() for path in _blobs(root, "model.safetensors")]), 2, ("store",)),
    Case("a damaged manifest", _study(lambda root: [p.write_text("{") for p in _manifests(root, "final")]), 2, ("manifest",)),
]  # fmt: skip
FEWER = [{"name": "colour", "classes": ["a", "b"]}, {"name": "marks", "kind": "any", "classes": ["x"]}]
EXPORTS = [
    Case("an export", _export(lambda folder: None), 0, ("exit 0", "a.png,green,")),
    Case("an export that is not there", _export(shutil.rmtree), 2, ("config.json: not found",)),
    Case("an export without its graph", _export(lambda folder: (folder / "model.onnx").unlink()), 2, ("model.onnx: cannot be read", "--format onnx")),
    Case("an export with another graph", _export(lambda folder: (folder / "model.onnx").write_bytes(b"x")), 2, ("is not the file that config.json describes",)),
    Case("a config that is no JSON", _export(lambda folder: (folder / "config.json").write_text("{")), 2, ("holds no description",)),
    Case("a config of another program", _export(lambda folder: (folder / "config.json").write_text('{"model_type": "vit"}')), 2, ("holds no description",)),
    Case("a config that is a list", _export(lambda folder: (folder / "config.json").write_text("[]")), 2, ("holds no description",)),
    Case("a config that is no text", _export(lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00")), 2, ("config.json",)),
    Case("a newer description", _export(_config(format=2)), 2, ("tailfill.format",)),
    Case("a huge resolution", _export(_config(preprocessing__stored_resolution=10**9)), 2, ("tailfill.preprocessing.stored_resolution",)),
    Case("a mean of two channels", _export(_config(preprocessing__mean=[0.5, 0.5])), 2, ("tailfill.preprocessing.mean",)),
    Case("a deviation of zero", _export(_config(preprocessing__std=[0, 1, 1])), 2, ("tailfill.preprocessing.std",)),
    Case("no groups", _export(_config(groups=[])), 2, ("groups must have",)),
    Case("classes that the graph has not", _export(_config(groups=FEWER)), 2, ("has 3 classes",)),
    Case("counts of too few confidences", _export(_config(abstention__colour__answered=[1])), 2, ("tailfill.abstention.colour.answered",)),
]  # fmt: skip


def _made(make: Make, *words: str) -> Callable[[Path], str]:
    """Returns an attempt that makes files in the folder and exports the study's model to `out`."""

    def attempt(folder: Path) -> str:
        make(folder)
        root = _trained()
        try:
            return _command(root, "export", "model", "out", "--workdir", str(root / "work/squares"), *words)
        except TailfillError:
            assert not (folder / "out/README.md").exists(), "a refused export looks complete"
            raise

    return attempt


NAMES = ("squares", "a/b/c", "../x", "me/sq uares", "me/", "https://hub/me/x", "me/x\n")
OUT = [
    Case("a folder that is not empty", _made(lambda folder: _green("out/mine.png")(folder)), 2, ("out: is not an empty folder",)),
    Case("a file in place of a folder", _made(lambda folder: (folder / "out").touch()), 2, ("out: is not an empty folder",)),
    Case("an empty folder for the export", _made(lambda folder: (folder / "out").mkdir()), 0, ("exit 0", "files", "in out")),
    Case("an experiment that is not there", _made(lambda folder: None, "--experiment", "synthetic"), 2, ("no such experiment",)),
    *(Case(f"the licence {text!r}", _made(lambda folder: None, "--licence", text), 2, ("--licence", "must have letters or digits")) for text in ("", " ", "©")),
    Case("a push without a token", _made(lambda folder: None, "--push", "me/x"), 2, ("HF_TOKEN is not set",)),
    *(Case(f"a push to {name!r}", _made(lambda folder: None, "--push", name), 2, ("--push", "owner/name")) for name in NAMES),
]  # fmt: skip
CASES = [*ARGUMENTS, *TABLES, *IMAGES, *STUDIES, *EXPORTS, *OUT]
