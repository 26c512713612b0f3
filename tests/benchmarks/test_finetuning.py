from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from benchmarks.finetuning import main
from benchmarks.finetuning_run import Options, Run
from benchmarks.machine import DeviceUse
from benchmarks.plain_finetuning import plain_finetuning
from shared.device import pick_device
from tests.support.tiny_pipeline import tiny_images, tiny_pipeline


def run(*arguments: str) -> tuple[int, str]:
    small = ["--device", "cpu", "--steps", "4", "--images", "4", "--batch-size", "2", "--workers", "0", "--rank", "2"]
    result = CliRunner().invoke(main, [*small, *arguments])
    return result.exit_code, result.output


def test_it_measures_both_and_prints_ratios(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    code, output = run("--rounds", "2", "--json", str(figures))
    assert code == 0, output
    assert re.search(r"\| a step \(ms\) \| [\d.]+ ± [\d.]+ \| [\d.]+ ± [\d.]+ \| [\d.]+ × \|", output)
    assert "1,500 steps, computed from these" in output
    found = json.loads(figures.read_text())
    assert (found["options"]["precision"], found["options"]["resolution"]) == ("fp32", 32)
    assert len(found["machine"]["load"]) == 3
    for side in ("tailfill", "plain"):
        assert len(found[side]) == 2
        for measured in found[side]:
            assert measured["seconds"] > measured["once"] > 0
            assert measured["cpu_seconds"] > 0
            assert 0.2 < measured["loss"] < 5
            assert measured["peak_bytes"] is None


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_plain_loop_trains(method: str, tmp_path: Path) -> None:
    base, images = tiny_pipeline(tmp_path / "base", "v_prediction"), tiny_images(4)
    options = Options(method, 3, 2, 32, "fp32", 2, gradient_checkpointing=True, workers=0, learning_rate=0.01)
    plain_finetuning(base, images.encoded, ["a photo"] * 4, options, pick_device("cpu"), tmp_path / "out")
    if method == "lora":
        state = load_file(tmp_path / "out" / "pytorch_lora_weights.safetensors")
        assert all(value.abs().max() > 0 for name, value in state.items() if "lora.up" in name or "lora_B" in name)
        return
    before, after = (load_file(f / "unet" / "diffusion_pytorch_model.safetensors") for f in (base, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all((before[name] != after[name]).any() for name in before)


def test_a_step_is_counted_between_two_looks_after_the_first_quarter() -> None:
    use = DeviceUse(samples=[(90.0, 0.1), (96.0, 0.5), (99.0, 0.7), (101.0, 0.2)])
    found = Run.of(20.0, 7.0, [(1, 5.0), (4, 8.0), (12, 16.0)], [1.0, 2.0], use, 100.0)
    assert (found.once, found.per_step, found.loss, found.busy) == (4.0, 1.0, 1.5, pytest.approx(0.6))
    assert Run.of(3.0, 3.0, [(2, 1.0)], [1.0], DeviceUse(), 9.0).per_step == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base", "nowhere"], "--base: there is no folder nowhere; name one, or tiny or sd15 for random weights"),
        (["--images", "1"], "--images: 1 do not fill a batch; use 2 or more, or lower --batch-size"),
        (["--base", "."], "finetune.base"),
    ],
)
def test_it_refuses_what_it_cannot_measure(arguments: list[str], message: str) -> None:
    code, output = run(*arguments)
    assert code == 1
    assert message in output
    assert "Traceback" not in output
