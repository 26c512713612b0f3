"""Predicts probabilities and features of any images with a trained network, and saves and loads its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.classifier.data import frozen_backbone
from shared.classifier.frozen_features import BLOCK, FrozenBackbone, decoded
from shared.classifier.model import Network, build_head, split_trunk
from shared.classifier.precision import autocast, move_to, to_float_images
from shared.classifier.runtime import Runtime
from shared.classifier.snapshot import EpochRecord
from shared.config.stages import Arm, Stage
from shared.data.imageset import ImageSet
from shared.data.schema import LabelSchema
from shared.tensors import check_shapes, read_tensors, save_tensors
from shared.weights import pretrained

BATCH = 128


@dataclass(frozen=True)
class Predictor:
    """Holds a trained network on a device."""

    network: Network
    schema: LabelSchema
    device: torch.device
    frozen: FrozenBackbone

    def predict(self, images: ImageSet) -> NDArray[np.float32]:
        """Returns probabilities `[n, C]`: softmax over a `one` group, sigmoid in an `any` group."""
        return probabilities(self.logits(images), self.schema)

    def logits(self, images: ImageSet) -> Tensor:
        """Returns logits `[n, C]` on the CPU."""
        return self._batched(images, head=True)

    def features(self, images: ImageSet) -> NDArray[np.float32]:
        """Returns pooled features `[n, F]` of the trained trunk."""
        return self._batched(images, head=False).numpy()

    def save(self, path: Path) -> None:
        """Writes all weights and buffers as safetensors, named `trunk.<timm's name>` and `head.<index>.*`."""
        save_tensors(self.network.state_dict(), path)

    def _batched(self, images: ImageSet, head: bool) -> Tensor:
        self.network.eval()
        module = self.network if head else self.network.parts.trained_part
        parts = []
        with torch.inference_mode(), autocast(self.device):
            for block in self._below(images):
                parts += [module(batch).float().cpu() for batch in torch.split(block, BATCH)]
        return torch.cat(parts)

    def _below(self, images: ImageSet) -> Iterator[Tensor]:
        """Yields the outputs of the frozen backbone on the device, block by block."""
        if self.network.parts.has_frozen_layers:
            for outputs in self.frozen.stream(images):
                yield torch.from_numpy(outputs).to(self.device, torch.float32)
            return
        for start in range(0, len(images), BLOCK):
            block = images.take(np.arange(start, min(start + BLOCK, len(images))))
            pixels = torch.from_numpy(decoded(block, self.network.parts.resolution))
            yield self.network.frozen_outputs(to_float_images(pixels, self.device))


@dataclass(frozen=True)
class TrainedClassifier(Predictor):
    """Holds a classifier that `fit` has trained."""

    history: list[EpochRecord]
    val_probabilities: NDArray[np.float32]
    """Holds the probabilities of the validation images after the last epoch, `[m, C]`."""
    val_logits: NDArray[np.float32]
    """Holds their logits, `[m, C]`."""


def load_predictor(
    arm: Arm,
    schema: LabelSchema,
    side: int,
    weights: tuple[Mapping[str, Path], str],
    stage: Stage,
    runtime: Runtime,
) -> Predictor:
    """Returns the network that `Predictor.save` wrote; on a CPU it predicts the same bits. No pretrained weights are needed.

    It was trained for `arm` on images with this schema and `side` pixels. `weights` are the files of a stage and the name of one of them.
    Raises DataError, which names the file and its stage, if the file is missing, is not a safetensors file or has other tensors than the
    network, and what `split_trunk` raises.
    """
    files, name = weights
    classifier, state = arm.classifier, read_tensors(files, name, stage)
    resolution = classifier.resolution or side
    with torch.random.fork_rng(
        devices=[]
    ):  # a model is drawn before it is loaded, and no random number of ours may change
        model = pretrained.create(classifier.model, False, {}, **pretrained.size_option(classifier.model, resolution))
    # they are loaded before the model is split, as parts that are not weights, such as rotary positions, may depend on them
    own = {key: tensor for key, tensor in state.items() if key.startswith("trunk.")}
    check_shapes(name, own, model.state_dict(prefix="trunk."), stage)
    model.load_state_dict({key.removeprefix("trunk."): tensor for key, tensor in own.items()})
    trunk = split_trunk(classifier, model, resolution)
    network = Network(trunk, build_head(trunk.features, classifier.head, schema.width, arm.training.dropout))
    check_shapes(name, state, network.state_dict(), stage)
    network.load_state_dict(state)
    move_to(network, runtime.device)
    return Predictor(network, schema, runtime.device, frozen_backbone(trunk, runtime))


def probabilities(logits: Tensor, schema: LabelSchema) -> NDArray[np.float32]:
    """Returns the softmax over each `one` group of logits `[n, C]` and the sigmoid in each `any` group."""
    logits = logits.float()
    parts = [
        logits[:, columns].softmax(1) if schema.group(name).kind == "one" else logits[:, columns].sigmoid()
        for name, columns in schema.slices().items()
    ]
    values: NDArray[np.float32] = torch.cat(parts, 1).cpu().numpy()
    return values
