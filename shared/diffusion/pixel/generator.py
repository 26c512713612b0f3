"""Draws images with the trained pixel generator: DPM-Solver++ on the flow, classifier-free guidance, and image-to-image."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from numpy.typing import NDArray

from shared.data.schema import Labels, LabelSchema
from shared.diffusion.generator import BaseSource, Generator, SampleRequest
from shared.diffusion.pixel.model import TRAIN_TIMESTEPS, FlowNetwork, load_network


class PixelGenerator(Generator):
    """Draws with a trained FlowNetwork on one device, in float32: the network is small, and bytes then differ least between devices."""

    def __init__(self, network: FlowNetwork, schema: LabelSchema, resolution: int, device: torch.device) -> None:
        self.resolution = resolution
        self._schema, self._device = schema, device
        self._network = network.to(device).eval()
        if device.type == "cuda":
            self._network.to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, files: Mapping[str, Path], device: torch.device, _: BaseSource) -> PixelGenerator:
        """Opens the files that finetune committed; raises DataError if they are damaged or do not fit each other. It has no base."""
        return cls(*load_network(files), device)

    def prompt(self, labels: Labels) -> str:
        """Returns the class names of labels `[C]`, e.g. `fabric/denim, neckline/crew`."""
        return ", ".join(name for name, value in zip(self._schema.class_names, labels, strict=True) if value == 1)

    @torch.inference_mode()
    def sample(self, requests: Sequence[SampleRequest], guidance: float, steps: int) -> NDArray[np.uint8]:
        """Returns RGB images `[n, resolution, resolution, 3]`, whose bytes follow from the requests and their order on one device type.

        Requests are drawn in groups that run the same part of the schedule: those from noise, and those of each strength.
        """
        images = np.empty((len(requests), self.resolution, self.resolution, 3), np.uint8)
        groups: dict[float | None, list[int]] = {}
        for position, request in enumerate(requests):
            if (request.start is None) != (request.strength is None):
                raise ValueError("a request has both a start and a strength, or neither")
            groups.setdefault(request.strength, []).append(position)
        for strength, positions in groups.items():
            drawn = self._denoise([requests[i] for i in positions], strength, guidance, steps)
            levels = ((drawn.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            images[positions] = levels.permute(0, 2, 3, 1).cpu().numpy()
        return images

    def _denoise(
        self, requests: Sequence[SampleRequest], strength: float | None, guidance: float, steps: int
    ) -> torch.Tensor:
        """Returns the images `[n, 3, r, r]` of requests of one strength; their values are near -1 to 1."""
        scheduler = flow_solver(steps)
        side = self.resolution
        # drawn on the CPU: a seed's noise is then the same on every device
        noise = torch.stack(
            [torch.randn((3, side, side), generator=torch.Generator().manual_seed(r.seed)) for r in requests]
        ).to(self._device)
        first = 0 if strength is None else steps - max(1, round(steps * strength))
        scheduler.set_begin_index(first)
        state = noise
        if strength is not None:
            share = scheduler.sigmas[first].to(self._device)
            state = (1 - share) * self._starts(requests) + share * noise
        labels = torch.from_numpy(np.stack([r.labels for r in requests])).to(self._device)
        # the solver rounds its timesteps down to whole numbers; the network gets the exact ones
        for timestep, sigma in zip(scheduler.timesteps[first:], scheduler.sigmas[first:-1], strict=True):
            flow = self._flow(state, sigma * TRAIN_TIMESTEPS, labels, guidance)
            state = scheduler.step(flow, timestep, state, return_dict=False)[0]
        return state

    def _flow(self, state: torch.Tensor, timestep: torch.Tensor, labels: torch.Tensor, guidance: float) -> torch.Tensor:
        """Returns the flow with classifier-free guidance (Ho and Salimans 2022); a guidance of 1 is none."""
        if self._device.type == "cuda":
            state = state.contiguous(memory_format=torch.channels_last)
        times = timestep.to(self._device, torch.float32).expand(len(state))
        if guidance == 1:
            flow: torch.Tensor = self._network(state, times, labels)
            return flow
        both: torch.Tensor = self._network(
            torch.cat([state, state]), torch.cat([times, times]), torch.cat([torch.full_like(labels, -1), labels])
        )
        without, conditional = both.chunk(2)
        return without + guidance * (conditional - without)

    def _starts(self, requests: Sequence[SampleRequest]) -> torch.Tensor:
        """Returns the start images `[n, 3, r, r]`, scaled to -1 to 1."""
        starts = np.stack([r.start for r in requests if r.start is not None])
        if starts.shape[1:] != (self.resolution, self.resolution, 3):
            raise ValueError(f"start images must be {(self.resolution, self.resolution, 3)}, got {starts.shape[1:]}")
        return torch.from_numpy(starts).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1


def flow_solver(steps: int) -> DPMSolverMultistepScheduler:
    """Returns a DPM-Solver++ of second order (Lu et al. 2022) for a rectified flow, set to `steps` steps.

    Guidance may push the predicted image out of -1 to 1; `thresholding` with a maximum of 1 limits it at each step.
    """
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        algorithm_type="dpmsolver++",
        solver_order=2,
        thresholding=True,
        sample_max_value=1.0,
    )
    with warnings.catch_warnings():  # diffusers 0.42 hands numpy a tensor in a way that numpy 2 deprecates
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        scheduler.set_timesteps(steps)
    return scheduler
