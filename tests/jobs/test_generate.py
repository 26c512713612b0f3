from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from jobs import generate
from shared.artifacts.manifest import Manifest
from shared.classifier.training_set import effective_training_set
from shared.config.dataset import Rare
from shared.config.generation import Generate, ImageToImage
from shared.config.stages import GenerateConfig
from shared.config.training import LABEL_POWER
from shared.data.imageset import ImageSet, read_shards
from shared.data.schema import LabelGroup, LabelSchema
from shared.diffusion.pixel.model import build_network, describe
from shared.errors import ConfigError, DataError, Stopped, UnavailableError
from shared.stop import StopSignal
from tests.support.configs import any_config
from tests.support.pixel_study import RARE, SCHEMA, PixelStudy, pictures
from tests.support.tiny_arms import make_arm

CONFIG = GenerateConfig(
    generate=Generate(
        fill_to=16,
        batch_size=4,
        steps=2,
        guidance=1.5,
        image_to_image=ImageToImage(share=0.4, strength=0.5),
    ),
    rare=Rare(below=10),
    pool=0,
    seed=7,
)
"""Ten images: shards of four, four and two."""


def study_in(root: Path, images: ImageSet | None = None) -> PixelStudy:
    """Returns a study with a prepared data set and a committed generator of random weights."""
    study, images = PixelStudy(root), images or pictures()
    study.prepare(images)
    context = study.context("finetune", any_config("finetune"))
    files = {name: context.scratch / name for name in ("generator.json", "model.safetensors")}
    files["generator.json"].write_text(json.dumps(describe(images.schema, 16, 8)))
    network = build_network(images.schema, 16, 8, seed=0)
    save_file({name: p.detach() for name, p in network.named_parameters()}, files["model.safetensors"])
    study.keep(context.commit(files, {}))
    return study


def run(study: PixelStudy, config: GenerateConfig = CONFIG, index: int = 0, count: int = 1) -> Manifest | None:
    return generate.run(config, study.context("generate", config, index, count))


def images_of(study: PixelStudy, manifest: Manifest | None) -> ImageSet:
    assert manifest is not None
    context = study.context("generate", CONFIG)
    return read_shards(context.fetch_all(manifest, "images"), SCHEMA)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[PixelStudy, Manifest]:
    """Returns a study whose images one process has made, and their manifest."""
    study = study_in(tmp_path_factory.mktemp("one"))
    manifest = run(study)
    assert manifest is not None
    return study, manifest


def test_every_image_stands_there_with_its_labels_and_provenance(one: tuple[PixelStudy, Manifest]) -> None:
    study, manifest = one
    assert manifest.summary == {"images": 10, "classes": {RARE: 10}}
    images = images_of(study, manifest)
    train = pictures()
    assert set(images.split) == {"generated"}
    assert images.pixels(16).shape == (10, 16, 16, 3)
    assert images.extra is not None
    assert images.extra.schema.equals(generate.COLUMNS)
    rows = images.extra.to_pylist()
    assert [row["index"] for row in rows] == list(range(10))
    assert {row["pool"] for row in rows} == {0}
    np.testing.assert_array_equal(images.labels, train.labels[[row["source"] for row in rows]])
    assert rows[0]["prompt"] in {"shade/light, edge/thin", "shade/light, edge/thick"}
    assert {(row["filled"], row["guidance"], row["model"]) for row in rows} == {
        (RARE, 1.5, study.inputs["finetune"].digest)
    }
    started = [row for row in rows if row["start"] is not None]
    assert len(started) == 4
    assert all((row["start"], row["strength"]) == (row["source"], 0.5) for row in started)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 2, 0)])
def test_four_processes_give_the_bytes_of_one(
    one: tuple[PixelStudy, Manifest], order: tuple[int, ...], tmp_path: Path
) -> None:
    study = study_in(tmp_path)
    results = [run(study, index=index, count=4) for index in order]  # there is no shard for the fourth process
    committed = [result for result in results if result is not None]
    assert results[0] is None
    assert committed
    assert {manifest.digest for manifest in committed} == {one[1].digest}


def stop_after_a_block(stop: StopSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a process that draws get the signal when it has drawn a block, before the block is saved."""
    draw = generate.draw

    def draw_and_stop(*arguments: Any) -> generate.DrawnBlock:
        drawn = draw(*arguments)
        stop.set()
        return drawn

    monkeypatch.setattr(generate, "draw", draw_and_stop)


def test_the_next_block_is_drawn_while_one_is_saved(
    one: tuple[PixelStudy, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(tmp_path)
    context = study.context("generate", CONFIG)
    save, draw, drawn = context.artifacts.save_part, generate.draw, [threading.Event() for _ in range(3)]
    calls = iter(drawn)

    def draw_and_tell(*arguments: Any) -> generate.DrawnBlock:
        block = draw(*arguments)
        next(calls).set()
        return block

    def save_after_the_next_is_drawn(*arguments: Any) -> None:
        saved = len(context.artifacts.parts("generate", context.task.key))
        assert drawn[min(saved + 1, 2)].wait(60)
        save(*arguments)

    monkeypatch.setattr(generate, "draw", draw_and_tell)
    monkeypatch.setattr(context.artifacts, "save_part", save_after_the_next_is_drawn)
    manifest = generate.run(CONFIG, context)
    assert manifest is not None
    assert manifest.digest == one[1].digest


def test_a_block_that_cannot_be_saved_ends_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = study_in(tmp_path).context("generate", CONFIG)

    def fail(*_: Any) -> None:
        raise UnavailableError("the store does not answer")

    monkeypatch.setattr(context.artifacts, "save_part", fail)
    with pytest.raises(UnavailableError, match="the store does not answer"):
        generate.run(CONFIG, context)


def test_a_process_that_was_stopped_goes_on_with_the_shards_that_are_missing(
    one: tuple[PixelStudy, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(tmp_path)
    context = study.context("generate", CONFIG)
    stop_after_a_block(context.stop, monkeypatch)
    with pytest.raises(Stopped):
        generate.run(CONFIG, context)
    monkeypatch.undo()
    assert len(context.artifacts.parts("generate", context.task.key)) == 1
    manifest = run(study)
    assert manifest is not None
    assert manifest.digest == one[1].digest


def test_the_time_of_every_process_is_counted_and_what_one_did_after_its_last_part_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(tmp_path)
    now = [0.0]
    stopped = study.context("generate", CONFIG, index=0, count=2, clock=lambda: now[0])
    save = stopped.artifacts.save_part

    def save_and_go_on(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        now[0] += 50  # the time of work on the next part, which is lost

    monkeypatch.setattr(stopped.artifacts, "save_part", save_and_go_on)
    stop_after_a_block(stopped.stop, monkeypatch)
    with pytest.raises(Stopped), stopped.meter:
        generate.run(CONFIG, stopped)
    monkeypatch.undo()
    other = study.context("generate", CONFIG, index=1, count=2, clock=lambda: now[0])
    now[0] += 500
    with other.meter:
        assert generate.run(CONFIG, other) is None
    last = study.context("generate", CONFIG, clock=lambda: now[0])
    now[0] += 5000
    with last.meter:
        manifest = generate.run(CONFIG, last)
    assert manifest is not None
    assert manifest.run.seconds == 5000
    assert manifest.run.cpu_seconds == 5550
    assert manifest.run.cpu_lost_seconds == 50


def test_two_processes_that_are_given_the_same_blocks_share_them(
    one: tuple[PixelStudy, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(tmp_path)
    context = study.context("generate", CONFIG)
    save, saved = context.artifacts.save_part, []

    def save_and_let_the_other_finish(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        saved.append(arguments)
        run(study)

    monkeypatch.setattr(context.artifacts, "save_part", save_and_let_the_other_finish)
    manifest = generate.run(CONFIG, context)
    assert manifest is not None
    assert manifest.digest == one[1].digest
    assert len(saved) <= 2  # the other one made the others, of which this one drew one meanwhile
    assert not context.artifacts.parts("generate", context.task.key)


def test_who_comes_after_the_commit_gets_it(one: tuple[PixelStudy, Manifest]) -> None:
    study, manifest = one
    late = run(study, index=3, count=4)
    assert late is not None
    assert late.digest == manifest.digest


def test_large_images_are_kept_as_jpeg() -> None:
    pixels = np.full((16, 16, 3), 90, np.uint8)
    assert generate.encode(pixels, 128).startswith(b"\x89PNG")
    assert generate.encode(pixels, 192).startswith(b"\xff\xd8")


def test_without_a_rare_class_nothing_is_committed_and_the_counts_are_named(one: tuple[PixelStudy, Manifest]) -> None:
    config = CONFIG.model_copy(update={"rare": Rare(below=2)})
    with pytest.raises(ConfigError, match=r"rare: no class is rare.*shade/light 6"):
        run(one[0], config)


def test_weights_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    context = study.context("finetune", any_config("finetune").model_copy(update={"seed": 1}))
    source = context.artifacts.find("finetune", study.inputs["finetune"].key)
    assert source is not None
    weights = context.scratch / "model.safetensors"
    save_file({"labels.nulls": torch.zeros(1)}, weights)
    study.keep(context.commit({"generator.json": context.fetch(source, "generator.json"), weights.name: weights}, {}))
    with pytest.raises(DataError, match="they belong to another model"):
        run(study)


SHADES = LabelSchema(groups=(LabelGroup(name="shade", classes=("dark", "light", "pale", "checked")),))
SIMILAR = CONFIG.model_copy(
    update={
        "generate": CONFIG.generate.model_copy(
            update={
                "image_to_image": ImageToImage(share=0.4, strength=0.5, start_from="similar", similar_classes=1),
            }
        )
    }
)


def shades() -> ImageSet:
    """Returns six `light` images, which `pale` ones are like, and `dark` and `checked` ones are not, and some for validation and tests."""
    rng = np.random.default_rng(0)
    kinds = np.repeat([0, 1, 2, 3], [18, 6, 18, 18])
    encoded = []
    for kind in kinds:
        pixels = rng.integers(0, 10, (16, 16, 3), np.uint8) + np.uint8((20, 200, 190, 0)[kind])
        if kind == 3:
            pixels[np.indices((16, 16)).sum(axis=0) // 4 % 2 == 0] = 255
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    split = np.array([("train", "train", "train", "train", "val", "test")[i % 6] for i in range(len(kinds))])
    split[kinds == 1] = "train"
    return ImageSet(SHADES, encoded, [f"{i}.png" for i in range(len(kinds))], split, np.eye(4, dtype=np.int8)[kinds])


def test_images_start_from_a_frequent_class_that_looks_alike_and_are_trained_on_with_soft_labels(
    tmp_path: Path,
) -> None:
    study = study_in(tmp_path / "one", shades())
    manifest = run(study, SIMILAR)
    assert manifest is not None
    images = read_shards(study.context("generate", SIMILAR).fetch_all(manifest, "images"), SHADES)
    train = shades().of("train")
    assert images.extra is not None
    assert images.extra.column_names == [*generate.COLUMNS.names, "noise_share"]
    rows = images.extra.to_pylist()
    started = [row for row in rows if row["start"] is not None]
    assert len(started) == 4
    assert {tuple(train.labels[row["start"]]) for row in started} == {(0, 0, 1, 0)}, "pale images of the training split"
    assert {tuple(train.labels[row["source"]]) for row in rows} == {(0, 1, 0, 0)}
    assert [row["noise_share"] for row in rows] == [None if row["start"] is None else 0.5 for row in rows]
    assert (images.labels == [0, 1, 0, 0]).all(), "the label that was asked for, by which it is judged"

    accept = {"plausibility": [0, 1], "copies": "allow"}
    arm = make_arm(rare={"below": 10, "classes": []}, images="real+synthetic", accept=accept, synthetic={})
    found = effective_training_set(arm, train, images, None, np.array([1]))
    assert found.soft is not None
    shares = found.soft.own_share(LABEL_POWER)[found.generated]
    assert shares == pytest.approx([1.0 if row["start"] is None else 0.5**0.8 for row in rows])
    assert (found.soft.labels[found.generated][shares < 1] == [0, 0, 1, 0]).all()
    copies = make_arm(rare={"below": 10, "classes": []}, images="real+copies", accept=accept, synthetic={})
    assert effective_training_set(copies, train, images, None, np.array([1])).soft is None

    again = study_in(tmp_path / "two", shades())
    results = [run(again, SIMILAR, index=index, count=3) for index in (2, 0, 1)]
    assert [result.digest for result in results if result is not None] == [manifest.digest]


def test_a_group_without_a_frequent_class_is_named_before_anything_is_drawn(
    one: tuple[PixelStudy, Manifest],
) -> None:
    config = SIMILAR.model_copy(update={"rare": Rare(below=100)})
    with pytest.raises(ConfigError, match="start_from: similar needs another class of the group"):
        run(one[0], config)
