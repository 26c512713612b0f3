"""Compiles tiny networks by the machine's compiler."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from shared.config.generation import StableDiffusionFinetune
from shared.diffusion.generator import BaseSource, SampleRequest
from shared.diffusion.text_to_image.compiled import Gain, _private, compile_denoiser
from shared.diffusion.text_to_image.generator import TextToImage
from shared.diffusion.text_to_image.train import finetune_text_to_image
from shared.errors import ConfigError, Stopped
from shared.log import Log
from shared.stop import StopSignal
from tests.support.checkpoints import StoppingCheckpoints
from tests.support.tiny_pipeline import tiny_finetuning

RED_SQUARE, GREEN_STRIPE = np.array([1, 0, 1, 0], np.int8), np.array([0, 1, 0, 1], np.int8)
REQUESTS = [SampleRequest(RED_SQUARE, 1), SampleRequest(GREEN_STRIPE, 2), SampleRequest(RED_SQUARE, 3)]
CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor:UserWarning"
)  # torch's own, as it traces


def config(base: Path, **values: object) -> StableDiffusionFinetune:
    return StableDiffusionFinetune.model_validate({
        "generator": "stable-diffusion", "base": str(base), "method": "lora", "rank": 4, "resolution": 32, "steps": 4, "batch_size": 2,
        "learning_rate": 0.02, "warmup_steps": 0, "ema": 0.0, "checkpoint_every": 1, **values,
    })  # fmt: skip


def weights(folder: Path) -> Mapping[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "lora.safetensors")
    return found


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, compiled: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(compiled))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


def test_a_compiled_training_goes_on_and_its_weights_are_those_of_a_plain_one_but_for_rounding(
    tiny_base: Path, source: BaseSource, compiled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fast = replace(source, compiled=compiled)
    for name, where in (("plain", source), ("compiled", fast)):
        finetune_text_to_image(config(tiny_base), tiny_finetuning(tmp_path / name, where, CPU))
    plain, whole = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    assert any((plain[name] != whole[name]).any() for name in plain), "nothing was compiled"
    for name in plain:
        torch.testing.assert_close(whole[name], plain[name], rtol=1e-3, atol=1e-4)
    assert any(compiled.rglob("*.so")), "the compiled code is not kept in the folder"
    (said,) = [vars(record)["values"] for record in caplog.records if "compil" in record.message]
    assert said["steps_left"] == 4
    assert said["compiling_seconds"] > 0

    stop = StopSignal()
    finetuning = replace(
        tiny_finetuning(tmp_path / "resumed", fast, CPU),
        stop=stop,
        checkpoints=StoppingCheckpoints(tmp_path / "kept", stop, step=2),
    )
    with pytest.raises(Stopped):
        finetune_text_to_image(config(tiny_base), finetuning)
    finetune_text_to_image(config(tiny_base), replace(finetuning, stop=StopSignal()))
    resumed = weights(tmp_path / "resumed")
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=0)


def test_compiled_images_are_those_of_the_plain_network_but_for_rounding(
    tiny_base: Path, source: BaseSource, compiled: Path, tmp_path: Path
) -> None:
    finetune_text_to_image(config(tiny_base), tiny_finetuning(tmp_path / "out", source, CPU))
    files = {path.name: path for path in (tmp_path / "out").iterdir()}
    plain = TextToImage.load(files, CPU, source)
    fast = TextToImage.load(files, CPU, replace(source, compiled=compiled))
    for requests in (REQUESTS, REQUESTS[:1]):  # a block of another size
        difference = fast.sample(requests, 3.0, 4).astype(int) - plain.sample(requests, 3.0, 4)
        assert np.abs(difference).max() <= 2
    np.testing.assert_array_equal(fast.sample(REQUESTS, 3.0, 4), fast.sample(REQUESTS, 3.0, 4))


def test_without_a_compiler_it_says_so(compiled: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.fx_graph_cache", False)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cold"))
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.GELU())
    with pytest.raises(ConfigError, match=r"resources.compile: torch cannot compile .* install a C\+\+ compiler"):
        compile_denoiser(model, lambda: model(torch.ones(7, 3)), tmp_path / "own")


def test_another_user_s_folder_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(ConfigError, match=r"resources.compile: .*link is not a folder of this user"):
        _private(tmp_path / "link")
    if os.getuid() == 0:
        os.chown(target, 12345, 12345)
        with pytest.raises(ConfigError, match=r"target is not a folder of this user"):
            _private(target)
    assert _private(tmp_path / "new" / "own").stat().st_mode & 0o777 == 0o700


def test_a_gain_says_when_it_pays(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    gain = Gain(60.0, 0.4, 0.3)
    assert gain.break_even == pytest.approx(600)
    assert gain.per(2.0).break_even == pytest.approx(300)
    assert Gain(60.0, 0.3, 0.3).break_even == float("inf")
    for case, left, words in (
        (gain, 1000, "compiling pays after so many steps"),
        (gain, 500, "compiling takes longer than it saves"),
        (gain, None, "compiling pays after so many steps"),
        (Gain(60.0, 0.3, 0.4), 1000, "no faster"),
    ):
        caplog.clear()
        case.tell(Log("test"), "step", left)
        assert words in caplog.text
