"""Holds data sets whose labels are text without a header, in one file or in several that an id joins."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.public_layouts.layout import Drawing, Layout, numbered, together

VISION = "pytorch/vision: torchvision/datasets"
BALANCING = "facebookresearch/classifier-balancing: data"


def _tailed(names: Sequence[str]) -> dict[str, int]:
    """Returns the numbers of training images of classes, of which the first has the most and the last few."""
    return {name: 8 if name == names[0] else 2 if name == names[-1] else 5 for name in names}


BIRDS = (
    "Black_footed_Albatross", "Laysan_Albatross", "Sooty_Albatross", "Groove_billed_Ani", "Crested_Auklet", "Least_Auklet", "Parakeet_Auklet",
    "Rhinoceros_Auklet", "Brewer_Blackbird", "Red_winged_Blackbird", "Rusty_Blackbird", "Yellow_headed_Blackbird", "Bobolink", "Indigo_Bunting",
    "Lazuli_Bunting", "Painted_Bunting", "Cardinal", "Spotted_Catbird", "Gray_Catbird", "Yellow_breasted_Chat", "Eastern_Towhee", "Chuck_will_Widow",
    "Brandt_Cormorant", "Red_faced_Cormorant",
)  # fmt: skip
BIRDS_TRAIN = _tailed([f"{number:03d}.{name}" for number, name in enumerate(BIRDS, 1)])
BIRDS_TEST = dict.fromkeys(BIRDS_TRAIN, 2)


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


BREEDS = (
    "Abyssinian", "american_bulldog", "american_pit_bull_terrier", "basset_hound", "beagle", "Bengal", "Birman", "Bombay", "boxer", "British_Shorthair",
    "chihuahua", "Egyptian_Mau", "english_cocker_spaniel", "english_setter", "german_shorthaired", "great_pyrenees", "havanese", "japanese_chin",
    "keeshond", "leonberger", "Maine_Coon", "miniature_pinscher", "newfoundland", "Persian", "pomeranian", "pug", "Ragdoll", "Russian_Blue",
    "saint_bernard", "samoyed", "scottish_terrier", "shiba_inu", "Siamese", "Sphynx", "staffordshire_bull_terrier", "wheaten_terrier", "yorkshire_terrier",
)  # fmt: skip
PETS_TRAIN = _tailed(BREEDS)
PETS_TEST = dict.fromkeys(BREEDS, 2)


def _pets(draw: Drawing) -> None:
    species = {name: 1 if name[0].isupper() else 2 for name in BREEDS}
    kinds = {
        name: f"{number} {species[name]} {sum(species[other] == species[name] for other in BREEDS[:number])}"
        for number, name in enumerate(BREEDS, 1)
    }
    train = [f"{name}_{number} {kinds[name]}" for name, number in numbered(PETS_TRAIN)]
    test = [f"{name}_{number} {kinds[name]}" for name, number in numbered(PETS_TEST, 1001)]
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
            f"<depth>3</depth></size><object><name>{'cat' if name[0].isupper() else 'dog'}</name><bndbox>{box}</bndbox>",
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


SCENES = (
    "airfield", "airplane_cabin", "airport_terminal", "alcove", "alley", "amphitheater", "amusement_arcade", "amusement_park", "apartment_building-outdoor",
    "aquarium", "aqueduct", "arcade", "arch", "archaelogical_excavation", "archive", "arena-hockey", "arena-performance", "arena-rodeo", "army_base",
    "art_gallery", "art_school", "art_studio", "artists_loft", "zen_garden",
)  # fmt: skip
PLACES = {"train": _tailed(SCENES), "val": dict.fromkeys(SCENES, 1), "test": dict.fromkeys(SCENES, 2)}


def _places_lt(draw: Drawing) -> None:
    names = list(PLACES["train"])
    for split, counts in PLACES.items():
        rows = []
        for name, number in numbered(counts, {"train": 1, "val": 2000, "test": 1}[split]):
            path = f"val/Places365_val_{number:08d}.jpg" if split == "test" else f"train/{name}/{number:08d}.jpg"
            draw.images([path])
            rows.append(f"{path} {names.index(name)}")
        draw.text(f"Places_LT_{split}.txt", *rows)


SYNSETS = (
    "n01440764", "n01443537", "n01484850", "n01491361", "n01494475", "n01496331", "n01498041", "n01514668", "n01514859", "n01518878", "n01530575",
    "n01531178", "n01532829", "n01534433", "n01537544", "n01558993", "n01560419", "n01580077", "n01582220", "n01592084", "n01601694", "n15075141",
)  # fmt: skip
NUMBERS = {"train": _tailed(SYNSETS), "val": dict.fromkeys(SYNSETS, 1), "test": dict.fromkeys(SYNSETS, 2)}


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


INSECTS = tuple(str(number) for number in range(24))
PESTS = {"train": _tailed(INSECTS), "val": dict.fromkeys(INSECTS, 1), "test": dict.fromkeys(INSECTS, 2)}


def _domain(most: int, without: str = "") -> dict[str, int]:
    counts = {name: most if name == THINGS[0] else 2 if name == "bandage" else 3 for name in THINGS}
    return {name: count for name, count in counts.items() if name != without}


def _ip102(draw: Drawing) -> None:
    first = 0
    for split, counts in PESTS.items():
        rows = [f"{number:05d}.jpg {name}" for name, number in numbered(counts, first)]
        first += len(rows)
        draw.images(f"ip102_v1.1/images/{row.split()[0]}" for row in rows)
        draw.text(f"ip102_v1.1/{split}.txt", *rows)


THINGS = (
    "aircraft_carrier", "airplane", "alarm_clock", "ambulance", "angel", "animal_migration", "ant", "anvil", "apple", "arm", "asparagus", "axe", "backpack",
    "banana", "bandage", "barn", "baseball", "baseball_bat", "basket", "basketball", "bat", "bathtub", "beach",
)  # fmt: skip
DOMAINS = {"clipart": _domain(6), "painting": _domain(6, without="bandage"), "quickdraw": _domain(8)}
DOMAINS_TEST = dict.fromkeys(THINGS, 1)


def _domain_net(draw: Drawing) -> None:
    for domain, counts in DOMAINS.items():
        for split, each in (("train", counts), ("test", DOMAINS_TEST)):
            rows = []
            for name, number in numbered(each, {"train": 1, "test": 1000}[split]):
                path = f"{domain}/{name}/{domain}_{THINGS.index(name):03d}_{number:06d}.jpg"
                draw.images([path])
                rows.append(f"{path} {THINGS.index(name)}")
            draw.text(f"{domain}_{split}.txt", *rows)


WASTE = {
    "train": {"glass": 16, "paper": 18, "cardboard": 14, "plastic": 15, "metal": 4},
    "val": {"glass": 4, "paper": 4, "cardboard": 4, "plastic": 4, "metal": 3},
    "test": {"glass": 4, "paper": 4, "cardboard": 4, "plastic": 4, "metal": 3},
}


def _trash_net(draw: Drawing) -> None:
    names, every = list(WASTE["train"]), list[str]()
    numbers = dict.fromkeys(names, 0)
    for split, counts in WASTE.items():
        rows = []
        for name, _ in numbered(counts):
            numbers[name] += 1
            rows.append(f"{name}{numbers[name]}.jpg {names.index(name) + 1}")
            draw.images([f"Garbage classification/Garbage classification/{name}/{rows[-1].split()[0]}"])
        draw.text(f"one-indexed-files-notrash_{split}.txt", *rows)
        every += rows
    trash = [f"trash{number}.jpg" for number in range(1, 7)]
    draw.images(f"Garbage classification/Garbage classification/trash/{name}" for name in trash)
    draw.text("one-indexed-files.txt", *every, *(f"{name} 6" for name in trash))
    draw.text(
        "zero-indexed-files.txt", *(f"{row[:-1]}{int(row[-1]) - 1}" for row in every), *(f"{name} 5" for name in trash)
    )


TREES = (
    "Abies concolor", "Abies nordmanniana", "Acer campestre", "Acer ginnala", "Acer griseum", "Acer negundo", "Acer palmatum", "Acer pensylvanicum",
    "Acer platanoides", "Acer pseudoplatanus", "Acer rubrum", "Acer saccharinum", "Acer saccharum", "Aesculus flava", "Aesculus glabra",
    "Aesculus hippocastamon", "Aesculus pavi", "Ailanthus altissima", "Albizia julibrissin", "Amelanchier arborea", "Amelanchier canadensis",
    "Amelanchier laevis",
)  # fmt: skip
LEAVES = {name: 20 if name == TREES[0] else 2 if name == TREES[-1] else 8 for name in TREES}


def _leafsnap(draw: Drawing) -> None:
    rows = []
    for name, number in numbered(LEAVES, 55497):
        kind, folder = ("lab" if number % 3 else "field"), name.lower().replace(" ", "_")
        paths = [
            f"dataset/{part}/{kind}/{folder}/ny{number}-01-1.{end}"
            for part, end in (("images", "jpg"), ("segmented", "png"))
        ]
        draw.images(paths)
        rows.append("\t".join([str(number), *paths, name, kind]))
    draw.text(
        "leafsnap-dataset-images.txt",
        "\t".join(["file_id", "image_path", "segmented_path", "species", "source"]),
        *rows,
    )
    draw.text("leafsnap-dataset-readme.txt", "Leafsnap Dataset Readme")


LISTS = [
    Layout(
        "CUB-200-2011",
        "tensorflow/datasets: tensorflow_datasets/image_classification/caltech_birds.py",
        _cub,
        [{"train": BIRDS_TRAIN, "test": BIRDS_TEST}],
        ["024.Red_faced_Cormorant"],
    ),
    Layout(
        "Oxford-IIIT Pet",
        f"{VISION}/oxford_iiit_pet.py",
        _pets,
        [{"train": PETS_TRAIN, "test": PETS_TEST}],
        ["yorkshire_terrier"],
        says=["column 2 is taken for the labels"],
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
    Layout(
        "IP102",
        "xpwu95/IP102: README.md",
        _ip102,
        [PESTS],
        ["23"],
        says=["the 24 different numbers of"],
    ),
    Layout(
        "DomainNet",
        "datasets-mila/datasets--domainnet: README.rst",
        _domain_net,
        [{"train": together(*DOMAINS.values()), "test": together(*[DOMAINS_TEST] * len(DOMAINS))}],
        ["bandage"],
        says=["are taken for one data set"],
    ),
    Layout(
        "TrashNet at Kaggle",
        "https://www.kaggle.com/datasets/asdasdasasdas/garbage-classification",
        _trash_net,
        [WASTE],
        ["metal"],
        says=[
            "6 images are left out, as no usable row names them: 'Garbage classification/Garbage classification/trash/'"
        ],
    ),
    Layout(
        "Leafsnap",
        "OmdenaAI/Algeria-Chapter-Green: Team-6_project/src/data/leafsnap-dataset/leafsnap-dataset-readme.txt",
        _leafsnap,
        [{"": LEAVES}],
        ["Amelanchier laevis"],
    ),
]
