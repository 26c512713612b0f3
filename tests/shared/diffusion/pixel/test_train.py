from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from shared.artifacts.checkpoints import Checkpoints, NoCheckpoints
from shared.config.generation import PixelFinetune
from shared.diffusion.balance import draw_probabilities
from shared.diffusion.generator import BaseSource, Finetuning
from shared.diffusion.pixel.train import finetune_pixel
from shared.errors import DataError, InputError, Stopped
from shared.settings import Settings
from shared.stop import StopSignal
from tests.support.checkpoints import FolderCheckpoints, StoppingCheckpoints
from tests.support.pixel_images import shapes

Train = Callable[..., Path]
CONFIG = PixelFinetune(
    generator="pixel", steps=12, batch_size=4, resolution=16, width=8, warmup_steps=3, ema=0.9, checkpoint_every=5
)


@pytest.fixture(scope="module")
def train(device: torch.device) -> Train:
    def train(
        config: PixelFinetune, out: Path, checkpoints: Checkpoints | None = None, stop: StopSignal | None = None
    ) -> Path:
        finetuning = Finetuning(
            images=shapes(30),
            rare=np.array([1]),
            seed=3,
            device=device,
            out=out,
            checkpoints=NoCheckpoints() if checkpoints is None else checkpoints,
            stop=StopSignal() if stop is None else stop,
            base=BaseSource(Settings.from_environment({}), out.parent),
        )
        finetune_pixel(config, finetuning)
        return out

    return train


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, train: Train) -> Path:
    return train(CONFIG, tmp_path_factory.mktemp("whole") / "out")


def test_a_stopped_training_goes_on_and_ends_with_the_same_bytes(
    whole: Path, tmp_path: Path, train: Train, device: torch.device
) -> None:
    stop = StopSignal()
    checkpoints = StoppingCheckpoints(tmp_path / "kept", stop)
    with pytest.raises(Stopped):
        train(CONFIG, tmp_path / "first" / "out", checkpoints, stop)
    found = checkpoints.load()
    assert found is not None
    # one was due at step 5, when the signal came; another was saved at step 6, before the end
    assert found[1]["step"] == 6
    resumed = FolderCheckpoints(tmp_path / "again")
    resumed.save(found[0], **found[1])
    train(CONFIG, tmp_path / "second" / "out", resumed)
    ours, theirs = (folder / "model.safetensors" for folder in (tmp_path / "second/out", whole))
    if device.type == "cpu":
        assert ours.read_bytes() == theirs.read_bytes()
        assert steps_and_losses(tmp_path / "second/out") == steps_and_losses(whole)
    else:  # on a GPU the order of some sums varies
        found, wanted = load_file(ours), load_file(theirs)
        assert all(torch.allclose(found[name], wanted[name], rtol=1e-2, atol=1e-3) for name in wanted)


def test_no_checkpoint_is_begun_that_does_not_fit_into_the_grace_period(tmp_path: Path, train: Train) -> None:
    stop = StopSignal(grace_seconds=0)
    checkpoints = StoppingCheckpoints(tmp_path / "kept", stop)
    with pytest.raises(Stopped):
        train(CONFIG, tmp_path / "out", checkpoints, stop)
    found = checkpoints.load()
    assert found is not None
    assert found[1]["step"] == 5


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, train: Train) -> None:
    checkpoints = FolderCheckpoints(tmp_path / "kept")
    train(CONFIG, tmp_path / "one" / "out", checkpoints)
    with pytest.raises(DataError, match="belong to another model"):
        train(CONFIG.model_copy(update={"width": 16}), tmp_path / "two" / "out", checkpoints)


def test_the_loss_falls_and_the_curve_says_so(tmp_path: Path, train: Train) -> None:
    longer = CONFIG.model_copy(update={"steps": 40, "learning_rate": 8e-3, "checkpoint_every": 1000})
    curve = json.loads((train(longer, tmp_path / "out") / "curve.json").read_text())
    assert curve[-1]["step"] == 40
    assert [point["seconds"] for point in curve] == sorted(point["seconds"] for point in curve)
    losses = [point["loss"] for point in curve]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


def test_a_loss_that_is_no_number_says_what_to_lower(tmp_path: Path, train: Train) -> None:
    with pytest.raises(
        InputError, match=r"the loss became (nan|inf) at step \d+; lower finetune.learning_rate \(1e\+30\)"
    ):
        train(CONFIG.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0}), tmp_path / "out")


def test_without_an_average_the_last_weights_are_kept(tmp_path: Path, whole: Path, train: Train) -> None:
    last = train(CONFIG.model_copy(update={"ema": 0.0}), tmp_path / "out")
    assert (last / "model.safetensors").read_bytes() != (whole / "model.safetensors").read_bytes()


def test_rare_classes_are_drawn_by_the_power_of_their_count() -> None:
    labels = np.array([[1, 0]] * 8 + [[0, 1]] * 2, np.int8)
    for power, share in ((0.0, 0.2), (0.5, 2 * 2**-0.5 / (2 * 2**-0.5 + 8 * 8**-0.5)), (1.0, 0.5)):
        assert draw_probabilities(labels, power)[8:].sum() == pytest.approx(share)


def test_an_image_without_any_known_label_is_drawn_like_one_of_a_class_with_all_images() -> None:
    probabilities = draw_probabilities(np.array([[1], [-1], [1], [1]], np.int8), 1.0)
    assert probabilities == pytest.approx(np.array([4, 3, 4, 4]) / 15)


def steps_and_losses(out: Path) -> list[tuple[float, float]]:
    return [(point["step"], point["loss"]) for point in json.loads((out / "curve.json").read_text())]
