from concurrent.futures import ProcessPoolExecutor
from itertools import islice

import numpy as np
import pytest

from shared.config.dataset import GarmentsSource
from shared.data.garments import garment_image, read_garments
from shared.data.garments.labels import draw_labels, garment_schema

SOURCE = GarmentsSource(source="garments", resolution=32, train=100, val=50, test=50, rare_eval=3)


def draw(index: int) -> np.ndarray:
    labels = draw_labels(SOURCE, "train", 7)
    content = garment_image(garment_schema(), labels[index], "train", index, 32, 7).content
    assert isinstance(content, np.ndarray)
    return content


def test_an_image_is_the_same_whoever_draws_it_and_in_whichever_order() -> None:
    in_order = [image.content for image in islice(read_garments(SOURCE, 7).images, 12)]
    with ProcessPoolExecutor(2) as processes:
        backwards = list(processes.map(draw, range(11, -1, -1)))[::-1]
    assert all((a == b).all() for a, b in zip(in_order, backwards, strict=True))


def test_another_seed_draws_other_images_and_no_two_are_equal() -> None:
    images = list(read_garments(SOURCE, 7).images)
    others = list(read_garments(SOURCE, 8).images)
    pixels = {image.content.tobytes() for image in [*images, *others]}
    assert len(pixels) == len(images) + len(others)


def test_the_source_lists_what_it_promises() -> None:
    source = read_garments(SOURCE, 7)
    images = list(source.images)
    assert len(images) == source.total
    assert len({image.path for image in images}) == len(images)
    assert {image.split for image in images} == {"train", "val", "test"}
    assert sum(image.split == "train" for image in images) == 100
    assert all(image.content.shape == (32, 32, 3) and image.content.dtype == np.uint8 for image in images)


@pytest.mark.parametrize("resolution", [32, 48, 224, 512])
def test_any_resolution_shows_the_garment(resolution: int) -> None:
    labels = draw_labels(SOURCE, "train", 7)[0]
    content = garment_image(garment_schema(), labels, "train", 0, resolution, 7).content
    assert content.shape == (resolution, resolution, 3)
    assert content.std() > 10
