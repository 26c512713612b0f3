"""Holds data sets whose classes are folders, with or without lists of splits beside them, or the beginnings of names."""

from __future__ import annotations

from tests.support.public_layouts.layout import Drawing, Layout, numbered

TFDS = "tensorflow/datasets: tensorflow_datasets/image_classification"
VISION = "pytorch/vision: torchvision/datasets"

LEAVES = {"Apple___Apple_scab": 24, "Background_without_leaves": 30, "Apple___healthy": 18, "Tomato___Leaf_Mold": 6}


def _plant_village(draw: Drawing) -> None:
    folder = "Plant_leave_diseases_dataset_without_augmentation"
    draw.images(f"{folder}/{name}/image ({number}).JPG" for name, number in numbered(LEAVES))


def _plant_village_raw(draw: Drawing) -> None:
    for kind in ("color", "grayscale", "segmented"):
        draw.images(f"raw/{kind}/{name}/{number}___FREC_Scab 3335.JPG" for name, number in numbered(LEAVES))


DOC_TRAIN = {"Apple Scab Leaf": 20, "Apple leaf": 18, "Corn rust leaf": 16, "Tomato mold leaf": 5}
DOC_TEST = {"Apple Scab Leaf": 6, "Apple leaf": 6, "Corn rust leaf": 4, "Tomato mold leaf": 4}


def _plant_doc(draw: Drawing) -> None:
    draw.text("README.md", "# PlantDoc")
    draw.text("LICENSE.txt", "Creative Commons")
    draw.images(["PlantDoc_Examples.png"])
    draw.images(f"train/{name}/leaf-{number}-375x500.jpg" for name, number in numbered(DOC_TRAIN))
    draw.images(f"test/{name}/test_{number}.JPG.jpg" for name, number in numbered(DOC_TEST))


INTEL_TRAIN = {"buildings": 20, "forest": 24, "street": 6}
INTEL_TEST = {"buildings": 5, "forest": 6, "street": 4}


def _intel(draw: Drawing) -> None:
    for split, counts in (("train", INTEL_TRAIN), ("test", INTEL_TEST)):
        draw.images(f"seg_{split}/seg_{split}/{name}/{20000 + number}.jpg" for name, number in numbered(counts))
    draw.images(f"seg_pred/seg_pred/{number}.jpg" for number in range(9))


FOOD_TRAIN = {"apple_pie": 15, "baby_back_ribs": 16, "waffles": 5}
FOOD_TEST = {"apple_pie": 5, "baby_back_ribs": 6, "waffles": 4}


def _food(draw: Drawing) -> None:
    train = [f"{name}/{1000000 + number}" for name, number in numbered(FOOD_TRAIN)]
    test = [f"{name}/{2000000 + number}" for name, number in numbered(FOOD_TEST)]
    draw.images(f"food-101/images/{name}.jpg" for name in (*train, *test))
    draw.text("food-101/meta/train.txt", *train)
    draw.text("food-101/meta/test.txt", *test)
    draw.json("food-101/meta/train.json", {name: [n for n in train if n.startswith(name)] for name in FOOD_TRAIN})
    draw.json("food-101/meta/test.json", {name: [n for n in test if n.startswith(name)] for name in FOOD_TEST})
    draw.text("food-101/meta/classes.txt", *FOOD_TRAIN)
    draw.text("food-101/meta/labels.txt", "Apple pie", "Baby back ribs", "Waffles")
    draw.text("food-101/README.txt", "Food-101")
    draw.text("food-101/license_agreement.txt", "For research", "only")


OBJECTS = {"BACKGROUND_Google": 24, "Faces": 20, "accordion": 18, "wrench": 5}


def _caltech_101(draw: Drawing) -> None:
    draw.images(f"caltech-101/101_ObjectCategories/{name}/image_{number:04d}.jpg" for name, number in numbered(OBJECTS))
    for name, number in numbered({"Faces_2": 3, "accordion": 3}):
        draw.binary(f"caltech-101/Annotations/{name}/annotation_{number:04d}.mat", b"MATLAB 5.0 MAT-file")
    draw.text("caltech-101/show_annotation.m", "function show_annotation(imgfile, annotation_file)")


KINDS_256 = {"001.ak47": 20, "056.dog": 18, "198.spider": 16, "257.clutter": 5}


def _caltech_256(draw: Drawing) -> None:
    draw.images(f"256_ObjectCategories/{name}/{name[:3]}_{number:04d}.jpg" for name, number in numbered(KINDS_256))


TUMOURS = {"benign": 12, "malignant": 40}


def _break_his(draw: Drawing) -> None:
    patients = {
        "benign": ["adenosis/SOB_B_A_14-22549AB", "fibroadenoma/SOB_B_F_14-9133"],
        "malignant": ["ductal_carcinoma/SOB_M_DC_14-2523", "lobular_carcinoma/SOB_M_LC_14-12204"],
    }
    for name, number in numbered(TUMOURS):
        patient = patients[name][number % 2]
        factor = (40, 100, 200, 400)[number % 4]
        stem = f"{patient.split('/')[1].replace('_14', '-14')}-{factor}-{number:03d}"
        draw.images([f"BreaKHis_v1/histology_slides/breast/{name}/SOB/{patient}/{factor}X/{stem}.png"])
    draw.text("BreaKHis_v1/README.txt", "BreakHis")


LUNGS = {
    "train": {"NORMAL": 12, "PNEUMONIA": 40},
    "val": {"NORMAL": 4, "PNEUMONIA": 4},
    "test": {"NORMAL": 6, "PNEUMONIA": 10},
}


def _chest_xray(draw: Drawing) -> None:
    for top in ("chest_xray", "chest_xray/chest_xray"):
        for split, counts in LUNGS.items():
            draw.images(f"{top}/{split}/{name}/IM-{number:04d}-0001.jpeg" for name, number in numbered(counts))
            draw.binary(f"{top}/{split}/.DS_Store", b"\0")
    draw.binary("chest_xray/__MACOSX/chest_xray/._.DS_Store", b"\0")


DOGS = {"n02085620-Chihuahua": 24, "n02085782-Japanese_spaniel": 20, "n02116738-African_hunting_dog": 5}


def _stanford_dogs(draw: Drawing) -> None:
    for name, number in numbered(DOGS):
        draw.images([f"Images/{name}/{name[:9]}_{number}.jpg"])
        draw.text(
            f"Annotation/{name}/{name[:9]}_{number}",
            "<annotation><object><name>dog</name></object></annotation>",
        )
    for name in ("train_list", "test_list", "file_list"):
        draw.binary(f"lists/{name}.mat", b"MATLAB 5.0 MAT-file")


RADIOGRAPHS = {"COVID": 20, "Lung_Opacity": 24, "Normal": 40, "Viral Pneumonia": 6}


def _radiography(draw: Drawing) -> None:
    top = "COVID-19_Radiography_Dataset"
    for name, number in numbered(RADIOGRAPHS):
        draw.images([f"{top}/{name}/images/{name}-{number}.png", f"{top}/{name}/masks/{name}-{number}.png"])
    for name in RADIOGRAPHS:
        draw.binary(f"{top}/{name}.metadata.xlsx", b"PK\3\4")
    draw.text(f"{top}/README.md.txt", "COVID-19")


PETS = {"cat": 30, "dog": 7}


def _dogs_and_cats(draw: Drawing) -> None:
    draw.images(f"train/{name}.{number}.jpg" for name, number in numbered(PETS, 0))
    draw.images(f"test1/{number}.jpg" for number in range(1, 9))
    draw.text("sampleSubmission.csv", "id,label", *(f"{number},0" for number in range(1, 9)))


FLOWERS = {
    "train": {"pink primrose": 20, "globe thistle": 18, "blanket flower": 4},
    "val": {"pink primrose": 4, "globe thistle": 4, "blanket flower": 3},
    "test": {"pink primrose": 4, "globe thistle": 4, "blanket flower": 3},
}


def _flowers(draw: Drawing) -> None:
    codes = {"pink primrose": "1", "globe thistle": "10", "blanket flower": "100"}
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        draw.images(
            f"flower_data/{folder}/{codes[name]}/image_{split}{number:05d}.jpg"
            for name, number in numbered(FLOWERS[split])
        )
    draw.json("cat_to_name.json", {code: name for name, code in codes.items()})


CARS = {
    "train": {"Acura RL Sedan 2012": 16, "BMW M3 Coupe 2012": 14, "smart fortwo Convertible 2012": 5},
    "test": {"Acura RL Sedan 2012": 5, "BMW M3 Coupe 2012": 5, "smart fortwo Convertible 2012": 4},
}


def _stanford_cars(draw: Drawing) -> None:
    for split, counts in CARS.items():
        rows = []
        for name, number in numbered(counts):
            draw.images([f"car_data/car_data/{split}/{name}/{number:05d}.jpg"])
            rows.append(f"{number:05d}.jpg,39,116,569,375,{list(counts).index(name) + 1}")
        draw.text(f"anno_{split}.csv", *rows)
    draw.text("names.csv", *CARS["train"])


TINY_TRAIN = {"goldfish": 16, "tailed frog": 14, "alp": 5}
TINY_VAL = {"goldfish": 5, "tailed frog": 5, "alp": 4}


def _tiny_imagenet(draw: Drawing) -> None:
    codes = {"goldfish": "n01443537", "tailed frog": "n01644900", "alp": "n09193705"}
    top = "tiny-imagenet-200"
    for name, code in codes.items():
        stems = [f"{code}_{number}" for number in range(TINY_TRAIN[name])]
        draw.images(f"{top}/train/{code}/images/{stem}.JPEG" for stem in stems)
        draw.text(f"{top}/train/{code}/{code}_boxes.txt", *(f"{stem}.JPEG\t0\t10\t63\t58" for stem in stems))
    rows = list(numbered(TINY_VAL, 0))
    draw.images(f"{top}/val/images/val_{number}.JPEG" for _, number in rows)
    draw.text(
        f"{top}/val/val_annotations.txt", *(f"val_{number}.JPEG\t{codes[name]}\t0\t32\t44\t62" for name, number in rows)
    )
    draw.images(f"{top}/test/images/test_{number}.JPEG" for number in range(6))
    draw.text(f"{top}/wnids.txt", *codes.values())
    names = [f"{code}\t{name}, another word" for name, code in codes.items()]
    draw.text(f"{top}/words.txt", "n00001740\tentity", *names, "n00002137\tabstraction, abstract entity")


TEXTURES = {
    "train": {"banded": 12, "blotchy": 10, "zigzagged": 4},
    "val": {"banded": 4, "blotchy": 4, "zigzagged": 3},
    "test": {"banded": 4, "blotchy": 4, "zigzagged": 3},
}


def _dtd(draw: Drawing) -> None:
    lists: dict[str, list[str]] = {}
    number = 1
    for split, counts in TEXTURES.items():
        for name, count in counts.items():
            lists.setdefault(split, []).extend(f"{name}/{name}_{n:04d}.jpg" for n in range(number, number + count))
            number += count
    every = [name for names in lists.values() for name in names]
    draw.images(f"dtd/images/{name}" for name in every)
    for fold in range(1, 4):
        shift = lists if fold == 1 else {"train": lists["test"], "val": lists["train"], "test": lists["val"]}
        for split, names in shift.items():
            draw.text(f"dtd/labels/{split}{fold}.txt", *names)
    draw.text("dtd/labels/labels_joint_anno.txt", *(f"{name} {name.split('/')[0]} " for name in every))
    draw.binary("dtd/imdb/imdb.mat", b"MATLAB 5.0 MAT-file")


SCENES_TRAIN = {"abbey": 14, "bakery/shop": 12, "zen_garden": 4}
SCENES_TEST = {"abbey": 5, "bakery/shop": 5, "zen_garden": 3}


def _sun(draw: Drawing) -> None:
    def paths(counts: dict[str, int], word: str) -> list[str]:
        return [f"/{name[0]}/{name}/sun_{word}{number:012d}.jpg" for name, number in numbered(counts)]

    train, test = paths(SCENES_TRAIN, "a"), paths(SCENES_TEST, "b")
    draw.images(f"SUN397{path}" for path in (*train, *test))
    draw.text("SUN397/ClassName.txt", *(f"/{name[0]}/{name}" for name in SCENES_TRAIN))
    for fold in range(1, 3):
        draw.text(f"Partitions/Training_{fold:02d}.txt", *(train if fold == 1 else test))
        draw.text(f"Partitions/Testing_{fold:02d}.txt", *(test if fold == 1 else train))
    draw.text("Partitions/ClassName.txt", *(f"/{name[0]}/{name}" for name in SCENES_TRAIN))


def _mvtec(draw: Drawing) -> None:
    draw.images(f"train/good/{number:03d}.png" for number in range(20))
    for name in ("good", "broken_large", "contamination"):
        draw.images(f"test/{name}/{number:03d}.png" for number in range(6))
        if name != "good":
            draw.images(f"ground_truth/{name}/{number:03d}_mask.png" for number in range(6))
    draw.text("license.txt", "CC BY-NC-SA 4.0")


def _kolektor(draw: Drawing) -> None:
    for item in range(1, 7):
        for part in range(4):
            draw.images([f"kos{item:02d}/Part{part}.jpg", f"kos{item:02d}/Part{part}_label.bmp"])


SPECIES = {
    "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris": 6,
    "00001_Animalia_Annelida_Polychaeta_Sabellida_Sabellidae_Sabella_spallanzanii": 6,
}


def _inaturalist_mini(draw: Drawing) -> None:
    for split, first in (("train_mini", 0), ("val", 100)):
        draw.images(f"{split}/{name}/{number:08x}.jpg" for name, number in numbered(SPECIES, first))


FOLDERS = [
    Layout("PlantVillage", f"{TFDS}/plant_village.py", _plant_village, [{"": LEAVES}], ["Tomato___Leaf_Mold"]),
    Layout(
        "PlantVillage, in three versions",
        "spMohanty/PlantVillage-Dataset: raw",
        _plant_village_raw,
        refused=["tailfill init", "raw/color", "raw/grayscale"],
    ),
    Layout(
        "PlantDoc",
        "pratikkayal/PlantDoc-Dataset: train, test",
        _plant_doc,
        [{"train": DOC_TRAIN, "test": DOC_TEST}],
        ["Tomato mold leaf"],
    ),
    Layout(
        "Intel Image Classification",
        "https://www.kaggle.com/datasets/puneet6060/intel-image-classification",
        _intel,
        [{"train": INTEL_TRAIN, "test": INTEL_TEST}],
        ["street"],
    ),
    Layout("Food-101", f"{VISION}/food101.py", _food, [{"train": FOOD_TRAIN, "test": FOOD_TEST}], ["waffles"]),
    Layout("Caltech-101", f"{VISION}/caltech.py", _caltech_101, [{"": OBJECTS}], ["wrench"]),
    Layout("Caltech-256", f"{VISION}/caltech.py", _caltech_256, [{"": KINDS_256}], ["257.clutter"]),
    Layout("BreakHis", "kaiko-ai/eva: docs/datasets/breakhis.md", _break_his, [{"": TUMOURS}], ["benign"]),
    Layout(
        "Chest X-Ray Images (Pneumonia)",
        "https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia",
        _chest_xray,
        [LUNGS],
        ["NORMAL"],
    ),
    Layout(
        "Stanford Dogs",
        f"{TFDS}/stanford_dogs.py",
        _stanford_dogs,
        [{"": DOGS}],
        ["n02116738-African_hunting_dog"],
    ),
    Layout(
        "COVID-19 Radiography",
        "https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
        _radiography,
        [{"": RADIOGRAPHS}],
        ["Viral Pneumonia"],
    ),
    Layout(
        "Dogs vs. Cats",
        "openai/mle-bench: mlebench/competitions/dogs-vs-cats-redux-kernels-edition/description.md",
        _dogs_and_cats,
        [{"": PETS}],
        ["dog"],
    ),
    Layout(
        "Oxford Flowers 102 in folders",
        "udacity/aipnd-project: README.md, cat_to_name.json",
        _flowers,
        [FLOWERS],
        ["blanket flower"],
    ),
    Layout(
        "Stanford Cars in folders",
        "https://www.kaggle.com/datasets/jutrera/stanford-car-dataset-by-classes-folder",
        _stanford_cars,
        [CARS],
        ["smart fortwo Convertible 2012"],
    ),
    Layout(
        "Tiny ImageNet",
        "https://cs231n.stanford.edu/tiny-imagenet-200.zip, tjmoon0104/pytorch-tiny-imagenet: val_format.py",
        _tiny_imagenet,
        [{"train": TINY_TRAIN, "val": TINY_VAL}],
        ["alp"],
    ),
    Layout("DTD", f"{VISION}/dtd.py", _dtd, [TEXTURES], ["zigzagged"]),
    Layout("SUN397", f"{VISION}/sun397.py", _sun, [{"train": SCENES_TRAIN, "test": SCENES_TEST}], ["zen_garden"]),
    Layout(
        "MVTec AD, one object",
        "openvinotoolkit/anomalib: src/anomalib/data/datasets/image/mvtecad.py",
        _mvtec,
        refused=["train/ holds images of one class only", "tailfill init", "/test`"],
    ),
    Layout(
        "KolektorSDD",
        "https://www.vicos.si/resources/kolektorsdd/",
        _kolektor,
        refused=["mask"],
    ),
    Layout(
        "iNaturalist 2021 mini",
        "visipedia/inat_comp: 2021/README.md",
        _inaturalist_mini,
        [{"train": SPECIES, "val": SPECIES}],
    ),
]
