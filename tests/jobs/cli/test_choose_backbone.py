"""Tests how `init` chooses a frozen network, with a hub on this machine that has timm's weights of two networks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from jobs.cli import choose_backbone as module
from jobs.cli.init import init, inspect_data
from jobs.cli.study_text import DataSummary
from shared.config.load import load_study
from shared.data.infer_source import infer_source
from shared.look.backbone import PACKAGED, Backbone
from shared.weights import packaged
from shared.weights.pretrained import create
from tests.support.hub_endpoint import point_at
from tests.support.hub_server import COMMIT, Hub, serve_hub

GOOD = Backbone("tf_efficientnet_lite0.in1k", True, "ImageNet", 32)
BLIND = Backbone("test_resnet.r160_in1k", True, "nothing", 32)
"""Has weights of zero, so that it sees nothing."""
WITHOUT_FILE = Backbone("test_vit.r160_in1k", True, "no file", 16)


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hub")
    good = timm.create_model(GOOD.model, pretrained=False)
    state = good.state_dict() | create(PACKAGED.model, PACKAGED.pretrained).state_dict()
    blind = {
        name: torch.zeros_like(t) for name, t in timm.create_model(BLIND.model, pretrained=False).state_dict().items()
    }
    found = {}
    for network, tensors in ((GOOD, state), (BLIND, blind), (WITHOUT_FILE, None)):
        folder = root / network.about.replace(" ", "-")
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        if tensors is not None:
            save_file(tensors, folder / "model.safetensors")
        found[f"timm/{network.model}"] = folder
    return found


@pytest.fixture
def hub(repositories: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("TAILFILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("shared.benchmark.SECONDS", 0.05)
    monkeypatch.setattr(module, "HUB", (BLIND, GOOD, WITHOUT_FILE))
    with serve_hub(repositories) as hub:
        point_at(hub.url, monkeypatch)
        yield hub


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the effect of a machine on which the package with ImageNet weights is not installed."""
    package = str(PACKAGED.pretrained).partition("/")[0].removeprefix("package:")
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(packaged, "find_spec", lambda name: None if name == package else find_spec(name))


def stripes(root: Path) -> Path:
    """Draws classes of stripes in three directions, of random colours and widths."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    for name, count, direction in (("flat", 40, y), ("upright", 36, x), ("slanted", 15, x + y)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            waves = np.sin(direction / random.uniform(1.5, 3) + random.uniform(0, 6))[..., None]
            pixels = 127 + 60 * waves * random.uniform(0.3, 1, 3) + random.normal(0, 20, (64, 64, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> DataSummary:
    root = stripes(tmp_path_factory.mktemp("data") / "stripes")
    return inspect_data(root, infer_source(root))


def side(network: Backbone) -> int:
    return 64


def test_the_network_that_finds_more_is_taken_and_pinned(hub: Hub, not_installed: None, summary: DataSummary) -> None:
    choice = module.choose_backbone(summary, side)
    assert choice.backbone == replace(GOOD, revision=COMMIT, about="ImageNet, apache-2.0")
    assert choice.lines[0].startswith("backbone: a head on each frozen network was asked about ")
    good, blind = (choice.lines[0].index(network.model) for network in (GOOD, BLIND))
    assert good < blind
    assert any(WITHOUT_FILE.model in line and "model.safetensors is needed" in line for line in choice.lines[1:])
    assert set(hub.asked) == {"model.safetensors"}


def test_a_network_of_the_hub_that_is_no_better_is_not_taken(hub: Hub, summary: DataSummary) -> None:
    assert module.choose_backbone(summary, side).backbone == PACKAGED


def test_nothing_is_downloaded_of_a_network_that_does_not_fit_the_time(hub: Hub, summary: DataSummary) -> None:
    choice = module.choose_backbone(summary, lambda network: None)
    assert choice.backbone == PACKAGED
    assert sum("no study with it fits the time" in line for line in choice.lines) == 4
    assert hub.asked == []


def test_without_the_hub_the_packaged_network_is_taken(
    hub: Hub, summary: DataSummary, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at("http://127.0.0.1:9", monkeypatch)
    choice = module.choose_backbone(summary, side)
    assert choice.backbone == PACKAGED
    assert "were not compared, as it does not answer" in choice.lines[0]


def test_a_study_names_the_network_and_its_commit_and_says_why(hub: Hub, not_installed: None, tmp_path: Path) -> None:
    lines = init(stripes(tmp_path / "stripes"), tmp_path / "study.yaml", hours=1, fits=True)
    classifier = load_study(tmp_path / "study.yaml").written.classifier
    assert (classifier.model, classifier.pretrained, classifier.revision) == (GOOD.model, True, COMMIT)
    assert (classifier.trainable, classifier.resolution) == ("head", 64)
    compared = next(line for line in lines if line.startswith("backbone: a head on each frozen network"))
    assert f"# {compared}" in (tmp_path / "study.yaml").read_text().splitlines()


@pytest.mark.parametrize(
    ("one", "other", "better"),
    [
        ([True] * 10, [False] * 10, True),
        ([True] * 10, [True] * 10, False),
        ([True] * 6 + [False] * 4, [False] * 4 + [True] * 5 + [False], False),  # 6 and 5 of 10
        ([True] * 9 + [False], [True] * 5 + [False] * 5, True),
    ],
)
def test_a_network_is_better_if_the_paired_difference_exceeds_its_standard_error(
    one: list[bool], other: list[bool], better: bool
) -> None:
    assert module._is_better({("label", "a"): one}, {("label", "a"): other}) is better


@pytest.mark.parametrize(("side", "multiple", "fitting"), [(224, 14, 224), (128, 14, 126), (64, 32, 64), (10, 16, 16)])
def test_a_side_is_a_multiple_of_what_a_network_takes(side: int, multiple: int, fitting: int) -> None:
    assert Backbone("any", True, "any", multiple).fitting(side) == fitting


def test_timm_has_every_network_of_the_hub() -> None:
    for network in module.HUB:
        assert timm.get_pretrained_cfg(network.model).hf_hub_id == f"timm/{network.model}"
