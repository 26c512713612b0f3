from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.cli.upload import upload
from jobs.prepare import Prepared, prepare, run
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.keys import keyed, new_task
from shared.artifacts.manifest import Manifest
from shared.artifacts.open import open_store
from shared.artifacts.s3 import S3Store
from shared.config.dataset import Fold
from shared.config.search import Resources
from shared.config.stages import PrepareConfig
from shared.config.task import Task
from shared.context import Context
from shared.data.dataset import DatasetInfo, read_info
from shared.data.imageset import ImageSet, read_shards
from shared.data.sources.digest import source_digest
from shared.errors import ConfigError, DataError, Stopped
from shared.settings import Settings
from shared.stop import StopSignal

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
FOLDER = {"source": "folder", "root": "unused", "group": "colour", "resolution": 32}


def picture(path: Path, colour: str, number: int, side: int = 40) -> Path:
    """Returns a cloudy pattern of one colour, with much power at every scale; it is different for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([number, len(colour)])
    clouds = rng.standard_normal((side, side, 3)).cumsum(axis=0).cumsum(axis=1)
    clouds = (clouds - clouds.mean(axis=(0, 1))) * 25 / clouds.std() + rng.integers(-12, 12, (side, side, 3))
    Image.fromarray((np.array(COLOURS[colour]) + clouds).clip(0, 255).astype(np.uint8)).save(path)
    return path


def tree(root: Path, **counts: int) -> Path:
    for colour, count in counts.items():
        for number in range(count):
            picture(root / colour / f"{number:03d}.png", colour, number)
    return root


def config(dataset: dict[str, Any], **rare: Any) -> PrepareConfig:
    return PrepareConfig.model_validate_json(json.dumps({"dataset": dataset, "rare": rare or {"below": 15}, "seed": 3}))


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., tuple[Prepared, DatasetInfo, ImageSet]]:
    def call(root: Path | None, dataset: dict[str, Any], **rare: Any) -> tuple[Prepared, DatasetInfo, ImageSet]:
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        result = prepare(config(dataset, **rare), root, out, StopSignal())
        info = read_info(result.files["dataset.json"])
        shards = [path for name, path in result.files.items() if name.startswith("images-")]
        return result, info, read_shards(shards, info.schema_)

    return call


def test_a_folder_becomes_the_canonical_form(tmp_path: Path, prepared: Any) -> None:
    root = tree(tmp_path / "data", red=60, green=40, blue=12)
    result, info, images = prepared(root, FOLDER)
    assert set(result.files) == {"dataset.json", "images-00000.parquet", "leaks.csv", "contact.png"}
    assert result.summary == {
        "sizes": {"train": 78, "val": 17, "test": 17},
        "rare": ["colour/blue"],
        "skipped": {},
        "leaks": {},
    }
    assert list(info.counts["train"].values()) == [8, 28, 42]
    assert list(info.counts["test"].values()) == [2, 6, 9]
    assert info.weights["colour/red"] == pytest.approx(250 / 11 / info.counts["train"]["colour/red"])
    assert images.pixels(32).shape == (112, 32, 32, 3)
    mean = images.pixels(32)[images.labels[:, info.schema_.column("colour/red")] == 1].mean(axis=(0, 1, 2))
    assert np.abs(mean - COLOURS["red"]).max() < 12
    with Image.open(result.files["contact.png"]) as sheet:
        assert sheet.width > 500


def test_sixteen_bits_a_window_and_frames_are_said(tmp_path: Path, prepared: Any) -> None:
    root = tree(tmp_path / "data", red=20, green=20)
    for path in sorted(root.glob("red/*.png"))[:7]:
        values = np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 100
        Image.fromarray(values).save(path)
    _, info, images = prepared(root, FOLDER)
    assert len(images) == 40
    assert [note for note in info.notes if "8 bits" in note] == [
        "7 images: grey of more than 8 bits: the percentiles 0.5 and 99.5 of each image became black and white; "
        "dataset.window sets fixed values"
    ]
    _, windowed, _ = prepared(root, FOLDER | {"window": [0, 30000]})
    assert "7 images: grey of more than 8 bits: the values 0 and 30000 became black and white" in windowed.notes


def test_the_same_bytes_again(tmp_path: Path, prepared: Any) -> None:
    root = tree(tmp_path / "data", red=20, green=20)
    digests = [
        {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in prepared(root, FOLDER)[0].files.items()}
        for _ in range(2)
    ]
    assert digests[0] == digests[1]


def test_equal_images_in_two_splits(tmp_path: Path, prepared: Any) -> None:
    root = tmp_path / "data"
    for split, first in (("train", 0), ("val", 100), ("test", 200)):
        for number in range(first, first + 20):
            for colour in ("red", "green"):
                picture(root / split / colour / f"{number}.png", colour, number)
    picture(root / "test" / "red" / "copy.bmp", "red", 5)  # equal pixels in another format
    picture(root / "val" / "red" / "again.png", "red", 205)
    with Image.open(root / "train" / "green" / "7.png") as image:
        image.point(lambda value: value + 2).save(root / "test" / "green" / "brighter.png")
    result, info, images = prepared(root, FOLDER)
    assert info.leaks == {"train/test": 2, "val/test": 1}
    assert result.summary["leaks"] == info.leaks
    assert info.sizes == {"train": 38, "val": 40, "test": 42}
    gone = {"train/red/5.png", "val/red/again.png", "train/green/7.png"}
    assert not gone & set(images.paths)
    with result.files["leaks.csv"].open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert set(rows) == gone
    assert rows["train/red/5.png"]["other_path"] == "test/red/copy.bmp"
    assert [rows[path]["equal_pixels"] for path in sorted(gone)] == ["0", "1", "1"]
    assert prepared(root, {**FOLDER, "on_leak": "keep"})[1].sizes == {"train": 40, "val": 41, "test": 42}
    with pytest.raises(
        DataError, match=r"is (nearly )?equal to .* of test .*; 2 of train/test, 1 of val/test leak in all"
    ):
        prepared(root, {**FOLDER, "on_leak": "fail"})


def test_alike_images_are_carved_into_one_split(tmp_path: Path, prepared: Any) -> None:
    root = tree(tmp_path / "data", red=30, green=30)
    for number in range(30):
        picture(root / "red" / f"copy-{number}.bmp", "red", number)
    _, info, images = prepared(root, {**FOLDER, "on_leak": "fail"})
    split = dict(zip(images.paths, images.split.tolist(), strict=True))
    assert all(split[f"red/{n:03d}.png"] == split[f"red/copy-{n}.bmp"] for n in range(30))
    assert info.leaks == {}


def bad_csv(root: Path) -> dict[str, Any]:
    tree(root, red=20, green=20)
    lines = [f"{colour}/{number:03d}.png,{colour}" for colour in ("red", "green") for number in range(20)]
    picture(root / "extra.png", "blue", 1)
    (root / "text.png").write_text("no image")
    (root / "cut.png").write_bytes((root / "red" / "000.png").read_bytes()[:200])
    Image.new("LAB", (9, 9)).save(root / "lab.tif")
    lines += [
        "nowhere.png,red",
        "text.png,red",
        "cut.png,red",
        "lab.tif,green",
        "red/000.png,red",
        "extra.png,purple",
        "../x.png,red",
    ]
    (root / "labels.csv").write_text("path,colour\n" + "\n".join(lines) + "\n")
    groups = {"colour": {"column": "colour", "classes": ["red", "green", "blue"]}}
    return {"source": "csv", "root": "unused", "resolution": 32, "groups": groups}


def test_bad_inputs_fail_with_file_and_line_and_counts(
    tmp_path: Path, prepared: Any, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = bad_csv(tmp_path / "data")
    with pytest.raises(
        DataError, match=r"labels\.csv line 46: .*\(8 bad in all: .*empty class 1.*missing file 1.*on_bad: skip"
    ):
        prepared(tmp_path / "data", dataset)
    shown = "\n".join(caplog.messages)
    for line, words in {
        42: "nowhere.png",
        43: "text.png",
        44: "cut.png",
        45: "'LAB'",
        46: "already listed",
        47: "'purple'",
        48: "leaves",
    }.items():
        assert any(f"labels.csv line {line}:" in m and words in m for m in caplog.messages), shown
    assert any("colour/blue has no usable image" in message for message in caplog.messages)


def test_bad_inputs_are_skipped_and_counted(tmp_path: Path, prepared: Any) -> None:
    _, info, images = prepared(tmp_path / "data", {**bad_csv(tmp_path / "data"), "on_bad": "skip"})
    assert info.skipped == {
        "duplicate path": 1, "empty class": 1, "label outside its group": 1, "leaves the folder": 1, "missing file": 1,
        "not an image": 1, "truncated": 1, "wrong mode": 1,
    }  # fmt: skip
    assert info.schema_.class_names == ("colour/red", "colour/green")
    assert len(images) == 40


def test_a_product_stays_in_one_split_and_any_groups_are_stratified(tmp_path: Path, prepared: Any) -> None:
    root = tmp_path / "data"
    lines = ["path,tags,product"]
    for number in range(120):
        picture(root / f"{number}.png", "red", number)
        tags = "a" + ("|b" if number % 3 == 0 else "") + ("|c" if number % 8 == 0 else "")
        lines.append(f"{number}.png,{tags},{number // 2}")
    (root / "labels.csv").write_text("\n".join(lines))
    dataset = {
        "source": "csv",
        "root": "unused",
        "resolution": 16,
        "group_by": "product",
        "groups": {"tag": {"kind": "any", "column": "tags"}},
    }
    _, info, images = prepared(root, dataset)
    split = dict(zip(images.paths, images.split.tolist(), strict=True))
    assert all(split[f"{n}.png"] == split[f"{n + 1}.png"] for n in range(0, 120, 2))
    assert images.units() == [str(int(path.removesuffix(".png")) // 2) for path in images.paths]
    assert [info.counts[s]["tag/b"] for s in ("train", "val", "test")] == pytest.approx([28, 6, 6], abs=1)
    assert [info.counts[s]["tag/c"] for s in ("train", "val", "test")] == pytest.approx([11, 2, 2], abs=1)


def test_photographs_of_a_garment_stay_in_one_split_of_deepfashion(tmp_path: Path, prepared: Any) -> None:
    """`img/<product>/`: a part of the source's train becomes val here, by product."""
    kinds = [f"{name} {kind}" for kind in range(1, 7) for name in (f"a{kind}", f"b{kind}")]
    photographs = [f"img/Product_{i // 4}/img_{i:03d}.jpg" for i in range(120)]
    lists = {"list_attr_cloth.txt": kinds, "train.txt": photographs, "val.txt": ["img/x.jpg", "img/y.jpg"]}
    labels = [" ".join(str(int(i // 4 % (k + 2) == 0)) for k in range(6)) for i in range(120)]
    lists |= {"train_attr.txt": labels, "val_attr.txt": ["0 0 0 0 0 0", "1 1 1 1 1 1"]}
    for number, path in enumerate([*photographs, "img/x.jpg", "img/y.jpg"]):
        picture(tmp_path / "data" / path, "red", number)
    (tmp_path / "data" / "Anno_fine").mkdir()
    for name, lines in lists.items():
        (tmp_path / "data" / "Anno_fine" / name).write_text("\n".join(lines))
    _, info, images = prepared(tmp_path / "data", {"source": "deepfashion", "root": "unused", "resolution": 16})
    assert info.sizes["train"] + info.sizes["val"] == 120
    assert info.sizes["val"] in (16, 20)  # of 18, in fours
    units = {split: set(images.of(split).units() or ()) for split in ("train", "val", "test")}
    assert len(units["train"] | units["val"]) == 30
    assert not units["train"] & units["val"]
    assert units["test"] == {"img/x.jpg", "img/y.jpg"}


def test_a_rare_class_that_cannot_be_judged(tmp_path: Path, prepared: Any) -> None:
    root = tree(tmp_path / "data", red=30, green=2)
    with pytest.raises(DataError, match=r"the rare class colour/green \(train 2, val 0, test 0\)|\(train 1"):
        prepared(root, FOLDER)
    with pytest.raises(ConfigError, match=r"rare\.classes: must name a class"):
        prepared(tree(tmp_path / "data", green=30), FOLDER, classes=["colour/pink"])


def test_garments_need_no_files(prepared: Any) -> None:
    dataset = {"source": "garments", "resolution": 32, "train": 100, "val": 50, "test": 50, "rare_eval": 1}
    result, info, images = prepared(None, dataset, below=5)
    assert info.sizes["train"] == 100
    assert info.schema_.width == 26
    assert images.pixels(32).std() > 20
    assert result.summary["rare"]


def test_a_signal_ends_it(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", red=3, green=3)
    stop = StopSignal()
    stop.set()
    (tmp_path / "out").mkdir()
    with pytest.raises(Stopped):
        prepare(config(FOLDER), root, tmp_path / "out", stop)
    assert not list((tmp_path / "out").iterdir())


def test_run_commits(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", red=20, green=20)
    (tmp_path / "scratch").mkdir()
    settings = Settings.from_environment(
        {"TAILFILL_STORE": str(tmp_path / "store"), "TAILFILL_CACHE": str(tmp_path / "cache"), "HOME": "/"}
    )
    stage = config({**FOLDER, "root": str(root)})
    task = Task(study="s", stage="prepare", key="k", config=stage)
    artifacts = Artifacts(open_store(settings), "s", settings.cache)
    context = Context(task, artifacts, settings, tmp_path / "scratch", StopSignal(), lambda: ("code", {}))
    manifest = run(stage, context)
    assert artifacts.find("prepare", "k") == manifest
    assert manifest.summary["sizes"] == {"train": 28, "val": 6, "test": 6}
    assert read_info(artifacts.fetch(manifest.file("dataset.json"))).source == "folder"


def test_a_folder_and_its_uploaded_copy_give_one_result(tmp_path: Path, s3_store: S3Store, s3_server: Settings) -> None:
    here, there = tree(tmp_path / "data", red=20, green=20), f"{s3_store.url}/a/copy"
    upload(here, there, s3_server, False)

    def prepared_from(root: str) -> Manifest:
        dataset = config({**FOLDER, "root": root}).dataset
        stage = config(FOLDER).model_copy(
            update={"dataset": dataset, "source_digest": source_digest(dataset, s3_server)}
        )
        task = new_task("s", "prepare", stage, {}, Resources())
        name = "here" if root == str(here) else "there"
        (tmp_path / name).mkdir()
        artifacts = Artifacts(FolderStore(tmp_path / f"store-{name}"), "s", tmp_path / "cache")
        context = Context(task, artifacts, s3_server, tmp_path / name, StopSignal(), lambda: ("code", {}))
        return run(stage, context)

    first, second = prepared_from(str(here)), prepared_from(there)
    assert (first.key, first.digest) == (second.key, second.digest)
    assert "root" not in first.config["dataset"]


def test_without_a_digest_the_root_stands_for_the_data() -> None:
    first, second = (config({**FOLDER, "root": root}) for root in "ab")
    assert keyed("prepare", first) != keyed("prepare", second)


def fold_config(number: int, count: int, below: int) -> PrepareConfig:
    described = config({**FOLDER, "split": {"test": "folds"}}, below=below)
    return described.model_copy(update={"fold": Fold(number=number, count=count)})


def test_a_fold_is_the_test_split_and_a_class_is_rare_in_all_folds_or_in_none(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", red=60, green=40, blue=13)
    tested: list[str] = []
    for number in range(6):
        out = tmp_path / str(number)
        out.mkdir()
        # about 9.2 of the 13 blue images are trained on: 9 in some folds and 10 in others
        result = prepare(fold_config(number, 6, 10), root, out, StopSignal())
        info = read_info(result.files["dataset.json"])
        assert info.usual_counts == {"colour/blue": 9, "colour/green": 28, "colour/red": 42}
        assert result.summary["rare"] == ["colour/blue"]
        images = read_shards([p for name, p in result.files.items() if name.startswith("images-")], info.schema_)
        tested += images.of("test").paths
        assert len(images) == 113
    assert sorted(tested) == sorted(images.paths)


def test_too_few_images_for_the_folds_are_an_error(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", red=60, green=40, blue=4)
    errors = []
    for number in range(6):  # at least two of the folds have no blue image
        (tmp_path / str(number)).mkdir()
        try:
            prepare(fold_config(number, 6, 15), root, tmp_path / str(number), StopSignal())
        except DataError as error:
            errors.append(str(error))
    assert len(errors) >= 2
    assert any("the rare class colour/blue (train 3, val 1, test 0); add images" in error for error in errors)
    assert all("lower final.seeds, as each repetition tests on a fold, or take" in error for error in errors)
