"""Tests the forecast of `tailfill validate`, with real counts and times."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.__main__ import main
from jobs.cli.validate import adapter_lines, describe, verdict_lines
from shared.config.load import load_study
from shared.data.preview import preview
from shared.forecast.forecast import Forecast, foresee_verdict
from shared.forecast.hours import generated_sets
from tests.support.hub_endpoint import point_at
from tests.support.small_study import SMALL_STUDY

SMALL = [
    "dataset.train=300", "dataset.val=60", "dataset.test=60", "dataset.rare_eval=4", "rare.below=12", "generate.fill_to=14",
    "training.batch_size=8", "finetune.width=8", "finetune.batch_size=4", "generate.batch_size=4", "generate.steps=2",
]  # fmt: skip


@pytest.fixture(autouse=True)
def kept(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps timings in a folder that all tests of this session share."""
    monkeypatch.setenv("TAILFILL_CACHE", str(tmp_path_factory.getbasetemp() / "kept-timings"))


def validate(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    sets = [part for setting in SMALL for part in ("--set", setting)]
    main(["validate", str(SMALL_STUDY), *sets, *arguments])
    return capsys.readouterr().out


def test_a_valid_study_names_its_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(capsys) == f"{SMALL_STUDY}: valid (real, synthetic, placebo)\n"
    assert json.loads(validate(capsys, "--json")) == {"study": "demo", "experiments": ["real", "synthetic", "placebo"]}


def test_the_plan_counts_and_times(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.benchmark.SECONDS", 0.1)
    verdict = "verdict={provisional: true, generators: one}"
    found = json.loads(validate(capsys, "--plan", "--json", "--set", verdict))
    assert found["stages"] == {
        "prepare": 1,
        "finetune": 1,
        "generate": 2,
        "judge": 1,
        "score": 2,
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
    assert found["hours"].keys() == found["stages"].keys() == found["disk"].keys() == found["memory"].keys()
    assert all(0 < hours < 10 for hours in found["hours"].values())
    assert found["run_hours"][1] < sum(found["hours"].values())
    for stage, (low, high) in found["hours_range"].items():
        assert 0 < low <= found["hours"][stage] <= high
    assert found["gib"] > 0
    assert found["smallest_effect"] is None  # two repetitions are too few for a verdict
    assert found["to_settle"]["repetitions"] >= 6
    assert all(name.partition("/")[2] and n >= 0 for name, n in found["test_images"].items())
    words = describe(load_study(SMALL_STUDY, [verdict]), Forecast(**found)).splitlines()
    assert "verdict: none with so few repetitions (final.seeds)" in words
    assert words[0].startswith("study demo: 17 stages (1 prepare, 1 finetune, ")
    assert "search: 12 trials; final: 6 trainings" in words
    assert sum(line.startswith("fill ") for line in words) == len(found["fill"])
    assert words[1].startswith("images: 300 train, ")
    assert words[1].endswith(" test, before prepare removes those that are in two splits")
    head, *rows = [line.split() for line in words if line.split()[0] in {"stage", "total", *found["stages"]}]
    assert head == ["stage", "steps", "hours", "from", "to", "device", "disk", "GiB", "memory", "GiB"]
    assert [row[:2] for row in rows] == [*([s, str(n)] for s, n in found["stages"].items()), ["total", "17"]]
    assert all(row[5] == "cpu" for row in rows[:-1])
    assert words[-1].startswith("timed while other programs used at most ")
    again = json.loads(validate(capsys, "--plan", "--json", "--set", verdict))
    assert again["hours"].keys() == found["hours"].keys()


def plan_in_new_process(before: str, after: str = "") -> subprocess.CompletedProcess[str]:
    """Runs `validate --plan` of the small study in a new process, with code before and after it."""
    sets = [part for setting in SMALL for part in ("--set", setting)]
    code = f"import sys; from jobs.__main__ import main\n{before}\nmain(sys.argv[1:])\n{after}"
    command = [sys.executable, "-c", code, "validate", str(SMALL_STUDY), *sets, "--plan"]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_a_plan_that_was_timed_times_nothing_and_imports_no_torch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.benchmark.SECONDS", 0.1)
    validate(capsys, "--plan")
    done = plan_in_new_process("", "print(*(name for name in ('torch', 'timm', 'diffusers') if name in sys.modules))")
    assert done.stdout.splitlines()[-1] == ""
    assert "timing" not in done.stderr
    assert any(line.startswith("a run takes about ") for line in done.stdout.splitlines())


def test_a_plan_is_timed_without_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILFILL_CACHE", str(tmp_path))
    done = plan_in_new_process(
        "import shared.benchmark as benchmark, shared.forecast.work as work; benchmark.SECONDS = 0.1; work.subprocess = None"
    )
    assert done.stderr.count("forecast: timing") >= 2
    assert "a run takes about " in done.stdout


def test_a_cache_that_is_too_small_is_said_to_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.benchmark.SECONDS", 0.1)
    head = ("--set", "classifier.trainable=head")
    assert "resources.cache_gib" not in validate(capsys, "--plan", *head)
    said = validate(capsys, "--plan", *head, "--set", "resources.cache_gib=0.001")
    (line,) = [line for line in said.splitlines() if line.startswith("resources.cache_gib: ")]
    assert line.startswith(
        "resources.cache_gib: 0.001 GiB of disk hold the frozen network's outputs for some of the images"
    )
    assert line.endswith("; 1 hold all of them")


def test_prices_make_a_column(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.benchmark.SECONDS", 0.1)
    words = validate(capsys, "--plan", "--set", "prices={currency: EUR, per_hour: {cpu: 3600}}").splitlines()
    (head,) = [line for line in words if line.startswith("stage ")]
    (total,) = [line for line in words if line.startswith("total ")]
    assert head.endswith("EUR")
    low, high = map(float, total.split()[-1].split("–"))
    assert 0 < low <= high
    words = validate(capsys, "--plan", "--set", "prices={currency: EUR, per_hour: {H100: 3}}").splitlines()
    assert all(line.endswith("–") for line in words if line.startswith(("finetune ", "total ")))


def test_a_busy_machine_is_said_to_be_busy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.benchmark.SECONDS", 0.1)
    cores = len(os.sched_getaffinity(0))
    said = {}
    for busy in (0.0, float(cores)):
        monkeypatch.setattr("shared.forecast.forecast.busy_cores", lambda busy=busy: busy)
        said[busy] = [
            line for line in validate(capsys, "--plan").splitlines() if line.startswith("the machine is busy")
        ]
    assert said[0.0] == []
    assert said[cores][0].startswith(f"the machine is busy now (other programs use {cores:.1f} of its {cores} cores)")
    assert "2.0 times as long" in said[cores][0]
    monkeypatch.setattr("shared.forecast.forecast.busy_cores", lambda: 0.0)
    many = validate(capsys, "--plan", "--set", f"resources.processes={4 * cores}")
    assert "the machine is busy" not in many, "its own processes are no other programs"


def test_weights_of_the_hub_are_named_and_not_fetched(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at("http://127.0.0.1:9", monkeypatch)
    sets = [part for setting in SMALL for part in ("--set", setting) if not setting.startswith("finetune")]
    base = "finetune={generator: stable-diffusion, base: some/model, revision: abc, resolution: 32}"
    main(["validate", str(SMALL_STUDY), *sets, "--set", base, "--set", "classifier.pretrained=true", "--plan"])
    lines = capsys.readouterr().out.splitlines()
    (untimed,) = [line for line in lines if line.startswith("finetune, generate: not timed; ")]
    assert "the hub, which has the configuration of some/model, does not answer" in untimed
    assert any("), not counting finetune and generate, with " in line for line in lines)
    assert [line for line in lines if line.startswith("weights: ")] == [
        "weights: some/model@abc is downloaded once from the Hugging Face hub",
        "weights: test_resnet is downloaded once from the Hugging Face hub, not pinned: the newest commit is used; set its revision",
    ]


def test_a_plan_looks_at_weights_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    base = "finetune={generator: stable-diffusion, base: /absent, resolution: 32}"
    for setting, message in {
        f"classifier.pretrained={tmp_path / 'w.safetensors'}": "is a pointer of Git LFS",
        base: "there is no folder /absent",
    }.items():
        with pytest.raises(SystemExit) as ended:
            main(["validate", str(SMALL_STUDY), "--set", setting, "--plan"])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


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
    (synthetic,) = (e for e in load_study(SMALL_STUDY, settings).experiments if e.name == "synthetic")
    assert generated_sets(synthetic) == sets


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Writes 40 images, of which one is not an image and one is truncated."""
    for number in range(40):
        path = tmp_path / "data" / ("ape" if number < 30 else "bee") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    (tmp_path / "data" / "ape" / "0.png").write_text("not an image")
    whole = tmp_path / "data" / "ape" / "1.png"
    whole.write_bytes(whole.read_bytes()[:1000])
    return tmp_path / "data"


def counts(capsys: pytest.CaptureFixture[str], folders: Path, monkeypatch: pytest.MonkeyPatch, more: str = "") -> str:
    monkeypatch.setattr("shared.benchmark.SECONDS", 0.1)
    dataset = f"dataset={{source: folder, resolution: 32, root: {folders}{more}}}"
    return validate(capsys, "--plan", "--set", dataset, "--set", "experiments=[{name: real}]", "--set", "verdict=none")


def test_a_file_that_is_no_image_is_not_counted(
    capsys: pytest.CaptureFixture[str], folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = counts(capsys, folders, monkeypatch, ", on_bad: skip")
    assert re.search(r"images: (\d+) train, (\d+) val, (\d+) test \(their files were opened, none decoded: ", said)
    (images,) = (line for line in said.splitlines() if line.startswith("images: "))
    assert sum(map(int, re.findall(r"\d+", images))) == 39  # a truncated image is found only by decoding it
    monkeypatch.setattr("shared.data.preview.OPEN_SECONDS", 0.0)
    assert "(0 of 40 files were opened, none decoded: " in counts(capsys, folders, monkeypatch, ", on_bad: skip")


def test_what_would_end_prepare_ends_the_plan(
    capsys: pytest.CaptureFixture[str], folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match="2"):
        counts(capsys, folders, monkeypatch)
    assert "ape/0.png: is in none of the formats JPEG, PNG" in capsys.readouterr().err


def test_data_that_are_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        validate(capsys, "--plan", "--set", f"dataset={{source: folder, resolution: 32, root: {tmp_path}/none}}")
    assert f"{tmp_path}/none: there is no such folder" in capsys.readouterr().err


def test_the_plan_says_which_effect_a_verdict_finds() -> None:
    sets = ["final.seeds=10", "search.trials=20", "verdict={metric: accuracy}", "dataset.test=400"]
    forecast = Forecast(stages={}, images={"train": 300, "val": 60, "test": 400})
    study = load_study(SMALL_STUDY, sets)
    data = preview(study.dataset, None, study.seed)
    foresee_verdict(study, data, forecast)
    assert forecast.test_images == {"all": 400}
    assert forecast.smallest_effect == pytest.approx(0.0276, abs=0.0005)  # 2.8 √(.012²/10 + .15²/400 + .3²/4000)
    assert forecast.to_settle["test_images"] > 400
    first, second = verdict_lines(study, forecast)
    assert "would find an effect of 2.8 points of accuracy in 80 % of such studies" in first
    assert re.search(
        r"1 point takes about [\d.]+ times as many test images of every class, and \d+ repetitions", second
    )
    forecast.test_images = {"fabric/faux": 5, "fabric/denim": 40}
    assert verdict_lines(study, forecast)[-1].startswith("verdict: few test images: fabric/faux has 5; a judged class")
    none = load_study(SMALL_STUDY, ["verdict=none"])
    quiet = Forecast(stages={}, images=forecast.images)
    foresee_verdict(none, data, quiet)
    assert verdict_lines(none, quiet) == []


@pytest.mark.parametrize(
    ("sets", "fill", "why"),
    [
        (["generate.fill_to=113"], {"real": 112, "generate": 1}, "generate.fill_to is 113; raise it"),
        (["generate.fill_to=113"], {"real": 120, "generate": 0}, "it has the 113 of generate.fill_to already"),
        (["generate.fill_to=113"], {"real": 3, "generate": 15}, "generate.cap allows 5 per real image"),
        (["generate.fill_to=113"], {"real": 50, "generate": 8}, "images that are made for other rare classes"),
        (["generate.quota={a/b: 5}"], {"real": 50, "generate": 5}, "generate.quota asks for no more"),
        (["generate.fill_to=113"], {"real": 50, "generate": 63}, ""),
    ],
)
def test_the_plan_says_why_a_class_gets_few_images(sets: list[str], fill: dict[str, int], why: str) -> None:
    study = load_study(SMALL_STUDY, ["generate.cap=5", *sets])
    forecast = Forecast(stages={"prepare": 1}, images={"train": 1}, fill={"a/b": fill})
    (line,) = [line for line in describe(study, forecast).splitlines() if line.startswith("fill a/b: ")]
    assert line.startswith(f"fill a/b: {fill['real']} real, {fill['generate']} to generate")
    assert (", which is few: " in line) == bool(why)
    assert why in line


@pytest.mark.parametrize(("generators", "line"), [
    ("one", "adapters per class: 2 rare classes × 300 steps × 1 generator = 600 steps"),
    ("each", "adapters per class: 2 rare classes × 300 steps × 6 generators = 3,600 steps"),
])  # fmt: skip
def test_the_plan_says_what_adapters_per_class_cost(generators: str, line: str) -> None:
    verdict = f"verdict={{generators: {generators}}}"
    finetune = "finetune={generator: stable-diffusion, method: lora, per_class: true, steps: 300, resolution: 64}"
    study = load_study(SMALL_STUDY, [finetune, verdict, "final.seeds=6", "search.trials=12"])
    assert adapter_lines(study, 2) == [line]
    assert adapter_lines(load_study(SMALL_STUDY), 2) == []
