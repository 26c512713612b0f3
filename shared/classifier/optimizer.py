"""Makes the optimizer, and schedules its learning rate: a linear warm-up from 0, then a cosine decay to 0."""

from __future__ import annotations

import math

import torch

from shared.config.training import Training


def make_optimizer(training: Training, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Returns Adam with L2 regularisation in the gradient (as in the paper) or AdamW; the caller sets the learning rate before each step."""
    kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    # otherwise torch, on a CPU, updates each tensor by a dozen small operations
    fused = all(parameter.device.type == "cpu" for parameter in parameters)
    return kind(
        parameters,
        lr=training.lr,
        betas=(training.beta1, training.beta2),
        weight_decay=training.weight_decay,
        fused=fused or None,
    )


def rate_at(progress: float, epochs: int, warmup: int) -> float:
    """Returns the share of the full learning rate after `progress` of `epochs` epochs; fractions of an epoch count steps.

    The warm-up takes `warmup` epochs, but at most the first half of a training, as tests and demos train for few epochs.
    """
    rise = min(float(warmup), epochs / 2)
    if progress < rise:
        return progress / rise
    return 0.5 * (1.0 + math.cos(math.pi * (progress - rise) / (epochs - rise)))
