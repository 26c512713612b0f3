"""Tests which process gets which cores and GPUs of a machine."""

from __future__ import annotations

import pytest

from shared.config.load import load_study
from shared.pipeline.plan import plan
from shared.pipeline.slots import Slots, gpus_of_step
from shared.settings import Settings
from tests.support.small_study import SMALL_STUDY

GIB = 2**30


@pytest.mark.parametrize(
    ("count", "gpus", "free", "most_gpus", "slots", "seen"),
    [
        (4, 4, [0, 1, 2, 3], 4, [0, 1, 2, 3], [0, 1, 2, 3]),  # nothing else runs, so it gets all of them
        (4, 4, [0, 1, 2, 3], 2, [0, 1], [0, 1]),  # it gets no more than it can use
        (4, 4, [1, 2, 3], 4, [1], [1]),  # another stage runs
        (4, 4, [3, 0, 1, 2], 1, [3], [3]),
        (1, 4, [0], 4, [0], [0, 1, 2, 3]),  # resources.processes: 1
        (4, 2, [0, 1, 2, 3], 2, [0, 1], [0, 1]),
        (4, 2, [3], 2, [3], [1]),
        (2, 0, [0, 1], 1, [0], []),
    ],
)
def test_who_gets_which_gpus(
    count: int, gpus: int, free: list[int], most_gpus: int, slots: list[int], seen: list[int]
) -> None:
    machine = Slots(count, gpus)
    assert machine.take(free, most_gpus) == slots
    assert machine.gpus_of(slots) == seen
    assert machine.environment(slots).get("CUDA_VISIBLE_DEVICES") == (",".join(map(str, seen)) if gpus else None)


def test_processes_share_the_memory_that_the_services_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    for machine, share in ((9 * GIB, 2 * GIB), (GIB, GIB // 8)):
        monkeypatch.setattr("shared.memory.machine_memory", lambda machine=machine: machine)
        assert Settings.from_environment(Slots(4, 2).environment([0])).memory == share


@pytest.mark.parametrize(("batch_size", "gpus", "most"), [(4, 4, 4), (6, 4, 3), (1, 4, 1), (4, 0, 1)])
def test_a_stable_diffusion_takes_as_many_gpus_as_share_its_batch(batch_size: int, gpus: int, most: int) -> None:
    sets = ["finetune={generator: stable-diffusion, resolution: 32}", f"finetune.batch_size={batch_size}"]
    steps = {step.stage: step for step in plan(load_study(SMALL_STUDY, sets))}
    assert gpus_of_step(steps["finetune"], gpus) == most
    assert gpus_of_step(steps["final"], gpus) == 1
    pixel = {step.stage: step for step in plan(load_study(SMALL_STUDY))}
    assert gpus_of_step(pixel["finetune"], gpus) == 1
