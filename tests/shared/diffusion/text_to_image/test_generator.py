from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file

from shared.config.generation import StableDiffusionFinetune
from shared.diffusion.generator import BaseSource, SampleRequest
from shared.diffusion.load import load_generator
from shared.diffusion.text_to_image.families.stable_diffusion import StableDiffusion
from shared.diffusion.text_to_image.generator import TextToImage
from shared.diffusion.text_to_image.train import finetune_text_to_image
from shared.errors import ConfigError, DataError, InputError
from shared.settings import Settings
from shared.weights.inputs import FetchedBase
from tests.support.tiny_pipeline import SCHEMA, tiny_finetuning, tiny_images, tiny_pipeline

Load = Callable[[dict[str, Path]], TextToImage]
RED_SQUARE, GREEN_STRIPE = np.array([1, 0, 1, 0], np.int8), np.array([0, 1, 0, 1], np.int8)


@pytest.fixture(scope="module")
def trained(
    tiny_base: Path, tmp_path_factory: pytest.TempPathFactory, device: torch.device
) -> dict[str, dict[str, Path]]:
    """Returns the committed files of a full and of a LoRA fine-tuning, each with the text encoder."""
    found = {}
    for method in ("full", "lora"):
        out = tmp_path_factory.mktemp(method)
        config = StableDiffusionFinetune(
            generator="stable-diffusion",
            base=str(tiny_base),
            method=method,  # type: ignore[arg-type]
            rank=4,
            text_encoder=True,
            resolution=32,
            steps=4,
            batch_size=2,
            learning_rate=0.02,
            warmup_steps=0,
            ema=0.0,
        )
        source = BaseSource(Settings.from_environment({}), out)
        finetuning = tiny_finetuning(out, source, device, seed=0)
        finetune_text_to_image(config, finetuning)
        found[method] = {path.name: path for path in out.iterdir()}
    return found


@pytest.fixture
def load(device: torch.device, source: BaseSource) -> Load:
    return lambda files: TextToImage.load(files, device, source)


@pytest.fixture
def full(trained: dict[str, dict[str, Path]], load: Load) -> TextToImage:
    return load(trained["full"])


def starts(count: int) -> list[Any]:
    return list(tiny_images().pixels(32)[:count])


def test_images_follow_from_seed_and_caption(full: TextToImage) -> None:
    requests = [SampleRequest(RED_SQUARE, 1), SampleRequest(RED_SQUARE, 2), SampleRequest(GREEN_STRIPE, 1)]
    images = full.sample(requests, 2.0, 4)
    assert images.shape == (3, 32, 32, 3)
    assert images.dtype == np.uint8
    assert np.array_equal(images, full.sample(requests, 2.0, 4))
    assert len({image.tobytes() for image in images}) == 3
    assert not np.array_equal(images, full.sample(requests, 5.0, 4))
    assert full.prompt(GREEN_STRIPE) == "a photo of green v stripe"


def test_guidance_one_is_the_plain_prediction(full: TextToImage) -> None:
    requests = [SampleRequest(RED_SQUARE, 1)]
    plain, guided = (full.sample(requests, guidance, 4).astype(int) for guidance in (1.0, 1.0 + 1e-9))
    assert abs(plain - guided).max() <= 1


def test_guidance_in_an_interval_of_the_steps(full: TextToImage) -> None:
    requests = [SampleRequest(RED_SQUARE, 1)]
    always, never = full.sample(requests, 5.0, 4), full.sample(requests, 1.0, 4)
    assert np.array_equal(full.sample(requests, 5.0, 4, (0.0, 1.0)), always)
    assert np.array_equal(full.sample(requests, 5.0, 4, (0.1, 0.2)), never)  # steps begin at 0, 1/4, 2/4 and 3/4
    late, early = full.sample(requests, 5.0, 4, (0.5, 1.0)), full.sample(requests, 5.0, 4, (0.0, 0.5))
    assert len({image.tobytes() for image in (always, never, late, early)}) == 4


def test_fewer_are_drawn_at_once_if_memory_is_too_small(full: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised by hand, as a CPU has no such limit; what is drawn in parts are the same images, but for rounding."""
    requests = [SampleRequest(RED_SQUARE if i % 2 else GREEN_STRIPE, i) for i in range(5)]
    whole = full.sample(requests, 2.0, 4)
    predict, sizes = StableDiffusion.predict, []

    def limited(self: StableDiffusion, model: Any, noisy: torch.Tensor, *rest: Any) -> torch.Tensor:
        sizes.append(len(noisy))
        if len(noisy) > limit:
            raise torch.OutOfMemoryError
        return predict(self, model, noisy, *rest)

    monkeypatch.setattr(StableDiffusion, "predict", limited)
    limit = 4  # two images with guidance
    parts = full.sample(requests, 2.0, 4)
    assert np.abs(parts.astype(int) - whole).max() <= 1
    assert sizes == [10, *[4] * 8, *[2] * 4]
    assert np.abs(full.sample(requests[:3], 2.0, 4).astype(int) - whole[:3]).max() <= 1
    assert sizes[13:] == [*[4] * 4, *[2] * 4]  # the limit is kept
    limit = 1
    with pytest.raises(InputError, match="memory is too small for 2 images of 32 pixels"):
        full.sample(requests[:2], 2.0, 4)


def test_adapters_are_merged_into_the_weights(trained: dict[str, dict[str, Path]], load: Load) -> None:
    requests = [SampleRequest(RED_SQUARE, 1), SampleRequest(GREEN_STRIPE, 2)]
    apart, merged = load(trained["lora"]), load(trained["lora"])
    model = merged._trained.load("unet", torch.float32, merge=True)
    assert all(module.merged for module in model.modules() if isinstance(module, BaseTunerLayer))
    merged._parts()
    merged._loaded = (model.to(merged._device), merged._parts()[1])
    differences = np.abs(apart.sample(requests, 2.0, 4).astype(int) - merged.sample(requests, 2.0, 4))
    assert differences.max() <= 1


def test_the_vae_takes_several_images_at_once_on_a_gpu(full: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = torch.randn(5, 4, 16, 16, generator=torch.Generator().manual_seed(0)).to(full._device)
    with torch.inference_mode():
        monkeypatch.setattr(full, "_images_in_vae", lambda: 1)
        alone = full._decode(latents)
        monkeypatch.setattr(full, "_images_in_vae", lambda: 2)
        together = full._decode(latents)
    assert np.abs(alone.astype(int) - together).max() <= 1


def test_a_prompt_of_its_own(full: TextToImage) -> None:
    prompt = full.prompt(RED_SQUARE, "a {shape} in {colour}, painted")
    assert prompt == "a square in red, painted"
    own, usual = SampleRequest(RED_SQUARE, 1, prompt=prompt), SampleRequest(RED_SQUARE, 1)
    both = full.sample([own, usual], 2.0, 4)
    assert (both[0] != both[1]).any()
    written = SampleRequest(GREEN_STRIPE, 1, prompt=full.prompt(RED_SQUARE))
    assert np.array_equal(full.sample([written], 2.0, 4), full.sample([usual], 2.0, 4))
    with pytest.raises(ConfigError, match=r"^generate\.prompts: \{size\} in"):
        full.prompt(RED_SQUARE, "a {size} thing")


def test_image_to_image_keeps_more_at_less_strength(full: TextToImage) -> None:
    (start,) = starts(1)
    distances = []
    for strength in (0.05, 0.6, 1.0):
        image = full.sample([SampleRequest(RED_SQUARE, 1, start, strength)], 2.0, 20)[0]
        with torch.inference_mode():
            repainted = full._decode(full._encode([SampleRequest(RED_SQUARE, 1, start, strength)]))[0]
        distances.append(np.abs(image.astype(float) - repainted).mean())
    assert distances[0] < distances[1] < distances[2]


def test_a_mixed_batch_is_drawn_as_its_groups(full: TextToImage) -> None:
    first, second = starts(2)
    noise = [SampleRequest(RED_SQUARE, 1), SampleRequest(GREEN_STRIPE, 2)]
    image = [SampleRequest(RED_SQUARE, 3, first, 0.5), SampleRequest(GREEN_STRIPE, 4, second, 0.5)]
    mixed = full.sample([noise[0], image[0], noise[1], image[1]], 2.0, 4)
    assert np.array_equal(mixed[[0, 2]], full.sample(noise, 2.0, 4))
    assert np.array_equal(mixed[[1, 3]], full.sample(image, 2.0, 4))


@pytest.mark.parametrize(("method", "negative"), [("full", ""), ("lora", ""), ("lora", "dark and grey")])
def test_images_are_those_of_diffusers_own_pipeline(
    trained: dict[str, dict[str, Path]], tiny_base: Path, method: str, negative: str, load: Load, device: torch.device
) -> None:
    """Our weights have the standard form, and our sampling is the standard one, so the bytes are the same."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    files = trained[method]
    if method == "lora":
        pipeline.load_lora_weights(files["lora.safetensors"].parent, weight_name="lora.safetensors")
    else:
        pipeline.unet.load_state_dict(load_file(files["unet.safetensors"]))
        pipeline.text_encoder.load_state_dict(load_file(files["text_encoder.safetensors"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a deprecation warning of numpy in the scheduler
        theirs = pipeline(
            "a photo of red square",
            negative_prompt=negative,
            height=32,
            width=32,
            num_inference_steps=4,
            guidance_scale=2.0,
            generator=torch.Generator().manual_seed(5),
            output_type="np",
        ).images[0]
    ours = load(files).sample([SampleRequest(RED_SQUARE, 5, negative=negative)], 2.0, 4)[0]
    if device.type == "cpu":
        assert np.array_equal(ours, (theirs * 255).round().astype(np.uint8))
    else:  # diffusers' image was drawn on the CPU in float32, ours in bfloat16
        assert np.abs(ours - theirs * 255).mean() < 3


def test_reloaded_it_draws_the_same(trained: dict[str, dict[str, Path]], load: Load) -> None:
    requests = [SampleRequest(RED_SQUARE, 1), SampleRequest(GREEN_STRIPE, 2)]
    first, again = (load(trained["lora"]).sample(requests, 2.0, 3) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, load(trained["full"]).sample(requests, 2.0, 3))


@pytest.mark.parametrize(
    ("method", "name"),
    [("full", "unet.safetensors"), ("full", "text_encoder.safetensors"), ("lora", "lora.safetensors")],
)
def test_weights_that_do_not_fit_are_refused(
    trained: dict[str, dict[str, Path]], tmp_path: Path, method: str, name: str, load: Load
) -> None:
    files = trained[method]
    state = load_file(files[name])
    key = next(key for key in sorted(state) if state[key].ndim == 2)
    wrong, less, cut = tmp_path / "wrong", tmp_path / "less", tmp_path / "cut"
    save_file({**state, key: torch.zeros(3, 5)}, wrong)
    save_file({k: v for k, v in state.items() if k != key}, less)
    cut.write_bytes(files[name].read_bytes()[:-100])
    for path in (wrong, less, cut):
        with pytest.raises(DataError, match=name) as error:
            load({**files, name: path})
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=f"{name}: missing"):
        load({k: v for k, v in files.items() if k != name})


def test_a_changed_base_is_refused(
    trained: dict[str, dict[str, Path]], tmp_path: Path, tiny_base: Path, load: Load
) -> None:
    other = tiny_pipeline(tmp_path / "other", seed=1)
    described = tmp_path / "generator.json"
    described.write_text(trained["full"]["generator.json"].read_text().replace(str(tiny_base), str(other)))
    with pytest.raises(DataError, match=r"vae/diffusion_pytorch_model.safetensors has digest .* restore it"):
        load({**trained["full"], "generator.json": described})


class Fetched(FetchedBase):
    """Holds a base of the hub, whose files it brings only if they are asked for."""

    commit = "c"

    def __init__(self, base: Path, folder: Path) -> None:
        vars(self).update(base=base, copy=folder)

    @property
    def names(self) -> list[str]:
        return [path.relative_to(vars(self)["base"]).as_posix() for path in vars(self)["base"].glob("*/*")]

    def folder(self, names: Sequence[str]) -> Path:
        copy: Path = vars(self)["copy"]
        for name in names:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(vars(self)["base"] / name, copy / name)
        return copy


def test_weights_that_were_replaced_are_not_fetched(
    trained: dict[str, dict[str, Path]], tiny_base: Path, source: BaseSource, tmp_path: Path, device: torch.device
) -> None:
    for method, needed in (("full", {"vae"}), ("lora", {"unet", "vae", "text_encoder"})):
        fetched = Fetched(tiny_base, tmp_path / method)
        generator = TextToImage.load(trained[method], device, replace(source, fetched=fetched))
        assert {path.parent.name for path in (tmp_path / method).glob("*/*.safetensors")} == needed
        assert generator.sample([SampleRequest(RED_SQUARE, 1)], 2.0, 2).std() > 0


def test_a_text_encoder_that_does_not_fit_the_gpu_is_said(full: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(full._family, "encode", fail)
    with pytest.raises(InputError, match="memory is too small for the text encoders"):
        full.prepare(["a photo"])


def test_conditions_stay_on_the_cpu(full: TextToImage) -> None:
    full.sample([SampleRequest(RED_SQUARE, 1)], 2.0, 1)
    assert {value.device.type for condition in full._conditions.values() for value in condition.values()} == {"cpu"}


def test_the_schema_travels_with_it(full: TextToImage) -> None:
    unknown = np.full(SCHEMA.width, -1, np.int8)
    assert full.prompt(unknown) == "a photo of"


def test_a_base_that_was_moved(
    trained: dict[str, dict[str, Path]],
    tiny_base: Path,
    source: BaseSource,
    tmp_path: Path,
    load: Load,
    device: torch.device,
) -> None:
    made = json.loads(trained["lora"]["generator.json"].read_bytes())
    (tmp_path / "generator.json").write_text(json.dumps(made | {"base": str(tmp_path / "gone")}))
    files = {**trained["lora"], "generator.json": tmp_path / "generator.json"}
    requests = [SampleRequest(RED_SQUARE, 1)]
    with pytest.raises(DataError, match="there is no folder"):
        load_generator(files, device, source)
    moved = load_generator(files, device, replace(source, location=str(tiny_base)))
    assert np.array_equal(moved.sample(requests, 2.0, 4), load(trained["lora"]).sample(requests, 2.0, 4))


def test_the_share_of_noise_is_that_of_the_step_at_which_images_begin(full: TextToImage) -> None:
    shares = full._process.shares(full._process.scheduler(20))
    assert full.noise_share(1.0, 20) == pytest.approx(float(shares[0]))
    assert full.noise_share(0.5, 20) == pytest.approx(float(shares[10])), "a strength is a share of the steps here"
    assert full.noise_share(0.65, 20) == pytest.approx(float(shares[20 - 13]))
    assert full.noise_share(0.65, 20) != pytest.approx(0.65, abs=0.01)
