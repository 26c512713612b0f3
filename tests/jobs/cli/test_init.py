from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.cli.fit_time import NO_TIME_FOR_FOLDS, _Fitting
from jobs.cli.init import init
from jobs.cli.study_text import Design
from jobs.prepare import prepare
from shared.config.dataset import CocoSource, CsvSource, FolderSource
from shared.config.load import load_study
from shared.config.stages import PrepareConfig
from shared.data.dataset import read_info
from shared.data.preview import preview
from shared.data.schema import class_counts
from shared.diffusion.generators import GENERATORS
from shared.errors import ConfigError, DataError, InputError
from shared.forecast.forecast import forecast_study
from shared.stop import StopSignal
from tests.support.hub_endpoint import point_at


def picture(path: Path, number: int, side: int = 70) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (side, side + 9, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def folder_tree(root: Path, **counts: int) -> Path:
    number = 0
    for name, count in counts.items():
        for _ in range(count):
            picture(root / name / f"{number}.png", number)
            number += 1
    return root


def test_a_study_for_folders_loads_and_prepares(tmp_path: Path) -> None:
    data = folder_tree(tmp_path / "My Birds!", jay=30, owl=28, kiwi=8)
    (data / "jay" / "broken.png").write_text("not an image")
    out = tmp_path / "new" / "birds.yaml"
    lines = init(data, out)
    study = load_study(out)
    assert study.name == "my-birds"
    assert isinstance(study.dataset, FolderSource)
    assert (study.dataset.root, study.dataset.resolution) == (str(data), 64)
    assert (study.written.rare.below, study.written.rare.classes) == (None, ("label/kiwi",))
    assert (study.written.generate.fill_to, study.written.generate.cap) == (20, 5)  # the median
    assert [experiment.images for experiment in study.experiments] == ["real", "real+synthetic", "real+copies"]
    assert lines[0].startswith("verdict: would find an effect of ")
    assert lines[0].endswith("of the rare classes label/kiwi has the fewest test images, 8")  # each is tested once
    assert any(line.startswith("rare (training images): label/kiwi (6, filled to 20)") for line in lines)
    with Image.open(tmp_path / "new" / "birds-contact.png") as sheet:
        assert sheet.width > 500
    (data / "jay" / "broken.png").unlink()
    (tmp_path / "out").mkdir()
    assert (study.folds, study.repetitions, study.generators) == (True, 6, "each")
    stage = PrepareConfig(dataset=study.dataset, rare=study.written.rare, seed=study.seed, fold=study.fold(5))
    prepared = prepare(stage, data, tmp_path / "out", StopSignal())
    assert prepared.summary["rare"] == ["label/kiwi"]
    assert sum(prepared.summary["sizes"].values()) == 66


def test_a_study_for_a_csv_with_awkward_names(tmp_path: Path) -> None:
    data = tmp_path / "data"
    rows = ['"the ""path"": #1",1e5,"tags, all"']
    for number in range(24):
        picture(data / f"{number}.png", number, side=20)
        rows.append(f"{number}.png,{['no', '1e5', '~'][number % 3]},{['x|y', 'y', 'x'][number % 3]}")
    (data / "labels: all.csv").write_text("\n".join(rows))
    init(data / "labels: all.csv", tmp_path / "study.yaml")
    study = load_study(tmp_path / "study.yaml")
    assert isinstance(study.dataset, CsvSource)
    assert study.name == "labels-all"
    assert study.dataset.path_column == 'the "path": #1'
    assert study.dataset.resolution == 32
    assert {name: (group.kind, group.column) for name, group in study.dataset.groups.items()} == {
        "1e5": ("one", "1e5"),
        "tags__all": ("any", "tags, all"),
    }
    (tmp_path / "out").mkdir()
    stage = PrepareConfig(dataset=study.dataset, rare=study.written.rare, seed=study.seed)
    prepared = prepare(stage, data, tmp_path / "out", StopSignal())
    assert sum(prepared.summary["sizes"].values()) == 24


def test_a_table_without_header_is_read_and_prepared_as_init_shows(tmp_path: Path) -> None:
    """Covers a prefix, bars, backslashes, rows per label and pandas' marks of missing values at once."""
    data = tmp_path / "data"
    rows = []
    for number in range(24):
        picture(data / "img" / f"{number:03d}.png", number, side=33)
        path = f"C:\\Users\\me\\img\\{number:03d}.png"
        rows.append(f"{number}|{path}|{['1.0', '2.0', 'None'][number % 3]}")
        if number % 4 == 0:
            rows.append(f"{number}|{path}|3.0")
    (data / "train.csv").write_text("\n".join(rows))
    lines = init(data, tmp_path / "study.yaml")
    assert any(line.startswith("found: 24 images, label groups label (any, 3 classes)") for line in lines)
    assert any(line.startswith("check: ") and "'None' (8 rows) is taken for unknown" in line for line in lines)
    text = (tmp_path / "study.yaml").read_text()
    assert "  # Check: 'label': 'None' (8 rows)" in text
    study = load_study(tmp_path / "study.yaml")
    assert isinstance(study.dataset, CsvSource)
    assert (study.dataset.header, study.dataset.rows) == (("column_1", "path", "label"), "label")
    (tmp_path / "out").mkdir()
    stage = PrepareConfig(dataset=study.dataset, rare=study.written.rare, seed=study.seed)
    prepared = prepare(stage, data, tmp_path / "out", StopSignal())
    counts = read_info(prepared.files["dataset.json"]).counts
    assert [sum(counts[split][f"label/{c}"] for split in counts) for c in "123"] == [8, 8, 6]


def test_missing_images_are_said(tmp_path: Path) -> None:
    picture(tmp_path / "data" / "x.jpg", 99)
    rows = ["path,kind", "x.jpeg,a", "y.png,b"]
    for number in range(20):
        picture(tmp_path / "data" / f"{number}.png", number)
        rows.append(f"{number}.png,{'ab'[number % 2]}")
    (tmp_path / "data" / "labels.csv").write_text("\n".join(rows))
    lines = init(tmp_path / "data", tmp_path / "study.yaml")
    assert any(line.startswith("found: 20 images") for line in lines)
    assert any(
        line.startswith("bad: 2 rows") and line.endswith("line 2: x.jpeg: does not exist; there is 'x.jpg'")
        for line in lines
    )


def test_classes_too_small_and_bad_rows_are_said(tmp_path: Path) -> None:
    data = tmp_path / "data"
    rows = ["path,kind,part"]
    for number in range(20):
        picture(data / f"{number}.png", number)
        rows.append(f"{number}.png,{'rare' if number < 2 else 'often'},{['train', 'test'][number % 2]}")
    rows.append("0.png,often,train")
    (data / "labels.csv").write_text("\n".join(rows))
    lines = init(data, tmp_path / "study.yaml")
    assert any(line.startswith("too few images") and "kind/rare" in line for line in lines)
    assert any(line.startswith("bad: 1 rows") and "labels.csv line 22" in line for line in lines)
    assert "split:" not in (tmp_path / "study.yaml").read_text()


def test_what_it_refuses(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither images in class folders nor a CSV"):
        init(tmp_path / "empty", tmp_path / "study.yaml")
    data = folder_tree(tmp_path / "data", a=3, b=3)
    (tmp_path / "there.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"lies inside of the data, .*; name a file elsewhere with --out"):
        init(data, data / "study.yaml")
    with pytest.raises(ConfigError, match="exists already"):
        init(data, tmp_path / "there.yaml")
    with pytest.raises(DataError, match="absent: not found; name a folder"):
        init(tmp_path / "absent", tmp_path / "there.yaml")
    with pytest.raises(InputError, match="cannot be written"):
        init(data, tmp_path / "there.yaml" / "study.yaml")
    for path in data.rglob("*.png"):
        path.write_text("broken")
    with pytest.raises(DataError, match="holds no usable image"):
        init(data, tmp_path / "study.yaml")
    assert not (tmp_path / "study.yaml").exists()


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_that_a_study_offers_may_take_the_place_of_the_first(name: str, tmp_path: Path) -> None:
    out = tmp_path / "birds.yaml"
    init(folder_tree(tmp_path / "birds", jay=12, owl=3), out)
    first, offered = "finetune: {generator: pixel,", f"# finetune: {{generator: {name},"
    text = out.read_text()
    assert (offered in text) == bool(GENERATORS[name].example)
    if GENERATORS[name].example:
        out.write_text(text.replace(first, f"# {first}").replace(offered, offered.removeprefix("# ")))
        assert load_study(out).written.finetune.generator == name
        assert GENERATORS[name].about in text


def test_classes_of_similar_size_leave_nothing_to_fill(tmp_path: Path) -> None:
    out = tmp_path / "birds.yaml"
    lines = init(folder_tree(tmp_path / "birds", jay=20, owl=16, kiwi=12), out)
    study = load_study(out)
    assert [experiment.images for experiment in study.experiments] == ["real"]
    assert study.written.rare.classes == ()
    assert (
        "nothing to fill in label: it is balanced: its largest class has 1.8 times as many images as its smallest"
        in lines
    )
    assert not any(line.startswith("verdict:") for line in lines)


def test_each_group_is_filled_to_its_own_median(tmp_path: Path) -> None:
    data = tmp_path / "data"
    rows = ["path,colour,shape"]
    for number in range(60):
        picture(data / f"{number}.png", number, side=32)
        colour = "red" if number < 6 else ["blue", "green"][number % 2]
        shape = "star" if number >= 57 else "abcde"[number % 5]
        rows.append(f"{number}.png,{colour},{shape}")
    (data / "labels.csv").write_text("\n".join(rows))
    init(data, tmp_path / "study.yaml")
    study = load_study(tmp_path / "study.yaml")
    assert study.written.rare.classes == ("shape/star", "colour/red")
    found = preview(study.dataset, data, study.seed)
    counts = class_counts(found.labels[found.split == "train"])
    colours, shapes = (np.sort(counts[columns]) for columns in found.schema.slices().values())
    generate = study.written.generate
    assert generate.fill_to == np.median(shapes)
    assert generate.quota == {"colour/red": np.median(colours) - colours[0]}
    assert 0 < generate.quota["colour/red"] < 5 * colours[0]


def test_boxes_are_measured_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    entries = [{"id": number, "file_name": f"{number}.png"} for number in range(40)]
    boxes = [
        {"id": number, "image_id": number, "category_id": number % 4 == 0, "bbox": [5, 5, 40, 40 if number else 9]}
        for number in range(40)
    ]
    for number in range(40):
        picture(tmp_path / "data" / f"{number}.png", number, side=200)
    kinds = [{"id": 0, "name": "screw"}, {"id": 1, "name": "scratch"}]
    document = {"images": entries, "annotations": boxes, "categories": kinds}
    (tmp_path / "data" / "boxes.json").write_text(json.dumps(document))
    lines = init(tmp_path / "data", tmp_path / "study.yaml")
    assert "note: 1 of 40 boxes were left out: their shorter side is under 16 pixels." in lines
    dataset = load_study(tmp_path / "study.yaml").dataset
    assert isinstance(dataset, CocoSource)
    assert (dataset.resolution, dataset.padding, dataset.least_size) == (32, 0.1, 16)
    assert "  least_size: 16 # px; boxes whose" in (tmp_path / "study.yaml").read_text()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a cache that keeps the timings of all tests of this module."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def quick_timings(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens what is timed, and keeps it for the other tests of this module."""
    monkeypatch.setenv("TAILFILL_CACHE", str(kept))
    monkeypatch.setattr("shared.benchmark.SECONDS", 0.05)


@pytest.mark.usefixtures("quick_timings")
@pytest.mark.parametrize("hours", [0.02, 0.5])
def test_a_study_fits_the_time(hours: float, tmp_path: Path) -> None:
    out = tmp_path / "birds.yaml"
    data = folder_tree(tmp_path / "birds", jay=60, owl=50, kiwi=20)
    lines = init(data, out, hours=hours, fits=True)
    study = load_study(out)
    took = forecast_study(study).run_hours[1]
    said = "\n".join(lines)
    assert study.repetitions >= 6
    if hours < 0.1:
        assert took > hours  # imports alone take longer
        assert "no study with a verdict is shorter" in said
        enough = re.search(r"so give it --hours (\S+) or more", said)
        assert enough is not None
        assert took < float(enough[1]) < 2 * took
        assert "traded for the time: " in said
        assert "6 repetitions, not 10" in said
    else:
        assert took <= hours
        assert study.written.search.trials > 40 or study.repetitions > 10 or "traded" in said
    assert f"# {next(line for line in lines if line.startswith('time: a run takes'))}" in out.read_text().splitlines()
    assert study.written.final.seeds * (study.written.search.trials // study.repetitions) == study.written.search.trials


@pytest.mark.usefixtures("quick_timings")
def test_outputs_of_the_frozen_network_get_the_disk_that_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder_tree(tmp_path / "birds", jay=60, owl=50, kiwi=20)
    init(data, tmp_path / "usual.yaml", hours=0.5, fits=True)
    assert load_study(tmp_path / "usual.yaml").resources.cache_gib == 4
    monkeypatch.setattr("shared.forecast.forecast.GIB", 2**14)
    init(data, tmp_path / "large.yaml", hours=0.5, fits=True)
    study = load_study(tmp_path / "large.yaml")
    # each of 130 images has two views of 1280 numbers, which fill at most 0.8 of the cache, and there are generated ones
    assert study.resources.cache_gib > 130 * 2 * 1280 * 4 / 0.8 / 2**14 > 4
    assert study.resources.cache_gib == forecast_study(study).cache_gib


def test_named_bases_are_compared_by_an_arm_each(tmp_path: Path) -> None:
    data = folder_tree(tmp_path / "birds", jay=60, owl=50, kiwi=20)
    bases = ("stabilityai/stable-diffusion-xl-base-1.0", "Tongyi-MAI/Z-Image", "s3://models/of ours/Z-Image/")
    init(data, tmp_path / "birds.yaml", bases=bases)
    study = load_study(tmp_path / "birds.yaml")
    arms = {e.name: e.finetune for e in study.experiments if e.images == "real+synthetic"}
    assert {name: getattr(finetune, "base", None) for name, finetune in arms.items()} == dict(
        zip(("by-1-stable-diffusion-xl-base-1-0", "by-2-z-image", "by-3-z-image"), bases, strict=True)
    )
    assert {finetune.generator for finetune in arms.values()} == {"text-to-image"}
    # resolution, guidance and steps are those of each family
    assert {getattr(finetune, "resolution", 0) for finetune in arms.values()} == {None}
    assert not {"guidance", "steps"} & study.written.generate.model_fields_set
    assert study.written.verdict is not None
    assert [e.name for e in study.experiments if e.images == "real+copies"] == ["placebo"]


def test_a_base_is_named_once(tmp_path: Path) -> None:
    data = folder_tree(tmp_path / "birds", jay=6, owl=5)
    with pytest.raises(ConfigError, match="--base: a/x is named twice"):
        init(data, tmp_path / "birds.yaml", bases=("a/x", "b/x", "a/x"))


@pytest.mark.usefixtures("quick_timings")
def test_one_base_is_the_generator_of_a_study_that_fits_the_time(tmp_path: Path) -> None:
    data = folder_tree(tmp_path / "birds", jay=60, owl=50, kiwi=20)
    init(data, tmp_path / "birds.yaml", hours=0.5, fits=True, bases=("Tongyi-MAI/Z-Image",))
    study = load_study(tmp_path / "birds.yaml")
    assert [experiment.name for experiment in study.experiments] == ["real", "synthetic", "placebo"]
    assert getattr(study.written.finetune, "base", None) == "Tongyi-MAI/Z-Image"


@pytest.mark.usefixtures("quick_timings")
def test_a_gpu_gets_stable_diffusion_and_eight_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.forecast.timings._gpus", lambda: ("NVIDIA H100 80GB HBM3",))
    data = folder_tree(tmp_path / "birds", jay=60, owl=50, kiwi=20)
    point_at("http://127.0.0.1:9", monkeypatch)
    lines = init(data, tmp_path / "birds.yaml", fits=True)
    study = load_study(tmp_path / "birds.yaml")
    finetune = study.written.finetune
    assert (finetune.generator, getattr(finetune, "method", None)) == ("stable-diffusion", "lora")
    assert any("of the 8h00m that it may take" in line for line in lines)
    (untimed,) = [line for line in lines if line.startswith("time: this does not count finetune and generate")]
    assert "so the study has the usual repetitions and trials: the hub, which has the configuration of" in untimed
    assert study.repetitions == Design().repetitions, "work of unknown length is not repeated as often as possible"


def test_repetitions_test_on_folds_if_a_single_test_split_would_be_small(tmp_path: Path) -> None:
    lines = init(folder_tree(tmp_path / "small", a=60, b=60, c=14), tmp_path / "small.yaml")
    study = load_study(tmp_path / "small.yaml")
    assert (study.folds, study.repetitions, study.generators) == (True, 10, "each")
    assert study.experiments[0].search.trials == 40
    said = "split: each repetition tests on a fold of its own, so that every image is tested once: a single test split has 2 images"
    assert any(line.startswith(said) for line in lines)
    assert "test: folds} # stratified" in (tmp_path / "small.yaml").read_text()
    assert forecast_study(study, measures=False).test_images == {"label/c": 14}


def test_too_few_images_for_folds_share_a_test_split(tmp_path: Path) -> None:
    lines = init(folder_tree(tmp_path / "few", a=30, b=30, c=7), tmp_path / "few.yaml")
    study = load_study(tmp_path / "few.yaml")
    assert (study.folds, study.dataset.split.test, study.generators) == (False, 0.15, "one")
    (said,) = [line for line in lines if line.startswith("split: ")]
    assert said.endswith(
        "label/c has 7, fewer than the 8 that 6 test folds, val and train need, so one test split serves all repetitions"
    )


def test_enough_test_images_share_a_test_split(tmp_path: Path) -> None:
    root = tmp_path / "many"
    for name, count in {"a": 420, "b": 420, "c": 140}.items():
        for number in range(count):
            picture(root / name / f"{number}.png", hash_of(name, number), side=16)
    lines = init(root, tmp_path / "many.yaml")
    assert not load_study(tmp_path / "many.yaml").folds
    assert not any(line.startswith("split: ") for line in lines)


def hash_of(name: str, number: int) -> int:
    return 1000 * ord(name[0]) + number


@pytest.mark.usefixtures("quick_timings")
def test_a_test_split_is_shared_if_a_generator_for_each_fold_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Fitting, "hours", lambda self, design: 2.0 if design.folds else 0.9)
    lines = init(
        folder_tree(tmp_path / "birds", jay=60, owl=50, kiwi=20), tmp_path / "birds.yaml", hours=1.0, fits=True
    )
    study = load_study(tmp_path / "birds.yaml")
    assert (study.folds, study.generators) == (False, "one")
    assert NO_TIME_FOR_FOLDS in lines


@pytest.mark.usefixtures("quick_timings")
def test_a_short_time_leaves_the_repetitions_that_several_bases_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Fitting, "hours", lambda self, design: 99.0)
    data = folder_tree(tmp_path / "birds", jay=60, owl=50, kiwi=20)
    init(data, tmp_path / "birds.yaml", hours=1.0, fits=True, bases=("owner/one", "owner/two"))
    assert load_study(tmp_path / "birds.yaml").repetitions == 7
