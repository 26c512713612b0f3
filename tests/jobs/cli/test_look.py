from __future__ import annotations

import csv
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.label_errors import measure, plant
from jobs.cli.init import init
from jobs.cli.look import find, is_study, list_images, look, open_data
from shared.data.infer_source import infer_source
from shared.errors import DataError
from shared.weights import packaged

GARMENTS = """\
name: x
seed: 0
dataset: {source: garments, resolution: 64, train: 400, val: 50, test: 50, rare_eval: 0}
finetune: {generator: pixel, resolution: 32}
verdict: none
experiments: [{name: real, images: real}]
"""


def folders(root: Path) -> Path:
    number = 0
    for split, count in (("train", 8), ("test", 4)):
        for place, name in enumerate(("jay", "owl")):
            for _ in range(count):
                path = root / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(number).integers(90 * place, 90 * place + 80, (40, 36, 3), np.uint8)
                Image.fromarray(pixels).save(path)
                number += 1
    (root / "test" / "jay" / "copy.png").write_bytes((root / "train" / "jay" / "0.png").read_bytes())
    return root


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILFILL_CACHE", str(tmp_path / "cache"))


def test_planted_errors_among_drawn_clothes_are_ranked_far_above_chance(tmp_path: Path) -> None:
    """A ranking that is broken, or in the opposite order, has an average precision near or below the base rate."""
    (tmp_path / "study.yaml").write_text(GARMENTS)
    name = str(tmp_path / "study.yaml")
    listed = list_images(name, open_data(name, tmp_path / "look", (), tmp_path))
    wrong, planted = plant(listed, 40, np.random.default_rng(0))
    found = measure(find(wrong, 1000), wrong, planted)
    assert found.errors >= 35  # the others are in classes that are too small
    assert found.base_rate < 0.02
    assert found.average_precision > 10 * found.base_rate
    assert found.found / found.suspects > 3 * found.base_rate


def test_a_page_with_tables_is_written_for_folders(tmp_path: Path) -> None:
    data = folders(tmp_path / "data")
    lines = look(str(data), tmp_path / "out", 1000)
    assert lines[0] == "Mend these before you train: 1 image is in two splits."
    assert lines[-1] == f"page: {tmp_path / 'out' / 'index.html'}"
    (pair,) = rows(tmp_path / "out" / "duplicates.csv")
    assert (pair["file_a"], pair["file_b"], pair["kind"], pair["leak"]) == (
        "test/jay/copy.png",
        "train/jay/0.png",
        "exact",
        "1",
    )
    page = (tmp_path / "out" / "index.html").read_text()
    assert "train/jay/0.png" in page
    assert page.count("data:image/png;base64") >= 2
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/", "")


def test_a_mirrored_photograph_in_another_split_is_listed(tmp_path: Path) -> None:
    """It has another hash, so that nothing drops it, and a person must see it."""
    (tmp_path / "study.yaml").write_text(GARMENTS)
    drawn = list_images("drawn", open_data(str(tmp_path / "study.yaml"), tmp_path / "look", (), tmp_path)).images
    for number in range(150):
        picture = Image.fromarray(np.asarray(drawn[7 if number == 130 else number].content)).resize((64, 64))
        path = tmp_path / "data" / ("train" if number < 120 else "test") / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        (picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number == 130 else picture).save(path)
    lines = look(str(tmp_path / "data"), tmp_path / "out", 1000)
    first = rows(tmp_path / "out" / "lookalikes.csv")[0]
    assert (first["file_a"], first["file_b"], first["labels_b"]) == ("test/a/130.png", "train/b/7.png", "b")
    assert rows(tmp_path / "out" / "duplicates.csv") == []
    assert any(line.startswith("look-alikes: ") and line.endswith("nothing drops them") for line in lines)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Look-alikes in two splits" in page
    assert "test/a/130.png" in page


def test_without_the_weights_the_pixels_judge_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = packaged.WEIGHTS.partition("/")[0].removeprefix("package:")
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    monkeypatch.setattr(packaged, "find_spec", lambda name: None if name == package else find_spec(name))
    lines = look(str(folders(tmp_path / "data")), tmp_path / "out", 1000)
    assert any(line.startswith("note: the ImageNet weights are not installed") for line in lines)
    assert "without a network" in (tmp_path / "out" / "index.html").read_text()


def test_init_writes_counts_and_names_the_command_for_the_rest(tmp_path: Path) -> None:
    data = folders(tmp_path / "data")
    lines = init(data, tmp_path / "study.yaml", tmp_path / "study-look")
    assert f"page: {tmp_path / 'study-look' / 'index.html'}" in lines
    page = (tmp_path / "study-look" / "index.html").read_text()
    assert f"tailfill look {data}" in page
    assert "Images of each class of label: jay 13, owl 12." in page
    assert 'id="labels"' not in page


def test_a_folder_that_may_not_be_read_is_the_users_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the system's refusal, as root may read everything."""

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(DataError, match=r"data: cannot be read \(Permission denied\); make it readable"):
        infer_source(tmp_path / "data")


def test_a_yaml_file_of_boxes_is_no_study(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [a, b]\ntrain: images/train\n")
    (tmp_path / "study.yaml").write_text(GARMENTS)
    assert not is_study(tmp_path / "data.yaml")
    assert is_study(tmp_path / "study.yaml")
    assert not is_study(tmp_path)
