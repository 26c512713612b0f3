"""Tests how text-to-image models are timed: by the small files of their base alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from shared.artifacts.s3 import S3Store
from shared.benchmark import NotTimed, Range, exactly
from shared.config.generation import FewStep, Generate, StableDiffusionFinetune, TextToImageFinetune
from shared.config.search import Resources
from shared.diffusion.generator import BaseSource
from shared.diffusion.text_to_image import timing
from shared.diffusion.text_to_image.timing import all_steps, time_text_to_image
from shared.errors import DataError
from shared.settings import Settings
from tests.support.hub_endpoint import point_at
from tests.support.hub_server import COMMIT, serve_hub
from tests.support.tiny_families import PIPELINES
from tests.support.tiny_families import tiny_base as tiny_family
from tests.support.tiny_pipeline import SCHEMA

CPU = Resources(device="cpu")
DRAWING = Generate(steps=3, guidance=2.0, batch_size=2)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.benchmark.SECONDS", 0.05)


def without_weights(base: Path, folder: Path) -> Path:
    """Copies a base, but for its weights."""
    return Path(shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors")))


def stable(base: str, **values: Any) -> StableDiffusionFinetune:
    return StableDiffusionFinetune(
        generator="stable-diffusion", base=base, resolution=32, batch_size=2, warmup_steps=1, **values
    )


def check(found: tuple[Range, Range]) -> None:
    for low, middle, high in found:
        assert 0 < low <= middle <= high < 60


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_base_of_every_family_is_timed_without_its_weights(pipeline: str, tmp_path: Path, source: BaseSource) -> None:
    base = without_weights(tiny_family(pipeline, tmp_path / "whole"), tmp_path / "base")
    config = TextToImageFinetune(
        generator="text-to-image", base=str(base), resolution=32, batch_size=2, method="lora", rank=2
    )
    check(time_text_to_image(config, DRAWING, SCHEMA, CPU, source.settings))


@pytest.mark.parametrize(
    "values",
    [
        {"method": "full", "text_encoder": True},
        {"method": "lora", "class_tokens": 2},
        {"method": "lora", "per_class": True},
    ],
    ids=["text-encoder", "tokens", "per-class"],
)
def test_each_way_of_fine_tuning_is_timed(
    values: dict[str, Any], tiny_base: Path, tmp_path: Path, source: BaseSource
) -> None:
    config = stable(str(without_weights(tiny_base, tmp_path / "base")), **values)
    few = Generate(guidance=None, steps=None, batch_size=2, few_step=FewStep(adapter="lcm.safetensors"))
    check(time_text_to_image(config, few, SCHEMA, CPU, source.settings))


def test_only_small_files_are_fetched_from_the_hub(
    tiny_base: Path, source: BaseSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = stable("some/model", revision=COMMIT)
    with serve_hub({"some/model": tiny_base}) as hub:
        point_at(hub.url, monkeypatch)
        check(time_text_to_image(config, DRAWING, SCHEMA, CPU, source.settings))
    assert "unet/config.json" in hub.asked
    assert not [name for name in hub.asked if name.endswith(".safetensors")]


def test_only_small_files_are_read_from_a_bucket(
    tiny_base: Path, tmp_path: Path, s3_store: S3Store, s3_server: Settings
) -> None:
    base = without_weights(tiny_base, tmp_path / "base")
    for path in (path for path in base.rglob("*") if path.is_file()):
        s3_store.put_file(path.relative_to(base).as_posix(), path)
    check(time_text_to_image(stable(s3_store.url), DRAWING, SCHEMA, CPU, s3_server))


def test_a_hub_that_does_not_answer_or_has_no_such_base(
    tiny_base: Path, tmp_path: Path, source: BaseSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(NotTimed, match=r"^the hub, which has the configuration of some/model, does not answer"):
        time_text_to_image(stable("some/model"), DRAWING, SCHEMA, CPU, source.settings)
    (tmp_path / "empty").mkdir()
    with serve_hub({"some/empty": tmp_path / "empty"}) as hub:
        point_at(hub.url, monkeypatch)
        with pytest.raises(NotTimed, match=r"some/model is neither a folder here nor a public repository"):
            time_text_to_image(stable("some/model"), DRAWING, SCHEMA, CPU, source.settings)
        with pytest.raises(NotTimed, match=r"^some/empty has no files of a Stable Diffusion"):
            time_text_to_image(stable("some/empty"), DRAWING, SCHEMA, CPU, source.settings)


def test_a_base_of_no_family_is_named_as_the_study_names_it(
    tiny_base: Path, tmp_path: Path, source: BaseSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = without_weights(tiny_base, tmp_path / "base")
    (base / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    config = TextToImageFinetune(generator="text-to-image", base="some/flux")
    with serve_hub({"some/flux": base}) as hub:
        point_at(hub.url, monkeypatch)
        with pytest.raises(DataError, match=r"some/flux"):
            time_text_to_image(config, DRAWING, SCHEMA, CPU, source.settings)


def test_a_network_that_is_too_large_for_a_cpu_is_not_timed(
    tiny_base: Path, source: BaseSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "MOST_ON_CPU", 1)
    with pytest.raises(NotTimed, match=r"^on a CPU a network of \d+ million weights would take minutes per step$"):
        time_text_to_image(stable(str(tiny_base)), DRAWING, SCHEMA, CPU, source.settings)


def test_a_drawing_has_many_steps_and_one_decoding() -> None:
    # a step takes 2 seconds, and the decoding 1
    assert all_steps(exactly(3.0), exactly(5.0), 10).tolist() == pytest.approx([21.0] * 3)
    assert all_steps(exactly(3.0), exactly(2.9), 10).tolist() == pytest.approx([3.0] * 3)  # by chance, two were faster
