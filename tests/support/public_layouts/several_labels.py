"""Holds data sets whose images have several labels each, as lists of names."""

from __future__ import annotations

import random

from tests.support.public_layouts.layout import Drawing, Layout, numbered
from tests.support.public_layouts.tables import BENCH, KAGGLE

LEAVES = {"complex": 6, "frog_eye_leaf_spot": 24, "healthy": 26, "rust": 20, "scab": 30}


def _plant_pathology_2021(draw: Drawing) -> None:
    """Every other `complex` leaf is a `scab`, too."""
    single = {**LEAVES, "scab": LEAVES["scab"] - LEAVES["complex"] // 2}
    rows = [
        (f"{number:016x}.jpg", "scab complex" if name == "complex" and number % 2 else name)
        for name, number in numbered(single, 9 << 59)
    ]
    draw.images(f"train_images/{stem}" for stem, _ in rows)
    draw.text("train.csv", "image,labels", *(f"{stem},{labels}" for stem, labels in rows))
    draw.images(["test_images/85f8cb619c66b863.jpg"])
    draw.text("sample_submission.csv", "image,labels", "85f8cb619c66b863.jpg,healthy")


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


SEVERAL_LABELS = [
    Layout(
        "Plant Pathology 2021",
        f"{BENCH}/plant-pathology-2021-fgvc8/description.md",
        _plant_pathology_2021,
        [{"": LEAVES}],
        ["complex"],
    ),
    Layout(
        "Planet: Understanding the Amazon",
        f"{KAGGLE}/competitions/planet-understanding-the-amazon-from-space/data",
        _amazon,
        [{"": AMAZON}],
        says=["taken for several classes"],
    ),
    Layout("Movie posters", f"{KAGGLE}/datasets/raman77768/movie-classifier", _films, [{"": FILMS}]),
]
