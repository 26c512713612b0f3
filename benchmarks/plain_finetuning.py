"""Fine-tunes Stable Diffusion as the published examples of diffusers do (`train_text_to_image.py` and `train_text_to_image_lora.py`).

Each step decodes and crops its images, and encodes them by the VAE and their captions by the text encoder. Nothing is cached.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import cast_training_params
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.finetuning_run import Options, Run
from benchmarks.machine import cpu_seconds, device_use

TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]
DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """Decodes and crops each image, and gives the token numbers of its caption, whenever it is read."""

    def __init__(self, encoded: Sequence[bytes], tokens: Tensor, resolution: int) -> None:
        self.encoded, self.tokens = encoded, tokens
        self.transform = transforms.Compose(
            [
                transforms.Resize(resolution, interpolation=transforms.InterpolationMode.BILINEAR),
                transforms.RandomCrop(resolution),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        with Image.open(io.BytesIO(self.encoded[position])) as image:
            return self.transform(image.convert("RGB")), self.tokens[position]


def plain_finetuning(
    base: Path, encoded: Sequence[bytes], captions: Sequence[str], options: Options, device: torch.device, out: Path
) -> Run:
    """Trains, and writes the weights into `out`."""
    precision = "no" if options.precision == "fp32" else options.precision
    with device_use(device) as use:
        begun, cpu = time.monotonic(), cpu_seconds()
        accelerator = Accelerator(mixed_precision=precision, cpu=device.type == "cpu")
        try:
            torch.backends.cuda.matmul.allow_tf32 = True
            training = _Training(base, encoded, captions, options, accelerator)
            started = time.monotonic()
            marks, losses = training.run(options.steps)
            trained = time.monotonic()
            training.write(base, out)
        finally:
            # accelerate's state is global, and the other side has one of its own
            accelerator.free_memory()
            AcceleratorState._reset_state(reset_partial_state=True)
            GradientState._reset_state()
        ended = time.monotonic()
        del training  # with its loader, whose processes end
    at_steps = [(step, at - started) for step, at in marks]
    return Run.of(ended - begun, cpu_seconds() - cpu, at_steps, losses, use, trained)


class _Training:
    """Holds the models and the loader."""

    def __init__(
        self, base: Path, encoded: Sequence[bytes], captions: Sequence[str], options: Options, accelerator: Accelerator
    ) -> None:
        self.options, self.accelerator = options, accelerator
        self.dtype = DTYPES[accelerator.mixed_precision]
        torch.manual_seed(options.seed)
        self.noise: Any = DDPMScheduler.from_pretrained(base, subfolder="scheduler")
        tokenizer: Any = CLIPTokenizer.from_pretrained(base, subfolder="tokenizer")
        parts = ((CLIPTextModel, "text_encoder"), (AutoencoderKL, "vae"), (UNet2DConditionModel, "unet"))
        models: list[Any] = [kind.from_pretrained(base, subfolder=name) for kind, name in parts]
        text_encoder, vae, unet = models
        self.text_encoder = text_encoder.requires_grad_(False).to(accelerator.device, self.dtype)
        self.vae = vae.requires_grad_(False).to(accelerator.device, self.dtype)
        if options.method == "lora":
            unet.requires_grad_(False)
            unet.to(accelerator.device, self.dtype)
            rank = options.rank
            unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS))
            cast_training_params(unet, torch.float32)
        if options.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        unet.train()
        self.trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
        tokens = tokenizer(
            list(captions),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        loader = DataLoader(
            Pictures(encoded, tokens, options.resolution),
            options.batch_size,
            shuffle=True,
            num_workers=options.workers,
            persistent_workers=options.workers > 0,
            drop_last=True,
        )
        optimizer = torch.optim.AdamW(self.trained, lr=options.learning_rate)
        schedule = get_scheduler("constant", optimizer)
        self.unet, self.optimizer, self.batches, self.schedule = accelerator.prepare(unet, optimizer, loader, schedule)

    def run(self, steps: int) -> tuple[list[tuple[int, float]], list[float]]:
        """Returns the time at the end of each step, and the losses."""
        marks: list[tuple[int, float]] = []
        losses: list[float] = []
        while len(losses) < steps:
            for pixels, tokens in self.batches:
                losses.append(self._step(pixels, tokens))
                marks.append((len(losses), time.monotonic()))
                if len(losses) == steps:
                    break
        return marks, losses

    def _step(self, pixels: Tensor, tokens: Tensor) -> float:
        with self.accelerator.accumulate(self.unet):
            latents = self.vae.encode(pixels.to(self.dtype)).latent_dist.sample() * self.vae.config.scaling_factor
            noise = torch.randn_like(latents)
            timesteps = torch.randint(
                0, self.noise.config.num_train_timesteps, (len(latents),), device=latents.device
            ).long()
            noisy = self.noise.add_noise(latents, noise, timesteps)
            embeddings = self.text_encoder(tokens, return_dict=False)[0]
            velocity = self.noise.config.prediction_type == "v_prediction"
            target = self.noise.get_velocity(latents, noise, timesteps) if velocity else noise
            predicted = self.unet(noisy, timesteps, embeddings, return_dict=False)[0]
            loss = functional.mse_loss(predicted.float(), target.float(), reduction="mean")
            seen = self.accelerator.gather(loss.detach().repeat(self.options.batch_size)).mean().item()
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.trained, 1.0)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
        return float(seen)

    def write(self, base: Path, out: Path) -> None:
        """Writes the LoRA as the pipeline reads it, or the whole UNet."""
        unet = self.accelerator.unwrap_model(self.unet).to(torch.float32)
        if self.options.method == "lora":
            state = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
            StableDiffusionPipeline.save_lora_weights(out, unet_lora_layers=state, safe_serialization=True)
        else:
            unet.save_pretrained(out / "unet")
