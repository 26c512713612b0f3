"""Holds files of boxes: COCO's JSON and YOLO's text, as tools write them, damaged, and hostile."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shared.data.infer_source import infer_source
from shared.data.problems import Problems
from shared.data.sources.table import open_source
from tests.corpus.case import Case
from tests.corpus.folders import picture

Text = str | bytes | Mapping[str, Any]
IMAGES = ("images/a.png", "images/b.png")
ANNOTATIONS = [
    {"id": n, "image_id": n % 2, "category_id": 1 + n // 2, "bbox": [1 + n, 1, 3, 4], "iscrowd": 0} for n in range(4)
]
COCO: dict[str, Any] = {
    "images": [{"id": n, "file_name": name.removeprefix("images/")} for n, name in enumerate(IMAGES)],
    "annotations": ANNOTATIONS,
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}
YAML = "path: .\ntrain: images\nnames: [cat, dog]\n"
ALIASES = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True))
BOXES = "0 0.5 0.5 0.5 0.5\n1 0.4 0.5 0.5 0.5\n"


def read(files: Mapping[str, Text], **settings: Any) -> Callable[[Path], object]:
    """Returns an attempt that infers the source as `init` does, reads it under `on_bad: fail`, and describes what was read."""

    def attempt(folder: Path) -> object:
        root = folder / "data"
        for name in IMAGES:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(picture())
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(content) if isinstance(content, Mapping) else content
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        source = infer_source(root)
        problems = Problems("fail")
        listing = open_source(source.dataset.model_copy(update={"least_size": 1, **settings}), source.root, 0, problems)
        images = list(listing.images)
        problems.raise_if_failing()
        splits = Counter(image.split or "undivided" for image in images)
        counts = " ".join(f"{split}={splits[split]}" for split in sorted(splits))
        return (
            f"{source.dataset.source} {counts} classes={','.join(listing.schema.class_names)} {' '.join(listing.notes)}"
        )

    return attempt


def coco(**changes: Any) -> Callable[[Path], object]:
    return read({"boxes.json": COCO | changes})


def annotation(**changes: Any) -> Callable[[Path], object]:
    return coco(annotations=[*ANNOTATIONS, ANNOTATIONS[0] | {"id": "odd"} | changes])


def image(name: object) -> Callable[[Path], object]:
    return coco(images=[COCO["images"][0], {"id": 1, "file_name": name}])


def yolo(line: str = "", text: str = YAML, **files: Text) -> Callable[[Path], object]:
    labels: dict[str, Text] = {"labels/a.txt": BOXES + line, "labels/b.txt": BOXES}
    return read({"data.yaml": text, **labels, **{name.replace("__", "."): content for name, content in files.items()}})


TWO = "classes=label/cat,label/dog"
CASES = [
    Case("coco", coco(), 0, (f"coco undivided=4 {TWO}",)),
    Case("coco: a byte-order mark", read({"boxes.json": b"\xef\xbb\xbf" + json.dumps(COCO).encode()}), 0, (TWO,)),
    Case("coco: paths of Windows", image("C:\\data\\images\\b.png"), 0, ("undivided=4",)),
    Case("coco: absolute paths of another machine", image("/home/x/images/b.png"), 0, ("undivided=4",)),
    Case("coco: a path that leaves the folder", image("../../../etc/passwd"), 2, ("missing file", "passwd")),
    Case("coco: a name with a line break and colours", image("\x1b[31m\nb.jpg"), 2, ("missing file",), ("\x1b", "\n")),
    Case("coco: no name", image(None), 2, ("no path", "file_name")),
    Case("coco: a list for a name", image(["b.png"]), 2, ("no path", "file_name")),
    Case("coco: no images", coco(images=[]), 2, ("unknown id", "image_id")),
    Case("coco: no annotations", coco(annotations=[]), 2, ("there must be two classes with boxes",)),
    Case("coco: no categories", coco(categories=[]), 2, ("category_id",)),
    Case("coco: a mapping of categories", coco(categories={"1": "cat"}), 2, ("categories must be a list",)),
    Case("coco: an image twice", coco(images=[*COCO["images"], COCO["images"][0]]), 2, ("unknown id", "no other has")),
    Case("coco: a box of three", annotation(bbox=[1, 2, 3]), 2, ("unusable box", "[left, top, width, height]")),
    Case("coco: a box of corners in text", annotation(bbox="1,2,3,4"), 2, ("unusable box",)),
    Case("coco: a box without width", annotation(bbox=[1, 1, 0, 3]), 2, ("unusable box",)),
    Case("coco: a box without end", annotation(bbox=[1, 1, 1e400, 3]), 2, ("unusable box",)),
    Case("coco: a huge box", annotation(bbox=[1, 1, 10**30, 3]), 2, ("unusable box",)),
    Case("coco: an id that is a list", annotation(image_id=[0]), 2, ("unknown id",)),
    Case("coco: true for an id", annotation(category_id=9), 2, ("unknown id", "category_id")),
    Case("coco: cut off", read({"boxes.json": json.dumps(COCO)[:-9]}), 2, ("boxes.json: must be JSON",)),
    Case("coco: nested without end", read({"boxes.json": '"images" "annotations" "categories"' + "[" * 99_999}), 2, ("must be JSON",)),
    Case("coco: not UTF-8", read({"boxes.json": json.dumps(COCO).encode().replace(b"cat\"", b"c\xfft\"")}), 2, ("boxes.json: is not UTF-8 text",)),
    Case("coco: half a character in a name", coco(categories=[{"id": 1, "name": "c\ud800"}, {"id": 2, "name": "dog"}]), 2, ("must be JSON", "surrogates")),
    Case("coco: half a character in a place", coco(images=[image | {"location": "\udfff"} for image in COCO["images"]]), 2, ("surrogates",)),
    Case("coco: a number of a million digits", read({"boxes.json": json.dumps(COCO).replace('"id": 0', f'"id": {"9" * 1_000_000}')}), 2, ("must be JSON",)),
    Case("coco: two files of one split", read({"train_a.json": COCO, "train_b.json": COCO}), 2, ("train_a.json", "dataset.file")),
    Case("coco: boxes of a pixel", read({"boxes.json": COCO}, least_size=9), 2, ("dataset.least_size",)),
    Case("yolo", yolo(), 0, (f"yolo undivided=4 {TWO}",)),
    Case("yolo: names by number", yolo(text=YAML.replace("[cat, dog]", "{0: cat, 1: dog}")), 0, (TWO,)),
    Case("yolo: a number is missing", yolo(text=YAML.replace("[cat, dog]", "{0: cat, 2: dog}")), 2, ("each class number",)),
    Case("yolo: a text of names", yolo(text=YAML.replace("[cat, dog]", "cat dog")), 2, ("names must list",)),
    Case("yolo: other line ends", yolo(line="0 0.5 0.5 0.5 0.5\r\n\r\n"), 0, ("undivided=5",)),
    Case("yolo: a class too many", yolo(line="2 0.5 0.5 0.5 0.5"), 2, ("label outside its group", "0 to 1")),
    Case("yolo: boxes in pixels", yolo(line="0 4 4 2 2"), 2, ("unusable box", "shares of the image")),
    Case("yolo: not a number", yolo(line="0 nan 0.5 0.5 0.5"), 2, ("unusable box",)),
    Case("yolo: a name of a class", yolo(line="cat 0.5 0.5 0.5 0.5"), 2, ("unusable box", "class number")),
    Case("yolo: three numbers", yolo(line="0 0.5 0.5 0.5"), 2, ("unusable box",)),
    Case("yolo: control characters", yolo(line="0 0.5 \x1b[2J 0.5 0.5"), 2, ("unusable box",), ("\x1b",)),
    Case("yolo: boxes that are no text", yolo(**{"labels/a.txt": b"\xff\xfe\x00"}), 2, ("labels/a.txt: is not UTF-8",)),
    Case("yolo: a folder that is not there", yolo(text=YAML.replace("images", "photos")), 2, ("train names 'photos'", "data.yaml")),
    Case("yolo: a folder outside", yolo(text=YAML.replace("images", "../../../etc")), 2, ("not below the folder data/",)),
    Case("yolo: a list that names nothing", yolo(text=YAML.replace("images", "list.txt"), list__txt="c.png\n"), 2, ("list.txt line 1",)),
    Case("yolo: a list that leaves the folder", yolo(text=YAML.replace("images", "list.txt"), list__txt="/etc/passwd\n"), 2, ("list.txt line 1",)),
    Case("yolo: no names", yolo(text="train: images\n"), 2, ("hold images with boxes",)),
    Case("yolo: a bomb of aliases", yolo(text=f"names: &a [x, x]\ntrain: images\n{ALIASES}"), 2, ("hold images with boxes",)),
    Case("yolo: two files of names", read({"a.yaml": YAML, "b.yaml": YAML, "labels/a.txt": BOXES}), 2, ("name one of them",)),
]  # fmt: skip
