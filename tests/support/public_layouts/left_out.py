"""Holds data sets some of whose images are left out: they have no labels, or are other versions of those that have."""

from __future__ import annotations

import random

from tests.support.public_layouts.folders import LEAVES
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


LETTERS = [*(chr(ord("A") + n) for n in range(26)), "del", "nothing", "space"]


def _asl(draw: Drawing) -> None:
    for name in LETTERS:
        draw.images(f"asl_alphabet_train/asl_alphabet_train/{name}/{name}{number}.jpg" for number in range(1, 3))
    draw.images(f"asl_alphabet_test/asl_alphabet_test/{name}_test.jpg" for name in LETTERS)


def _new_plant_diseases(draw: Drawing) -> None:
    folder = "New Plant Diseases Dataset(Augmented)"
    for split in ("train", "valid"):
        for name in LEAVES:
            draw.images(f"{folder}/{folder}/{split}/{name}/{split}_{number}___RS_HL.JPG" for number in range(3))
    draw.copy(f"{folder}/{folder}", f"{folder.lower()}/{folder}")
    draw.images(f"test/test/AppleCedarRust{number}.JPG" for number in range(1, 5))


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
        "ASL Alphabet",
        f"{KAGGLE}/datasets/grassknoted/asl-alphabet",
        _asl,
        [{"": dict.fromkeys(LETTERS, 2)}],
        says=["asl_alphabet_test/ is left out"],
    ),
    Layout(
        "New Plant Diseases",
        f"{KAGGLE}/datasets/vipoooool/new-plant-diseases-dataset",
        _new_plant_diseases,
        [{"train": dict.fromkeys(LEAVES, 3), "val": dict.fromkeys(LEAVES, 3)}],
        says=["test/ is left out", "the folders beside it hold its images"],
    ),
]
