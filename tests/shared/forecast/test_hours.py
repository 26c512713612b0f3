"""Tests how the times of steps add up, with timings that are given."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from shared.benchmark import exactly
from shared.config.load import load_study
from shared.data.schema import LabelGroup, LabelSchema
from shared.forecast.hours import BESIDE, EPOCH_SECONDS, ImageCounts, StepTimes, Times, trials_of, wall_seconds
from shared.forecast.timings import KeptTimings, Machine
from shared.forecast.work import Workbench
from shared.pipeline.plan import plan
from shared.pipeline.slots import Slots
from shared.settings import Settings
from tests.support.small_study import SMALL_STUDY

SCHEMA = LabelSchema(groups=(LabelGroup(name="label", kind="one", classes=("a", "b")),))
COUNTS = ImageCounts(train=100, val=10, test=10, generated=20, rare=3)
CLASSIFIER = dict.fromkeys(("epoch", "step", "decode", "view", "build"), exactly(0.0)) | {
    "image": exactly(0.01),
    "start": exactly(5.0),
}
COMPARISONS = {"look": exactly(0.001), "parts": exactly(0.01), "pair": exactly(0.0001)}
NUMBERS = {"views": 0, "view_bytes": 0, "weight_bytes": 0, "memory": 0}


def times(
    folder: Path, sets: list[str], slots: int = 2, workers: int | None = None, **seconds: float
) -> tuple[StepTimes, dict[str, float], Times]:
    """Returns the times of the small study's steps, and their sum by stage, for given seconds of parts of its classifier's training."""
    study = load_study(SMALL_STUDY, sets)
    steps = plan(study)
    bench = Workbench(
        KeptTimings(folder, Machine("a processor", 2, ()), "cpu", 1),
        study.resources,
        Settings.from_environment({}),
        SCHEMA,
        32,
        measures=False,
    )
    classifier = CLASSIFIER | {name: exactly(value) for name, value in seconds.items()}
    numbers = NUMBERS | {"views": 2 if seconds.get("view") else 0}
    kept = {
        "classifier": (classifier, numbers),
        "generator": ({"start": exactly(7.0), "step": exactly(0.5), "image": exactly(0.2)}, numbers),
        "comparisons": (COMPARISONS, {"held_out": 4}),
    }

    def given(work: list[object], *_: object) -> object:
        return bench.kept.keep(work, *kept[str(work[0])], 0.0)

    bench._timing = given  # type: ignore[method-assign,assignment]
    computed = Times(study, steps, COUNTS, exactly(0.01), bench, Slots(slots, 0), workers)
    found = computed.all()
    stages: dict[str, float] = {}
    for step in steps:
        stages[step.stage] = stages.get(step.stage, 0.0) + float(found.seconds[step.id][1])
    return found, stages, computed


def test_more_of_everything_takes_longer(tmp_path: Path) -> None:
    _, usual, computed = times(tmp_path, ["finetune.steps=100"])
    _, steps, _ = times(tmp_path, ["finetune.steps=300"])
    assert steps["finetune"] - usual["finetune"] == pytest.approx(100)
    _, longer, _ = times(tmp_path, ["search.epochs=7"])
    _, shorter, _ = times(tmp_path, ["search.epochs=5"])
    trials = sum(map(trials_of, computed.study.experiments))
    assert longer["tune"] - shorter["tune"] == pytest.approx(trials * 2 * (EPOCH_SECONDS + 100 * 0.01))
    _, final, _ = times(tmp_path, ["final.epochs=20"])
    _, few, _ = times(tmp_path, ["final.epochs=10"])
    assert final["final"] - few["final"] == pytest.approx(
        10 * 100 * 0.01 * sum(e.final.seeds for e in computed.study.experiments)
    )


def test_adapters_of_each_rare_class_are_trained_one_after_the_other(tmp_path: Path) -> None:
    base = f"finetune={{generator: stable-diffusion, base: {tmp_path}, method: lora, steps: 100, resolution: 32"
    _, together, _ = times(tmp_path, [base + "}"])
    _, each, _ = times(tmp_path, [base + ", per_class: true}"])
    assert each["finetune"] - together["finetune"] == pytest.approx(2 * (7.0 + 100 * 0.5))


def test_the_frozen_backbone_runs_once_over_each_image(tmp_path: Path) -> None:
    _, without, _ = times(tmp_path, [])
    _, frozen, computed = times(tmp_path, [], view=1.0)
    more = sum(frozen.values()) - sum(without.values())
    pools = sum(step.stage == "score" for step in computed.steps)
    # the judges see each pool as it is; classifiers see two views of its images, those of the first pool in `score`
    assert more == pytest.approx(100 * 2 + 10 + 10 + pools * 20 + pools * 20 * 2)


def test_each_pool_is_compared_with_all_training_and_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, stages, computed = times(tmp_path, [])
    monkeypatch.setitem(COMPARISONS, "pair", exactly(0.0003))
    _, slower, _ = times(tmp_path, [])
    pools = sum(step.stage == "score" for step in computed.steps)
    # 20 generated images and 4 of the 10 for validation, with 100 for training and 10 for the test
    assert slower["score"] - stages["score"] == pytest.approx(pools * 24 * 110 * 0.0002)


def test_a_slot_may_be_idle_while_all_steps_wait_for_one(tmp_path: Path) -> None:
    _, _, computed = times(tmp_path, [])
    pools = [step.id for step in computed.steps if step.stage == "generate"]
    (finetune,) = (step.id for step in computed.steps if step.stage == "finetune")
    known = StepTimes({finetune: exactly(100.0)} | dict.fromkeys(pools, exactly(30.0)))
    assert wall_seconds(computed.steps, known, 2).tolist() == pytest.approx(
        [BESIDE * (100 + 30 * math.ceil(len(pools) / 2))] * 3
    )
    known.processes = dict.fromkeys(pools, 2)
    assert wall_seconds(computed.steps, known, 2).tolist() == pytest.approx([BESIDE * (100 + 15 * len(pools))] * 3)


def test_a_run_ends_with_its_longest_chain_or_when_all_slots_have_worked(tmp_path: Path) -> None:
    found, stages, computed = times(tmp_path, [])
    total = sum(stages.values())
    assert wall_seconds(computed.steps, found, 1)[1] == pytest.approx(total)
    assert BESIDE * total / 2 <= wall_seconds(computed.steps, found, 2)[1] < BESIDE * total
    assert wall_seconds(computed.steps, found, 1000)[1] >= np.max([v[1] for v in found.seconds.values()]) / 1000


@pytest.mark.parametrize(("workers", "processes"), [(None, 2), (1, 1), (3, 3), (9, 4)])
def test_no_more_processes_share_a_search_than_it_has_workers(
    tmp_path: Path, workers: int | None, processes: int
) -> None:
    found, _, computed = times(tmp_path, ["search.workers=2"], slots=4, workers=workers)
    searches = {found.processes[step.id] for step in computed.steps if step.stage == "tune"}
    assert searches == {processes}
    assert {found.processes[step.id] for step in computed.steps if step.stage == "finetune"} == {1}
