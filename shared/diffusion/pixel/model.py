"""Defines the pixel generator's network: diffusers' UNet2DModel, conditioned on time and labels, which predicts the flow from image to noise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import nn
from torch.nn import functional

from shared.data.schema import LabelSchema
from shared.errors import DataError
from shared.tensors import check_shapes, read_tensors

WEIGHTS = "model.safetensors"
TRAIN_TIMESTEPS = 1000
"""Gives the flow's time at pure noise, in the units of diffusers' flow-matching schedulers; the image is at 0."""
PATCH = 2
"""Gives the side in pixels of the blocks that the UNet sees as one pixel."""
LEAST_SHARE = 0.05
"""Sets the share of noise below which the flow is no longer divided by it (Li and He 2025)."""
MULTIPLE = 4 * PATCH
"""Sets the number to whose multiples the sides of images are padded, as the UNet halves them twice."""


class LabelEmbedding(nn.Module):
    """Embeds labels `[n, C]` (1, 0, -1 unknown) as vectors `[n, d]`: the sum of one learned vector per class that the image has.

    A group whose classes are all unknown gives that group's null vector instead. Leaving all labels out, as classifier-free guidance
    does, is therefore the same as knowing none. In an `any` group, unknown classes beside known ones add nothing.
    """

    def __init__(self, schema: LabelSchema, width: int) -> None:
        super().__init__()
        member = torch.zeros(schema.width, len(schema.groups))
        for number, columns in enumerate(schema.slices().values()):
            member[columns, number] = 1
        self.member: torch.Tensor
        self.register_buffer("member", member, persistent=False)
        scale = len(schema.groups) ** -0.5  # the sum over the groups then begins with unit variance
        self.classes = nn.Parameter(torch.randn(schema.width, width) * scale)
        self.nulls = nn.Parameter(torch.randn(len(schema.groups), width) * scale)

    def forward(self, labels: torch.Tensor) -> torch.Tensor:
        """Maps labels `[n, C]`, int8, to vectors `[n, d]`."""
        known = (labels >= 0).float() @ self.member
        vectors: torch.Tensor = (labels == 1).float() @ self.classes + (known == 0).float() @ self.nulls
        return vectors


class FlowNetwork(nn.Module):
    """Predicts v = noise - image `[n, 3, r, r]` from (1 - s) · image + s · noise, s = timestep / 1000 (Liu et al. 2023, rectified flow).

    The UNet itself predicts the image, from which the flow follows: a small network learns what images look like long before it can
    reproduce the noise in its input (Li and He 2025, whose loss is on the flow too).

    The UNet sees each block of 2 x 2 pixels as one pixel with 12 channels. At equal width this is a quarter of the work, which makes it
    fast enough on a CPU.
    """

    def __init__(self, schema: LabelSchema, resolution: int, width: int) -> None:
        super().__init__()
        self.labels = LabelEmbedding(schema, 4 * width)  # UNet2DModel's time embedding has four times the first width
        side = -(-resolution // MULTIPLE) * MULTIPLE
        self.padding = side - resolution
        self.unet = UNet2DModel(
            sample_size=side // PATCH,
            in_channels=3 * PATCH**2,
            out_channels=3 * PATCH**2,
            block_out_channels=(width, 2 * width, 3 * width),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
            attention_head_dim=width,
            resnet_time_scale_shift="scale_shift",
            class_embed_type="identity",
        )

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns the flow `[n, 3, r, r]` for images `noisy` of that shape, `timesteps` `[n]` from 0 to 1000, and `labels` `[n, C]`."""
        padded = functional.pad(noisy, (0, self.padding, 0, self.padding))
        blocks = functional.pixel_unshuffle(padded, PATCH)
        image = functional.pixel_shuffle(self.unet(blocks, timesteps, class_labels=self.labels(labels)).sample, PATCH)
        image = image[..., : noisy.shape[2], : noisy.shape[3]].float()
        share = (timesteps / TRAIN_TIMESTEPS).clamp(min=LEAST_SHARE).view(-1, 1, 1, 1)
        flow: torch.Tensor = (noisy - image) / share
        return flow


def build_network(schema: LabelSchema, resolution: int, width: int, seed: int) -> FlowNetwork:
    """Returns a network with random weights that follow from the seed; torch's global random state is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FlowNetwork(schema, resolution, width)


def describe(schema: LabelSchema, resolution: int, width: int) -> dict[str, Any]:
    """Returns the content of `generator.json`: everything that load_network needs beside the weights."""
    return {
        "generator": "pixel",
        "schema": schema.model_dump(mode="json"),
        "resolution": resolution,
        "width": width,
    }


def load_network(files: Mapping[str, Path]) -> tuple[FlowNetwork, LabelSchema, int]:
    """Returns network, schema and resolution from committed files; raises DataError if they are damaged or do not fit each other."""
    try:
        made = json.loads(files["generator.json"].read_bytes())
        schema = LabelSchema.model_validate_json(json.dumps(made["schema"]))
        resolution, width = int(made["resolution"]), int(made["width"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        first = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"generator.json: cannot be read ({first}); run finetune again (--rerun finetune)") from error
    network = build_network(schema, resolution, width, seed=0)
    state = read_tensors(files, WEIGHTS, "finetune")
    check_shapes(WEIGHTS, state, network.state_dict(), "finetune")
    network.load_state_dict(state)
    return network, schema, resolution
