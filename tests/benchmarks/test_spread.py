from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from benchmarks.spread import main
from tests.support.small_study import SMALL_STUDY

STUDY = SMALL_STUDY
SMALL = [
    "dataset.train=300", "dataset.val=60", "dataset.test=60", "dataset.rare_eval=4", "rare.below=12", "search.epochs=2",
    "classifier.trainable=head", "training.views=2",
]  # fmt: skip


def run(*settings: str) -> tuple[int, str]:
    sets = [part for setting in (*SMALL, *settings) for part in ("--set", setting)]
    result = CliRunner().invoke(main, [str(STUDY), *sets, "--images", "40", "--val-images", "30", "--seeds", "2"])
    return result.exit_code, result.output


def test_it_compares_the_scores_of_both() -> None:
    code, output = run("augmentation=basic")
    assert code == 0, output
    assert (
        len(re.findall(r"\| val (?:accuracy|macro-F1) \| 0\.\d{3} ± 0\.\d{3} \| 0\.\d{3} ± 0\.\d{3} \|", output)) == 2
    )


def test_it_refuses_what_the_plain_loop_has_not() -> None:
    code, output = run("augmentation=basic", "training.mixup=0.4")
    assert code == 1
    assert "the plain loop has no generated images, mixup" in output


@pytest.mark.parametrize("setting", ["augmentation=soft", "training.erasing=0.5", "classifier.trainable=all"])
def test_it_refuses_what_two_vectors_an_image_cannot_stand_for(setting: str) -> None:
    code, output = run("augmentation=basic", setting)
    assert code == 1
    assert "only for classifier.trainable: head" in output
