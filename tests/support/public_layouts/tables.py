"""Holds data sets whose labels are tables with a header: one, or several that are joined, or one per split."""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.public_layouts.layout import Drawing, Layout, numbered

KAGGLE = "https://www.kaggle.com"
BENCH = "openai/mle-bench: mlebench/competitions"

LESIONS = {"nv": 40, "mel": 16, "bkl": 18, "df": 5}


def _ham10000(draw: Drawing) -> None:
    rows = []
    for name, number in numbered(LESIONS, 24306):
        part = 1 + number % 2
        draw.images([f"HAM10000_images_part_{part}/ISIC_{number:07d}.jpg"])
        kind, sex, site = ("histo", "male", "scalp") if number % 3 else ("follow_up", "female", "ear")
        rows.append(f"HAM_{number // 2:07d},ISIC_{number:07d},{name},{kind},{float(40 + number % 7 * 5)},{sex},{site}")
    draw.text("HAM10000_metadata.csv", "lesion_id,image_id,dx,dx_type,age,sex,localization", *rows)
    for side, channels, name in ((8, 1, "8_8_L"), (8, 3, "8_8_RGB"), (28, 1, "28_28_L"), (28, 3, "28_28_RGB")):
        pixels = side * side * channels
        header = ",".join([*(f"pixel{n:04d}" for n in range(pixels)), "label"])
        lines = [",".join([*(str(n % 251) for n in range(pixels)), str(row % 7)]) for row in range(len(rows))]
        draw.text(f"hmnist_{name}.csv", header, *lines)


ISIC = {"MEL": 18, "NV": 40, "BCC": 14, "AK": 12, "BKL": 13, "DF": 4, "VASC": 11, "SCC": 10, "UNK": 0}


def _isic_2019(draw: Drawing) -> None:
    truth, about = [], []
    for name, number in numbered(ISIC, 0):
        stem = f"ISIC_{number:07d}"
        draw.images([f"ISIC_2019_Training_Input/{stem}.jpg"])
        truth.append(",".join([stem, *(str(float(name == other)) for other in ISIC)]))
        age = "" if number % 9 == 0 else f"{30 + number % 5 * 5}.0"
        site, lesion, sex = ("anterior torso", f"BCN_{number // 2:07d}", "female") if number % 2 else ("", "", "male")
        about.append(f"{stem},{age},{site},{lesion},{sex}")
    draw.text("ISIC_2019_Training_GroundTruth.csv", f"image,{','.join(ISIC)}", *truth)
    draw.text("ISIC_2019_Training_Metadata.csv", "image,age_approx,anatom_site_general,lesion_id,sex", *about)


GRADES = {"0": 40, "1": 12, "2": 20, "3": 5, "4": 13}


def _aptos(draw: Drawing) -> None:
    rows = [(f"{number:012x}", name) for name, number in numbered(GRADES, 7_000_000_000)]
    draw.images(f"train_images/{stem}.png" for stem, _ in rows)
    draw.text("train.csv", "id_code,diagnosis", *(f"{stem},{name}" for stem, name in rows))
    tests = [f"{number:012x}" for number in range(5)]
    draw.images(f"test_images/{stem}.png" for stem in tests)
    draw.text("test.csv", "id_code", *tests)
    draw.text("sample_submission.csv", "id_code,diagnosis", *(f"{stem},0" for stem in tests))


def _rsna(draw: Drawing) -> None:
    stems = [f"0004cfab-14fd-4e49-80ba-63a80b6b{number:04d}" for number in range(12)]
    for stem in stems:
        draw.binary(f"stage_2_train_images/{stem}.dcm", b"\0" * 128 + b"DICM")
    rows = [f"{stem},,,,,0" if n % 3 else f"{stem},264.0,152.0,213.0,379.0,1" for n, stem in enumerate(stems)]
    draw.text("stage_2_train_labels.csv", "patientId,x,y,width,height,Target", *rows)
    kinds = [f"{stem},{'Lung Opacity' if n % 3 == 0 else 'Normal'}" for n, stem in enumerate(stems)]
    draw.text("stage_2_detailed_class_info.csv", "patientId,class", *kinds)


FINDINGS_TRAIN = {"No Finding": 30, "Effusion": 14, "Mass": 12, "Hernia": 3}
FINDINGS_TEST = {"No Finding": 10, "Effusion": 6, "Mass": 5, "Hernia": 2}


def _chest_xray14(draw: Drawing) -> None:
    """Every hernia is an effusion, too, so that the counts of effusions grow by theirs."""
    rows: list[str] = []
    for split, counts in (("train_val_list", FINDINGS_TRAIN), ("test_list", FINDINGS_TEST)):
        single = {name: count - (counts["Hernia"] if name == "Effusion" else 0) for name, count in counts.items()}
        names = []
        for name, number in numbered(single, len(rows)):
            stem = f"{number // 2 if split == 'train_val_list' else 500 + number // 2:08d}_{number % 2:03d}.png"
            names.append(stem)
            draw.images([f"images_{1 + number % 3:03d}/images/{stem}"])
            labels = "Effusion|Hernia" if name == "Hernia" else name
            patient = int(stem.split("_")[0])
            rows.append(
                f"{stem},{labels},{number % 2},{patient},{40 + patient % 30},{'MF'[patient % 2]},PA,2682,2749,0.143,0.143,"
            )
        draw.text(f"{split}.txt", *names)
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],"
        "OriginalImagePixelSpacing[x,y],"
    )
    draw.text("Data_Entry_2017.csv", header, *rows)
    boxes = [f"{row.split(',')[0]},Effusion,225.08,547.01,86.77,79.18,,," for row in rows[35:40]]
    draw.text("BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", *boxes)


CASSAVA = {
    "Cassava Bacterial Blight (CBB)": 14,
    "Cassava Brown Streak Disease (CBSD)": 16,
    "Cassava Green Mottle (CGM)": 18,
    "Cassava Mosaic Disease (CMD)": 40,
    "Healthy": 5,
}


def _cassava(draw: Drawing) -> None:
    codes = {name: str(code) for code, name in enumerate(CASSAVA)}
    rows = [(f"{number}.jpg", codes[name]) for name, number in numbered(CASSAVA, 1_000_015_157)]
    draw.images(f"train_images/{stem}" for stem, _ in rows)
    draw.text("train.csv", "image_id,label", *(f"{stem},{code}" for stem, code in rows))
    draw.json("label_num_to_disease_map.json", {code: name for name, code in codes.items()})
    draw.images(["test_images/2216849948.jpg"])
    draw.text("sample_submission.csv", "image_id,label", "2216849948.jpg,4")
    draw.binary("train_tfrecords/ld_train00-1338.tfrec", b"\0\1")


LAND = {
    "train": {"AnnualCrop": 16, "Forest": 14, "SeaLake": 5},
    "val": {"AnnualCrop": 4, "Forest": 4, "SeaLake": 3},
    "test": {"AnnualCrop": 4, "Forest": 4, "SeaLake": 3},
}


def _eurosat(draw: Drawing) -> None:
    codes = {"AnnualCrop": 0, "Forest": 1, "SeaLake": 9}
    first = 1
    for split, file in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = []
        for name, number in numbered(LAND[split], first):
            draw.images([f"EuroSAT/{name}/{name}_{number}.jpg"])
            rows.append(f"{number},{name}/{name}_{number}.jpg,{codes[name]},{name}")
        first += len(rows)
        draw.text(f"EuroSAT/{file}.csv", ",Filename,Label,ClassName", *rows)
    draw.json("EuroSAT/label_map.json", codes)


CELLS = {"0": 40, "1": 12}


def _camelyon(draw: Drawing) -> None:
    rows = [(f"{number:040x}", name) for name, number in numbered(CELLS, 1 << 155)]
    draw.images(f"train/{stem}.tif" for stem, _ in rows)
    draw.text("train_labels.csv", "id,label", *(f"{stem},{name}" for stem, name in rows))
    tests = [f"{number:040x}" for number in range(1 << 150, (1 << 150) + 4)]
    draw.images(f"test/{stem}.tif" for stem in tests)
    draw.text("sample_submission.csv", "id,label", *(f"{stem},0" for stem in tests))


SIGNS_TRAIN = {"0": 16, "1": 14, "14": 12, "42": 4}
SIGNS_TEST = {"0": 5, "1": 5, "14": 4, "42": 3}


def _gtsrb(draw: Drawing) -> None:
    header = "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path"
    rows = [f"Train/{name}/000{int(name):02d}_00000_{number:05d}.png" for name, number in numbered(SIGNS_TRAIN, 0)]
    draw.images(rows)
    draw.text(
        "Train.csv",
        header,
        *(f"{27 + n % 5},26,{5 + n % 4},5,22,20,{path.split('/')[1]},{path}" for n, path in enumerate(rows)),
    )
    tests = [(name, f"Test/{number:05d}.png") for name, number in numbered(SIGNS_TEST, 0)]
    draw.images(path for _, path in tests)
    draw.text("Test.csv", header, *(f"53,54,6,5,48,49,{name},{path}" for name, path in tests))
    draw.images(f"Meta/{name}.png" for name in SIGNS_TRAIN)
    draw.text(
        "Meta.csv", "Path,ClassId,ShapeId,ColorId,SignId", *(f"Meta/{name}.png,{name},1,0,3.29" for name in SIGNS_TRAIN)
    )


VIEWS = {
    "train": {"No Finding": 12, "Cardiomegaly": 14, "Edema": 16, "Pleural Other": 4},
    "val": {"No Finding": 4, "Cardiomegaly": 4, "Edema": 4, "Pleural Other": 3},
}


def _chexpert(draw: Drawing) -> None:
    names = list(VIEWS["train"])
    first = 1
    for split, word in (("train", "train"), ("val", "valid")):
        rows = []
        for name, number in numbered(VIEWS[split], first):
            path = f"{word}/patient{number:05d}/study1/view1_frontal.jpg"
            draw.images([f"CheXpert-v1.0-small/{path}"])
            other = "-1.0" if number % 5 == 0 else "0.0" if number % 2 else ""
            labels = ",".join("1.0" if name == column else other for column in names)
            view = "Lateral," if number % 4 == 0 else "Frontal,AP"
            rows.append(
                f"CheXpert-v1.0-small/{path},{'Female' if number % 2 else 'Male'},{50 + number % 30},{view},{labels}"
            )
        first += len(rows)
        draw.text(f"CheXpert-v1.0-small/{word}.csv", f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(names)}", *rows)


APPLES = {"healthy": 24, "multiple_diseases": 5, "rust": 30, "scab": 28}


def _plant_pathology_2020(draw: Drawing) -> None:
    rows = list(numbered(APPLES, 0))
    draw.images(f"images/Train_{number}.jpg" for _, number in rows)
    draw.text(
        "train.csv",
        f"image_id,{','.join(APPLES)}",
        *(f"Train_{number},{','.join(str(int(name == other)) for other in APPLES)}" for name, number in rows),
    )
    draw.images(f"images/Test_{number}.jpg" for number in range(6))
    draw.text("test.csv", "image_id", *(f"Test_{number}" for number in range(6)))
    draw.text(
        "sample_submission.csv", f"image_id,{','.join(APPLES)}", *(f"Test_{n},0.25,0.25,0.25,0.25" for n in range(6))
    )


WEEDS = {
    "train": {"Chinee apple": 14, "Lantana": 12, "Negative": 30, "Snake weed": 4},
    "val": {"Chinee apple": 4, "Lantana": 4, "Negative": 8, "Snake weed": 3},
    "test": {"Chinee apple": 4, "Lantana": 4, "Negative": 8, "Snake weed": 3},
}


def _deep_weeds(draw: Drawing) -> None:
    codes = {"Chinee apple": 0, "Lantana": 1, "Negative": 8, "Snake weed": 7}
    every = []
    lists: dict[str, list[str]] = {}
    for split, counts in WEEDS.items():
        for name, number in numbered(counts, len(every)):
            stem = f"20171109-17{number // 60:02d}{number % 60:02d}-2.jpg"
            every.append(f"{stem},{codes[name]},{name}")
            lists.setdefault(split, []).append(f"{stem},{codes[name]}")
    draw.images(f"images/{row.split(',')[0]}" for row in every)
    draw.text("labels/labels.csv", "Filename,Label,Species", *every)
    for fold in range(3):
        shift = (
            lists
            if fold == 0
            else {"train": lists["test"] + lists["val"], "val": lists["train"][:9], "test": lists["train"][9:]}
        )
        for split, rows in shift.items():
            draw.text(f"labels/{split}_subset{fold}.csv", "Filename,Label", *rows)


ENDOSCOPY = {"cecum": 30, "polyps": 26, "hemorrhoids": 4, "pylorus": 24, "z-line": 22}


def _hyper_kvasir(draw: Drawing) -> None:
    places = {
        "cecum": "lower-gi-tract/anatomical-landmarks",
        "polyps": "lower-gi-tract/pathological-findings",
        "hemorrhoids": "lower-gi-tract/pathological-findings",
        "pylorus": "upper-gi-tract/anatomical-landmarks",
        "z-line": "upper-gi-tract/anatomical-landmarks",
    }
    rows = []
    for name, number in numbered(ENDOSCOPY):
        tract, kind = places[name].split("/")
        stem = f"{number:08x}-5ae4-4eaf-bb05-a2cb4c02dd17"
        draw.images([f"labeled-images/{tract}/{kind}/{name}/{stem}.jpg"])
        rows.append(f"{stem},{'Lower' if tract[0] == 'l' else 'Upper'} GI,{name},{kind}")
    draw.text("labeled-images/image-labels.csv", "Video file,Organ,Finding,Classification", *rows)


TRACTS = {
    "Lower GI": ENDOSCOPY["cecum"] + ENDOSCOPY["polyps"] + ENDOSCOPY["hemorrhoids"],
    "Upper GI": ENDOSCOPY["pylorus"] + ENDOSCOPY["z-line"],
}
SIGHTS = {
    "anatomical-landmarks": ENDOSCOPY["cecum"] + ENDOSCOPY["pylorus"] + ENDOSCOPY["z-line"],
    "pathological-findings": ENDOSCOPY["polyps"] + ENDOSCOPY["hemorrhoids"],
}

PICTURES = {"airplane": 20, "frog": 18, "truck": 5}


def _cifar(draw: Drawing) -> None:
    rows = list(numbered(PICTURES))
    draw.images(f"train/{number}.png" for _, number in rows)
    draw.text("trainLabels.csv", "id,label", *(f"{number},{name}" for name, number in rows))
    draw.images(f"test/{number}.png" for number in range(1, len(rows) + 20))
    draw.text("sampleSubmission.csv", "id,label", *(f"{number},cat" for number in range(1, len(rows) + 20)))


CHESS: Mapping[str, Mapping[str, int]] = {
    "train": {"bird": 14, "cat": 16, "dog": 4},
    "val": {"bird": 4, "cat": 4, "dog": 3},
    "test": {"bird": 4, "cat": 4, "dog": 3},
}


def _roboflow_classes(draw: Drawing) -> None:
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        rows = []
        for name, number in numbered(CHESS[split]):
            stem = f"{name}_{number}_jpg.rf.{split}{number:028x}.jpg"
            draw.images([f"{folder}/{stem}"])
            rows.append(f"{stem}, {', '.join(str(int(name == other)) for other in CHESS['train'])}")
        draw.text(f"{folder}/_classes.csv", f"filename, {', '.join(CHESS['train'])}", *rows)
    draw.text("README.dataset.txt", "# pets > 2023-01-01", "Provided by a Roboflow user")
    draw.text("README.roboflow.txt", "pets - v1")


FACES = {"train": {"0": 14, "3": 16, "1": 4}, "test": {"0": 8, "3": 8, "1": 6}}


def _fer2013(draw: Drawing) -> None:
    rows = []
    for split, counts in FACES.items():
        for name, number in numbered(counts):
            usage = "Training" if split == "train" else "PublicTest" if number % 2 else "PrivateTest"
            pixels = " ".join(str((number * 7 + n * (1 + number % 5)) % 256) for n in range(48 * 48))
            rows.append(f"{name},{pixels},{usage}")
    draw.text("fer2013.csv", "emotion,pixels,Usage", *rows)


LETTERS = {"train": {"3": 16, "6": 14, "24": 4}, "test": {"3": 5, "6": 5, "24": 3}}


def _sign_language(draw: Drawing) -> None:
    header = ",".join(["label", *(f"pixel{n}" for n in range(1, 785))])
    for split, counts in LETTERS.items():
        lines = [
            ",".join([name, *(str((number * 7 + n * (1 + number % 5)) % 256) for n in range(784))])
            for name, number in numbered(counts)
        ]
        draw.text(f"sign_mnist_{split}.csv", header, *lines)
        draw.text(f"sign_mnist_{split}/sign_mnist_{split}.csv", header, *lines)
    draw.images(["amer_sign2.png", "amer_sign3.png", "american_sign_language.PNG"])


TABLES = [
    Layout(
        "HAM10000",
        f"{KAGGLE}/datasets/kmader/skin-cancer-mnist-ham10000",
        _ham10000,
        [{"": LESIONS}],
        ["df"],
        units=sum(LESIONS.values()) // 2 + 1,
    ),
    Layout(
        "ISIC 2019",
        "owkin/FLamby: flamby/datasets/fed_isic2019/dataset_creation_scripts/download_isic.py",
        _isic_2019,
        [{"": {name: count for name, count in ISIC.items() if count}}],
        ["DF"],
        units=sum(ISIC.values()) // 2,
        says=["no image is of ['UNK']"],
    ),
    Layout("APTOS 2019", f"{BENCH}/aptos2019-blindness-detection/description.md", _aptos, [{"": GRADES}], ["3"]),
    Layout(
        "RSNA Pneumonia Detection",
        "muichi-mon/rsna-pneumonia-detection: data/README.md",
        _rsna,
        refused=["DICOM"],
    ),
    Layout(
        "ChestX-ray14",
        "mlmed/torchxrayvision: torchxrayvision/datasets.py",
        _chest_xray14,
        [{"train": FINDINGS_TRAIN, "test": FINDINGS_TEST}],
        ["Hernia"],
        units=0,
    ),
    Layout(
        "Cassava Leaf Disease",
        f"{BENCH}/cassava-leaf-disease-classification/description.md",
        _cassava,
        [{"": CASSAVA}],
        ["Healthy"],
    ),
    Layout("EuroSAT in tables", f"{KAGGLE}/datasets/apollo2506/eurosat-dataset", _eurosat, [LAND], ["SeaLake"]),
    Layout(
        "PatchCamelyon", f"{BENCH}/histopathologic-cancer-detection/description.md", _camelyon, [{"": CELLS}], ["1"]
    ),
    Layout(
        "GTSRB",
        f"{KAGGLE}/datasets/meowmeowmeowmeowmeow/gtsrb-german-traffic-sign",
        _gtsrb,
        [{"train": SIGNS_TRAIN, "test": SIGNS_TEST}],
        ["42"],
    ),
    Layout("CheXpert", "mlmed/torchxrayvision: torchxrayvision/datasets.py", _chexpert, [VIEWS], ["Pleural Other"]),
    Layout(
        "Plant Pathology 2020",
        f"{BENCH}/plant-pathology-2020-fgvc7/description.md",
        _plant_pathology_2020,
        [{"": APPLES}],
        ["multiple_diseases"],
    ),
    Layout("DeepWeeds", "AlexOlsen/DeepWeeds: labels", _deep_weeds, [WEEDS], ["Snake weed"]),
    Layout(
        "HyperKvasir",
        "https://datasets.simula.no/hyper-kvasir, simula/hyper-kvasir: official_splits",
        _hyper_kvasir,
        [{"": TRACTS}, {"": ENDOSCOPY}, {"": SIGHTS}],
        ["hemorrhoids"],
    ),
    Layout("CIFAR-10 at Kaggle", f"{KAGGLE}/competitions/cifar-10/data", _cifar, [{"": PICTURES}], ["truck"]),
    Layout(
        "Roboflow, multi-label classes",
        "https://roboflow.com/formats/multiclass-classification-csv",
        _roboflow_classes,
        [CHESS],
        ["dog"],
    ),
    Layout("FER2013", "pytorch/vision: torchvision/datasets/fer2013.py", _fer2013, [FACES], ["1"]),
    Layout(
        "Sign Language MNIST", f"{KAGGLE}/datasets/datamunge/sign-language-mnist", _sign_language, [LETTERS], ["24"]
    ),
]
