from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from shared.artifacts.checkpoints import Checkpoints, NoCheckpoints
from shared.config.generation import StableDiffusionFinetune
from shared.diffusion.generator import BaseSource, Finetuning
from shared.diffusion.text_to_image.families.stable_diffusion import StableDiffusion
from shared.diffusion.text_to_image.train import choose_images, finetune_text_to_image
from shared.errors import ConfigError, DataError, InputError, Stopped
from shared.stop import StopSignal
from tests.support.checkpoints import FolderCheckpoints, StoppingCheckpoints
from tests.support.tiny_pipeline import tiny_images, tiny_pipeline

RARE = np.array([1])  # colour/green


class Finetune:
    """Calls the function under test with the tiny base."""

    def __init__(self, base: Path, source: BaseSource, folder: Path, device: torch.device) -> None:
        self.base, self.source, self.folder, self.device = base, source, folder, device

    def __call__(
        self,
        name: str,
        checkpoints: Checkpoints | None = None,
        stop: StopSignal | None = None,
        processes: int = 1,
        **values: Any,
    ) -> tuple[Path, list[dict[str, float]]]:
        out = self.folder / name
        defaults = {
            "generator": "stable-diffusion",
            "base": str(self.base),
            "resolution": 32,
            "steps": 5,
            "batch_size": 2,
            "warmup_steps": 2,
            "learning_rate": 1e-3,
            "rank": 2,
            "gradient_checkpointing": False,
            "caption": "a {labels} thing",
        }
        config = StableDiffusionFinetune(**{**defaults, **values})
        finetuning = Finetuning(
            images=tiny_images(),
            rare=RARE,
            seed=7,
            device=self.device,
            out=out,
            checkpoints=checkpoints or NoCheckpoints(),
            stop=StopSignal() if stop is None else stop,  # an unset signal is false
            base=self.source,
            processes=processes,
        )
        return out, finetune_text_to_image(config, finetuning)


@pytest.fixture
def finetune(tiny_base: Path, source: BaseSource, tmp_path: Path, device: torch.device) -> Finetune:
    return Finetune(tiny_base, source, tmp_path, device)


def same(a: Path, b: Path, device: torch.device) -> bool:
    """Returns whether weights are equal, bit for bit on a CPU.

    On a GPU the order of some sums varies, and Adam turns that into whole steps if a gradient is near 0.
    """
    one, other = load_file(a), load_file(b)
    if device.type == "cpu":
        return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    differences = torch.cat([(one[name] - other[name]).abs().flatten() for name in one])
    return one.keys() == other.keys() and float(differences.mean()) < 2e-4


def test_full_trains_the_unet_alone(finetune: Finetune) -> None:
    out, curve = finetune("out", gradient_checkpointing=True)
    assert sorted(p.name for p in out.iterdir()) == ["curve.json", "generator.json", "unet.safetensors"]
    assert [point["step"] for point in curve] == [1, 2, 3, 4, 5]
    assert json.loads((out / "curve.json").read_text()) == curve
    base = load_file(finetune.base / "unet/diffusion_pytorch_model.safetensors")
    trained = load_file(out / "unet.safetensors")
    assert trained.keys() == base.keys()
    assert not any(torch.equal(trained[name], base[name]) for name in base if name.endswith("weight"))
    described = json.loads((out / "generator.json").read_text())
    assert described["generator"] == "stable-diffusion"
    assert "unet/diffusion_pytorch_model.safetensors" in described["base_files"]


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("cpu", "fp32"),
        *(pytest.param("cuda", precision, marks=pytest.mark.gpu) for precision in ("fp32", "bf16", "fp16")),
    ],
    indirect=["device"],
)
def test_it_learns(finetune: Finetune, precision: str) -> None:
    _, curve = finetune("out", steps=25, batch_size=4, learning_rate=5e-3, min_snr=None, precision=precision)
    losses = [point["loss"] for point in curve]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


@pytest.mark.parametrize(
    "values",
    [
        {"text_encoder": True, "ema": 0.9},
        {"method": "lora", "text_encoder": True, "gradient_accumulation": 2, "ema": 0.0},
    ],
    ids=["full", "lora"],
)
def test_an_interrupted_run_ends_with_the_same_weights(
    finetune: Finetune, tmp_path: Path, values: dict[str, Any]
) -> None:
    values |= {"steps": 15, "checkpoint_every": 7}
    whole, curve = finetune("whole", **values)
    stop = StopSignal()
    checkpoints = StoppingCheckpoints(tmp_path / "kept", stop, 7)
    with pytest.raises(Stopped):
        finetune("resumed", checkpoints, stop, **values)
    first, last = checkpoints.steps
    # the signal came while the checkpoint was saved, and took effect at the next look, which is due by the next checkpoint
    assert first == 7 < last <= 14
    resumed, resumed_curve = finetune("resumed", checkpoints, **values)
    names = sorted(p.name for p in whole.glob("*.safetensors"))
    expected = ["lora.safetensors"] if "method" in values else ["text_encoder.safetensors", "unet.safetensors"]
    assert names == expected
    assert all(same(whole / name, resumed / name, finetune.device) for name in names)
    near = 0.0 if finetune.device.type == "cpu" else 2e-2
    assert [p["loss"] for p in resumed_curve] == pytest.approx([p["loss"] for p in curve], rel=near, abs=near)
    seconds = [point["seconds"] for point in resumed_curve]
    assert seconds == sorted(seconds)


def test_no_checkpoint_that_would_not_fit_into_the_grace_period(finetune: Finetune, tmp_path: Path) -> None:
    stop = StopSignal(grace_seconds=0.2)
    checkpoints = StoppingCheckpoints(tmp_path / "kept", stop, 7, takes=0.2)  # seconds, of which half may be used
    with pytest.raises(Stopped):
        finetune("out", checkpoints, stop, steps=15, checkpoint_every=7)
    assert checkpoints.steps == [7]


def test_gradient_checkpointing_changes_no_weight(finetune: Finetune) -> None:
    values: dict[str, Any] = {"text_encoder": True, "steps": 2}
    plain, _ = finetune("plain", **values)
    spared, _ = finetune("spared", gradient_checkpointing=True, **values)
    assert same(plain / "unet.safetensors", spared / "unet.safetensors", finetune.device)
    assert same(plain / "text_encoder.safetensors", spared / "text_encoder.safetensors", finetune.device)


class Memory:
    """Stands in for a GPU's memory, which a CPU has no limit of: more images at once than `most` raise torch's error."""

    def __init__(self, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most, self.sizes = most, list[int]()
        predict = StableDiffusion.predict

        def limited(family: StableDiffusion, model: Any, noisy: torch.Tensor, *rest: Any) -> torch.Tensor:
            self.sizes.append(len(noisy))
            if len(noisy) > self.most:
                raise torch.OutOfMemoryError
            return predict(family, model, noisy, *rest)

        monkeypatch.setattr(StableDiffusion, "predict", limited)
        monkeypatch.setattr("shared.diffusion.text_to_image.batch_parts.has_own_memory", lambda device: True)


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "most", "tried", "parts"),
    [(4, 1, 4, [4], [4]), (4, 1, 2, [4, 2, 2], [2, 2]), (5, 2, 2, [5, 3, 2, 2], [2, 1, 1, 1] * 2), (4, 2, 1, [4, 2, 1, 1], [1] * 8)],
)  # fmt: skip
def test_a_batch_that_does_not_fit_is_divided(
    finetune: Finetune,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    accumulation: int,
    most: int,
    tried: list[int],
    parts: list[int],
) -> None:
    """The gradient is the mean over the same images, so that the weights are the same but for rounding."""
    finetune.device = torch.device("cpu")
    values = {
        "batch_size": batch_size,
        "gradient_accumulation": accumulation,
        "steps": 2,
        "text_encoder": True,
        "min_snr": None,
    }
    whole, curve = finetune("whole", **values)
    memory = Memory(most, monkeypatch)
    divided, divided_curve = finetune("divided", **values)
    assert memory.sizes == [*tried, *parts * 2]
    assert [p["loss"] for p in divided_curve] == pytest.approx([p["loss"] for p in curve], rel=1e-5)
    for name in ("unet.safetensors", "text_encoder.safetensors"):
        one, other = load_file(whole / name), load_file(divided / name)
        differences = torch.cat([(one[key] - other[key]).abs().flatten() for key in one])
        assert float(differences.mean()) < 1e-6  # of steps of 1e-3, of which Adam makes whole ones of a gradient near 0
        if most >= batch_size:
            assert not differences.any(), "the probe changes nothing"


def test_an_interrupted_run_in_parts_ends_with_the_same_weights(
    finetune: Finetune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune.device = torch.device("cpu")
    Memory(2, monkeypatch)
    values: dict[str, Any] = {"batch_size": 3, "steps": 15, "checkpoint_every": 7, "method": "lora"}
    whole, _ = finetune("whole", **values)
    stop = StopSignal()
    checkpoints = StoppingCheckpoints(tmp_path / "kept", stop, 7)
    with pytest.raises(Stopped):
        finetune("resumed", checkpoints, stop, **values)
    resumed, _ = finetune("resumed", checkpoints, **values)
    assert same(whole / "lora.safetensors", resumed / "lora.safetensors", finetune.device)


def test_one_image_that_does_not_fit_is_explained(finetune: Finetune, monkeypatch: pytest.MonkeyPatch) -> None:
    finetune.device = torch.device("cpu")
    Memory(0, monkeypatch)
    with pytest.raises(
        InputError, match="memory is too small for full at resolution 32, fp32, also for a part of the batch"
    ):
        finetune("out", batch_size=4)


def test_a_checkpoint_of_another_model_is_refused(finetune: Finetune, tmp_path: Path) -> None:
    checkpoints = FolderCheckpoints(tmp_path / "kept")
    finetune("lora", checkpoints, method="lora", checkpoint_every=2)
    with pytest.raises(DataError, match="checkpoint: has no"):
        finetune("full", checkpoints)


def test_a_signal_before_the_first_step_stops_it(finetune: Finetune) -> None:
    stop = StopSignal()
    stop.set()
    with pytest.raises(Stopped):
        finetune("out", stop=stop)


def test_rare_images_only() -> None:
    config = StableDiffusionFinetune(generator="stable-diffusion", images="rare")
    chosen = choose_images(tiny_images(), RARE, config)
    assert chosen.paths == ["3.png", "7.png", "11.png"]
    with pytest.raises(ConfigError, match="no training image has a rare class"):
        choose_images(tiny_images(), np.array([], np.int64), config)


def test_rare_images_train(finetune: Finetune) -> None:
    _, curve = finetune("out", images="rare", flip=False, steps=2)
    assert len(curve) == 2


def test_a_base_that_predicts_the_velocity(finetune: Finetune, tmp_path: Path) -> None:
    base = tiny_pipeline(tmp_path / "v", "v_prediction")
    epsilon, velocity = finetune("epsilon", steps=1)[1], finetune("velocity", steps=1, base=str(base))[1]
    assert epsilon[0]["loss"] != velocity[0]["loss"]  # the weights and draws are equal, the targets differ


def test_a_loss_that_is_not_finite_is_explained(finetune: Finetune) -> None:
    with pytest.raises(InputError, match=r"the loss became nan at step \d; lower finetune.learning_rate"):
        finetune("out", learning_rate=1e30, warmup_steps=0)


def test_a_resolution_that_the_unet_cannot_halve(finetune: Finetune) -> None:
    finetune("out", resolution=40, steps=1)
    base = finetune.base
    config = json.loads((base / "unet/config.json").read_text())
    assert len(config["block_out_channels"]) == 2  # with the two of the VAE, sides must be multiples of 4
    finetune.base = finetune.folder / "deeper"
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        (finetune.base / part).mkdir(parents=True)
        for file in (base / part).iterdir():
            (finetune.base / part / file.name).write_bytes(file.read_bytes())
    config["block_out_channels"] = [16, 32, 32, 32]
    (finetune.base / "unet/config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"finetune.resolution: must be a multiple of 16 for .*, got 40"):
        finetune("other", resolution=40)


@pytest.mark.slow
def test_two_processes_train_as_one(tiny_base: Path, source: BaseSource, tmp_path: Path) -> None:
    # on GPUs, the same test would need two of them
    finetune = Finetune(tiny_base, source, tmp_path, torch.device("cpu"))
    values: dict[str, Any] = {"batch_size": 4, "steps": 2, "ema": 0.0, "gradient_accumulation": 2}
    one, curve = finetune("one", **values)
    two, shared_curve = finetune("two", processes=2, **values)
    assert [p["loss"] for p in shared_curve] == pytest.approx([p["loss"] for p in curve], rel=1e-4)
    a, b = load_file(one / "unet.safetensors"), load_file(two / "unet.safetensors")
    for name in a:
        # Adam's first steps are as large as the learning rate
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-3)
    assert not torch.distributed.is_initialized()
