"""Holds data sets whose class folders lie in or beside other folders: copies, data sets, versions, parts, masks."""

from __future__ import annotations

from tests.support.public_layouts.folders import VISION
from tests.support.public_layouts.layout import Drawing, Layout, numbered, together

KAGGLE = "https://www.kaggle.com/datasets"
CELLS = {"Parasitized": 30, "Uninfected": 7}


def _malaria(draw: Drawing) -> None:
    for name, number in numbered(CELLS):
        draw.images([f"cell_images/{name}/C{number}P61ThinF_IMG_20150918_144104_cell_162.png"])
    for name in CELLS:
        draw.binary(f"cell_images/{name}/Thumbs.db", b"\xd0\xcf\x11\xe0")
        draw.copy(f"cell_images/{name}", f"cell_images/cell_images/{name}")


TUMOUR_SCANS = {"no": 7, "yes": 30}


def _brain_mri(draw: Drawing) -> None:
    for name, number in numbered(TUMOUR_SCANS):
        draw.images([f"{name}/{'Y' if name == 'yes' else ''}{number}.jpg"])
    for name in TUMOUR_SCANS:
        draw.copy(name, f"brain_tumor_dataset/{name}")


NATURAL = {"airplane": 7, "car": 9, "cat": 8, "dog": 7, "flower": 8, "fruit": 10, "motorbike": 7, "person": 9}


def _natural(draw: Drawing) -> None:
    draw.images(f"natural_images/{name}/{name}_{number:04d}.jpg" for name, number in numbered(NATURAL, 0))
    draw.copy("natural_images", "data/natural_images")


FIELD_LEAVES = {
    "Pepper__bell___Bacterial_spot": 5, "Pepper__bell___healthy": 6, "Potato___Early_blight": 5, "Potato___Late_blight": 5, "Potato___healthy": 4,
    "Tomato_Bacterial_spot": 6, "Tomato_Early_blight": 5, "Tomato_Late_blight": 6, "Tomato_Leaf_Mold": 5, "Tomato_Septoria_leaf_spot": 6,
    "Tomato_Spider_mites_Two_spotted_spider_mite": 6, "Tomato__Target_Spot": 5, "Tomato__Tomato_YellowLeaf__Curl_Virus": 7,
    "Tomato__Tomato_mosaic_virus": 4, "Tomato_healthy": 6,
}  # fmt: skip


def _plant_disease(draw: Drawing) -> None:
    draw.images(f"PlantVillage/{name}/{number}___NREC_B.Spot 1830.JPG" for name, number in numbered(FIELD_LEAVES))
    draw.copy("PlantVillage", "plantvillage/PlantVillage")


def _mvtec_objects(draw: Drawing) -> None:
    for item in ("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw"):
        draw.images(f"{item}/train/good/{number:03d}.png" for number in range(3))
        for kind in ("good", "cut"):
            draw.images(f"{item}/test/{kind}/{number:03d}.png" for number in range(2))
        draw.images(f"{item}/ground_truth/cut/{number:03d}_mask.png" for number in range(2))
        draw.text(f"{item}/license.txt", "CC BY-NC-SA 4.0")


def _castings(draw: Drawing) -> None:
    for name, number in numbered({"def_front": 4, "ok_front": 4}):
        draw.images([f"casting_512x512/casting_512x512/{name}/cast_{number}.jpeg"])
        for split in ("train", "test"):
            draw.images([f"casting_data/casting_data/{split}/{name}/cast_{split}_{number}.jpeg"])


def _parkinson(draw: Drawing) -> None:
    for kind in ("spiral", "wave"):
        for split in ("training", "testing"):
            for name, number in numbered({"healthy": 3, "parkinson": 3}):
                draw.images([f"{kind}/{split}/{name}/V{number:02d}HE01.png"])
        draw.copy(kind, f"drawings/{kind}")


def _blood_cells(draw: Drawing) -> None:
    draw.images(f"dataset-master/dataset-master/JPEGImages/BloodImage_{number:05d}.jpg" for number in range(4))
    draw.text("dataset-master/dataset-master/labels.csv", ",Image,Category", "0,0,NEUTROPHIL", "1,1,NEUTROPHIL")
    for split in ("TRAIN", "TEST", "TEST_SIMPLE"):
        for name in ("EOSINOPHIL", "LYMPHOCYTE", "MONOCYTE", "NEUTROPHIL"):
            draw.images(f"dataset2-master/dataset2-master/images/{split}/{name}/_{n}_207.jpeg" for n in range(3))
    draw.text("dataset2-master/dataset2-master/labels.csv", ",Image,Category", "0,0,NEUTROPHIL", "1,1,NEUTROPHIL")


def _fruits(draw: Drawing) -> None:
    for top, splits in (
        ("dataset/fruits-360", ("Training", "Test")),
        ("original-size/fruits-360-original-size", ("Training", "Validation", "Test")),
    ):
        for split in splits:
            for name, number in numbered({"Apple Braeburn": 3, "Banana": 3, "Cherry 1": 3}):
                draw.images([f"fruits-360_{top}/{split}/{name}/{number}_100.jpg"])


def _banana(draw: Drawing) -> None:
    for name, number in numbered({"cordana": 3, "healthy": 3, "pestalotiopsis": 3, "sigatoka": 3}):
        draw.images([f"BananaLSD/OriginalSet/{name}/{number}.jpeg", f"BananaLSD/AugmentedSet/{name}/{number}_aug.jpeg"])


def _alzheimer(draw: Drawing) -> None:
    for name, number in numbered({"MildDemented": 3, "ModerateDemented": 3, "NonDemented": 3, "VeryMildDemented": 3}):
        draw.images(
            [f"OriginalDataset/{name}/{name}{number}.jpg", f"AugmentedAlzheimerDataset/{name}/{number:08d}.jpg"]
        )


def _pacs(draw: Drawing) -> None:
    for domain in ("art_painting", "cartoon", "photo", "sketch"):
        for name in ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person"):
            draw.images(f"PACS/{domain}/{name}/pic_{number:03d}.jpg" for number in range(2))


def _histology_patches(draw: Drawing) -> None:
    for patient in range(10253, 10283):
        for label in (0, 1)[: 1 if patient == 10260 else 2]:
            draw.images(f"{patient}/{label}/{patient}_idx5_x{n}51_y1_class{label}.png" for n in range(2))
    for patient in range(10253, 10283):
        draw.copy(f"{patient}", f"IDC_regular_ps50_idx5/{patient}")


ORGANS = {"colon_image_sets": 20, "lung_image_sets": 30}


def _lung_colon(draw: Drawing) -> None:
    inside = {"colon_image_sets": ["colon_aca", "colon_n"], "lung_image_sets": ["lung_aca", "lung_n", "lung_scc"]}
    for name, number in numbered(ORGANS):
        kind = inside[name][number % len(inside[name])]
        draw.images([f"lung_colon_image_set/{name}/{kind}/{kind.replace('_', '')}{number}.jpeg"])


def _cars_as_published(draw: Drawing) -> None:
    for split in ("train", "test"):
        draw.images(f"stanford_cars/cars_{split}/{number:05d}.jpg" for number in range(1, 7))
    draw.binary("stanford_cars/devkit/cars_train_annos.mat", b"MATLAB 5.0 MAT-file")


def _retina_resized(draw: Drawing) -> None:
    names = [f"{number}_{side}" for number in range(10, 22) for side in ("left", "right")]
    for folder in ("resized_train", "resized_train_cropped"):
        draw.images(f"{folder}/{folder}/{name}.jpeg" for name in names)
    for table in ("trainLabels.csv", "trainLabels_cropped.csv"):
        draw.text(table, "image,level", *(f"{name},{number % 3}" for number, name in enumerate(names)))


PLACES = ("/a/airfield", "/a/airplane_cabin", "/b/bakery/shop", "/b/balcony/exterior", "/z/zen_garden")


def _places(draw: Drawing) -> None:
    draw.images(f"data_256_standard{place}/{number:08d}.jpg" for place in PLACES for number in range(1, 5))
    draw.images(f"val_256/Places365_val_{number:08d}.jpg" for number in range(1, 6))
    draw.text("categories_places365.txt", *(f"{place} {number}" for number, place in enumerate(PLACES)))


PLACES_TRAIN = {"airfield": 6, "airplane_cabin": 9, "bakery/shop": 8, "balcony/exterior": 7, "zen_garden": 9}


def _places_train(draw: Drawing) -> None:
    for name, number in numbered(PLACES_TRAIN):
        draw.images([f"data_256_standard/{name[0]}/{name}/{number:08d}.jpg"])
    draw.text("categories_places365.txt", *(f"{place} {number}" for number, place in enumerate(PLACES)))


LUNG_MASKS = {
    "train": {"COVID-19": 12, "Non-COVID": 12, "Normal": 4},
    "val": {"COVID-19": 4, "Non-COVID": 4, "Normal": 3},
    "test": {"COVID-19": 4, "Non-COVID": 4, "Normal": 3},
}


def _lung_masks(draw: Drawing) -> None:
    for split, counts in LUNG_MASKS.items():
        for name, number in numbered(counts):
            place = f"Lung Segmentation Data/Lung Segmentation Data/{split.capitalize()}/{name}"
            draw.images([f"{place}/images/{split}_{number}.png", f"{place}/lung masks/{split}_{number}.png"])


FISH = {
    "Black Sea Sprat": 7, "Gilt-Head Bream": 7, "Hourse Mackerel": 7, "Red Mullet": 8, "Red Sea Bream": 8, "Sea Bass": 7, "Shrimp": 8,
    "Striped Red Mullet": 8, "Trout": 2,
}  # fmt: skip


def _fish(draw: Drawing) -> None:
    for name, number in numbered(FISH):
        draw.images(f"Fish_Dataset/Fish_Dataset/{name}/{name}{kind}/{number:05d}.png" for kind in ("", " GT"))


CHESTS = {
    "train": {"adenocarcinoma_left.lower.lobe_T2_N0_M0_Ib": 14, "large.cell.carcinoma_left.hilum_T2_N2_M0_IIIa": 12, "normal": 4},
    "val": {"adenocarcinoma_left.lower.lobe_T2_N0_M0_Ib": 4, "large.cell.carcinoma_left.hilum_T2_N2_M0_IIIa": 4, "normal": 3},
    "test": {"adenocarcinoma": 4, "large.cell.carcinoma": 4, "normal": 3},
}  # fmt: skip


def _chest_ct(draw: Drawing) -> None:
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        for name, number in numbered(CHESTS[split]):
            draw.images([f"Data/{folder}/{name}/{number:06d}.png"])


BREEDS = {f"n02{85620 + 162 * number:06d}-{name}": 4 for number, name in enumerate((
    "Chihuahua", "Japanese_spaniel", "Maltese_dog", "Pekinese", "Shih-Tzu", "Blenheim_spaniel", "papillon", "toy_terrier", "Rhodesian_ridgeback",
    "Afghan_hound", "basset", "beagle", "bloodhound", "bluetick", "Walker_hound", "English_foxhound", "redbone", "borzoi", "whippet", "Ibizan_hound",
    "otterhound", "Saluki", "Weimaraner", "dingo",
))}  # fmt: skip


def _kaggle_dogs(draw: Drawing) -> None:
    for name, number in numbered(BREEDS):
        draw.images([f"images/Images/{name}/{name[:9]}_{number}.jpg"])
        draw.text(
            f"annotations/Annotation/{name}/{name[:9]}_{number}",
            "<annotation><object><name>dog</name></object></annotation>",
        )


def _mangoes(draw: Drawing) -> None:
    for name in ("Anwar Ratool", "Chaunsa (Black)", "Dosehri", "Langra"):
        draw.images(f"Classification_dataset/{name}/IMG_20210630_10{number:04d}.jpg" for number in range(4))
    for name in ("Class_I", "Class_II", "Extra_Class"):
        draw.images(f"Grading_dataset/{name}/IMG_20210705_10{number:04d}.jpg" for number in range(4))


def _market(draw: Drawing) -> None:
    """Persons to be found again: no classes."""
    for folder in ("bounding_box_test", "bounding_box_train", "query"):
        draw.images(f"{folder}/{who:04d}_c{camera}s1_000{camera}51_00.jpg" for who in range(2, 8) for camera in (1, 2))


NESTED_FOLDERS = [
    Layout(
        "Malaria cells", f"{KAGGLE}/iarunava/cell-images-for-detecting-malaria", _malaria, [{"": CELLS}], ["Uninfected"]
    ),
    Layout(
        "Brain MRI",
        f"{KAGGLE}/navoneel/brain-mri-images-for-brain-tumor-detection",
        _brain_mri,
        [{"": TUMOUR_SCANS}],
        ["no"],
    ),
    Layout("Natural Images", f"{KAGGLE}/prasunroy/natural-images", _natural, [{"": NATURAL}]),
    Layout(
        "PlantVillage, 15 classes",
        f"{KAGGLE}/emmarex/plantdisease",
        _plant_disease,
        [{"": FIELD_LEAVES}],
    ),
    Layout(
        "LC25000", f"{KAGGLE}/andrewmvd/lung-and-colon-cancer-histopathological-images", _lung_colon, [{"": ORGANS}]
    ),
    Layout("Places365, training images", f"{VISION}/places365.py", _places_train, [{"": PLACES_TRAIN}]),
    Layout(
        "Places365",
        f"{VISION}/places365.py",
        _places,
        [{"": {place[3:]: 4 for place in PLACES}}],
        says=["val_256/ is left out", "if it is a class, rename it"],
    ),
    Layout("COVID-QU-Ex", f"{KAGGLE}/anasmohammedtahir/covidqu", _lung_masks, [LUNG_MASKS], ["Normal"]),
    Layout("A Large Scale Fish Dataset", f"{KAGGLE}/crowww/a-large-scale-fish-dataset", _fish, [{"": FISH}], ["Trout"]),
    Layout(
        "Chest CT-Scan Images",
        f"{KAGGLE}/mohamedhanyyy/chest-ctscan-images",
        _chest_ct,
        [
            {
                split: together(dict.fromkeys([*CHESTS["train"], *CHESTS["test"]], 0), counts)
                for split, counts in CHESTS.items()
            }
        ],
        ["normal"],
    ),
    Layout("Stanford Dogs at Kaggle", f"{KAGGLE}/jessicali9530/stanford-dogs-dataset", _kaggle_dogs, [{"": BREEDS}]),
    Layout(
        "MVTec AD, all objects",
        "openvinotoolkit/anomalib: src/anomalib/data/datasets/image/mvtecad.py",
        _mvtec_objects,
        refused=["bottle/ holds test/, train/", "/bottle`", "/screw`"],
    ),
    Layout(
        "Casting product",
        f"{KAGGLE}/ravirajsinh45/real-life-industrial-dataset-of-casting-product",
        _castings,
        refused=["casting_data/casting_data/ holds test/, train/", "/casting_data`", "/casting_512x512`"],
    ),
    Layout(
        "Parkinson's drawings",
        f"{KAGGLE}/kmader/parkinsons-drawings",
        _parkinson,
        refused=["spiral/ holds testing/, training/", "/spiral` or `tailfill init", "/wave`"],
    ),
    Layout(
        "Blood cells",
        f"{KAGGLE}/paultimothymooney/blood-cells",
        _blood_cells,
        refused=["holds TEST/, TRAIN/", "/dataset2-master`"],
    ),
    Layout(
        "Fruits-360",
        f"{KAGGLE}/moltean/fruits",
        _fruits,
        refused=["/fruits-360_dataset`", "/fruits-360_original-size`"],
    ),
    Layout(
        "BananaLSD",
        f"{KAGGLE}/shifatearman/bananalsd",
        _banana,
        refused=["the same names", "/AugmentedSet`", "/OriginalSet`"],
    ),
    Layout(
        "Augmented Alzheimer MRI",
        f"{KAGGLE}/uraninjo/augmented-alzheimer-mri-dataset",
        _alzheimer,
        refused=["the same names", "/AugmentedAlzheimerDataset`", "/OriginalDataset`"],
    ),
    Layout(
        "PACS",
        "facebookresearch/DomainBed: domainbed/datasets.py",
        _pacs,
        refused=["the same names", "/art_painting`", "/sketch`"],
    ),
    Layout(
        "Breast histopathology",
        f"{KAGGLE}/paultimothymooney/breast-histopathology-images",
        _histology_patches,
        refused=["10253/, 10254/", "the same names, 0/, 1/", "/10253`", "patient"],
    ),
    Layout(
        "Stanford Cars as published",
        f"{VISION}/stanford_cars.py",
        _cars_as_published,
        refused=["cars_test/, cars_train/", "parts of a data set, not like classes", "CSV"],
    ),
    Layout(
        "Diabetic retinopathy, resized",
        f"{KAGGLE}/tanlikesmath/diabetic-retinopathy-resized",
        _retina_resized,
        refused=["resized_train/, resized_train_cropped/", "not like classes", "/trainLabels.csv`"],
    ),
    Layout(
        "Mango varieties",
        f"{KAGGLE}/saurabhshahane/mango-varieties-classification",
        _mangoes,
        refused=["called data sets", "/Classification_dataset`", "/Grading_dataset`"],
    ),
    Layout(
        "Market-1501",
        f"{KAGGLE}/pengcw1/market-1501",
        _market,
        refused=["bounding_box_test/, bounding_box_train/, query/", "not like classes"],
    ),
]
