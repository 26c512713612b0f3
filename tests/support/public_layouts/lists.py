"""Holds data sets whose labels are text without a header, in one file or in several that an id joins."""

from __future__ import annotations

from tests.support.public_layouts.layout import Drawing, Layout, numbered

VISION = "pytorch/vision: torchvision/datasets"
BALANCING = "facebookresearch/classifier-balancing: data"

BIRDS_TRAIN = {"001.Black_footed_Albatross": 12, "002.Laysan_Albatross": 10, "200.Common_Yellowthroat": 4}
BIRDS_TEST = {"001.Black_footed_Albatross": 5, "002.Laysan_Albatross": 5, "200.Common_Yellowthroat": 3}


def _cub(draw: Drawing) -> None:
    top, codes = "CUB_200_2011", {name: str(int(name[:3])) for name in BIRDS_TRAIN}
    names = [(n, 1) for n, _ in numbered(BIRDS_TRAIN)] + [(n, 0) for n, _ in numbered(BIRDS_TEST)]
    rows = [
        (f"{name}/{name[4:]}_{number:04d}_{796000 + number}.jpg", name, train)
        for number, (name, train) in enumerate(names, 1)
    ]
    draw.images(f"{top}/images/{path}" for path, _, _ in rows)
    numbers = range(1, len(rows) + 1)
    draw.text(f"{top}/images.txt", *(f"{n} {path}" for n, (path, _, _) in zip(numbers, rows, strict=True)))
    draw.text(f"{top}/image_class_labels.txt", *(f"{n} {codes[row[1]]}" for n, row in zip(numbers, rows, strict=True)))
    draw.text(f"{top}/classes.txt", *(f"{code} {name}" for name, code in codes.items()))
    draw.text(f"{top}/train_test_split.txt", *(f"{n} {row[2]}" for n, row in zip(numbers, rows, strict=True)))
    draw.text(f"{top}/bounding_boxes.txt", *(f"{n} 60.0 27.0 325.0 304.0" for n in numbers))
    draw.text("attributes.txt", "1 has_bill_shape::curved_(up_or_down)", "2 has_bill_shape::dagger")
    certainty = ["1 not visible", "2 guessing", "3 probably", "4 definitely"]
    draw.text(f"{top}/attributes/certainties.txt", *certainty)
    draw.text(
        f"{top}/attributes/image_attribute_labels.txt", *(f"{n} {a} {n % 2} 3 27.7080" for n in numbers for a in (1, 2))
    )
    draw.text(f"{top}/parts/parts.txt", "1 back", "2 beak")
    draw.text(f"{top}/parts/part_locs.txt", *(f"{n} {part} 312.0 182.0 1" for n in numbers for part in (1, 2)))
    draw.text(f"{top}/README", "Caltech-UCSD Birds")


PETS_TRAIN = {"Abyssinian": 12, "american_bulldog": 14, "Egyptian_Mau": 4}
PETS_TEST = {"Abyssinian": 5, "american_bulldog": 5, "Egyptian_Mau": 3}


def _pets(draw: Drawing) -> None:
    kinds = {"Abyssinian": "1 1 1", "american_bulldog": "2 2 1", "Egyptian_Mau": "10 1 6"}
    train = [f"{name}_{number} {kinds[name]}" for name, number in numbered(PETS_TRAIN)]
    test = [f"{name}_{number} {kinds[name]}" for name, number in numbered(PETS_TEST, 101)]
    draw.images(f"images/{row.split()[0]}.jpg" for row in (*train, *test))
    draw.text("annotations/trainval.txt", *train)
    draw.text("annotations/test.txt", *test)
    draw.text(
        "annotations/list.txt",
        "#Image CLASS-ID SPECIES BREED ID",
        "#ID: 1:37 Class ids",
        "#SPECIES: 1:Cat 2:Dog",
        "#BREED ID: 1-25:Cat 1:12:Dog",
        "#All images with 1st letter as captial are cat images",
        "#images with small first letter are dog images",
        *train,
        *test,
    )
    draw.images(f"annotations/trimaps/{row.split()[0]}.png" for row in (*train, *test))
    for row in train[::2]:
        name = row.split()[0]
        box = "<xmin>3</xmin><ymin>2</ymin><xmax>18</xmax><ymax>19</ymax>"
        draw.text(
            f"annotations/xmls/{name}.xml",
            f"<annotation><folder>OXIIIT</folder><filename>{name}.jpg</filename><size><width>20</width><height>20</height>",
            f"<depth>3</depth></size><object><name>{'dog' if name[0] == 'a' else 'cat'}</name><bndbox>{box}</bndbox>",
            "</object></annotation>",
        )
    draw.text("annotations/README", "Oxford-IIIT Pet")


PLANES = {
    "train": {"707-320": 10, "727-200": 12, "A310": 8, "Yak-42": 3},
    "val": {"707-320": 4, "727-200": 4, "A310": 4, "Yak-42": 2},
    "test": {"707-320": 4, "727-200": 4, "A310": 4, "Yak-42": 2},
}
FAMILY = {"707-320": "Boeing 707", "727-200": "Boeing 727", "A310": "A310", "Yak-42": "Yak-42"}
MAKER = {"707-320": "Boeing", "727-200": "Boeing", "A310": "Airbus", "Yak-42": "Yakovlev"}


def _renamed(names: dict[str, str]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for split, each in PLANES.items():
        for name, count in each.items():
            part = counts.setdefault(split, {})
            part[names[name]] = part.get(names[name], 0) + count
    return counts


def _aircraft(draw: Drawing) -> None:
    top, lists, first = "fgvc-aircraft-2013b/data", dict[str, list[tuple[str, str]]](), 34309
    for split, counts in PLANES.items():
        lists[split] = [(f"{number:07d}", name) for name, number in numbered(counts, first)]
        first += len(lists[split])
        draw.images(f"{top}/images/{stem}.jpg" for stem, _ in lists[split])
    lists["trainval"] = lists["train"] + lists["val"]
    for split, rows in lists.items():
        draw.text(f"{top}/images_{split}.txt", *(stem for stem, _ in rows))
        for what, names in (("variant", None), ("family", FAMILY), ("manufacturer", MAKER)):
            lines = [f"{stem} {names[name] if names else name}" for stem, name in rows]
            draw.text(f"{top}/images_{what}_{split}.txt", *lines)
    every = [stem for stem, _ in lists["trainval"] + lists["test"]]
    draw.text(f"{top}/images_box.txt", *(f"{stem} 3 2 18 19" for stem in every))
    draw.text(f"{top}/variants.txt", *PLANES["train"])
    draw.text(f"{top}/families.txt", *dict.fromkeys(FAMILY.values()))
    draw.text(f"{top}/manufacturers.txt", *dict.fromkeys(MAKER.values()))
    draw.text("fgvc-aircraft-2013b/README.md", "# FGVC-Aircraft")


PLACES = {
    "train": {"airfield": 12, "alley": 14, "zen_garden": 4},
    "val": {"airfield": 4, "alley": 4, "zen_garden": 3},
    "test": {"airfield": 4, "alley": 4, "zen_garden": 3},
}


def _places_lt(draw: Drawing) -> None:
    names = list(PLACES["train"])
    for split, counts in PLACES.items():
        rows = []
        for name, number in numbered(counts, {"train": 1, "val": 2000, "test": 1}[split]):
            path = f"val/Places365_val_{number:08d}.jpg" if split == "test" else f"train/{name}/{number:08d}.jpg"
            draw.images([path])
            rows.append(f"{path} {names.index(name)}")
        draw.text(f"Places_LT_{split}.txt", *rows)


NUMBERS = {
    "train": {"n01440764": 12, "n01443537": 14, "n15075141": 4},
    "val": {"n01440764": 4, "n01443537": 4, "n15075141": 3},
    "test": {"n01440764": 4, "n01443537": 4, "n15075141": 3},
}


def _imagenet_lt(draw: Drawing) -> None:
    names = list(NUMBERS["train"])
    for split, counts in NUMBERS.items():
        rows = []
        for name, number in numbered(counts, {"train": 190, "val": 9000, "test": 1}[split]):
            path = f"val/ILSVRC2012_val_{number:08d}.JPEG" if split == "test" else f"train/{name}/{name}_{number}.JPEG"
            draw.images([path])
            rows.append(f"{path} {names.index(name)}")
        draw.text(f"ImageNet_LT_{split}.txt", *rows)


SMILES = {
    "train": {"Bald": 4, "Eyeglasses": 16, "Male": 18, "Smiling": 20},
    "val": {"Bald": 2, "Eyeglasses": 5, "Male": 5, "Smiling": 6},
    "test": {"Bald": 2, "Eyeglasses": 5, "Male": 5, "Smiling": 6},
}


def _celeba(draw: Drawing) -> None:
    names = list(SMILES["train"])
    rows: list[tuple[str, str, int]] = []
    for part, counts in enumerate(SMILES.values()):
        for name, number in numbered(counts, len(rows) + 1):
            rows.append((f"{number:06d}.jpg", name, part))
    draw.images(f"celeba/img_align_celeba/{file}" for file, _, _ in rows)
    flags = [f"{file} {' '.join(' 1' if name == other else '-1' for other in names)}" for file, name, _ in rows]
    draw.text("celeba/list_attr_celeba.txt", str(len(rows)), " ".join(names) + " ", *flags)
    draw.text("celeba/list_eval_partition.txt", *(f"{file} {part}" for file, _, part in rows))
    draw.text(
        "celeba/identity_CelebA.txt", *(f"{file} {part * 5000 + n // 2}" for n, (file, _, part) in enumerate(rows))
    )
    boxes = [f"{file}    95  71 226 313" for file, _, _ in rows]
    draw.text("celeba/list_bbox_celeba.txt", str(len(rows)), "image_id x_1 y_1 width height", *boxes)
    marks = [f"{file}   69  109  106  113   77  142" for file, _, _ in rows]
    header = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y"
    draw.text("celeba/list_landmarks_align_celeba.txt", str(len(rows)), header, *marks)


EMOTIONS = {"train": {"1": 16, "4": 14, "2": 4}, "test": {"1": 6, "4": 5, "2": 3}}


def _raf_db(draw: Drawing) -> None:
    rows = []
    for split, digits in (("train", 5), ("test", 4)):
        for name, number in numbered(EMOTIONS[split]):
            stem = f"{split}_{number:0{digits}d}"
            draw.images([f"basic/Image/aligned/{stem}_aligned.jpg"])
            rows.append(f"{stem}.jpg {name}")
    draw.text("basic/EmoLabel/list_patition_label.txt", *rows)


LISTS = [
    Layout(
        "CUB-200-2011",
        "tensorflow/datasets: tensorflow_datasets/image_classification/caltech_birds.py",
        _cub,
        [{"train": BIRDS_TRAIN, "test": BIRDS_TEST}],
        ["200.Common_Yellowthroat"],
    ),
    Layout(
        "Oxford-IIIT Pet",
        f"{VISION}/oxford_iiit_pet.py",
        _pets,
        [{"train": PETS_TRAIN, "test": PETS_TEST}],
        ["Egyptian_Mau"],
    ),
    Layout(
        "FGVC-Aircraft",
        f"{VISION}/fgvc_aircraft.py",
        _aircraft,
        [_renamed(MAKER), _renamed(FAMILY), PLANES],
        ["Yakovlev", "Yak-42", "Yak-42"],
    ),
    Layout("Places-LT", f"{BALANCING}/Places_LT", _places_lt, [PLACES], ["zen_garden"]),
    Layout("ImageNet-LT", f"{BALANCING}/ImageNet_LT", _imagenet_lt, [NUMBERS], ["n15075141"]),
    Layout("CelebA", f"{VISION}/celeba.py", _celeba, [SMILES], ["Bald"], units=0),
    Layout(
        "RAF-DB",
        "https://github.com/yaoing/dan: datasets, with list_patition_label.txt",
        _raf_db,
        [EMOTIONS],
        ["2"],
    ),
]
