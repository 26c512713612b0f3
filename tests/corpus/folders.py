"""Holds folders of images: splits, wrapping folders, what systems leave behind, odd names and layouts that are no class folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from shared.config.dataset import FolderSource
from shared.data.infer_source import infer_source
from shared.data.problems import Problems
from shared.data.sources.digest import source_digest
from shared.data.sources.table import open_source
from shared.settings import Settings
from tests.corpus.case import Case

SETTINGS = Settings.from_environment({"HOME": "/nonexistent"})


@cache
def picture() -> bytes:
    file = BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, "PNG")
    return file.getvalue()


def write(root: Path, names: Sequence[str | bytes]) -> Path:
    """Writes a picture to each name, a folder to one that ends in a slash, and text to one with another ending than an image's."""
    for name in names:
        path = Path(os.fsdecode(os.fsencode(root) + b"/" + os.fsencode(name)))
        if os.fsencode(name).endswith(b"/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture() if path.suffix.lower() in (".png", ".jpg") else b"text")
    return root


def of(*folders: str, each: int = 3) -> list[str]:
    """Returns the names of a few images in each folder."""
    return [f"{folder}/{i}.png" for folder in folders for i in range(each)]


def read(names: Sequence[str | bytes], prepare: Callable[[Path], object] | None = None) -> Callable[[Path], object]:
    """Returns an attempt that infers the source as `init` does, reads it under `on_bad: fail`, and describes what was read."""

    def attempt(folder: Path) -> object:
        root = write(folder / "data", names)
        if prepare is not None:
            prepare(root)
        source = infer_source(root)
        problems = Problems("fail")
        listing = open_source(source.dataset, source.root, 0, problems)
        images = list(listing.images)
        problems.raise_if_failing()
        splits = Counter(image.split or "undivided" for image in images)
        counts = " ".join(f"{split}={splits[split]}" for split in sorted(splits))
        return f"{source.dataset.source} {counts} classes={','.join(sorted(listing.schema.class_names))} {' '.join(listing.notes)}"

    return attempt


def same_digest(names: Sequence[str], more: Sequence[str]) -> Callable[[Path], object]:
    """Returns an attempt that compares the fingerprint of a data set before and after files were laid beside its own."""

    def attempt(folder: Path) -> object:
        root = write(folder / "data", names)
        config = FolderSource(source="folder", root=str(root))
        before = source_digest(config, SETTINGS)
        write(root, more)
        return "the same" if source_digest(config, SETTINGS) == before else "another"

    return attempt


TWO = "classes=label/cat,label/dog"
PAIRS = [
    ("train", "test"), ("Training", "Testing"), ("TRAIN", "TEST"), ("training_set", "test_set"), ("training-set", "test-set"), ("trainset", "testset"),
    ("seg_train", "seg_test"), ("train", "eval"), ("train", "evaluation"), ("Train Images", "Test Images"), ("train_data", "test_data"),
    ("TrainSet", "TestSet"), ("trn", "tst"), ("train.images", "test.images"), ("x_train", "x_test"), ("train", "holdout"), ("data-train", "data-test"),
]  # fmt: skip
VALIDATED = [
    ("train", "val"), ("train", "valid"), ("train", "Validation"), ("train", "dev"), ("train", "development"), ("training", "val_set"),
    ("train", "validation_set"),
]  # fmt: skip
SPLITS = [
    Case(f"{train} and {test}", read(of(f"{train}/cat", f"{train}/dog") + of(f"{test}/cat", f"{test}/dog", each=2)), 0, (f"test=4 train=6 {TWO}",))
    for train, test in PAIRS
] + [
    Case(f"{train} and {val}", read(of(f"{train}/cat", f"{train}/dog") + of(f"{val}/cat", f"{val}/dog", each=2)), 0, (f"train=6 val=4 {TWO}",))
    for train, val in VALIDATED
]  # fmt: skip
JUNK = [
    ".DS_Store", "cat/.DS_Store", "cat/._0.png", "Thumbs.db", "THUMBS.DB", "dog/thumbs.db", "desktop.ini", "Desktop.ini", "__MACOSX/cat/._0.png",
    "cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "cat/.@__thumb/0.jpg", "#recycle/cat/9.png", "$RECYCLE.BIN/x.png", "System Volume Information/x",
    "lost+found/x", "cat/.ipynb_checkpoints/0-checkpoint.png", ".git/config", ".git/objects/aa/bb", ".idea/x.xml", ".vscode/settings.json", "cat/0.png~",
    "cat/.0.png.swp", "cat/#0.png#", "__pycache__/x.pyc", "README.md", "readme.txt", "LICENSE", "License.txt", "CITATION.cff", "notes.ipynb", "paper.pdf",
    "cat/README", "Icon\r", ".Spotlight-V100/x", ".Trashes/501/x", "cat/.nfs0001", ".cache/huggingface/x", "cat/~$label.docx", "cat/0.png.lnk", "Picasa.ini",
    "cat/0.png:Zone.Identifier", "dog/1.png:Zone.Identifier:$DATA", "cat/2.pngZone.Identifier", "cat/_DS_Store", "dog/3.png.crdownload",
]  # fmt: skip
LEFT_BEHIND = [Case(f"left behind: {name!r}", same_digest(of("cat", "dog"), [name]), 0, ("the same",)) for name in JUNK] + [
    Case("every kind of junk at once", read([*of("cat", "dog"), *JUNK]), 0, (f"undivided=6 {TWO}",)),
    Case("another image is data", same_digest(of("cat", "dog"), ["cat/more.png"]), 0, ("another",)),
    Case("a label file is data", same_digest(of("cat", "dog"), ["labels.csv"]), 0, ("another",)),
    Case("an image called readme is data", same_digest(of("cat", "dog"), ["cat/readme.png"]), 0, ("another",)),
    Case("a class called license", read(of("license", "plate")), 0, ("classes=label/license,label/plate",)),
]  # fmt: skip


def link(root: Path) -> None:
    (root / "cat" / "loop").symlink_to(root)


def pipe(root: Path) -> None:
    os.mkfifo(root / "cat" / "pipe.png")


NESTED = [f"{part}/{part}/{name}" for part in ("seg_train", "seg_test") for name in ("cat", "dog")]
UNICODE = [*of("train/caf\u00e9", "train/dog"), *of("val/cafe\u0301", "val/dog")]
LAYOUTS = [
    Case("a folder per class", read(of("cat", "dog")), 0, (f"folder undivided=6 {TWO}",)),
    Case("folders in class folders", read([*of("cat", "dog"), "cat/more/9.png"]), 0, (f"undivided=7 {TWO}",)),
    Case("a folder around the classes", read(of("set/cat", "set/dog")), 0, (f"undivided=6 {TWO}",)),
    Case("two folders around them", read(of("set/set/cat", "set/set/dog")), 0, (f"undivided=6 {TWO}",)),
    Case("a folder around the splits", read(of("set/train/cat", "set/train/dog", "set/test/cat", "set/test/dog")), 0, (f"test=6 train=6 {TWO}",)),
    Case("a README beside the folder around", read([*of("set/cat", "set/dog"), "README.md"]), 0, (f"undivided=6 {TWO}",)),
    Case("Kaggle's seg_train/seg_train", read(of(*NESTED)), 0, (f"test=6 train=6 {TWO}",)),
    Case("only train", read(of("train/cat", "train/dog")), 0, (f"undivided=6 {TWO}",)),
    Case("a class called train", read(of("train", "bus", "car")), 0, ("classes=label/bus,label/car,label/train",)),
    Case("a class only in val", read(of("train/cat", "train/dog", "val/cat", "val/emu")), 0, ("train=6 val=6 classes=label/cat,label/dog,label/emu",)),
    Case("test without labels", read([*of("train/cat", "train/dog"), "test/0.png"]), 0, (f"train=6 {TWO} The images in test/ are in no class folder",)),
    Case("names in two Unicode forms", read(UNICODE), 0, ("classes=label/caf\u00e9,label/dog",)),
    Case("COCO's years", read(of("train2017/cat", "train2017/dog", "val2017/cat", "val2017/dog")), 0, (f"train=6 val=6 {TWO}",)),
    Case("splits with numbers", read(of("01_train/cat", "01_train/dog", "02-Test/cat", "02-Test/dog")), 0, (f"test=6 train=6 {TWO}",)),
    Case("classes called test1 and test2", read(of("control", "test1", "test2")), 0, ("classes=label/control,label/test1,label/test2",)),
    Case("classes in two levels", read(of("cat/left", "cat/right", "dog/left", "dog/right")), 0, (f"undivided=12 {TWO}",)),
    Case("splits with a word before them", read(of("my_train/cat", "my_train/dog", "my_test/cat", "my_test/dog")),
        2, ("my_test/ and my_train/ are named like parts of a data set", "name them train/, val/ or test/")),
    Case("folds", read(of("fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog")), 2, ("fold1/ and fold2/ are named like parts of a data set", "join them")),
    Case("parts", read(of("Part_01/cat", "Part_01/dog", "Part_02/cat")), 2, ("Part_01/ and Part_02/ are named like parts of a data set",)),
    Case("train without labels", read(["train/0.png", "test/1.png"]), 2, ("holds no class folders", "a folder per class")),
    Case("test beside classes", read(of("cat", "dog", "test")), 2, ("the folder test/ is named like the test split", "rename it")),
    Case("validation beside classes", read(of("cat", "dog", "Validation")), 2, ("Validation/ is named like the val split",)),
    Case("train with classes in it beside classes", read(of("cat", "dog", "train/cat", "train/dog")), 2, ("train/ is named like the train split",)),
    Case("val and test without train", read(of("val/cat", "val/dog", "test/cat", "test/dog")), 2, ("no train folder",)),
    Case("val and validation", read(of("train/cat", "train/dog", "val/cat", "validation/cat")), 2, ("two folders name one split",)),
    Case("train and Training", read(of("train/cat", "Training/dog", "test/cat")), 2, ("two folders name one split",)),
    Case("a folder beside the splits", read(of("train/cat", "train/dog", "test/cat", "extra/cat")), 2, ("extra/", "is a folder beside the split folders")),
    Case("a folder without images beside them", read([*of("train/cat", "train/dog", "test/cat", "test/dog"), "scripts/run.sh"]), 0, (f"test=6 train=6 {TWO}",)),
    Case("YOLO's images and labels", read([*of("images/train"), "labels/train/0.txt"]), 2, ("hold images with boxes",)),
    Case("YOLO in splits", read([*of("train/images", "test/images"), "train/labels/0.txt", "test/labels/0.txt"]), 2, ("hold images with boxes",)),
    Case("Pascal VOC", read([*of("JPEGImages"), "Annotations/0.xml"]), 2, ("hold images with boxes",)),
    Case("one class", read(of("cat")), 2, ("at least two",)),
    Case("no image", read(["cat/", "dog/"]), 2, ("class folders",)),
    Case("an image beside the classes", read([*of("cat", "dog"), "stray.png"]), 2, ("is an image outside the class folders",)),
    Case("an icon and a drawing beside the classes", read([*of("cat", "dog"), "favicon.ico", "plan.gif"]), 0, (f"undivided=6 {TWO}",)),
    Case("images with rarer endings", read(["cat/0.jfif", "cat/1.jpe", "dog/0.jp2", "dog/1.pgm"]), 0, (f"undivided=4 {TWO}",)),
    Case("a link in a circle", read(of("cat", "dog"), link), 2, ("is a link to a folder; copy it here",)),
    Case("a pipe is never opened", read(of("cat", "dog"), pipe), 0, ("undivided=7",)),
    Case("a file that is no UTF-8", read([*of("cat", "dog"), b"cat/caf\xe9.png"]), 2, ("no text in UTF-8", "convmv")),
    Case("a class that is no UTF-8", read([*of("cat", "dog"), b"stra\xdfe/0.png"]), 2, ("no text in UTF-8", "class folder")),
    Case("a wrapping folder that is no UTF-8", read([b"caf\xe9/cat/0.png", b"caf\xe9/dog/0.png"]), 2, ("no text in UTF-8",)),
    Case("a class with a line break", read([*of("cat", "dog"), "a\nb/0.png"]), 2, ("control character", "rename it")),
    Case("a class with a backslash", read([*of("cat", "dog"), "a\\b/0.png"]), 2, ("backslash", "rename it")),
    Case("a file with a line break", read([*of("cat", "dog"), "cat/a\nb.png"]), 2, ("control character",)),
]  # fmt: skip
CASES = [*SPLITS, *LEFT_BEHIND, *LAYOUTS]
