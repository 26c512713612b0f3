"""The A/A test behind docs/statistics.md, in small: real trainings on drawn garments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import outcome_table
from benchmarks.drawn_studies import ALPHA, DESIGNS, WORLDS, Design, StudySampler, World
from benchmarks.held_out import HeldOut, Setup
from benchmarks.null import limit, main
from benchmarks.null_study import NullStudy
from benchmarks.outcome_table import Outcomes, Sizes, measure
from shared.metrics.verdict import compare

SMALL = Setup(
    "demo.yaml",
    sets=(
        "dataset={source: garments, resolution: 32, train: 300, val: 100, test: 200, rare_eval: 12}",
        "classifier.head=[16]",
        "classifier.resolution=64",
        "rare={below: null, classes: [pattern/pleated, pattern/lattice, fabric/leather]}",
        "generate={fill_to: 14, cap: 4}",
        "training={batch_size: 64, warmup_epochs: 1, dropout: 0.1, loss: balanced_softmax, class_power: 0.5}",
        "search.epochs=4",
    ),
    held_out=("seed=1000", "dataset.train=700"),
)
STUDIES = 300


@pytest.fixture(scope="module")
def held_out() -> HeldOut:
    return HeldOut.of(SMALL)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, held_out: HeldOut) -> Outcomes:
    folder = tmp_path_factory.mktemp("null")
    sizes = {"real": Sizes(5, 2, 1), "draws": Sizes(5, 2, 3), "copies": Sizes(5, 2, 3)}
    measure(held_out, sizes, folder / "cache", 1).save(folder / "small.npz")
    return Outcomes.load(folder / "small.npz")


def test_what_was_measured_is_not_trained_again(
    held_out: HeldOut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"real": Sizes(2, 1, 1)}
    first = measure(held_out, sizes, tmp_path, 1)
    monkeypatch.setattr(outcome_table, "fit", None)
    again = measure(held_out, sizes, tmp_path, 1)
    np.testing.assert_array_equal(again.tables["real"].values, first.tables["real"].values)
    np.testing.assert_array_equal(again.tables["real"].decided, first.tables["real"].decided)
    with pytest.raises(TypeError):
        measure(held_out, {"real": Sizes(2, 2, 1)}, tmp_path, 1)


def false_calls(sampler: StudySampler) -> float:
    random = np.random.default_rng(0)
    return float(np.mean([sampler.verdict(random).outcome in sampler.world.false for _ in range(STUDIES)]))


@pytest.mark.parametrize("world", [world for world in WORLDS if world.false], ids=lambda world: world.name)
def test_equal_arms_are_seldom_called_different(outcomes: Outcomes, world: World) -> None:
    for design in DESIGNS:
        assert false_calls(StudySampler(outcomes, design, world)) <= limit(STUDIES)


def test_one_search_for_all_repetitions_would_be_called_different_often(outcomes: Outcomes) -> None:
    """Shows that the measurement can fail: on the same trainings, by the earlier design with its test over repetitions alone."""

    def calls(design: Design) -> float:
        random, sampler = np.random.default_rng(0), StudySampler(outcomes, design, WORLDS[0])
        studies = [sampler.study(random, images=False) for _ in range(STUDIES)]
        return float(np.mean([compare(s, "synthetic", "real", ALPHA).p_repetitions <= ALPHA for s in studies]))

    assert calls(Design("one search per arm", 10, 2, one_search=True)) > 0.1
    assert calls(DESIGNS[1]) <= limit(STUDIES)


def test_a_large_effect_is_found(outcomes: Outcomes) -> None:
    """The labels of a second table are those that every arm with held-out images gets right."""
    planted = WORLDS[-1]
    right = np.packbits(outcomes.labels == 1)
    table = outcomes.tables["draws"]
    perfect = replace(table, decided=np.broadcast_to(right, table.decided.shape))
    sampler = StudySampler(replace(outcomes, tables={**outcomes.tables, "draws": perfect}), DESIGNS[1], planted)
    assert sampler.verdict(np.random.default_rng(0)).outcome == "images help"
    assert sampler.effect(np.random.default_rng(0), 5) > 0.3


def test_draws_are_other_images_of_the_same_classes(held_out: HeldOut) -> None:
    first, again, second = held_out.pool("a", 0), held_out.pool("a", 0), held_out.pool("b", 0)
    assert list(first.encoded) == list(again.encoded)
    assert len(set(first.encoded)) == len(first)  # none is drawn twice
    assert set(first.encoded) != set(second.encoded)
    assert not set(first.encoded) & set(held_out.images.encoded)
    assert first.extra is not None
    for filled, labels in zip(first.extra["filled"].to_pylist(), first.labels, strict=True):
        assert labels[first.schema.column(filled)] == 1


def test_a_table_is_read_as_it_was_written(outcomes: Outcomes, tmp_path: Path) -> None:
    outcomes.save(tmp_path / "again.npz")
    again = Outcomes.load(tmp_path / "again.npz")
    assert again.decisions("draws", 4, 1, 2).tolist() == outcomes.decisions("draws", 4, 1, 2).tolist()
    assert (again.schema, again.tables.keys()) == (outcomes.schema, outcomes.tables.keys())


def test_the_command_prints_a_row_per_world_and_design(outcomes: Outcomes, tmp_path: Path) -> None:
    outcomes.save(tmp_path / "small.npz")
    printed = CliRunner().invoke(main, ["judge", str(tmp_path / "small.npz"), "--studies", "5"], catch_exceptions=False)
    assert sum(line.startswith("| small |") for line in printed.output.splitlines()) == len(WORLDS) * len(DESIGNS)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_compares_arms_with_held_out_images(tmp_path: Path) -> None:
    short = ("final={epochs: 2, seeds: 2}", "search={trials: 4, epochs: 2, objective: val_macro_f1}")
    compared = NullStudy(replace(SMALL, sets=(*SMALL.sets, *short)), 0, 2).run(tmp_path)
    assert [(one["arm"], one["baseline"], one["repeats"]) for one in compared] == [
        ("draw-1", "draw-0", [0, 1]),
        ("draw-2", "draw-0", [0, 1]),
    ]
    assert compared[0]["differences"] != compared[1]["differences"]


def test_a_data_set_that_is_thinned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="thinned after `prepare`"):
        NullStudy(replace(SMALL, thinned=("fabric/denim",)), 0, 1).run(tmp_path)
