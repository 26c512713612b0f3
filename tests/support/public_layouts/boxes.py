"""Holds data sets whose labels are boxes, or labels of whole images in COCO's form, those of arrays, and those in MATLAB files."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Iterable, Mapping

import numpy as np

from tests.support.public_layouts.layout import Drawing, Layout, numbered

Box = tuple[str, int, int, int, int]
SIDE = 64


def _voc(folder: str, name: str, boxes: Iterable[Box]) -> list[str]:
    return [
        "<annotation>",
        f"\t<folder>{folder}</folder>",
        f"\t<filename>{name}</filename>",
        "\t<source><database>Unknown</database></source>",
        f"\t<size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size>",
        "\t<segmented>0</segmented>",
        *(
            f"\t<object><name>{kind}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
            f"<bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
            for kind, left, top, right, bottom in boxes
        ),
        "</annotation>",
    ]


STEEL = {
    "train": {"crazing": 16, "inclusion": 14, "scratches": 4},
    "val": {"crazing": 4, "inclusion": 4, "scratches": 3},
}


def _neu_det(draw: Drawing) -> None:
    first = 1
    for split, folder in (("train", "train"), ("val", "validation")):
        for name, number in numbered(STEEL[split], first):
            draw.images([f"NEU-DET/{folder}/images/{name}/{name}_{number}.jpg"], SIDE)
            lines = _voc(name, f"{name}_{number}.jpg", [(name, 2, 2, 50, 60)])
            draw.text(f"NEU-DET/{folder}/annotations/{name}_{number}.xml", *lines)
        first += 100


CELLS = {
    "train": {"RBC": 20, "WBC": 16, "Platelets": 4},
    "val": {"RBC": 5, "WBC": 4, "Platelets": 3},
    "test": {"RBC": 5, "WBC": 4, "Platelets": 3},
}


def _roboflow_voc(draw: Drawing) -> None:
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        rows = list(numbered(CELLS[split]))
        for at in range(0, len(rows), 2):  # two cells in an image
            stem = f"BloodImage_{at:05d}_jpg.rf.{split}{at:024x}"
            boxes = [(name, 2 + 20 * n, 3, 22 + 20 * n, 40) for n, (name, _) in enumerate(rows[at : at + 2])]
            draw.images([f"{folder}/{stem}.jpg"], SIDE)
            draw.text(f"{folder}/{stem}.xml", *_voc("", f"{stem}.jpg", boxes))
    draw.text("README.roboflow.txt", "BCCD - v1")


VOC = {
    "train": {"aeroplane": 14, "cat": 12, "tvmonitor": 4},
    "val": {"aeroplane": 4, "cat": 4, "tvmonitor": 3},
}


def _pascal_voc(draw: Drawing) -> None:
    top, lists, first = "VOCdevkit/VOC2012", dict[str, list[str]](), 27
    every: dict[str, str] = {}
    for split, counts in VOC.items():
        for name, number in numbered(counts, first):
            stem = f"2007_{number:06d}"
            every[stem] = name
            lists.setdefault(split, []).append(stem)
            draw.images([f"{top}/JPEGImages/{stem}.jpg"], SIDE)
            draw.text(f"{top}/Annotations/{stem}.xml", *_voc("VOC2012", f"{stem}.jpg", [(name, 4, 5, 60, 50)]))
        first += 100
    lists["trainval"] = lists["train"] + lists["val"]
    for split, stems in lists.items():
        draw.text(f"{top}/ImageSets/Main/{split}.txt", *stems)
        draw.text(f"{top}/ImageSets/Segmentation/{split}.txt", *stems[:5])
        for name in VOC["train"]:
            draw.text(
                f"{top}/ImageSets/Main/{name}_{split}.txt",
                *(f"{s} {' 1' if every[s] == name else '-1'}" for s in stems),
            )
    draw.images(f"{top}/SegmentationClass/{stem}.png" for stem in lists["trainval"][:5])
    draw.images(f"{top}/SegmentationObject/{stem}.png" for stem in lists["trainval"][:5])


THINGS = {
    "train": {"Tortoise": 14, "Container": 16, "Magpie": 4},
    "val": {"Tortoise": 4, "Container": 4, "Magpie": 3},
    "test": {"Tortoise": 4, "Container": 4, "Magpie": 3},
}


def _open_images(draw: Drawing) -> None:
    codes = {"Tortoise": "/m/011k07", "Container": "/m/011q46kg", "Magpie": "/m/012074"}
    header = (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    )
    first = 1
    for split, word in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = []
        for name, number in numbered(THINGS[split], first):
            draw.images([f"{word}/{number:016x}.jpg"], SIDE)
            rows.append(f"{number:016x},xclick,{codes[name]},1,0.1,0.9,0.25,0.75,0,0,0,0,0")
        first += 100
        draw.text(f"{word}-annotations-bbox.csv", header, *rows)
    draw.text("class-descriptions-boxable.csv", *(f"{code},{name}" for name, code in codes.items()))


CHESS = {
    "train": {"black-bishop": 14, "white-pawn": 16, "white-queen": 4},
    "val": {"black-bishop": 4, "white-pawn": 4, "white-queen": 3},
    "test": {"black-bishop": 4, "white-pawn": 4, "white-queen": 3},
}


def _roboflow_boxes_csv(draw: Drawing) -> None:
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        rows = []
        for name, number in numbered(CHESS[split]):
            stem = f"IMG_{number:04d}_JPG.rf.{split}{number:024x}.jpg"
            draw.images([f"{folder}/{stem}"], SIDE)
            rows.append(f"{stem},{SIDE},{SIDE},{name},5,6,44,59")
        draw.text(f"{folder}/_annotations.csv", "filename,width,height,class,xmin,ymin,xmax,ymax", *rows)


def _coco(
    counts: Mapping[str, int], classes: Iterable[str], path: str, first: int = 0
) -> dict[str, list[dict[str, object]]]:
    codes = {name: code for code, name in enumerate(classes)}
    rows = list(numbered(counts, first))
    return {
        "images": [
            {
                "id": number,
                "file_name": path.format(name=name, number=number),
                "width": 20,
                "height": 20,
                "location": number // 3,
            }
            for name, number in rows
        ],
        "annotations": [{"id": number, "image_id": number, "category_id": codes[name]} for name, number in rows],
        "categories": [
            {"id": code, "name": name, "supercategory": "Plants", "kingdom": "Plantae"} for name, code in codes.items()
        ],
    }


SPECIES = {
    "train": {"Acer rubrum": 14, "Quercus alba": 16, "Sphagnum rubellum": 4},
    "val": {"Acer rubrum": 4, "Quercus alba": 4, "Sphagnum rubellum": 3},
}


def _inaturalist(draw: Drawing) -> None:
    for split, first in (("train", 0), ("val", 1000)):
        content = _coco(SPECIES[split], SPECIES["train"], "train_val2019/Plants/{number}.jpg", first)
        for image in content["images"]:
            del image["location"]
        draw.images(str(image["file_name"]) for image in content["images"])
        info = {"description": "iNaturalist 2019", "version": "1.0"}
        draw.json(f"{split}2019.json", {"info": info, "licenses": [], **content})
    tests = [{"id": n, "file_name": f"test2019/{n:032x}.jpg", "width": 20, "height": 20} for n in range(5)]
    draw.images(str(image["file_name"]) for image in tests)
    draw.json("test2019.json", {"info": {}, "images": tests, "licenses": []})


TRAPS = {"empty": 40, "tayassu pecari": 16, "cuniculus paca": 14, "panthera onca": 4}


def _iwildcam(draw: Drawing) -> None:
    content = _coco(TRAPS, TRAPS, "{number:08x}-21bc-11ea-a13a-137349068a90.jpg")
    draw.images(f"train/{image['file_name']}" for image in content["images"])
    draw.json("iwildcam2020_train_annotations.json", content)
    tests = [{"id": f"t{n}", "file_name": f"t{n}.jpg", "location": 5} for n in range(4)]
    draw.images(f"test/{image['file_name']}" for image in tests)
    draw.json("iwildcam2020_test_information.json", {"images": tests, "categories": content["categories"]})
    draw.json(
        "iwildcam2020_megadetector_results.json", {"images": [], "detection_categories": {"1": "animal"}, "info": {}}
    )


MEDICAL = {
    "train": {"0": 14, "1": 16, "2": 4},
    "val": {"0": 4, "1": 4, "2": 3},
    "test": {"0": 4, "1": 4, "2": 3},
}


def _medmnist(draw: Drawing) -> None:
    arrays = {}
    for split, counts in MEDICAL.items():
        labels = [[int(name)] for name, _ in numbered(counts)]
        random = np.random.default_rng(len(split) + len(labels))
        arrays[f"{split}_images"] = random.integers(0, 256, (len(labels), 28, 28, 3), np.uint8)
        arrays[f"{split}_labels"] = np.array(labels, np.uint8)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    draw.binary("dermamnist.npz", content.getvalue())


def _two_years(draw: Drawing) -> None:
    _pascal_voc(draw)
    top = "VOCdevkit/VOC2007"
    for split, first in (("train", 1), ("val", 100), ("test", 200)):
        stems = [f"{number:06d}" for number in range(first, first + 12)]
        draw.images((f"{top}/JPEGImages/{stem}.jpg" for stem in stems), SIDE)
        for number, stem in enumerate(stems):
            box = (list(VOC["train"])[number % 3], 4, 5, 60, 50)
            draw.text(f"{top}/Annotations/{stem}.xml", *_voc("VOC2007", f"{stem}.jpg", [box]))
        draw.text(f"{top}/ImageSets/Main/{split}.txt", *stems)


OBJECTS = (
    "aerosol_can", "air_conditioner", "airplane", "alarm_clock", "alcohol", "alligator", "almond", "ambulance", "amplifier", "anklet", "antenna", "apple",
    "applesauce", "apricot", "apron", "aquarium", "arctic_(type_of_shoe)", "armband", "armchair", "armoire", "armor", "artichoke",
)  # fmt: skip
LVIS = {
    "train": {name: 8 if name == "apple" else 2 if name == "armor" else 5 for name in OBJECTS},
    "val": dict.fromkeys(OBJECTS, 2),
}


def _lvis(draw: Drawing) -> None:
    """Some images of the validation split are among COCO's for training, and `file_name` is left out."""
    for split, first in (("train", 391895), ("val", 500000)):
        content = _coco(LVIS[split], OBJECTS, "", first)
        for at, (image, annotation) in enumerate(zip(content["images"], content["annotations"], strict=True)):
            path = f"{'val2017' if split == 'val' and at % 2 else 'train2017'}/{image['id']:012d}.jpg"
            draw.images([path], SIDE)
            del image["file_name"], image["location"]
            image |= {"coco_url": f"http://images.cocodataset.org/{path}", "width": SIDE, "height": SIDE}
            annotation["bbox"] = [4.0, 5.0, 40.0, 50.0]
        draw.json(f"lvis_v1_{split}.json", content)


LETTERS = {
    "train": {str(number): 8 if number == 1 else 2 if number == 26 else 5 for number in range(1, 27)},
    "test": {str(number): 2 for number in range(1, 27)},
}


def _emnist_letters(draw: Drawing) -> None:
    for split, counts in LETTERS.items():
        labels = np.array([int(name) for name, _ in numbered(counts)], np.uint8)
        pixels = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 28, 28), np.uint8)
        for what, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            draw.binary(f"emnist-letters-{split}-{what}-ubyte.gz", gzip.compress(head + values.tobytes()))
    draw.text("emnist-letters-mapping.txt", *(f"{number} {64 + number} {96 + number}" for number in range(1, 27)))


def _flowers(draw: Drawing) -> None:
    draw.images(f"jpg/image_{number:05d}.jpg" for number in range(1, 25))
    for name in ("imagelabels.mat", "setid.mat"):
        draw.binary(name, b"MATLAB 5.0 MAT-file")


def _svhn(draw: Drawing) -> None:
    for split in ("train", "test", "extra"):
        draw.binary(f"{split}_32x32.mat", b"MATLAB 5.0 MAT-file")


def _global_wheat(draw: Drawing) -> None:
    names = [f"{number:09x}" for number in range(12)]
    draw.images((f"train/{name}.jpg" for name in names), SIDE)
    rows = [
        f'{name},{SIDE},{SIDE},"[{at}.0, {2 * at}.0, 20.0, 16.0]",{("usask_1", "arvalis_1", "inrae_1")[n % 3]}'
        for n, name in enumerate(names)
        for at in range(1, 4)
    ]
    draw.text("train.csv", "image_id,width,height,bbox,source", *rows)
    draw.images((f"test/{number:09x}.jpg" for number in range(90, 93)), SIDE)
    draw.text("sample_submission.csv", "image_id,PredictionString", "00000005a,1.0 0 0 50 50")


BOXES = [
    Layout(
        "NEU-DET",
        "https://www.kaggle.com/datasets/kaustubhdikshit/neu-surface-defect-database",
        _neu_det,
        [STEEL],
        ["scratches"],
    ),
    Layout(
        "Roboflow, Pascal VOC", "https://roboflow.com/formats/pascal-voc-xml", _roboflow_voc, [CELLS], ["Platelets"]
    ),
    Layout("Pascal VOC 2012", "pytorch/vision: torchvision/datasets/voc.py", _pascal_voc, [VOC], ["tvmonitor"]),
    Layout(
        "Open Images, boxes",
        "https://storage.googleapis.com/openimages/web/download_v7.html",
        _open_images,
        refused=["boxes in a table"],
    ),
    Layout(
        "Roboflow, boxes in a table",
        "https://roboflow.com/formats/tensorflow-object-detection-csv",
        _roboflow_boxes_csv,
        refused=["boxes in a table"],
    ),
    Layout("iNaturalist 2019", "visipedia/inat_comp: 2019/README.md", _inaturalist, [SPECIES], ["Sphagnum rubellum"]),
    Layout("iWildCam 2020", "visipedia/iwildcam_comp: readme.md", _iwildcam, [{"": TRAPS}], ["panthera onca"], units=0),
    Layout(
        "Pascal VOC 2007 and 2012",
        "pytorch/vision: torchvision/datasets/voc.py",
        _two_years,
        refused=["VOCdevkit/VOC2007/, VOCdevkit/VOC2012/ have lists of splits each", "`tailfill init "],
    ),
    Layout("LVIS", "lvis-dataset/lvis-api: lvis/lvis.py", _lvis, [LVIS], ["armor"]),
    Layout(
        "EMNIST letters",
        "pytorch/vision: torchvision/datasets/mnist.py",
        _emnist_letters,
        [LETTERS],
        ["26"],
        says=["no image has the label ['0']"],
    ),
    Layout(
        "Oxford Flowers 102, original",
        "pytorch/vision: torchvision/datasets/flowers102.py",
        _flowers,
        refused=["imagelabels.mat is MATLAB data", "CSV with a row per image"],
    ),
    Layout("SVHN", "pytorch/vision: torchvision/datasets/svhn.py", _svhn, refused=["no images but MATLAB data"]),
    Layout("MedMNIST", "MedMNIST/MedMNIST: medmnist/dataset.py", _medmnist, [MEDICAL], ["2"]),
    Layout(
        "Global Wheat Detection",
        "https://www.kaggle.com/competitions/global-wheat-detection/data",
        _global_wheat,
        refused=["boxes in a table", "tailfill init"],
    ),
]
