"""Holds data sets some of whose images are left out: they have no labels, or are other versions of those that have."""

from __future__ import annotations

import random

from tests.support.public_layouts.layout import Drawing, Layout, numbered

KAGGLE = "https://www.kaggle.com"

SIMPSONS = {"bart_simpson": 9, "charles_montgomery_burns": 8, "homer_simpson": 12, "lisa_simpson": 8, "moe_szyslak": 9}


def _simpsons(draw: Drawing) -> None:
    pictures = [f"{name}/pic_{number:04d}.jpg" for name, number in numbered(SIMPSONS, 0)]
    draw.images(f"simpsons_dataset/{picture}" for picture in pictures)
    for name in SIMPSONS:
        draw.images(f"kaggle_simpson_testset/kaggle_simpson_testset/{name}_{number}.jpg" for number in range(3))
    boxes = (f"./characters/{picture},57,72,52,72,{picture.partition('/')[0]}" for picture in pictures)
    draw.text("annotation.txt", *boxes)
    counts = (f"{number},{name},{count},{count},0,5" for number, (name, count) in enumerate(SIMPSONS.items()))
    draw.text("number_pic_char.csv", ",name,total,train,test,bounding_box", *counts)


LUNGS = {"Bengin cases": 6, "Malignant cases": 28, "Normal cases": 20}


def _lungs(draw: Drawing) -> None:
    outer = "The IQ-OTHNCCD lung cancer dataset"
    for name, number in numbered(LUNGS):
        draw.images([f"{outer}/{outer}/{name}/{name[:-1]} ({number}).jpg"])
    draw.text(f"{outer}/{outer}/IQ-OTH_NCCD lung cancer dataset.txt", "The dataset was collected in two hospitals.")
    draw.images(f"Test cases/000019 ({number}).png" for number in range(1, 6))


ARTISTS = {"Albrecht_Dürer": 9, "Pablo_Picasso": 8, "Vincent_van_Gogh": 12}


def _artworks(draw: Drawing) -> None:
    for name, number in numbered(ARTISTS):
        draw.images([f"images/images/{name}/{name}_{number}.jpg", f"resized/resized/{name}_{number}.jpg"])
    header = "id,name,years,genre,nationality,bio,wikipedia,paintings"
    rows = (
        f'{number},{name.replace("_", " ")},1853 – 1890,Painting {number},Land {number},"Born, then died",http://en.wikipedia.org/wiki/{name},{count}'
        for number, (name, count) in enumerate(ARTISTS.items())
    )
    draw.text("artists.csv", header, *rows)


EYES = {"N": 20, "D": 12, "G": 8, "C": 8, "A": 8, "H": 6, "M": 8, "O": 10}


def _pairs_of_eyes() -> list[tuple[str, str]]:
    names = [name for name, _ in numbered(EYES)]
    random.Random(0).shuffle(names)
    return list(zip(names[::2], names[1::2], strict=True))


PERSONS = {letter: sum(2 * (letter in pair) for pair in _pairs_of_eyes()) for letter in EYES}
"""Counts the eyes of the persons who have the disease in one of them."""


def _odir(draw: Drawing) -> None:
    """A row per eye, which also names both eyes of the person, whose classes are in columns; two other folders have images of the same names."""
    letters, rows = list(EYES), []
    for person, pair in enumerate(_pairs_of_eyes()):
        eyes = dict(zip(("left", "right"), pair, strict=True))
        flags = ",".join(str(int(letter in eyes.values())) for letter in letters)
        for side, name in eyes.items():
            file = f"{person}_{side}.jpg"
            draw.images([f"preprocessed_images/{file}", f"ODIR-5K/ODIR-5K/Training Images/{file}"])
            vector = [int(letter == name) for letter in letters]
            rows.append(
                f"{person},{40 + person % 9},{'Male' if person % 2 else 'Female'},{person}_left.jpg,{person}_right.jpg,normal fundus,cataract,{flags},"
                f"../input/ocular-disease-recognition-odir5k/ODIR-5K/Training Images/{file},['{name}'],\"{vector}\",{file}"
            )
    draw.images(f"ODIR-5K/ODIR-5K/Training Images/{person}_left.jpg" for person in range(500, 512))
    draw.images(f"ODIR-5K/ODIR-5K/Testing Images/{person}_right.jpg" for person in range(900, 920))
    columns = f"{','.join(letters)},filepath,labels,target,filename"
    header = "ID,Patient Age,Patient Sex,Left-Fundus,Right-Fundus,Left-Diagnostic Keywords,Right-Diagnostic Keywords"
    draw.text("full_df.csv", f"{header},{columns}", *rows)


SYNSETS = {"n01440764": "tench", "n01443537": "goldfish", "n01484850": "great white shark"}
IMAGENET = {"train": dict.fromkeys(SYNSETS.values(), 6), "val": dict.fromkeys(SYNSETS.values(), 3)}


def _imagenet(draw: Drawing) -> None:
    """The validation images have no class folders; a table says the class of each with its boxes."""
    data, trained = "ILSVRC/Data/CLS-LOC", [f"{code}_{number}" for code in SYNSETS for number in range(6)]
    draw.images(f"{data}/train/{stem.partition('_')[0]}/{stem}.JPEG" for stem in trained)
    val = {f"ILSVRC2012_val_{number:08d}": [*SYNSETS][number % 3] for number in range(1, 10)}
    draw.images(f"{data}/val/{stem}.JPEG" for stem in val)
    draw.images(f"{data}/test/ILSVRC2012_test_{number:08d}.JPEG" for number in range(1, 5))
    draw.text("LOC_synset_mapping.txt", *(f"{code} {name}, Genus {name}" for code, name in SYNSETS.items()))
    header = "ImageId,PredictionString"
    rows = (f"{stem},{stem.partition('_')[0]} {n} 111 108 230 " for n, stem in enumerate(trained))
    draw.text("LOC_train_solution.csv", header, *rows)
    draw.text("LOC_val_solution.csv", header, *(f"{stem},{code} 85 1 499 272 " for stem, code in val.items()))
    draw.text("LOC_sample_submission.csv", header, "ILSVRC2012_test_00000001,n01440764 1 1 1 1")
    lists = "ILSVRC/ImageSets/CLS-LOC"
    draw.text(f"{lists}/train_cls.txt", *(f"{s.partition('_')[0]}/{s} {n}" for n, s in enumerate(trained, 1)))
    draw.text(f"{lists}/val.txt", *(f"{stem} {number}" for number, stem in enumerate(val, 1)))


WEATHER = ("clear", "cloudy", "haze", "partly_cloudy")
LAND = ("agriculture", "bare_ground", "cultivation", "habitation", "primary", "road", "water")


def _amazon_tags() -> list[list[str]]:
    rng, found = random.Random(0), []
    for number in range(240):
        weather = WEATHER[number % 4]
        found.append([weather] if weather == "cloudy" else sorted([weather, *rng.sample(LAND, rng.randint(1, 4))]))
    return found


AMAZON = {tag: sum(tag in tags for tags in _amazon_tags()) for tag in (*WEATHER, *LAND)}


def _amazon(draw: Drawing) -> None:
    draw.images(f"train-jpg/train_{number}.jpg" for number in range(240))
    draw.text("train_v2.csv", "image_name,tags", *(f"train_{n},{' '.join(t)}" for n, t in enumerate(_amazon_tags())))
    draw.images(f"test-jpg/test_{number}.jpg" for number in range(5))
    draw.text("sample_submission_v2.csv", "image_name,tags", *(f"test_{n},primary clear" for n in range(5)))


SPECIES = {
    "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris": 6,
    "00001_Animalia_Annelida_Polychaeta_Sabellida_Sabellidae_Sabella_spallanzanii": 6,
}


def _inaturalist_mini(draw: Drawing) -> None:
    for split, first in (("train_mini", 0), ("val", 100)):
        draw.images(f"{split}/{name}/{number:08x}.jpg" for name, number in numbered(SPECIES, first))


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


GENRES = ("Action", "Comedy", "Drama", "Horror")


def _film_genres() -> list[list[str]]:
    rng = random.Random(1)
    return [rng.sample(GENRES, rng.randint(1, 3)) for _ in range(40)]


FILMS = {genre: sum(genre in genres for genres in _film_genres()) for genre in GENRES}


def _films(draw: Drawing) -> None:
    """A column of lists, and a 0/1 column per class that says the same."""
    rows = []
    for number, genres in enumerate(_film_genres()):
        draw.images([f"Multi_Label_dataset/Images/tt{86425 + number:07d}.jpg"])
        rows.append(f'tt{86425 + number:07d},"{genres}",{",".join(str(int(genre in genres)) for genre in GENRES)}')
    draw.text("Multi_Label_dataset/train.csv", f"Id,Genre,{','.join(GENRES)}", *rows)


def _mangoes(draw: Drawing) -> None:
    for name in ("Anwar Ratool", "Chaunsa (Black)", "Dosehri", "Langra"):
        draw.images(f"Classification_dataset/{name}/IMG_20210630_10{number:04d}.jpg" for number in range(4))
    for name in ("Class_I", "Class_II", "Extra_Class"):
        draw.images(f"Grading_dataset/{name}/IMG_20210705_10{number:04d}.jpg" for number in range(4))


def _market(draw: Drawing) -> None:
    """Persons to be found again: no classes."""
    for folder in ("bounding_box_test", "bounding_box_train", "query"):
        draw.images(f"{folder}/{who:04d}_c{camera}s1_000{camera}51_00.jpg" for who in range(2, 8) for camera in (1, 2))


LEFT_OUT = [
    Layout(
        "The Simpsons Characters",
        f"{KAGGLE}/datasets/alexattia/the-simpsons-characters-dataset",
        _simpsons,
        [{"": SIMPSONS}],
        says=["kaggle_simpson_testset/ is left out"],
    ),
    Layout(
        "IQ-OTH/NCCD lung cancer",
        f"{KAGGLE}/datasets/hamdallak/the-iqothnccd-lung-cancer-dataset",
        _lungs,
        [{"": LUNGS}],
        ["Bengin cases"],
        says=["Test cases/ is left out"],
    ),
    Layout(
        "Best Artworks of All Time",
        f"{KAGGLE}/datasets/ikarus777/best-artworks-of-all-time",
        _artworks,
        [{"": ARTISTS}],
        says=["resized/ is left out"],
    ),
    Layout(
        "ODIR-5K",
        f"{KAGGLE}/datasets/andrewmvd/ocular-disease-recognition-odir5k",
        _odir,
        [{"": EYES}, {"": PERSONS}],
        units=40,
        says=["take out of `groups` what is no label: ['labels']", "ODIR-5K/ODIR-5K/Training Images/"],
    ),
    Layout(
        "ImageNet at Kaggle",
        f"{KAGGLE}/competitions/imagenet-object-localization-challenge/data",
        _imagenet,
        [IMAGENET],
        says=["ILSVRC/Data/CLS-LOC/test/ are in no class folder"],
    ),
    Layout(
        "Planet: Understanding the Amazon",
        f"{KAGGLE}/competitions/planet-understanding-the-amazon-from-space/data",
        _amazon,
        [{"": AMAZON}],
        says=["taken for several classes"],
    ),
    Layout(
        "iNaturalist 2021 mini",
        "visipedia/inat_comp: 2021/README.md",
        _inaturalist_mini,
        [{"train": SPECIES, "val": SPECIES}],
    ),
    Layout(
        "APTOS 2019, split",
        f"{KAGGLE}/datasets/mariaherrerot/aptos2019",
        _aptos_split,
        [GRADES],
        ["3"],
    ),
    Layout("Movie posters", f"{KAGGLE}/datasets/raman77768/movie-classifier", _films, [{"": FILMS}]),
    Layout(
        "Mango varieties",
        f"{KAGGLE}/datasets/saurabhshahane/mango-varieties-classification",
        _mangoes,
        refused=["called data sets", "/Classification_dataset`", "/Grading_dataset`"],
    ),
    Layout(
        "Market-1501",
        f"{KAGGLE}/datasets/pengcw1/market-1501",
        _market,
        refused=["bounding_box_test/, bounding_box_train/, query/", "not like classes"],
    ),
]
