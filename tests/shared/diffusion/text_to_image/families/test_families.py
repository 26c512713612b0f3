"""Tests that every family of the table trains, resumes, is stored and draws as the pipeline that diffusers has for it."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import warnings
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from shared.config.generation import TextToImageFinetune
from shared.diffusion.generator import BaseSource, Finetuning, SampleRequest
from shared.diffusion.load import load_generator
from shared.diffusion.text_to_image.base import Base, find_base
from shared.diffusion.text_to_image.base_files import TEXT_TO_IMAGE
from shared.diffusion.text_to_image.caption import Captioner
from shared.diffusion.text_to_image.families.family import Family, find_family
from shared.diffusion.text_to_image.families.stable_diffusion import StableDiffusion
from shared.diffusion.text_to_image.families.table import FAMILIES, KNOWN, check_class_tokens
from shared.diffusion.text_to_image.generator import TextToImage
from shared.diffusion.text_to_image.model import Trained
from shared.diffusion.text_to_image.processes import Rank
from shared.diffusion.text_to_image.train import Job, finetune_text_to_image
from shared.diffusion.text_to_image.train import train as training_process
from shared.errors import ConfigError, DataError, Stopped
from shared.settings import Settings
from shared.stop import StopSignal
from shared.weights.inputs import FewStepAdapter
from tests.support.checkpoints import StoppingCheckpoints
from tests.support.few_step import few_step_lora
from tests.support.tiny_families import PIPELINES, tiny_base
from tests.support.tiny_pipeline import SCHEMA, tiny_finetuning, tiny_images

RED_SQUARE, GREEN_STRIPE = np.array([1, 0, 1, 0], np.int8), np.array([0, 1, 0, 1], np.int8)
PROMPTS = ["a photo of red square", "a photo of green v stripe"]
GUIDANCE, STEPS, SIDE = 3.0, 4, 32
NEAR = {"StableDiffusion3Pipeline": 1e-6, "ZImagePipeline": 2e-6}
"""Gives the largest difference to the pixels of diffusers' pipeline, in 0 … 1; other families give the same ones."""
PLAIN_KERNELS = {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
"""Sets the instructions that MKL, torch and oneDNN may use to those of every x86 processor."""
IMAGE_TO_IMAGE = {
    "StableDiffusionPipeline": "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusion3Pipeline": "StableDiffusion3Img2ImgPipeline",
    "ZImagePipeline": "ZImageImg2ImgPipeline",
}
"""Maps pipelines to those for image-to-image; FLUX.2-klein has none."""

Files = dict[str, dict[str, Path]]


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def base(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(name, tmp_path_factory.mktemp("family") / "base")


@pytest.fixture(scope="module")
def family(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Family:
    source = BaseSource(Settings.from_environment({}), tmp_path_factory.mktemp("scratch"))
    return find_family(find_base(str(base), source, TEXT_TO_IMAGE))


def section(base: Path, method: str, **values: Any) -> TextToImageFinetune:
    small = {"rank": 4, "resolution": SIDE, "steps": 4, "batch_size": 2, "learning_rate": 0.02, "warmup_steps": 0}
    return TextToImageFinetune.model_validate(
        {"generator": "text-to-image", "base": str(base), "method": method, "ema": 0.0, **small, **values}
    )


def train(base: Path, method: str, finetuning: Finetuning, **values: Any) -> dict[str, Path]:
    """Returns the files that a fine-tuning writes."""
    finetune_text_to_image(section(base, method, **values), finetuning)
    return {path.name: path for path in finetuning.out.iterdir()}


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory, device: torch.device) -> Files:
    """Returns the files of a full and of a LoRA fine-tuning."""
    found = {}
    for method in ("full", "lora"):
        out = tmp_path_factory.mktemp(method) / "out"
        source = BaseSource(Settings.from_environment({}), out.parent)
        found[method] = train(base, method, tiny_finetuning(out, source, device))
    return found


@pytest.fixture
def load(device: torch.device, source: BaseSource) -> Any:
    def loaded(files: Mapping[str, Path]) -> TextToImage:
        generator = load_generator(files, device, source)
        assert isinstance(generator, TextToImage)
        return generator

    return loaded


def pipeline(base: Path, files: Mapping[str, Path], kind: str | None = None) -> Any:
    """Returns diffusers' pipeline with trained weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = diffusers.DiffusionPipeline.from_pretrained(base, local_files_only=True)
    part = "unet" if hasattr(found, "unet") else "transformer"
    if "lora.safetensors" in files:
        found.load_lora_weights(files["lora.safetensors"].parent, weight_name="lora.safetensors")
    else:
        getattr(found, part).load_state_dict(load_file(files[f"{part}.safetensors"]))
    if part == "unet":
        found.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(found.scheduler.config)
    if kind is not None:
        # of our own parts: from_pipe would load nothing, and asks for parts that a text-to-image pipeline lacks
        parts = {name: value for name, value in found.components.items() if value is not None}
        optional = (
            {"safety_checker": None, "feature_extractor": None} if kind == "StableDiffusionImg2ImgPipeline" else {}
        )
        extra = {"requires_safety_checker": False} if optional else {}
        found = getattr(diffusers, kind)(**{**optional, **parts, **extra})
    found.set_progress_bar_config(disable=True)
    return found


class DrawingPerImage(diffusers.FlowMatchLCMScheduler):  # type: ignore[misc]
    """Draws the noise of steps by a generator per image, on unpacked latents, which pipelines of flow models do not."""

    generators: list[torch.Generator]

    def step(self, output: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor, **values: Any) -> Any:
        if sample.ndim == 4:
            return super().step(output, timestep, sample, self.generators, **values)
        side = round(sample.shape[1] ** 0.5)
        output, sample = (value.mT.unflatten(2, (side, side)) for value in (output, sample))
        (found,) = super().step(output, timestep, sample, self.generators, **values)
        return (found.flatten(2).mT,)


def theirs(name: str, pipe: Any, seeds: list[int], scale: float = GUIDANCE, **values: Any) -> np.ndarray[Any, Any]:
    """Returns the images `[n, r, r, 3]`, in 0 … 1, that the pipeline draws with guidance of a `scale`."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    if isinstance(pipe.scheduler, DrawingPerImage):
        pipe.scheduler.generators = generators
    guidance = scale - 1 if name == "ZImagePipeline" else scale
    sized = {} if "image" in values and name != "ZImagePipeline" else {"height": SIDE, "width": SIDE}
    if name == "StableDiffusion3Pipeline":
        sized = {"height": SIDE, "width": SIDE}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a deprecation warning of numpy in the scheduler
        found = pipe(
            prompt=list(PROMPTS),
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            generator=generators,
            output_type="np",
            **sized,
            **values,
        )
    images: np.ndarray[Any, Any] = found.images
    return images


def same_images(name: str, ours: Any, pixels: Any, device: torch.device) -> bool:
    """Returns whether our bytes are those of a pipeline's pixels, up to rounding if the pixels differ by NEAR."""
    if device.type != "cpu":  # diffusers' images were drawn on the CPU in float32, ours in bfloat16
        return bool(np.abs(ours - pixels * 255).mean() < 3)
    return bool(np.abs(ours - pixels * 255).max() <= 0.5 + 255 * NEAR.get(name, 1e-7))


def test_the_tables_name_each_other() -> None:
    assert set(PIPELINES) == set(FAMILIES)
    assert {terms.pipeline for terms in KNOWN.values()} == set(FAMILIES)
    for kind in FAMILIES.values():
        assert issubclass(resolve_name(kind.family), Family)
        assert kind.resolution % kind.multiple == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_our_images_are_those_of_the_pipelines() -> None:
    """Runs the comparisons below in a process that computes as every x86 processor can.

    Else libraries take another kernel for some shapes on some processors, as MKL does on AMD's, and guidance draws twice as many images at once here as
    in some pipelines: then single values differ by rounding.
    """
    chosen = "cpu and (draws_as_the_pipeline or image_to_image_is or few_steps_are)"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, __file__]
    done = subprocess.run(command, env=os.environ | PLAIN_KERNELS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{8 * len(PIPELINES)} passed" in done.stdout


def with_plain_kernels(device: torch.device) -> None:
    """Skips a comparison on a CPU in a process that may take other kernels."""
    if device.type == "cpu" and not PLAIN_KERNELS.items() <= os.environ.items():
        pytest.skip("runs in test_our_images_are_those_of_the_pipelines")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_it_draws_as_the_pipeline_of_diffusers(
    name: str, base: Path, trained: Files, method: str, load: Any, device: torch.device
) -> None:
    """Our weights have the standard form, and our sampling is the standard one."""
    with_plain_kernels(device)
    ours = load(trained[method]).sample([SampleRequest(RED_SQUARE, 5), SampleRequest(GREEN_STRIPE, 6)], GUIDANCE, STEPS)
    assert ours.std() > 5
    assert same_images(name, ours, theirs(name, pipeline(base, trained[method]), [5, 6]), device)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("scheduler", ["lcm", "euler"])
def test_few_steps_are_those_of_diffusers(
    name: str,
    base: Path,
    family: Family,
    trained: Files,
    method: str,
    scheduler: str,
    source: BaseSource,
    device: torch.device,
) -> None:
    """A distilled LoRA is drawn with as by the pipeline that loaded it beside ours, with the scheduler that it needs."""
    with_plain_kernels(device)
    path = few_step_lora(family, source.scratch)
    fast = load_generator(
        trained[method], device, replace(source, few_step=FewStepAdapter("some/lora", path, scheduler))
    )
    assert (fast.guidance, fast.steps) == (1.0, 4)
    ours = fast.sample([SampleRequest(RED_SQUARE, 5), SampleRequest(GREEN_STRIPE, 6)], fast.guidance, fast.steps)
    pipe = pipeline(base, trained[method])
    own = list(pipe.get_active_adapters())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute", UserWarning)
        pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name="fast")
    pipe.set_adapters([*own, "fast"])
    flow = family.denoiser == "transformer"
    kinds: dict[str, Any] = {
        "lcm": DrawingPerImage if flow else diffusers.LCMScheduler,
        "euler": diffusers.FlowMatchEulerDiscreteScheduler if flow else diffusers.EulerDiscreteScheduler,
    }
    trailing = {"timestep_spacing": "trailing"} if scheduler == "euler" and not flow else {}
    pipe.scheduler = kinds[scheduler].from_config(family.base.config("scheduler"), **trailing)
    assert same_images(name, ours, theirs(name, pipe, [5, 6], 1.0), device)
    slow = load_generator(trained[method], device, source)
    assert not np.array_equal(ours, slow.sample([SampleRequest(RED_SQUARE, 5), SampleRequest(GREEN_STRIPE, 6)], 1.0, 4))


def test_lora_changes_all_layers_that_the_family_names(name: str, base: Path, trained: Files) -> None:
    state = load_file(trained["lora"]["lora.safetensors"])
    # B begins at 0; that each differs from it says that every layer had a gradient
    backs = {key: value for key, value in state.items() if "lora_B" in key or "lora.up" in key}
    assert len(state) == 2 * len(backs)
    idle = [key for key, value in backs.items() if not value.abs().max() > 0]
    # the last block of Stable Diffusion 3 has queries of text too, whose result nothing reads
    assert idle == [key for key in backs if name == "StableDiffusion3Pipeline" and ".1.attn.add_q_proj." in key]
    part = "unet" if "UNet" in json.dumps(json.loads((base / "model_index.json").read_text())) else "transformer"
    assert all(key.startswith(f"{part}.") for key in state)
    pipe = pipeline(base, trained["lora"])
    known = {key for key, _ in getattr(pipe, part).named_parameters() if "lora_" in key}
    assert len(known) == len(state), "the pipeline reads each tensor"


def test_reloaded_it_draws_the_same(trained: Files, load: Any) -> None:
    requests = [SampleRequest(RED_SQUARE, 1), SampleRequest(GREEN_STRIPE, 2)]
    first, again = (load(trained["lora"]).sample(requests, GUIDANCE, 3) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, load(trained["full"]).sample(requests, GUIDANCE, 3))


@pytest.mark.parametrize("first", [1, 3])
def test_image_to_image_is_that_of_diffusers(
    name: str, base: Path, family: Family, trained: Files, load: Any, device: torch.device, first: int
) -> None:
    """Its pipelines are given the latents of the images, as they would draw from the VAE's distribution, and the share of the steps."""
    with_plain_kernels(device)
    starts = list(tiny_images().pixels(SIDE)[:2])
    generator = load(trained["lora"])
    process = family.process(SIDE)
    strength = float(process.shares(process.scheduler(STEPS))[first])
    requests = [SampleRequest(RED_SQUARE, 5, starts[0], strength), SampleRequest(GREEN_STRIPE, 6, starts[1], strength)]
    ours = generator.sample(requests, GUIDANCE, STEPS)
    assert not np.array_equal(ours[0], generator.sample([replace(requests[0], start=starts[1])], GUIDANCE, STEPS)[0])
    if name not in IMAGE_TO_IMAGE:
        return
    with torch.inference_mode():
        latents = generator._encode(requests).cpu()
    pipe = pipeline(base, trained["lora"], IMAGE_TO_IMAGE[name])
    pixels = theirs(name, pipe, [5, 6], image=latents, strength=(STEPS - first) / STEPS)
    assert same_images(name, ours, pixels, device)


def test_strength_is_the_share_of_noise(family: Family, trained: Files, load: Any) -> None:
    generator = load(trained["lora"])
    process = family.process(SIDE)
    scheduler = process.scheduler(30)
    shares = process.shares(scheduler)
    for strength in (0.3, 0.65, 0.9):
        first = generator._first_step(scheduler, strength)
        assert abs(float(shares[first]) - strength) < 0.12
    assert generator._first_step(scheduler, 1.0) == 0


def test_a_step_reads_no_file_of_the_base(trained: Files, load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = load(trained["lora"])
    generator.sample([SampleRequest(RED_SQUARE, 1)], GUIDANCE, 1)
    predict, read, within = generator._family.predict, Base._json, []

    def predicting(*arguments: Any) -> torch.Tensor:
        monkeypatch.setattr(Base, "_json", lambda base, path: within.append(path) or read(base, path))
        found: torch.Tensor = predict(*arguments)
        monkeypatch.setattr(Base, "_json", read)
        return found

    monkeypatch.setattr(generator._family, "predict", predicting)
    generator.sample([SampleRequest(RED_SQUARE, 1)], GUIDANCE, 2)
    assert within == []


@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_interrupted_training_ends_with_the_same_weights(
    base: Path, source: BaseSource, tmp_path: Path, method: str
) -> None:
    values = {"steps": 6, "checkpoint_every": 2, "ema": 0.9, "gradient_accumulation": 2}
    finetuning = tiny_finetuning(tmp_path / "whole/out", source, torch.device("cpu"))
    whole = train(base, method, finetuning, **values)
    stop = StopSignal()
    checkpoints = StoppingCheckpoints(tmp_path / "kept", stop)
    stopped = replace(finetuning, out=tmp_path / "stopped/out", checkpoints=checkpoints, stop=stop)
    with pytest.raises(Stopped):
        train(base, method, stopped, **values)
    resumed = train(base, method, replace(finetuning, out=tmp_path / "resumed/out", checkpoints=checkpoints), **values)
    weights = [file for file in whole if file.endswith(".safetensors")]
    assert weights
    for file in weights:
        assert whole[file].read_bytes() == resumed[file].read_bytes()


@pytest.mark.slow
def test_two_processes_train_as_one(base: Path, source: BaseSource, tmp_path: Path) -> None:
    values = {"batch_size": 4, "steps": 2, "gradient_accumulation": 2, "learning_rate": 1e-3}
    one = tiny_finetuning(tmp_path / "one/out", source, torch.device("cpu"))
    whole = load_file(train(base, "lora", one, **values)["lora.safetensors"])
    two = replace(one, out=tmp_path / "two/out", processes=2)
    shared = load_file(train(base, "lora", two, **values)["lora.safetensors"])
    assert whole.keys() == shared.keys()
    for key, value in whole.items():
        torch.testing.assert_close(
            value, shared[key], rtol=1e-3, atol=1e-3
        )  # Adam's first steps are as large as the rate


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Returns a list that holds, for each part with weights that is loaded, the parts whose weights are then in memory."""
    loaded: list[tuple[str, weakref.ref[Any]]] = []
    seen: list[set[str]] = []
    load = Family.load

    def watched(self: Family, part: str, dtype: torch.dtype = torch.float32, weights: bool = True) -> Any:
        found = load(self, part, dtype, weights)
        if weights and not part.startswith("tokenizer"):
            loaded.append((part, weakref.ref(found)))
            gc.collect()
            there = ((name, network()) for name, network in loaded)
            seen.append({n for n, m in there if m is not None and next(m.parameters()).device.type != "meta"})
        return found

    monkeypatch.setattr(Family, "load", watched)
    return seen


def test_parts_are_loaded_one_at_a_time(
    base: Path, source: BaseSource, tmp_path: Path, family: Family, alive: list[set[str]], device: torch.device
) -> None:
    """Text encoders (which belong together) are never in memory beside the VAE or the denoiser, which are the largest part."""
    encoders = {part for part in family.encoders if part.startswith("text_encoder")}
    files = train(base, "lora", tiny_finetuning(tmp_path / "out", source, device), steps=1)
    assert alive[-1] == {family.denoiser}, "the VAE was freed before the denoiser was loaded"
    assert [part for part in alive if part & encoders and part - encoders] == []
    alive.clear()
    generator = load_generator(files, device, source)
    assert alive == [], "loading checks the files, and reads no weights of the base"
    generator.prepare(["", *PROMPTS])
    generator.sample([SampleRequest(RED_SQUARE, 1), SampleRequest(GREEN_STRIPE, 1)], GUIDANCE, 1)
    assert alive[-1] == {family.denoiser, "vae"}
    assert [part for part in alive if part & encoders and part - encoders] == []


def test_defaults_follow_from_the_family(name: str, base: Path, family: Family, trained: Files) -> None:
    kind = FAMILIES[name]
    assert family.kind is kind
    described = json.loads(trained["lora"]["generator.json"].read_text())
    assert described["precision"] == kind.precisions[0]
    assert "model_index.json" in described["base_files"]
    with pytest.raises(ConfigError, match=f"must be a multiple of {family.multiple} for"):
        family.check_resolution(SIDE + 1)
    if "fp16" not in kind.precisions:
        with pytest.raises(ConfigError, match="fp16 overflows in"):
            family.check_precision("fp16")


def test_what_has_tokens_of_classes_has_one_trainable_text_encoder(name: str, family: Family) -> None:
    trainable = isinstance(family, StableDiffusion) and family.encoders == ["tokenizer", "text_encoder"]
    assert family.kind.class_tokens == trainable
    if trainable:
        check_class_tokens(family.kind, "some/base")
        return
    said = (
        rf"some/base is a {family.kind.name}, and only Stable Diffusion 1\.x or 2\.x has tokens of classes; set it to 0"
    )
    with pytest.raises(ConfigError, match=said):
        check_class_tokens(family.kind, "some/base")


def test_a_part_of_another_model_is_refused(name: str, base: Path, source: BaseSource, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    path = copy / "vae/config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "latent_channels": 9}))
    with pytest.raises(DataError, match=r"reads \d+ channels and the VAE makes"):
        find_family(find_base(str(copy), source, TEXT_TO_IMAGE))
    path.write_text(json.dumps({key: value for key, value in config.items() if key != "block_out_channels"}))
    with pytest.raises(DataError, match=r"vae/config.json has no block_out_channels of the type list"):
        find_family(find_base(str(copy), source, TEXT_TO_IMAGE)).check_resolution(SIDE)
    path.write_text(json.dumps(config))
    with suppress(FileNotFoundError):
        (copy / "tokenizer/tokenizer.json").unlink()
    with pytest.raises(DataError, match="has no tokenizer/"):
        find_family(find_base(str(copy), source, TEXT_TO_IMAGE))


def test_it_computes_in_bfloat16(base: Path, source: BaseSource, tmp_path: Path) -> None:
    """On a GPU, frozen weights and conditions are bfloat16, and LoRA float32 under autocast; the types must fit each other on a CPU too."""
    finetuning = tiny_finetuning(tmp_path / "out", source, torch.device("cpu"))
    tmp_path.joinpath("out").mkdir()
    job = Job(
        config=section(base, "lora", steps=2),
        images=finetuning.images,
        captions=["a photo of red"] * len(finetuning.images),
        seed=1,
        base=find_base(str(base), source, TEXT_TO_IMAGE),
        folder=tmp_path,
        resume=None,
        cpu=True,
        resolution=SIDE,
        precision="bf16",
    )
    curve = training_process(job, Rank(), finetuning.out)
    assert all(np.isfinite(point["loss"]) for point in curve)
    written = {path.name: path for path in finetuning.out.iterdir()}
    assert all(value.dtype == torch.float32 for value in load_file(written["lora.safetensors"]).values())
    family = find_family(job.base)

    def captions(_: str | None) -> Captioner:
        return Captioner(SCHEMA, "a photo of {labels}", {})

    images = []
    for dtype in (torch.float32, torch.bfloat16):
        learned = Trained(written, family, "lora", False)
        generator = TextToImage(family, learned, captions, SIDE, torch.device("cpu"), dtype, False, source)
        images.append(generator.sample([SampleRequest(RED_SQUARE, 1)], GUIDANCE, STEPS).astype(int))
    assert 0 < np.abs(images[0] - images[1]).mean() < 12
