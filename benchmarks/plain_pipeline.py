"""Draws images by the pipeline of diffusers, as its documentation does: a LoRA is loaded into it, and prompts are drawn in batches."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from numpy.typing import NDArray


class PlainPipeline:
    """Holds the pipeline, with its progress bar off and the sampler of ours: DPM-Solver++ of the second order."""

    def __init__(self, base: Path, lora: Path, dtype: torch.dtype, device: torch.device) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the safety checker, which a base may lack
            # fresh weights of random bases have no safety checker, and images are to be compared
            pipeline: Any = StableDiffusionPipeline.from_pretrained(
                base, torch_dtype=dtype, local_files_only=True, safety_checker=None, requires_safety_checker=False
            )
        pipeline.load_lora_weights(lora.parent, weight_name=lora.name)
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
            pipeline.scheduler.config, algorithm_type="dpmsolver++", solver_order=2
        )
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline = pipeline.to(device)

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], side: int, guidance: float, steps: int
    ) -> NDArray[np.uint8]:
        """Returns the images `[n, side, side, 3]` of one batch."""
        with warnings.catch_warnings():  # diffusers 0.42 hands numpy a tensor in a way that numpy 2 deprecates
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            found = self._pipeline(
                prompt=list(prompts),
                height=side,
                width=side,
                guidance_scale=guidance,
                num_inference_steps=steps,
                # on the CPU, so that the noise of a seed is that of ours
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            ).images
        return np.stack([np.asarray(image) for image in found])
