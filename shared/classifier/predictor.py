"""A trained classifier, which predicts probabilities and features of any images and saves its weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from shared.classifier.frozen_features import BLOCK, FrozenBackbone, decoded
from shared.classifier.model import Network
from shared.classifier.precision import autocast, to_float_images
from shared.classifier.snapshot import EpochRecord
from shared.data.imageset import ImageSet
from shared.data.schema import LabelSchema

BATCH = 128


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier that `fit` has trained."""

    network: Network
    schema: LabelSchema
    device: torch.device
    frozen: FrozenBackbone
    history: list[EpochRecord]
    val_probabilities: NDArray[np.float32]
    """The probabilities of the validation images after the last epoch, `[m, C]`."""

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
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        save_file(state, path)

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


def probabilities(logits: Tensor, schema: LabelSchema) -> NDArray[np.float32]:
    """Returns the softmax over each `one` group of logits `[n, C]` and the sigmoid in each `any` group."""
    logits = logits.float()
    parts = [
        logits[:, columns].softmax(1) if schema.group(name).kind == "one" else logits[:, columns].sigmoid()
        for name, columns in schema.slices().items()
    ]
    values: NDArray[np.float32] = torch.cat(parts, 1).cpu().numpy()
    return values
