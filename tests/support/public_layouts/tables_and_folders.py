"""Holds data sets with tables beside folders that say the splits or the classes of the images, too."""

from __future__ import annotations

from tests.support.public_layouts.layout import Drawing, Layout, numbered

KAGGLE = "https://www.kaggle.com"


TASK_3 = {
    "train": {"MEL": 18, "NV": 40, "BCC": 14, "AKIEC": 12, "BKL": 13, "DF": 4, "VASC": 11},
    "val": {"MEL": 4, "NV": 6, "BCC": 4, "AKIEC": 3, "BKL": 4, "DF": 3, "VASC": 3},
    "test": {"MEL": 5, "NV": 8, "BCC": 4, "AKIEC": 4, "BKL": 4, "DF": 3, "VASC": 3},
}


def _isic_2018(draw: Drawing) -> None:
    first = 24306
    for split, word in (("train", "Training"), ("val", "Validation"), ("test", "Test")):
        rows = []
        for name, number in numbered(TASK_3[split], first):
            stem = f"ISIC_{number:07d}"
            draw.images([f"ISIC2018_Task3_{word}_Input/{stem}.jpg"])
            rows.append(",".join([stem, *(str(float(name == other)) for other in TASK_3["train"])]))
        first += 10_000
        truth = f"ISIC2018_Task3_{word}_GroundTruth"
        draw.text(f"{truth}/{truth}.csv", f"image,{','.join(TASK_3['train'])}", *rows)
        draw.text(f"ISIC2018_Task3_{word}_Input/LICENSE.txt", "CC BY-NC")


RETINA = (
    "DR", "ARMD", "MH", "DN", "MYA", "BRVO", "TSLN", "ERM", "LS", "MS", "CSR", "ODC", "CRVO", "TV", "AH", "ODP", "ODE", "ST", "AION", "PT", "RT", "RS",
)  # fmt: skip
DISEASES = {
    "train": {**dict.fromkeys(RETINA, 6), "DR": 16, "MH": 14, "RS": 2},
    "val": {**dict.fromkeys(RETINA, 2), "DR": 4},
    "test": {**dict.fromkeys(RETINA, 2), "DR": 4},
}
AT_RISK = {split: {"Disease_Risk": sum(counts.values()), **counts} for split, counts in DISEASES.items()}


def _rfmid(draw: Drawing) -> None:
    """The images of each split are numbered from 1, and some show no disease."""
    for split, top, folder, word in (
        ("train", "Training_Set", "Training", "Training"),
        ("val", "Evaluation_Set", "Validation", "Validation"),
        ("test", "Test_Set", "Test", "Testing"),
    ):
        images = [*numbered({**DISEASES[split], "": 6})]
        rows = [
            ",".join([str(number), str(int(name != "")), *(str(int(name == other)) for other in RETINA)])
            for name, number in images
        ]
        draw.images(f"{top}/{top}/{folder}/{number}.png" for _, number in images)
        draw.text(f"{top}/{top}/RFMiD_{word}_Labels.csv", f"ID,Disease_Risk,{','.join(RETINA)}", *rows)


RETINOPATHY = {
    "train": {"0": 20, "1": 4, "2": 18, "3": 14, "4": 12},
    "test": {"0": 6, "1": 3, "2": 5, "3": 4, "4": 4},
}
EDEMA = {"0": "0", "1": "0", "2": "1", "3": "2", "4": "2"}
EDEMAS = {
    split: {risk: sum(count for name, count in counts.items() if EDEMA[name] == risk) for risk in "012"}
    for split, counts in RETINOPATHY.items()
}


def _idrid(draw: Drawing) -> None:
    """The images of each split are numbered from 1; the training table has cells without names."""
    for split, letter, folder, word in (
        ("train", "a", "Training Set", "Training"),
        ("test", "b", "Testing Set", "Testing"),
    ):
        blank = ",,," if split == "train" else ""
        images = [(f"IDRiD_{number:03d}", name) for name, number in numbered(RETINOPATHY[split])]
        draw.images(f"B. Disease Grading/1. Original Images/{letter}. {folder}/{stem}.jpg" for stem, _ in images)
        draw.text(
            f"B. Disease Grading/2. Groundtruths/{letter}. IDRiD_Disease Grading_{word} Labels.csv",
            f"Image name,Retinopathy grade,Risk of macular edema {blank}",
            *(f"{stem},{name},{EDEMA[name]}{blank}" for stem, name in images),
        )


DRIVING = {"c0": 14, "c1": 12, "c2": 12, "c3": 12, "c4": 12, "c5": 12, "c6": 12, "c7": 10, "c8": 3, "c9": 10}


def _state_farm(draw: Drawing) -> None:
    images = list(numbered(DRIVING, 30_000))
    draw.images(f"imgs/train/{name}/img_{number}.jpg" for name, number in images)
    rows = [f"p{at % 26:03d},{name},img_{number}.jpg" for at, (name, number) in enumerate(images)]
    draw.text("driver_imgs_list.csv", "subject,classname,img", *rows)
    draw.images(f"imgs/test/img_{number}.jpg" for number in range(1, 9))
    header = f"img,{','.join(DRIVING)}"
    draw.text("sample_submission.csv", header, *(f"img_{n}.jpg{',0.1' * 10}" for n in range(1, 9)))


SYNSETS = (
    "n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916", "n03417042", "n03425413", "n03445777", "n03888257",
)  # fmt: skip
IMAGENETTE = {
    "train": {**dict.fromkeys(SYNSETS, 10), "n03888257": 3},
    "val": dict.fromkeys(SYNSETS, 3),
}


def _imagenette(draw: Drawing) -> None:
    """A share of the labels is wrong in each column but the first."""
    rows = []
    for split, counts in IMAGENETTE.items():
        for name, number in numbered(counts):
            path = f"{split}/{name}/{name}_{number}.JPEG"
            draw.images([f"imagenette2/{path}"])
            noisy = [
                SYNSETS[(number * 7) % 10] if split == "train" and number % 20 < share else name
                for share in (0, 1, 2, 5, 10)
            ]
            rows.append(",".join([path, *noisy, str(split == "val")]))
    header = "path,noisy_labels_0,noisy_labels_1,noisy_labels_5,noisy_labels_25,noisy_labels_50,is_valid"
    draw.text("imagenette2/noisy_imagenette.csv", header, *rows)


ACTIONS = {
    **dict.fromkeys(
        ("calling", "clapping", "cycling", "dancing", "drinking", "eating", "fighting", "hugging", "laughing", "listening_to_music"), 10
    ),
    "running": 12, "sitting": 12, "sleeping": 12, "texting": 12, "using_laptop": 3,
}  # fmt: skip


def _human_actions(draw: Drawing) -> None:
    """The test images are numbered from 1, too."""
    top, rows = "Human Action Recognition", [(f"Image_{number}.jpg", name) for name, number in numbered(ACTIONS)]
    draw.images(f"{top}/train/{file}" for file, _ in rows)
    draw.text(f"{top}/Training_set.csv", "filename,label", *(f"{file},{name}" for file, name in rows))
    draw.images(f"{top}/test/{file}" for file, _ in rows)
    draw.text(f"{top}/Testing_set.csv", "filename", *(file for file, _ in rows))


def _gtsrb_classes(draw: Drawing, folder: str) -> None:
    """A table in each class folder, whose class is the same on all of its rows, and one of the test images."""
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    for code in range(43):
        files = [f"{code % 5:05d}_{number:05d}.ppm" for number in range(3)]
        draw.images(f"{folder}/{code:05d}/{file}" for file in files)
        draw.text(
            f"{folder}/{code:05d}/GT-{code:05d}.csv", header, *(f"{file};29;30;5;6;24;25;{code}" for file in files)
        )
    draw.images(f"GTSRB/Final_Test/Images/{number:05d}.ppm" for number in range(86))
    draw.text("GT-final_test.csv", header, *(f"{number:05d}.ppm;53;54;6;5;48;49;{number % 43}" for number in range(86)))


def _gtsrb_torchvision(draw: Drawing) -> None:
    _gtsrb_classes(draw, "GTSRB/Training")


def _gtsrb_ini(draw: Drawing) -> None:
    _gtsrb_classes(draw, "GTSRB/Final_Training/Images")
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2"
    rows = [f"{number:05d}.ppm;53;54;6;5;48;49" for number in range(86)]
    draw.text("GTSRB/Final_Test/Images/GT-final_test.test.csv", header, *rows)
    draw.text("GTSRB/Readme-Images.txt", "GTSRB")


def _traffic_signs(draw: Drawing) -> None:
    """The table names the classes; the test images lie in no class folder."""
    draw.text("labels.csv", "ClassId,Name", *(f"{code},Speed limit ({5 * code + 5}km/h)" for code in range(58)))
    draw.images(f"traffic_Data/DATA/{code}/{code:03d}_{number:04d}.png" for code in range(58) for number in range(2))
    draw.images(f"traffic_Data/TEST/{code:03d}_1_{code:04d}.png" for code in range(9))


def _protein_atlas(draw: Drawing) -> None:
    """Four images of one name each, of which each shows another protein."""
    ids = [f"{number:08x}-bad4-11e8-b2b8-ac1f6b6435d0" for number in range(24)]
    for folder in ("train", "test"):
        draw.images(f"{folder}/{stem}_{colour}.png" for stem in ids for colour in ("blue", "green", "red", "yellow"))
        ids = [stem.replace("bad4", "bad5") for stem in ids]
    stems = [stem.replace("bad5", "bad4") for stem in ids]
    draw.text("train.csv", "Id,Target", *(f"{stem},{'16 0' if n % 3 else n % 28}" for n, stem in enumerate(stems)))
    draw.text("sample_submission.csv", "Id,Predicted", *(f"{stem.replace('bad4', 'bad5')},0" for stem in stems))


FISHES = {"n01440764": "tench", "n01443537": "goldfish", "n01484850": "great white shark"}
IMAGENET = {"train": dict.fromkeys(FISHES.values(), 6), "val": dict.fromkeys(FISHES.values(), 3)}


def _imagenet(draw: Drawing) -> None:
    """The validation images have no class folders; a table says the class of each with its boxes."""
    data, trained = "ILSVRC/Data/CLS-LOC", [f"{code}_{number}" for code in FISHES for number in range(6)]
    draw.images(f"{data}/train/{stem.partition('_')[0]}/{stem}.JPEG" for stem in trained)
    val = {f"ILSVRC2012_val_{number:08d}": [*FISHES][number % 3] for number in range(1, 10)}
    draw.images(f"{data}/val/{stem}.JPEG" for stem in val)
    draw.images(f"{data}/test/ILSVRC2012_test_{number:08d}.JPEG" for number in range(1, 5))
    draw.text("LOC_synset_mapping.txt", *(f"{code} {name}, Genus {name}" for code, name in FISHES.items()))
    header = "ImageId,PredictionString"
    rows = (f"{stem},{stem.partition('_')[0]} {n} 111 108 230 " for n, stem in enumerate(trained))
    draw.text("LOC_train_solution.csv", header, *rows)
    draw.text("LOC_val_solution.csv", header, *(f"{stem},{code} 85 1 499 272 " for stem, code in val.items()))
    draw.text("LOC_sample_submission.csv", header, "ILSVRC2012_test_00000001,n01440764 1 1 1 1")
    lists = "ILSVRC/ImageSets/CLS-LOC"
    draw.text(f"{lists}/train_cls.txt", *(f"{s.partition('_')[0]}/{s} {n}" for n, s in enumerate(trained, 1)))
    draw.text(f"{lists}/val.txt", *(f"{stem} {number}" for number, stem in enumerate(val, 1)))


GRADES = {
    "train": {"0": 12, "1": 8, "2": 10, "3": 3, "4": 8},
    "val": {"0": 3, "1": 3, "2": 4, "3": 3, "4": 3},
    "test": {"0": 4, "1": 3, "2": 4, "3": 3, "4": 3},
}


def _aptos_split(draw: Drawing) -> None:
    """Three tables, of which one has a number in its name, and a folder of images for each."""
    first = 0
    for split, table, folder in (("train", "train_1", "train"), ("val", "valid", "val"), ("test", "test", "test")):
        rows = [(f"{number:012x}", name) for name, number in numbered(GRADES[split], first)]
        draw.images(f"{folder}_images/{folder}_images/{code}.png" for code, _ in rows)
        draw.text(f"{table}.csv", "id_code,diagnosis", *(f"{code},{name}" for code, name in rows))
        first += 100


TABLES_AND_FOLDERS = [
    Layout(
        "ISIC 2018, lesion diagnosis",
        "https://challenge.isic-archive.com/data/#2018",
        _isic_2018,
        [TASK_3],
        ["DF"],
    ),
    Layout(
        "RFMiD",
        f"{KAGGLE}/datasets/andrewmvd/retinal-disease-classification",
        _rfmid,
        [AT_RISK],
        ["RS"],
    ),
    Layout(
        "IDRiD, disease grading",
        "JayPatyal/Non-proliferative-diabetic-retinopathy-detection-using-feature-fusion-technique: IDRID/c_Process_Dataset.m",
        _idrid,
        [RETINOPATHY, EDEMAS],
        ["1"],
    ),
    Layout(
        "State Farm Distracted Driver",
        f"{KAGGLE}/competitions/state-farm-distracted-driver-detection/data",
        _state_farm,
        [{"": DRIVING}],
        ["c8"],
        units=26,
    ),
    Layout("Imagenette", "fastai/imagenette: README.md", _imagenette, [IMAGENETTE], ["n03888257"]),
    Layout(
        "Human Action Recognition",
        f"{KAGGLE}/datasets/meetnagadia/human-action-recognition-har-dataset",
        _human_actions,
        [{"": ACTIONS}],
        ["using_laptop"],
    ),
    Layout(
        "GTSRB, of torchvision",
        "pytorch/vision: torchvision/datasets/gtsrb.py",
        _gtsrb_torchvision,
        refused=["GT-final_test.csv", "129 others", "GTSRB/Training/", "tailfill init"],
    ),
    Layout(
        "GTSRB, of its owner",
        "https://benchmark.ini.rub.de/gtsrb_dataset.html",
        _gtsrb_ini,
        refused=["GT-final_test.csv", "129 others", "GTSRB/Final_Training/", "tailfill init"],
    ),
    Layout(
        "Traffic Sign Dataset",
        f"{KAGGLE}/datasets/ahemateja19bec1025/traffic-sign-dataset-classification",
        _traffic_signs,
        [{"": {f"Speed limit ({5 * code + 5}km/h)": 2 for code in range(58)}}],
        says=["traffic_Data/TEST/ is left out", "labels.csv has a row per class"],
    ),
    Layout(
        "Human Protein Atlas",
        f"{KAGGLE}/competitions/human-protein-atlas-image-classification/data",
        _protein_atlas,
        refused=["'_blue'", "'_green', '_red', '_yellow'"],
    ),
    Layout(
        "ImageNet at Kaggle",
        f"{KAGGLE}/competitions/imagenet-object-localization-challenge/data",
        _imagenet,
        [IMAGENET],
        says=["ILSVRC/Data/CLS-LOC/test/ are in no class folder"],
    ),
    Layout(
        "APTOS 2019, split",
        f"{KAGGLE}/datasets/mariaherrerot/aptos2019",
        _aptos_split,
        [GRADES],
        ["3"],
    ),
]
