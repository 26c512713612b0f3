"""`tailfill validate`: what a study would do, counted and timed for real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.validate import Forecast, describe, generated_sets
from shared.config.load import load_study
from shared.config.resolve import resolve

DEMO = Path(__file__).parents[2] / "studies" / "demo.yaml"
SMALL = [
    "dataset.train=300", "dataset.val=60", "dataset.test=60", "dataset.rare_eval=4", "rare.below=12", "generate.fill_to=14",
    "training.batch_size=8", "finetune.width=8", "finetune.batch_size=4", "generate.batch_size=4", "generate.steps=2",
]  # fmt: skip


def validate(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    sets = [part for setting in SMALL for part in ("--set", setting)]
    main(["validate", str(DEMO), *sets, *arguments])
    return capsys.readouterr().out


def test_a_valid_study_names_its_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(capsys) == f"{DEMO}: valid (real, synthetic, placebo)\n"
    assert json.loads(validate(capsys, "--json")) == {"study": "demo", "experiments": ["real", "synthetic", "placebo"]}


def test_the_plan_counts_and_times(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(validate(capsys, "--plan", "--json"))
    assert found["stages"] == {
        "prepare": 1,
        "finetune": 1,
        "generate": 1,
        "score": 1,
        "tune": 3,
        "final": 6,
        "report": 1,
    }
    assert found["images"]["train"] == 300
    assert (found["trials"], found["finals"]) == (12, 6)
    assert found["fill"]
    for counts in found["fill"].values():
        assert 0 < counts["real"] < 12
        assert 0 < counts["generate"] <= 14 - counts["real"]
    assert found["hours"].keys() == {"finetune", "generate", "score", "tune", "final"}
    assert all(0 < hours < 10 for hours in found["hours"].values())
    assert found["gib"] > 0
    words = describe(load_study(DEMO), Forecast(**found)).splitlines()
    assert words[0].startswith("study demo: 14 stages (1 prepare, 1 finetune, ")
    assert "search: 12 trials; final: 6 trainings" in words
    assert sum(line.startswith("fill ") for line in words) == len(found["fill"])
    assert words[-1].startswith("in all about ")


def test_weights_of_the_hub_are_named_and_not_fetched(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    sets = [part for setting in SMALL for part in ("--set", setting) if not setting.startswith("finetune")]
    base = "finetune={generator: stable-diffusion, base: some/model, revision: abc, resolution: 32}"
    main(["validate", str(DEMO), *sets, "--set", base, "--set", "classifier.pretrained=true", "--plan"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("weights: ")]
    assert lines == [
        "weights: some/model@abc is fetched once from the Hugging Face hub",
        "weights: test_resnet is fetched once from the Hugging Face hub, not pinned: the newest commit is taken; set its revision",
    ]


@pytest.mark.parametrize(("guidances", "trials", "sets"), [([1.0, 2.0], 9, 4), ([1.0, 2.0], 3, 3), (None, 9, 1)])
def test_a_search_over_the_generator_makes_a_set_a_combination_or_a_trial(
    guidances: list[float] | None, trials: int, sets: int
) -> None:
    space = (
        f"generate.guidance: {{values: {guidances}}}, generate.steps: {{values: [2, 4]}}"
        if guidances
        else "training.lr: {low: 0.1, high: 0.2}"
    )
    settings = ["verdict=none", f"experiments.synthetic.search={{trials: {trials}, space: {{{space}}}}}"]
    (synthetic,) = (e for e in resolve(load_study(DEMO, settings)) if e.name == "synthetic")
    assert generated_sets(synthetic) == sets


def test_data_that_are_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        validate(capsys, "--plan", "--set", f"dataset={{source: folder, resolution: 32, root: {tmp_path}/none}}")
    assert f"{tmp_path}/none: there is no such folder" in capsys.readouterr().err
