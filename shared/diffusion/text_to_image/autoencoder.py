"""Turns images into the latents that a denoiser reads, and back."""

from __future__ import annotations

from typing import Any

import torch


class Autoencoder:
    """Wraps a family's VAE. It also knows how latents are normalised once the VAE itself is freed."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self._scale = float(vae.config.scaling_factor)
        self._shift = float(getattr(vae.config, "shift_factor", None) or 0.0)

    def encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns mean and standard deviation `[b, c, h, w]`, float32, of the VAE's latents of pixels `[b, 3, r, r]` in -1 … 1."""
        found = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist
        return found.mean.float(), found.std.float()

    def normalise(self, latents: torch.Tensor) -> torch.Tensor:
        """Returns the VAE's latents in the form and with the variance that the denoiser reads."""
        return (latents - self._shift) * self._scale

    def denormalise(self, latents: torch.Tensor) -> torch.Tensor:
        """Returns the VAE's latents of normalised ones, as its decoder reads them."""
        return latents / self._scale + self._shift

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Returns pixels `[b, 3, r, r]`, float32, in about -1 … 1 of normalised latents."""
        pixels: torch.Tensor = self.vae.decode(self.denormalise(latents).to(self.vae.dtype)).sample
        return pixels.float()

    def free(self) -> None:
        """Frees the VAE's memory; only `normalise` works after that."""
        self.vae.to("meta")
