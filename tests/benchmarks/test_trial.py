from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from click.testing import CliRunner

from benchmarks.plain_loop import transform
from benchmarks.trial import main
from shared.config.training import Augmentation
from tests.support.small_study import SMALL_STUDY

STUDY = SMALL_STUDY
SMALL = [
    "dataset.train=300", "dataset.val=60", "dataset.test=60", "dataset.rare_eval=4", "rare.below=12", "search.epochs=2",
    "classifier.trainable=head", "augmentation=hard", "training.views=2", "training.erasing=0.5",
]  # fmt: skip


def run(*arguments: str) -> tuple[int, str]:
    sets = [part for setting in SMALL for part in ("--set", setting)]
    result = CliRunner().invoke(main, [str(STUDY), *sets, "--workers", "0", *arguments])
    return result.exit_code, result.output


def test_it_measures_both_and_prints_ratios(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    code, output = run("--images", "40", "--val-images", "30", "--seeds", "2", "--json", str(figures))
    assert code == 0, output
    assert re.search(r"\| a single trial, caching included \(s\) \| [\d.]+ \| [\d.]+ \| [\d.]+ × \|", output)
    found = json.loads(figures.read_text())
    assert (found["images"], found["val_images"], found["epochs"]) == (40, 30, 2)
    assert [outcome["seed"] for outcome in found["trials"]] == [0, 1]
    assert all(0 <= outcome["macro_f1"] <= outcome["accuracy"] <= 1 for outcome in found["plain"])


def test_it_refuses_what_the_plain_loop_has_not(tmp_path: Path) -> None:
    code, output = run("--set", "training.mixup=0.4", "--images", "40", "--val-images", "30")
    assert code == 1
    assert "the plain loop has no generated images, mixup" in output


def test_the_plain_loop_augments_as_strongly_as_it_is_told() -> None:
    from PIL import Image

    image = Image.effect_noise((32, 32), 64).convert("RGB")
    kinds: list[Augmentation] = ["none", "basic", "soft", "hard"]
    made = [{transform(kind, 0.0, 24)(image).numpy().tobytes() for _ in range(12)} for kind in kinds]
    assert [len(different) for different in made] == [1, 2, 12, 12]
    pixels = transform("hard", 1.0, 24)(image)
    assert pixels.dtype == torch.float32
    assert pixels.shape == (3, 24, 24)
