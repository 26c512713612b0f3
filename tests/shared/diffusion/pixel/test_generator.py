from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.diffusion.generator import BaseSource, Generator, SampleRequest, guided_share
from shared.diffusion.load import load_generator
from shared.diffusion.pixel.generator import PixelGenerator, integrate, noise_shares
from shared.diffusion.pixel.model import LabelEmbedding, build_network, describe
from shared.diffusion.samples import sample_sheet
from shared.errors import DataError
from shared.settings import Settings
from tests.support.pixel_images import SCHEMA, shapes

LABELS = np.array([1, 0, 0, 1], np.int8)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Returns the files of a network with random weights, in the form that finetune commits."""
    paths = {name: tmp_path / name for name in ("generator.json", "model.safetensors")}
    paths["generator.json"].write_text(json.dumps(describe(SCHEMA, 20, 8)))
    network = build_network(SCHEMA, 20, 8, seed=1)
    save_file({name: p.detach() for name, p in network.named_parameters()}, paths["model.safetensors"])
    return paths


@pytest.fixture
def generator(files: dict[str, Path], device: torch.device, source: BaseSource) -> PixelGenerator:
    return PixelGenerator.load(files, device, source)


def request(seed: int, **rest: object) -> SampleRequest:
    return SampleRequest(LABELS, seed, **rest)  # type: ignore[arg-type]


def test_unknown_groups_take_their_null_vector_and_unknown_classes_of_a_known_group_add_nothing() -> None:
    embed = LabelEmbedding(SCHEMA, 6)
    labels = torch.tensor([[1, 0, 1, 1], [-1, -1, 0, 0], [0, 1, -1, 1], [-1, -1, -1, -1]], dtype=torch.int8)
    c, n = embed.classes, embed.nulls
    wanted = torch.stack([c[0] + c[2] + c[3], n[0], c[1] + c[3], n[0] + n[1]])
    torch.testing.assert_close(embed(labels), wanted)


def test_the_same_requests_give_the_same_bytes_and_another_seed_another_image(generator: PixelGenerator) -> None:
    requests = [request(1), request(2), request(1)]
    first, second = (generator.sample(requests, 2.0, 4) for _ in range(2))
    assert first.shape == (3, 20, 20, 3)
    np.testing.assert_array_equal(first, second)
    assert (first[0] != first[1]).any()


def test_image_to_image_stays_closer_to_its_start_the_lower_the_strength(
    generator: PixelGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a flow of zero leaves the noised start unchanged, so that the result shows the noising alone
    monkeypatch.setattr(generator, "_network", lambda state, times, labels: torch.zeros_like(state))
    start = shapes(1, side=20).pixels(20)[0]
    strengths = (0.1, 0.5, 1.0)
    drawn = generator.sample([request(5, start=start, strength=s) for s in strengths], 1.0, 10)
    distances = [float(np.abs(image.astype(float) - start).mean()) for image in drawn]
    assert distances == sorted(distances)
    # full strength keeps nothing of the start
    np.testing.assert_array_equal(drawn[2], generator.sample([request(5)], 1.0, 10)[0])


def test_a_request_has_start_and_strength_or_neither(generator: PixelGenerator) -> None:
    with pytest.raises(ValueError, match="or neither"):
        generator.sample([request(1, strength=0.5)], 1.0, 2)
    with pytest.raises(ValueError, match="start images must be"):
        generator.sample([request(1, start=np.zeros((8, 8, 3), np.uint8), strength=0.5)], 1.0, 2)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_guidance_runs_from_no_labels_over_plain_to_more(
    generator: PixelGenerator, guidance: float, device: torch.device
) -> None:
    network = generator._network
    state, time = torch.randn(2, 3, 20, 20, device=device), 300.0
    labels = torch.from_numpy(np.stack([LABELS] * 2)).to(device)
    with torch.inference_mode():
        times = torch.full((2,), time, device=device)
        plain = network(state, times, labels)
        without = network(state, times, torch.full_like(labels, -1))
        found = generator._flow(state, time, labels, guidance)
    near = (1e-3, 1e-4) if device.type == "cpu" else (2e-2, 2e-2)  # a GPU's convolutions round to TF32
    torch.testing.assert_close(found, without + guidance * (plain - without), rtol=near[0], atol=near[1])


@dataclass(frozen=True)
class Mixture:
    """Independent pixels of a mixture of Gaussians, whose flow is known exactly."""

    means: tuple[float, ...]
    sd: float
    weights: tuple[float, ...]
    asked: list[float] = field(default_factory=list)
    """The shares of noise that the flow was asked for."""

    def flow(self, state: torch.Tensor, share: float) -> torch.Tensor:
        """E[noise - image | state], by Bayes' rule over the components."""
        self.asked.append(share)
        kept, variance = 1 - share, (1 - share) ** 2 * self.sd**2 + share**2
        means, weights = torch.tensor(self.means, dtype=state.dtype), torch.tensor(self.weights, dtype=state.dtype)
        off = state[..., None] - kept * means
        belief = (weights.log() - off.square() / (2 * variance)).softmax(-1)
        image = (belief * (means + kept * self.sd**2 / variance * off)).sum(-1)
        return (state - image) / share

    def samples(self, n: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(7)
        component = torch.multinomial(torch.tensor(self.weights), n, replacement=True, generator=generator)
        return torch.tensor(self.means)[component] + self.sd * torch.randn(n, generator=generator)


NOISE = torch.randn(40_000, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("sd", "least"), [(0.05, 0.045), (0.10, 0.095), (0.2, 0.19), (0.5, 0.475)])
def test_twelve_evaluations_keep_the_spread_of_the_data(sd: float, least: float) -> None:
    data = Mixture((0.2,), sd, (1.0,))
    drawn = integrate(data.flow, NOISE, 1.0, 12)
    assert len(data.asked) == 12
    assert least <= drawn.std() <= 1.03 * sd
    assert drawn.mean() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("evaluations", [11, 12, 25])
def test_two_modes_are_drawn_in_their_shares_and_with_their_spread(evaluations: int) -> None:
    data = Mixture((-0.5, 0.4), 0.1, (0.3, 0.7))
    drawn = integrate(data.flow, NOISE, 1.0, evaluations)
    lower = drawn < 0
    assert lower.float().mean() == pytest.approx(0.3, abs=0.015)
    for part, mean in ((drawn[lower], -0.5), (drawn[~lower], 0.4)):
        assert part.mean() == pytest.approx(mean, abs=0.015)
        assert 0.093 <= part.std() <= 0.11


@pytest.mark.parametrize("strength", [0.3, 0.65])
def test_image_to_image_keeps_the_spread_too(strength: float) -> None:
    data = Mixture((-0.5, 0.4), 0.1, (0.3, 0.7))
    real = data.samples(len(NOISE))
    drawn = integrate(data.flow, (1 - strength) * real + strength * NOISE, strength, 8)
    assert len(data.asked) == 8
    assert data.asked[0] == pytest.approx(strength)
    assert drawn.std() == pytest.approx(float(real.std()), rel=0.02)
    assert 0.09 <= drawn[drawn < 0].std() <= 0.11


@pytest.mark.parametrize("evaluations", [1, 2, 3, 6, 25])
@pytest.mark.parametrize("start", [1.0, 0.4])
def test_as_many_evaluations_as_asked_for_of_ever_less_noise(evaluations: int, start: float) -> None:
    data = Mixture((0.0,), 0.3, (1.0,))
    integrate(data.flow, NOISE[:10], start, evaluations)
    assert len(data.asked) == evaluations
    assert data.asked == sorted(data.asked, reverse=True)
    assert min(data.asked) > 0
    shares = noise_shares(start, evaluations)
    assert shares[0] == pytest.approx(start)
    assert shares[-1] == 0


def test_the_solver_finds_the_one_image_of_a_flow_that_is_known() -> None:
    image, noise = torch.rand(1, 3, 8, 8) * 2 - 1, torch.randn(1, 3, 8, 8)
    # the straight line from the image to a state
    found = integrate(lambda state, share: (state - image) / share, noise, 1.0, 6)
    torch.testing.assert_close(found, image, atol=1e-4, rtol=1e-4)


def test_strength_is_the_share_of_noise_and_of_the_steps(
    generator: PixelGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def network(state: torch.Tensor, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        asked.append(float(times[0]))
        return torch.zeros_like(state)

    monkeypatch.setattr(generator, "_network", network)
    start = shapes(1, side=20).pixels(20)[0]
    generator.sample([request(5, start=start, strength=0.4)], 1.0, 10)
    assert len(asked) == 4
    assert asked[0] == pytest.approx(400)
    asked.clear()
    generator.sample([request(5)], 1.0, 10)
    assert len(asked) == 10
    assert asked[0] == pytest.approx(1000)


@pytest.mark.parametrize("guidance", [1.0, 9.0])
def test_predicted_images_are_cut_to_the_range_of_images(
    generator: PixelGenerator, monkeypatch: pytest.MonkeyPatch, guidance: float
) -> None:
    """A network that sees one white image, and none without labels: guidance would push it beyond white."""

    def network(state: torch.Tensor, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        image = torch.where((labels >= 0).any(1), 0.9, 0.0).view(-1, 1, 1, 1)
        return (state - image) / (times / 1000).view(-1, 1, 1, 1)

    monkeypatch.setattr(generator, "_network", network)
    drawn = generator.sample([request(1), request(2)], guidance, 6)
    assert np.unique(drawn).tolist() == [round((min(0.9 * guidance, 1.0) + 1) * 127.5)]


@pytest.mark.parametrize("interval", [None, (0.2, 0.8), (0.0, 0.5), (0.9, 1.0)])
def test_a_forecast_counts_two_evaluations_within_the_interval_of_guidance_and_one_outside(
    generator: PixelGenerator, interval: tuple[float, float] | None
) -> None:
    seen = []
    generator._network.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    generator.sample([request(1)], 2.0, 10, interval or (0.0, 1.0))
    assert sum(seen) == pytest.approx(20 * guided_share(10, interval))


def test_the_prompt_names_what_is_known(generator: PixelGenerator) -> None:
    assert generator.prompt(LABELS) == "colour/red, mark/dot"
    assert generator.prompt(np.array([-1, -1, 0, 0], np.int8)) == ""


def test_the_sheet_has_a_row_of_real_and_generated_images_a_class(generator: PixelGenerator) -> None:
    sheet = sample_sheet(generator, shapes(12, side=20), np.arange(4), 1.5, 2, seed=0)
    assert sheet.size == (8 * 100 + 4, 4 * 112 + 4)


def test_the_sheet_prepares_no_prompt_that_it_does_not_draw(
    generator: PixelGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[str] = []
    monkeypatch.setattr(generator, "prepare", prepared.extend)
    sample_sheet(generator, shapes(40, side=20), np.arange(4), 1.5, 1, seed=0)
    assert len(prepared) == 1 + 4 * 4


def open_files(files: dict[str, Path]) -> Generator:
    source = BaseSource(Settings.from_environment({}), Path("scratch"))
    return load_generator(files, torch.device("cpu"), source)


def test_load_generator_opens_it(files: dict[str, Path]) -> None:
    assert isinstance(open_files(files), PixelGenerator)


def test_weights_of_another_shape_are_refused(files: dict[str, Path]) -> None:
    tensors = load_file(files["model.safetensors"])
    save_file(tensors | {"labels.nulls": torch.zeros(3, 32)}, files["model.safetensors"])
    with pytest.raises(DataError, match=r"labels.nulls should be \(2, 32\), got \(3, 32\)"):
        open_files(files)
    save_file({k: v for k, v in tensors.items() if k != "labels.nulls"}, files["model.safetensors"])
    with pytest.raises(DataError, match=r"labels.nulls should be \(2, 32\), got no such tensor"):
        open_files(files)


def test_a_pickle_in_place_of_weights_is_refused_unopened(files: dict[str, Path]) -> None:
    files["model.safetensors"].write_bytes(pickle.dumps({"labels.nulls": [1, 2]}))
    with pytest.raises(DataError, match="no readable safetensors file") as caught:
        open_files(files)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"generator": "gan"}', '{"generator": "pixel", "schema": 3}'])
def test_a_damaged_description_is_refused(files: dict[str, Path], text: str) -> None:
    files["generator.json"].write_text(text)
    with pytest.raises(DataError, match=r"generator\.json") as caught:
        open_files(files)
    assert "\n" not in str(caught.value)
