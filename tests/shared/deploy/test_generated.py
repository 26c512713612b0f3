from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shared.artifacts.manifest import Manifest, Run
from shared.config.generation import SD_15, Accept
from shared.config.task import Input
from shared.data.imageset import ImageSet
from shared.deploy.dataset_card import DatasetCard
from shared.deploy.generated import Counts, Pool, Selection, image_facts
from shared.errors import DataError
from tests.support.generated_study import SCORES, generated
from tests.support.pixel_study import pictures

RAN = Run(created="", seconds=0, device="cpu", device_seconds=0, code="", libraries={})


def manifest(stage: Any, config: dict[str, Any], inputs: dict[str, Input] | None = None) -> Manifest:
    return Manifest(
        study="s", stage=stage, key="k" * 64, version=1, config=config, inputs=inputs or {}, files=(), summary={}, run=RAN
    )  # fmt: skip


def facts(
    images: ImageSet, base: str | None = None, named: str | None = None, hub: Input | None = None
) -> list[dict[str, Any]]:
    inputs = {"weights/base": hub} if hub else None
    tuned = manifest("finetune", {"finetune": {"generator": "stable-diffusion", "base": base}}, inputs)
    pool = Pool(0, tuned, manifest("generate", {}), None, named)
    scores = pa.table({name: pa.array(values) for name, values in SCORES.items()})
    return image_facts(pool, images, scores, pictures(3, 2), Selection(Accept(), None, False))


def test_a_base_is_named_and_known_by_its_content() -> None:
    local = facts(generated(), base=f"sha256:{'a' * 64}", named="/models/sd15")[0]
    assert (local["base"], local["base_digest"]) == ("/models/sd15", "a" * 64)
    downloaded = Input(stage="weights", key="w" * 64, digest="d" * 64)
    from_hub = facts(generated(), base="a/b", named="a/b", hub=downloaded)[0]
    assert (from_hub["base"], from_hub["base_digest"]) == ("a/b", "d" * 64)


def test_a_lora_for_few_steps_is_named_with_its_own_terms() -> None:
    def card(few_step: str | None) -> str:
        tuned = manifest("finetune", {"finetune": {"generator": "stable-diffusion", "base": None}})
        pool = Pool(0, tuned, manifest("generate", {}), None, SD_15, few_step)
        counts = Counts()
        found = image_facts(pool, generated(), None, pictures(3, 2), Selection(Accept(), None, False))
        counts.add(["shade/light"] * 5, found)
        assert {fact.get("few_step") for fact in found} == {few_step}
        return DatasetCard("s", "e", "folder", [pool], counts, 5, 16, None, False).markdown()

    plain, few = card(None), card("some/lora")
    assert "LoRA" not in plain.replace("the LoRA by which", "")
    assert "drawn in few steps, by the LoRA some/lora" in few
    assert "The LoRA some/lora has the licence that its source states" in few
    assert "license_name: not-stated" not in plain
    assert "license_name: not-stated" in few


def test_provenance_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    images = generated()
    assert images.extra is not None
    for wrong in (5, -1):
        rows = pa.array([0, 1, wrong, 0, 0], pa.int64())
        extra = images.extra.set_column(images.extra.column_names.index("source"), "source", rows)
        with pytest.raises(DataError, match=rf"column 'source' names the training image '{wrong}', but there are 5"):
            facts(replace(images, extra=extra))
    with pytest.raises(DataError, match="have no column 'source'; run `generate` again"):
        facts(replace(images, extra=images.extra.drop_columns(["source"])))


def test_an_image_that_starts_from_another_class_names_the_image_at_its_start() -> None:
    images = generated()
    assert images.extra is not None
    place = images.extra.column_names.index("start")
    extra = images.extra.set_column(place, "start", pa.array([None, 4, None, None, None], pa.int64()))
    shared = extra.append_column("noise_share", pa.array([None, 0.5, None, None, None], pa.float64()))
    assert [fact["start_image"] for fact in facts(replace(images, extra=shared))] == [None, "4.png", None, None, None]
    assert "start_image" not in facts(replace(images, extra=extra))[0]
    wrong = shared.set_column(place, "start", pa.array([None, 9, None, None, None], pa.int64()))
    with pytest.raises(DataError, match="column 'start' names the training image '9'"):
        facts(replace(images, extra=wrong))
