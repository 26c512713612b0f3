from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from jobs.cli.export import GeneratedExport, export_dataset, export_generated, read_images, write_dataset
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import File, Manifest, Run
from shared.config.dataset import ImagefolderSource
from shared.data.dataset import describe
from shared.data.imageset import ImageSet, write_shards
from shared.data.problems import Problems
from shared.data.review import image_ids
from shared.data.schema import LabelGroup, LabelSchema
from shared.data.sources.imagefolder import read_imagefolder
from shared.errors import ConfigError, DataError
from tests.support.generated_study import generated, stage_files
from tests.support.local_commands import commit_all, run

SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="sleeve", classes=("long", "short")),
        LabelGroup(name="tags", kind="any", classes=("new", "sale")),
    )
)
LABELS = np.array([[1, 0, 1, -1], [0, 1, 0, 0], [-1, -1, 1, 1]], np.int8)


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, kind)
    return buffer.getvalue()


def images(split: list[str]) -> ImageSet:
    data = [encoded("png"), encoded("jpeg"), encoded("png")]
    return ImageSet(SCHEMA, data, ["a/../0.png", "/1.jpg", "2.png"], np.array(split), LABELS)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]


def test_a_data_set(tmp_path: Path, folder_store: FolderStore) -> None:
    artifacts = Artifacts(folder_store, "s", tmp_path / "cache")
    prepared = images(["train", "val", "train"])
    info = describe("garments", SCHEMA, 4, LABELS, prepared.split)
    (tmp_path / "dataset.json").write_text(info.model_dump_json(by_alias=True))
    paths = [tmp_path / "dataset.json", *write_shards(prepared, tmp_path, "images")]
    files: tuple[File, ...] = tuple(artifacts.upload(path.name, path) for path in paths)
    ran = Run(created="", seconds=0, device="cpu", device_seconds=0, code="", libraries={})
    manifest = artifacts.commit(
        Manifest(study="s", stage="prepare", key="k", version=1, config={}, inputs={}, files=files, summary={}, run=ran)
    )
    assert write_dataset(read_images(artifacts, manifest), tmp_path / "out") == f"3 images in {tmp_path / 'out'}"
    found = rows(tmp_path / "out")
    assert found[0] == {
        "file_name": "train/000000.png", "path": "a/../0.png", "split": "train", "sleeve": "long",
        "tags": {"new": 1, "sale": None},
    }  # fmt: skip
    assert [row["file_name"] for row in found[1:]] == ["val/000001.jpg", "train/000002.png"]
    assert found[2]["sleeve"] is None
    assert (tmp_path / "out" / "val" / "000001.jpg").read_bytes() == encoded("jpeg")


def test_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(ConfigError, match="is not an empty folder"):
        write_dataset(images(["train"] * 3), tmp_path)
    with pytest.raises(ConfigError, match="is not an empty folder"):
        write_dataset(images(["train"] * 3), tmp_path / "precious")


def test_what_fails_leaves_an_empty_folder(tmp_path: Path) -> None:
    broken = ImageSet(SCHEMA, [encoded("png"), b"GIF89a"], ["a.png", "b.gif"], np.array(["train"] * 2), LABELS[:2])
    with pytest.raises(DataError, match=r"image b\.gif: is neither PNG nor JPEG"):
        write_dataset(broken, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


TWO_SETS = (
    "experiments=[{name: real}, {name: a, images: real+synthetic, generate: {guidance: 1.0}, accept: {copies: allow}},"
    " {name: b, images: real+synthetic, generate: {guidance: 3.0}, accept: {copies: refuse, plausibility: [0.5, 1.0]}}]"
)


def exported(name: str | None = None, **options: Any) -> list[dict[str, Any]]:
    out = Path(f"out-{name}")
    export_generated(out, GeneratedExport(name, **options), None)
    return rows(out)


@pytest.mark.usefixtures("empty_folder")
def test_each_experiment_s_images_with_their_own_scores_and_filter() -> None:
    commit_all(TWO_SETS, files=stage_files)
    run(TWO_SETS)
    first, second = exported("a"), exported("b")
    assert [row["guidance"] for row in (*first, *second)] == [1.0] * 5 + [3.0] * 5
    assert [row["accepted"] for row in (*first, *second)] == [
        False,
        True,
        True,
        False,
        False,
        False,
        True,
        False,
        False,
        True,
    ]
    assert [row["refused"] for row in first] == [
        "less plausible than accepted", None, None, "copy of a validation or test image", "more plausible than accepted",
    ]  # fmt: skip
    assert second[2]["refused"] == "as near to a training image as hardly a real one"
    with pytest.raises(ConfigError, match=r"has 2 sets of generated images .*--experiment NAME: a, b"):
        exported()
    with pytest.raises(ConfigError, match=r"--experiment real: has no generated images; experiments that have: a, b"):
        exported("real")
    assert export_dataset(Path("out"), None) == "5 images in out"
    with pytest.raises(ConfigError, match="--pool 1: must be below 1, the number of pools"):
        export_generated(Path("out-pool"), GeneratedExport("a", 1), None)


@pytest.mark.usefixtures("empty_folder")
def test_a_row_says_all_that_is_known_of_an_image() -> None:
    commit_all(files=stage_files)
    run()
    row = exported()[0]
    made = generated()
    assert row["id"] == image_ids(made)[0]
    assert (Path("out-None") / row["file_name"]).read_bytes() == made.encoded[0]
    known = {
        "file_name": "pool-0/000000.png", "shade": "light", "edge": "thin", "filled": "shade/light", "seed": 0, "prompt": "a photo 0",
        "guidance": 2.0, "strength": None, "source": 0, "source_image": "0.png", "pool": 0, "index": 0, "plausibility": 0.1,
        "neighbour": "0.png", "leak_of": None, "accepted": False, "generator": "pixel", "base": None, "base_digest": None,
    }  # fmt: skip
    assert {name: row[name] for name in known} == known
    assert len(row["generate_key"]) == len(row["finetune_key"]) == 64


@pytest.mark.usefixtures("empty_folder")
def test_the_export_is_read_as_a_data_set_again() -> None:
    commit_all(files=stage_files)
    run()
    exported(only_accepted=False, review=True)
    dataset = ImagefolderSource.model_validate(
        {
            "source": "imagefolder",
            "root": "out-None",
            "groups": {"shade": {"column": "shade"}, "edge": {"column": "edge"}},
        }
    )
    problems = Problems("fail")
    listing = read_imagefolder(dataset, Path("out-None"), problems)
    problems.raise_if_failing()
    made, schema = generated(), listing.schema
    assert [image.path for image in listing.images] == [f"pool-0/{i:06d}.png" for i in range(5)]
    names = [[schema.class_names[c] for c in np.flatnonzero(np.array(image.labels) == 1)] for image in listing.images]
    expected = [[made.schema.class_names[c] for c in np.flatnonzero(labels == 1)] for labels in made.labels]
    assert [sorted(each) for each in names] == [sorted(each) for each in expected]
    # beside the images of the metadata, a folder that `imagefolder` skips, as its name begins with two underscores
    others = {path.parts[1] for path in Path("out-None").rglob("*.png")} - {"pool-0"}
    assert others == {"__review__"}


@pytest.mark.usefixtures("empty_folder")
def test_the_accepted_images_alone_keep_their_names() -> None:
    commit_all(files=stage_files)
    run()
    found = exported(only_accepted=True)
    assert [row["file_name"] for row in found] == ["pool-0/000001.png"]
    assert sorted(path.name for path in Path("out-None/pool-0").iterdir()) == ["000001.png"]


@pytest.mark.usefixtures("empty_folder")
def test_the_card() -> None:
    commit_all(files=stage_files)
    run()
    exported(licence="cc-by-4.0")
    text = Path("out-None/README.md").read_text()
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert metadata["license"] == "cc-by-4.0"
    assert metadata["tags"] == ["synthetic", "tailfill"]
    assert metadata["size_categories"] == ["n<1K"]
    assert "1 of 5 (20 %) are accepted for training" in text
    assert "| shade/light | 3 | 1 | 33 % |" in text
    assert "1 copy of a validation or test image" in text
    assert "Their terms apply to what is made of them" in text
    assert "__review__" not in text
    columns = {
        name for line in text.splitlines() if line.startswith("| `") for name in line.split("|")[1].split("`")[1::2]
    }
    labels = {"shade", "edge", "path", "split"}
    assert set(rows(Path("out-None"))[0]) - labels <= columns, "the card explains every column"


@pytest.mark.usefixtures("empty_folder")
def test_images_of_an_arm_that_takes_all_have_no_scores_and_are_accepted() -> None:
    takes_all = "accept={plausibility: [0, 1], copies: allow}"
    commit_all(takes_all, files=stage_files)
    run(takes_all)
    found = exported()
    assert [row["accepted"] for row in found] == [True] * 5
    assert not any(row.keys() & {"plausibility"} for row in found)


@pytest.mark.usefixtures("empty_folder")
def test_images_that_are_not_scored_yet() -> None:
    commit_all(files=stage_files)
    run()
    for manifest in Path("store").rglob("score/*/manifest.json"):
        manifest.unlink()
    assert [row["accepted"] for row in exported(review=True)] == [None] * 5
    assert "Not scored yet" in Path("out-None/README.md").read_text()
    with pytest.raises(ConfigError, match="--accepted: score is not committed yet"):
        export_generated(Path("other"), GeneratedExport(only_accepted=True), None)


@pytest.mark.usefixtures("empty_folder")
def test_all_pools_of_a_study_with_a_verdict() -> None:
    pools = "verdict={baseline: real, provisional: true}", "search.trials=0"
    commit_all(*pools, files=stage_files)
    run(*pools)
    found = exported("synthetic")
    assert {row["file_name"].split("/")[0] for row in found} == {"pool-0", "pool-1"}
    assert [row["pool"] for row in found] == [0] * 5 + [1] * 5
    export_generated(Path("one"), GeneratedExport("synthetic", pool=1), None)
    assert [row["id"] for row in rows(Path("one"))] == [row["id"] for row in found[5:]]


def review(**words: str) -> str:
    """Writes a review of the five images, `keep` or `reject` by position, and returns the `--set` that names it."""
    ids = image_ids(generated())
    lines = [f"{ids[int(position[1:])]},{word}\n" for position, word in words.items()]
    Path("reviewed.csv").write_text("image,decision\n" + "".join(lines))
    return "accept.reviewed=reviewed.csv"


@pytest.mark.usefixtures("empty_folder")
def test_a_review_decides_and_generates_nothing_again() -> None:
    commit_all(files=stage_files)
    reviewed = review(_0="keep", _1="reject", _2="keep", _3="keep")
    commit_all(reviewed, files=stage_files)
    kinds = {
        stage: len(list(Path("store").rglob(f"{stage}/*/manifest.json")))
        for stage in ("finetune", "generate", "judge", "score", "tune", "final")
    }
    assert kinds == {"finetune": 1, "generate": 1, "judge": 1, "score": 1, "tune": 5, "final": 10}, (
        "the real arm's stay"
    )
    run(reviewed)
    found = exported(review=True)
    assert [row["accepted"] for row in found] == [True, False, True, False, False]
    assert [row["reviewed"] for row in found] == ["keep", "reject", "keep", "keep", None]
    assert found[1]["refused"] == "rejected by a person"
    assert found[0]["refused_by_scores"] == "less plausible than accepted"
    assert found[3]["refused"] == "copy of a validation or test image", "a person let a copy of a test image in"
    assert "A person kept 3 and rejected 1." in Path("out-None/README.md").read_text()
    assert Path("out-None/review.html").read_text().count('"decision":"keep"') == 3
    assert "`__review__` holds real images: remove it" in Path("out-None/README.md").read_text()


@pytest.mark.usefixtures("empty_folder")
def test_a_review_that_was_changed_is_said() -> None:
    reviewed = review(_1="reject")
    commit_all(reviewed, files=stage_files)
    run(reviewed)
    review(_1="keep")
    with pytest.raises(DataError, match=r"accept\.reviewed: reviewed\.csv was changed since"):
        exported()
    assert not Path("out-None").exists()


@pytest.mark.usefixtures("empty_folder")
def test_a_study_without_generated_images() -> None:
    commit_all("experiments=[{name: real}]")
    run("experiments=[{name: real}]")
    with pytest.raises(ConfigError, match="no experiment has generated images"):
        exported()
