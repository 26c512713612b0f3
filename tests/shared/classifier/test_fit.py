from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from shared.artifacts.checkpoints import NoCheckpoints
from shared.classifier.fit import (
    EpochRecord,
    OutOfMemory,
    TrainedClassifier,
    TrainingData,
    TrainingDiverged,
    TrainingFailed,
    _room,
    apply_mixup,
    fit,
    new_network,
    unmasked_targets,
)
from shared.classifier.loss import ClassCounts, Loss
from shared.classifier.model import trains_on_one
from shared.classifier.runtime import Runtime
from shared.classifier.sampling import Sampler
from shared.classifier.training_set import effective_training_set
from shared.config.search import Resources
from shared.config.stages import Arm
from shared.data.imageset import ImageSet
from shared.data.schema import LabelGroup, LabelSchema
from shared.errors import InputError, Stopped, UnavailableError
from shared.stop import StopSignal
from tests.support.checkpoints import FolderCheckpoints
from tests.support.tiny_arms import make_arm, make_images

Build = Callable[..., TrainingData]
RARE = np.array([2])
PLAIN = make_arm(training={"batch_size": 30})
HARD = make_arm(
    classifier={"trainable": "layer4"},
    augmentation="hard",
    training={
        "mixup": 0.4,
        "erasing": 0.5,
        "dropout": 0.5,
        "refit_epochs": 2,
        "class_power": 0.5,
        "optimizer": "adamw",
    },
)


@pytest.fixture
def build(device: torch.device) -> Build:
    def build(arm: Arm, train: ImageSet, val: ImageSet, generated: ImageSet | None = None) -> TrainingData:
        nothing = pa.nulls(20, pa.string())
        columns = {"plausibility": np.full(20, 0.5), "as_near": np.ones(20), "copy_of": nothing, "leak_of": nothing}
        scores = pa.table(columns) if generated else None
        training = effective_training_set(arm, train, generated, scores, RARE)
        return TrainingData.build(arm, training, val, RARE, Runtime(device, Resources()))

    return build


def run(
    arm: Arm,
    data: TrainingData,
    epochs: int = 3,
    checkpoints: Any = None,
    stop: StopSignal | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    every: int = 1,
) -> TrainedClassifier:
    return fit(
        arm, data, epochs, 7, checkpoints or NoCheckpoints(), StopSignal() if stop is None else stop, on_epoch, every
    )


def timeless(history: list[EpochRecord]) -> list[EpochRecord]:
    return [replace(record, seconds=0.0) for record in history]


def assert_same(a: TrainedClassifier, b: TrainedClassifier) -> None:
    """Checks that two results are equal, bit for bit on a CPU. On a GPU the order of some sums varies, which bfloat16 makes visible."""
    first, second = a.network.state_dict(), b.network.state_dict()
    if a.device.type == "cpu":
        assert timeless(a.history) == timeless(b.history)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert np.array_equal(a.val_probabilities, b.val_probabilities)
    else:
        assert [r.train_loss for r in a.history] == pytest.approx([r.train_loss for r in b.history], rel=1e-2)
        assert all(torch.allclose(first[name], second[name], rtol=1e-2, atol=1e-2) for name in first)
        assert np.allclose(a.val_probabilities, b.val_probabilities, atol=1e-2)


def test_it_learns_and_predicts(train: ImageSet, val: ImageSet, tmp_path: Path, build: Build) -> None:
    arm = make_arm(training={"lr": 0.01})
    fitted = run(arm, build(arm, train, val), 6)
    assert fitted.history[-1].val_accuracy > 0.65
    assert fitted.history[-1].train_loss < fitted.history[0].train_loss
    predicted = fitted.predict(val)
    assert predicted.shape == (40, 5)
    assert np.allclose(predicted[:, :3].sum(1), 1, atol=1e-5)
    assert np.allclose(predicted, fitted.val_probabilities, atol=1e-5)
    assert fitted.features(val).shape == (40, 96)
    fitted.save(tmp_path / "model.safetensors")
    from safetensors.torch import load_file

    assert set(load_file(tmp_path / "model.safetensors")) == set(fitted.network.state_dict())


@pytest.mark.parametrize("count", [1, 3, 9])
def test_a_single_image_that_batch_norm_cannot_take_joins_another_batch(
    count: int, val: ImageSet, build: Build
) -> None:
    arm = make_arm(training={"batch_size": 2, "refit_epochs": 1, "mixup": 0.2})
    few = make_images(9).take(np.arange(count))
    data = build(arm, few, val)
    network = new_network(arm, data, 7)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    assert not trains_on_one(network, data.unaugmented(network, np.array([0])))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(np.isfinite(record.train_loss) for record in run(arm, data, 2).history)


def test_a_single_image_stays_alone_if_the_network_takes_it(
    val: ImageSet, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = make_arm(training={"batch_size": 2})
    large = make_images(5, side=64)
    data = build(arm, large, make_images(4, seed=1, side=64, split="val"))
    taken: list[int] = []
    batch = TrainingData.batch
    monkeypatch.setattr(TrainingData, "batch", lambda *a: taken.append(len(a[3])) or batch(*a))
    run(arm, data, 1)
    assert sorted(taken) == [1, 2, 2]


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True)
def test_a_gpu_without_bfloat16_trains_in_float16_and_goes_on(
    train: ImageSet, val: ImageSet, tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    arm = make_arm(classifier={"trainable": "layer4"}, training={"lr": 0.01})
    data = build(arm, train, val)
    whole = run(arm, data, 6)
    assert whole.history[-1].val_accuracy > 0.65
    checkpoints, stop = FolderCheckpoints(tmp_path), StopSignal()
    with pytest.raises(Stopped):
        run(arm, data, 6, checkpoints, stop, lambda record: stop.set())
    assert_same(whole, run(arm, data, 6, checkpoints))


@pytest.mark.parametrize(("arm", "interrupted_after"), [(PLAIN, 1), (HARD, 1), (HARD, 3), (HARD, 4)])
def test_a_resumed_run_is_the_uninterrupted_one(
    train: ImageSet, val: ImageSet, tmp_path: Path, arm: Arm, interrupted_after: int, build: Build
) -> None:
    data, total = build(arm, train, val), 3 + arm.training.refit_epochs
    whole = run(arm, data)
    assert len(whole.history) == total
    checkpoints, stop = FolderCheckpoints(tmp_path), StopSignal()
    reported: list[int] = []

    def on_epoch(record: EpochRecord) -> None:
        reported.append(record.epoch)
        if record.epoch + 1 == interrupted_after:
            stop.set()

    with pytest.raises(Stopped):
        run(arm, data, checkpoints=checkpoints, stop=stop, on_epoch=on_epoch, every=100)
    torch.manual_seed(99)  # what happens in between must not change the result
    resumed = run(arm, build(arm, train, val), checkpoints=checkpoints, on_epoch=lambda r: reported.append(r.epoch))
    assert_same(whole, resumed)
    assert reported == list(range(total))


def test_a_signal_in_the_last_epoch_keeps_it_for_whoever_comes_next(
    train: ImageSet, val: ImageSet, tmp_path: Path, build: Build
) -> None:
    arm, checkpoints, stop = make_arm(classifier={"trainable": "head"}), FolderCheckpoints(tmp_path), StopSignal()
    data = build(arm, train, val)
    fitted = run(arm, data, 2, checkpoints, stop, lambda record: stop.set() if record.epoch == 1 else None, every=100)
    found = checkpoints.load()
    assert found is not None
    assert found[1]["epoch"] == 2
    assert_same(fitted, run(arm, data, 2, checkpoints))


@pytest.mark.parametrize("signalled", [False, True])
def test_a_store_that_is_away_at_the_end_costs_nothing(
    train: ImageSet, val: ImageSet, tmp_path: Path, build: Build, signalled: bool
) -> None:
    last, stop = threading.Event(), StopSignal()

    class Away(FolderCheckpoints):
        def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
            assert last.wait(60)
            raise UnavailableError("the store is away")

    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == 2:
            last.set()
            if signalled:
                stop.set()

    arm = make_arm(classifier={"trainable": "head"})
    fitted = run(arm, build(arm, train, val), 3, Away(tmp_path), stop, on_epoch, every=100 if signalled else 1)
    assert len(fitted.history) == 3


def test_a_store_that_is_away_in_the_middle_ends_it_lest_all_be_lost_later(
    train: ImageSet, val: ImageSet, tmp_path: Path, build: Build
) -> None:
    class Away(FolderCheckpoints):
        def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
            raise UnavailableError("the store is away")

    arm = make_arm(classifier={"trainable": "head"})
    with pytest.raises(UnavailableError):
        run(arm, build(arm, train, val), 9999, Away(tmp_path))


def test_no_checkpoint_is_begun_that_does_not_fit_into_the_grace_period(
    train: ImageSet, val: ImageSet, tmp_path: Path, build: Build
) -> None:
    class SlowStore(FolderCheckpoints):
        def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
            time.sleep(0.2)
            super().save(files, **values)

    arm, checkpoints, stop = make_arm(classifier={"trainable": "head"}), SlowStore(tmp_path), StopSignal(0.2)
    with pytest.raises(Stopped):
        run(arm, build(arm, train, val), 9999, checkpoints, stop, lambda r: stop.set() if r.epoch == 5 else None, 5)
    found = checkpoints.load()
    assert found is not None
    assert found[1]["epoch"] == 5


def test_the_training_does_not_wait_for_a_slow_store(
    train: ImageSet, val: ImageSet, tmp_path: Path, build: Build
) -> None:
    later = threading.Event()

    class SlowStore(FolderCheckpoints):
        def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
            # this epoch would never come if the training waited for the checkpoint
            assert later.wait(60)
            super().save(files, **values)

    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == 3:
            later.set()

    arm, checkpoints = make_arm(classifier={"trainable": "head"}), SlowStore(tmp_path)
    fitted = run(arm, build(arm, train, val), 5, checkpoints, on_epoch=on_epoch)
    assert len(fitted.history) == 5
    found = checkpoints.load()
    assert found is not None
    # the next ones were due while it was being saved; the last would not have been needed
    assert found[1]["epoch"] == 1


def test_fits_on_one_data_do_not_touch_each_other(train: ImageSet, val: ImageSet, build: Build) -> None:
    arm = make_arm(classifier={"trainable": "layer4"})
    data = build(arm, train, val)
    first = run(arm, data, 2)
    before = first.predict(val)
    assert_same(first, run(arm, data, 2))
    assert np.array_equal(before, first.predict(val))


def test_the_global_random_state_is_left_alone(
    train: ImageSet, val: ImageSet, build: Build, device: torch.device
) -> None:
    arm = make_arm(classifier={"trainable": "head"})
    data = build(arm, train, val)
    torch.manual_seed(1)
    expected = torch.rand(3, device=device)
    torch.manual_seed(1)
    run(arm, data, 1)
    assert torch.equal(torch.rand(3, device=device), expected)


def test_untrained_weights_follow_the_seed_only_where_they_train(train: ImageSet, val: ImageSet, build: Build) -> None:
    arm = make_arm(classifier={"trainable": "layer4"})
    data = build(arm, train, val)
    a, b = (fit(arm, data, 1, seed, NoCheckpoints(), StopSignal()).network.state_dict() for seed in (1, 2))
    assert torch.equal(a["trunk.layer1.0.conv1.weight"], b["trunk.layer1.0.conv1.weight"])
    assert not torch.equal(a["trunk.layer4.0.conv1.weight"], b["trunk.layer4.0.conv1.weight"])


def test_what_on_epoch_raises_ends_it(train: ImageSet, val: ImageSet, build: Build) -> None:
    class Pruned(Exception):
        pass

    def prune(record: EpochRecord) -> None:
        raise Pruned

    arm = make_arm(classifier={"trainable": "head"})
    with pytest.raises(Pruned):
        run(arm, build(arm, train, val), on_epoch=prune)


def test_a_loss_that_is_no_number_is_a_failed_training(train: ImageSet, val: ImageSet, build: Build) -> None:
    arm = make_arm(training={"lr": 1e30})
    with pytest.raises(TrainingDiverged, match=r"diverged in epoch \d: .*lower training\.lr") as caught:
        run(arm, build(arm, train, val), 3)
    assert isinstance(caught.value, TrainingFailed | InputError)


def test_memory_that_does_not_suffice_is_a_failed_training(
    train: ImageSet, val: ImageSet, build: Build, device: torch.device
) -> None:
    def full(record: EpochRecord) -> None:
        torch.empty(2**50, device=device)

    arm = make_arm(classifier={"trainable": "head"})
    data = build(arm, train, val)
    with pytest.raises(
        OutOfMemory, match=r"training\.batch_size: 16 images do not fit .*(CUDA out of|allocate) memory"
    ):
        run(arm, data, on_epoch=full)
    assert len(run(arm, data).history) == 3  # the memory suffices for the next trial


def test_data_of_another_arm_is_a_programming_error(train: ImageSet, val: ImageSet, build: Build) -> None:
    data = build(make_arm(), train, val)
    with pytest.raises(ValueError, match="built for an arm with other inputs"):
        run(make_arm(classifier={"trainable": "head"}), data)


def test_validation_loss_does_not_know_what_is_searched(
    train: ImageSet, val: ImageSet, generated: ImageSet, build: Build
) -> None:
    """Smoothing, mixup and weights of generated images change the training, not how a network is measured."""
    accept = {"plausibility": [0.2, 0.9], "copies": "refuse"}
    arms = [
        make_arm(
            images="real+synthetic", accept=accept, synthetic={"loss_weight": weight},
            training={"label_smoothing": smoothing, "mixup": mixup, "lr": 1e-20}, classifier={"trainable": "head"},
        )
        for weight, smoothing, mixup in ((1.0, 0.0, 0.0), (0.1, 0.4, 1.0))
    ]  # fmt: skip
    fits = [run(arm, build(arm, train, val, generated), 1) for arm in arms]
    assert fits[0].history[0].val_loss == pytest.approx(fits[1].history[0].val_loss, abs=1e-6)
    assert fits[0].history[0].train_loss != pytest.approx(fits[1].history[0].train_loss, abs=1e-3)


def test_the_refit_uses_real_images_only_and_moves_the_last_layer_only(
    train: ImageSet, val: ImageSet, generated: ImageSet, build: Build
) -> None:
    accept = {"plausibility": [0.2, 0.9], "copies": "refuse"}
    options: dict[str, Any] = {"images": "real+synthetic", "accept": accept, "synthetic": {"share": 0.5, "until": 0.5}}
    without = make_arm(**options, classifier={"trainable": "head"})
    with_refit = make_arm(**options, classifier={"trainable": "head"}, training={"refit_epochs": 2})
    data = build(without, train, val, generated)
    first, second = run(without, data, 2), run(with_refit, data, 2)
    assert len(second.history) == 4
    a, b = first.network.state_dict(), second.network.state_dict()
    changed = {name for name in a if not torch.equal(a[name], b[name])}
    assert changed == {"head.3.weight", "head.3.bias"}


def test_the_prior_is_that_of_the_epoch(device: torch.device) -> None:
    """70 real and 330 generated images of a rare class, with the settings of studies/deepfashion.yaml."""
    schema = LabelSchema(groups=(LabelGroup(name="a", classes=("rare", "other")),))
    rare = np.concatenate([np.arange(4420) < 70, np.arange(1680) < 330])
    labels = np.stack([rare, ~rare], 1).astype(np.int8)
    generated = np.arange(6100) >= 4420
    assert np.log(rare.mean()) == pytest.approx(-2.72, abs=0.005)  # what the pool's counts say
    priors = {}
    for power in (0.0, 1.0):
        arm = make_arm(
            images="real+synthetic",
            accept={"plausibility": [0.2, 0.9], "copies": "refuse"},
            synthetic={"share": 0.2, "loss_weight": 0.5, "until": 0.6},
            training={"loss": "balanced_softmax", "batch_size": 128, "class_power": power},
        )
        weight = np.where(generated, 0.5, 1.0)
        sampler = Sampler(arm, labels, generated, 10, 0)
        for epoch in (5, 6):
            drawn = ClassCounts.of(labels, np.ones_like(labels, bool), sampler.expected_draws(epoch) * weight)
            loss = Loss.of(schema, arm.training, drawn, drawn, device)
            logits = torch.zeros(1, 2, device=device)
            value = loss(logits, unmasked_targets(torch.tensor([[1, 0]], device=device), 1))
            priors[power, epoch] = -float(value)
    assert priors[0.0, 5] == pytest.approx(-3.33, abs=0.005)
    assert priors[0.0, 6] == pytest.approx(-4.15, abs=0.005)
    assert priors[1.0, 5] == pytest.approx(np.log(0.5), abs=0.005)  # balanced already
    assert priors[1.0, 6] == pytest.approx(np.log(0.5), abs=0.005)


def test_an_epoch_trains_with_the_prior_of_what_it_draws(
    train: ImageSet, val: ImageSet, generated: ImageSet, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = {"plausibility": [0.2, 0.9], "copies": "refuse"}
    arm = make_arm(
        images="real+synthetic",
        accept=accept,
        synthetic={"share": 0.5, "loss_weight": 0.5, "until": 0.5},
        training={"loss": "balanced_softmax"},
        classifier={"trainable": "head"},
    )
    data = build(arm, train, val, generated)
    seen: list[ClassCounts] = []
    of = Loss.of

    def spied(schema: Any, training: Any, counts: ClassCounts, drawn: ClassCounts, device: torch.device) -> Loss:
        seen.append(drawn)
        return of(schema, training, counts, drawn, device)

    monkeypatch.setattr(Loss, "of", spied)
    run(arm, data, 2)
    shares = [counts.positive[2] / counts.known[2] for counts in seen]
    known = train.labels[:, 0] >= 0
    real = (train.labels[known, 2] == 1).mean()
    sources = np.arange(20) * 2  # of `generated`
    labels = train.labels[sources]
    added = labels[:, 0] >= 0
    weights = np.array([0.5 * known.sum() / 60, 0.25 * added.sum() / 20])  # of what is known
    assert shares[0] == pytest.approx(np.average([real, (labels[added, 2] == 1).mean()], weights=weights))
    assert shares[1] == pytest.approx(real)


ACCEPT = {"plausibility": [0.2, 0.9], "copies": "refuse"}
START = 7
"""Gives a training row with a known colour, from which generated images start."""


def starting(generated: ImageSet, noise: float | None) -> ImageSet:
    """Returns generated images that start from the training image START with a share of noise; None for images from noise alone."""
    assert generated.extra is not None
    extra = generated.extra.append_column("start", pa.array([None if noise is None else START] * 20, pa.int64()))
    return replace(generated, extra=extra.append_column("noise_share", pa.array([noise] * 20, pa.float64())))


def soft_arm(mixup: float = 0.0, **synthetic: float) -> Arm:
    return make_arm(
        images="real+synthetic", accept=ACCEPT, synthetic=synthetic, classifier={"trainable": "head"},
        training={"loss": "balanced_softmax", "mixup": mixup, "class_power": 0.0},
    )  # fmt: skip


def test_counts_and_the_prior_take_soft_labels_as_shares(
    train: ImageSet, val: ImageSet, generated: ImageSet, build: Build
) -> None:
    data = build(soft_arm(), train, val, starting(generated, 0.64))
    colours = [images.labels[images.labels[:, 0] >= 0, :3] for images in (train, generated)]
    start = train.labels[START, :3]
    unknown = 20 - len(colours[1])
    expected = colours[0].sum(0) + 0.8 * colours[1].sum(0) + 0.2 * 20 * start
    found = data.counts(0.5)
    assert found.positive[:3] == pytest.approx(expected)
    assert found.known[:3] == pytest.approx([len(colours[0]) + 20 - 0.8 * unknown] * 3)
    weighted = data.counts(0.5, np.where(data.generated, 0.5, 1.0)).positive[:3]
    assert weighted == pytest.approx(colours[0].sum(0) + 0.5 * (expected - colours[0].sum(0)))
    assert data.real_counts().positive[:3] == pytest.approx(colours[0].sum(0))


def test_no_noise_on_a_start_of_another_class_trains_on_its_label_and_all_noise_on_the_own(
    train: ImageSet, val: ImageSet, generated: ImageSet, build: Build
) -> None:
    """A share of 1 is the label of the image itself, to the bit; a share of nearly 0 is that of its start."""
    for mixup in (0.0, 0.5):
        arm = soft_arm(mixup, share=0.5)
        hard = run(arm, build(arm, train, val, generated), 2)
        whole = run(arm, build(arm, train, val, starting(generated, 1.0)), 2)
        nothing = run(arm, build(arm, train, val, starting(generated, None)), 2)
        for other in (whole, nothing):
            assert [record.train_loss for record in other.history] == pytest.approx(
                [record.train_loss for record in hard.history], rel=1e-6
            )
        moved = replace(generated, labels=np.repeat(train.labels[[START]], 20, axis=0))
        start = run(arm, build(arm, train, val, moved), 2)
        none = run(arm, build(arm, train, val, starting(generated, 1e-30)), 2)
        assert [record.train_loss for record in none.history] == pytest.approx(
            [record.train_loss for record in start.history], rel=1e-5
        )
        assert [record.train_accuracy for record in none.history] == pytest.approx(
            [record.train_accuracy for record in start.history]
        )
        assert start.history[0].train_loss != pytest.approx(hard.history[0].train_loss, rel=1e-3)


def test_the_power_of_labels_changes_the_training_and_not_its_inputs(
    train: ImageSet, val: ImageSet, generated: ImageSet, build: Build
) -> None:
    soft, softer = (soft_arm(share=0.5, label_power=power) for power in (0.1, 2.0))
    data = build(soft, train, val, starting(generated, 0.5))
    assert data.matches(softer)
    losses = [run(arm, data, 1).history[0].train_loss for arm in (soft, softer)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_mixup_shares_what_soft_labels_leave(device: torch.device) -> None:
    labels = torch.tensor([[1, 0], [0, 1]], device=device)
    own = unmasked_targets(labels, 1)
    soft = [replace(own, weight=own.weight * 0.75), replace(own, labels=labels.flip(0), weight=own.weight * 0.25)]
    inputs = torch.tensor([[1.0], [3.0]], device=device)
    partner, share = torch.tensor([1, 0], device=device), torch.tensor([0.6, 0.5], device=device)
    mixed, targets = apply_mixup(inputs, soft, partner, share)
    assert mixed[:, 0].tolist() == pytest.approx([1.8, 2.0])
    first = [sum(float(t.weight[i]) for t in targets if int(t.labels[i, 0]) == 1) for i in range(2)]
    assert first == pytest.approx([0.75 * 0.6 + 0.25 * 0.4, 0.25 * 0.5 + 0.75 * 0.5])
    assert sum(float(t.weight.sum()) for t in targets) == pytest.approx(2.0)


def test_a_disk_without_room_for_the_inputs_of_the_last_layer_is_named() -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UnavailableError, match="the file is larger"):
            _room((300, 1), torch.device("cpu"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    room = _room((300, 4), torch.device("cpu"))
    room[:] = 2
    assert (room.dtype, room.shape, float(room.sum())) == (torch.float32, (300, 4), 2400)
