"""`finetune:`, `generate:`, `score:` and `accept:`: how synthetic images are made, judged and let in."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from shared.config.base import Section

Share = Annotated[float, Field(ge=0, le=1)]


class Finetune(Section):
    """What all generators share."""

    finer_than_data: ClassVar[bool] = False
    """Whether its `resolution` may exceed the data set's, as only a pretrained base knows how finer images look."""

    steps: Annotated[int, Field(ge=1)] = 1500
    """Optimizer steps."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the exponential moving average of the weights that are kept; 0 keeps the last weights."""
    class_power: Annotated[float, Field(ge=0, le=1)] = 0.5
    """An image is drawn in proportion to n to the power of -class_power, n the training images of its rarest class:
    0 natural, 0.5 square-root balancing, 1 balanced."""
    condition_dropout: Share = 0.1
    """Share of the training images whose labels or caption are left out, for classifier-free guidance."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 250
    """Steps between checkpoints in the store; of Stable Diffusion's, one that is due while
    another is on its way there is left out."""

    @property
    def base_location(self) -> str | None:
        """A folder, an `s3://bucket/prefix` or a hub name: where its pretrained base lies, or None if it is trained from scratch."""
        return None

    @property
    def base_revision(self) -> str | None:
        """The commit that pins a base from the hub, or None."""
        return None


class PixelFinetune(Finetune):
    """A small label-conditioned rectified flow in pixel space, trained from scratch on all classes jointly; runs on a CPU."""

    generator: Literal["pixel"]
    resolution: Annotated[int, Field(ge=16, le=128, multiple_of=4)] = 32
    """Side in pixels of what it draws; images are brought to the data set's resolution afterwards."""
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 32
    """Channels of the first block; the others have two and three times as many."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    flip: bool = True
    """Show each image mirrored half of the time; switch it off where left and right matter."""


class StableDiffusionFinetune(Finetune):
    """Any Stable Diffusion 1.x or 2.x."""

    finer_than_data: ClassVar[bool] = True

    generator: Literal["stable-diffusion"]
    base: str = "CompVis/stable-diffusion-v1-1"
    """A folder, an `s3://bucket/prefix` or a hub name."""
    revision: str | None = None
    """Commit of the hub repository; pin it. Unset takes the newest when the weights are fetched."""
    method: Literal["full", "lora"] = "full"
    rank: Annotated[int, Field(ge=1)] = 16
    """Rank of the LoRA matrices."""
    text_encoder: bool = False
    """Train the text encoder too."""
    images: Literal["all", "rare"] = "all"
    """All training images, or (the paper's choice) only those of the rare classes."""
    resolution: Annotated[int, Field(ge=32, le=1024, multiple_of=8)] = 512
    caption: str = "a photo of {labels}"
    """Template; `{labels}` becomes the phrases of the image's classes in group order, `{<group>}` that of one group."""
    phrases: dict[str, str] = Field(default_factory=dict)
    """Words for a class in captions, `group/class: words`; without one, its name with spaces for underscores."""
    batch_size: Annotated[int, Field(ge=1)] = 4
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """On a CPU always fp32."""
    min_snr: Annotated[float, Field(gt=0)] | None = 5.0
    """Gamma of the min-SNR loss weight (Hang et al. 2023); null for the plain loss."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: a third slower, several times less GPU memory."""
    gradient_accumulation: Annotated[int, Field(ge=1)] = 1
    """Batches of `batch_size` images whose gradients are averaged into one step."""
    flip: bool = True
    """Show each image mirrored half of the time; switch it off where left and right matter."""

    @property
    def base_location(self) -> str:
        """Where the base lies, as the study names it."""
        return self.base

    @property
    def base_revision(self) -> str | None:
        """The commit that the study pins."""
        return self.revision


AnyFinetune = Annotated[PixelFinetune | StableDiffusionFinetune, Field(discriminator="generator")]


class ImageToImage(Section):
    """Some images start from a noised real training image instead of from noise."""

    share: Share = 0.5
    """Share of the images made so."""
    strength: Annotated[float, Field(gt=0, le=1)] = 0.65
    """Share of the noise schedule that is run: 1 keeps nothing of the real image."""


class Generate(Section):
    """How many images of what, and how they are sampled."""

    fill_to: Annotated[int, Field(ge=1)] = 500
    """Training images, real and generated, that each rare class ends with, cap allowing."""
    cap: Annotated[float, Field(gt=0)] = 5.0
    """Generated images of a class are at most this many times its real ones."""
    quota: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """Exact number to generate, by `group/class` or a crossing `group/class & group/class`; replaces `fill_to` and `cap` for these."""
    total: Annotated[int, Field(ge=1)] | None = None
    """Exact number of images over all rare classes (the paper's 1,236), shared in proportion to what each lacks."""
    guidance: Annotated[float, Field(ge=0)] = 2.0
    """Classifier-free guidance scale; 1 is none."""
    steps: Annotated[int, Field(ge=1)] = 25
    """DPM-Solver++ steps."""
    image_to_image: ImageToImage | None = None
    replicates: Annotated[int, Field(ge=1)] = 1
    """Independent pools; final seed s trains on pool s mod replicates."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Images a shard: a fixed block of indices, so that the images do not depend on who makes them."""


class Score(Section):
    """Out-of-fold judges, trained on real images only, with the `classifier`, `augmentation` and `training` of the study's top level:
    what an experiment sets of these for itself is no judge's."""

    folds: Annotated[int, Field(ge=2)] = 3
    epochs: Annotated[int, Field(ge=1)] = 12
    model: str | None = None
    """timm model of the judges and of the features that neighbours are sought in; the top level's classifier where unset."""


class Accept(Section):
    """Which generated images an arm trains on: a filter over the columns of `score`, so that changing it generates nothing again."""

    plausibility: tuple[Share, Share] = (0.2, 0.95)
    """Least and greatest probability that the judges give the wanted label of the filled class."""
    copies: Share = 0.05
    """Share of the images nearest to a training image that is refused."""

    @model_validator(mode="after")
    def _ordered(self) -> Accept:
        if self.plausibility[0] >= self.plausibility[1]:
            raise ValueError(f"plausibility: the first bound must be below the second, got {list(self.plausibility)}")
        return self
