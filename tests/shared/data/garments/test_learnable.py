"""Tests that drawn garments are worth learning: no label group is trivial or hopeless at the demo's image size."""

from itertools import takewhile

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from shared.config.dataset import GarmentsSource
from shared.data.garments import read_garments

SIDE, EPOCHS, BATCH, WIDTH = 48, 13, 64, 16


def convolutions(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


@pytest.mark.slow
@pytest.mark.timeout(900)  # half a minute on an idle core
def test_a_small_classifier_ends_between_majority_plus_10_points_and_95_percent() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    source = read_garments(GarmentsSource(source="garments", resolution=SIDE, test=50, rare_eval=30), seed=3)
    images = list(takewhile(lambda image: image.split != "test", source.images))

    def tensors(split: str) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = [image for image in images if image.split == split]
        pixels = torch.from_numpy(np.stack([image.content for image in chosen])).permute(0, 3, 1, 2)
        return pixels.float() / 255 - 0.5, torch.from_numpy(np.stack([image.labels for image in chosen])).long()

    (pixels, labels), (val_pixels, val_labels) = tensors("train"), tensors("val")
    groups = source.schema.slices()
    network = nn.Sequential(
        convolutions(3, WIDTH, 2),
        convolutions(WIDTH, 2 * WIDTH, 2),
        convolutions(2 * WIDTH, 4 * WIDTH, 1),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(36 * WIDTH, source.schema.width),
    )
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    steps = len(pixels) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=EPOCHS * steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(pixels))[: steps * BATCH].split(BATCH):
            batch = pixels[rows].flip(3) if torch.rand(()) < 0.5 else pixels[rows]
            logits = network(batch)
            loss = sum(cross_entropy(logits[:, c], labels[rows][:, c].argmax(1)) for c in groups.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.inference_mode():
        logits = network(val_pixels)
    for group, columns in groups.items():
        truth = val_labels[:, columns].argmax(1)
        accuracy = float((logits[:, columns].argmax(1) == truth).float().mean())
        majority = float(truth.bincount().max() / len(truth))
        assert majority + 0.10 < accuracy < 0.95, f"{group}: {accuracy:.3f}, majority {majority:.3f}"
