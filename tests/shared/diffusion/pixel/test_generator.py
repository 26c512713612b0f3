from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.diffusion.generator import BaseSource, Generator, SampleRequest
from shared.diffusion.load import load_generator
from shared.diffusion.pixel.generator import PixelGenerator, flow_solver
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
    # full strength starts at the noisiest level of the solver, 0.999, where a thousandth of the image is left
    free = generator.sample([request(5)], 1.0, 10)[0]
    assert np.abs(drawn[2].astype(int) - free).mean() < 3


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
    state, time = torch.randn(2, 3, 20, 20, device=device), torch.tensor(300.0, device=device)
    labels = torch.from_numpy(np.stack([LABELS] * 2)).to(device)
    with torch.inference_mode():
        plain = network(state, time.expand(2), labels)
        without = network(state, time.expand(2), torch.full_like(labels, -1))
        found = generator._flow(state, time, labels, guidance)
    near = (1e-3, 1e-4) if device.type == "cpu" else (2e-2, 2e-2)  # a GPU's convolutions round to TF32
    torch.testing.assert_close(found, without + guidance * (plain - without), rtol=near[0], atol=near[1])


def test_the_solver_finds_the_one_image_of_a_flow_that_is_known() -> None:
    image, noise = torch.rand(1, 3, 8, 8) * 2 - 1, torch.randn(1, 3, 8, 8)
    solver, state = flow_solver(6), noise
    for timestep, sigma in zip(solver.timesteps, solver.sigmas[:-1], strict=True):
        flow = (state - image) / sigma  # of the straight line from the image to this state
        state = solver.step(flow, timestep, state, return_dict=False)[0]
    torch.testing.assert_close(state, image, atol=1e-4, rtol=1e-4)


def test_the_prompt_names_what_is_known(generator: PixelGenerator) -> None:
    assert generator.prompt(LABELS) == "colour/red, mark/dot"
    assert generator.prompt(np.array([-1, -1, 0, 0], np.int8)) == ""


def test_the_sheet_has_a_row_of_real_and_generated_images_a_class(generator: PixelGenerator) -> None:
    sheet = sample_sheet(generator, shapes(12, side=20), np.arange(4), 1.5, 2, seed=0)
    assert sheet.size == (8 * 100 + 4, 4 * 112 + 4)


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
