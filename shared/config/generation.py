"""Defines the sections `finetune:`, `generate:`, `score:` and `accept:`: how images are generated, judged and accepted."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from shared.config.base import Section

Share = Annotated[float, Field(ge=0, le=1)]
SAFETENSORS = ".safetensors"
LORA_FILE = "pytorch_lora_weights.safetensors"
"""Names the file that diffusers writes a LoRA into, which most repositories of one have."""
FEW_STEP_GUIDANCE = 1.0
"""Turns guidance off, which a LoRA for few steps was distilled with already."""
FEW_STEP_STEPS = 4
"""Gives the number of steps that suits a LoRA for few steps."""
LCM_STEPS = 50
"""Gives the number of steps that a consistency model was distilled from, of which its steps are some."""
SD_15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
"""Names the hub repository of the base that a study has if it names none."""
SD_15_COMMIT = "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"
"""Pins the commit of that base."""
SIMILAR_CLASSES = 3
"""Sets from how many similar classes images start if a study does not say it: a few, so that one odd class does not decide."""


class Finetune(Section):
    """Holds the settings that all generators share."""

    finer_than_data: ClassVar[bool] = False
    """Says whether `resolution` may exceed the data set's; only a pretrained base knows how finer images look."""
    has_prompts: ClassVar[bool] = False
    """Says whether images are drawn by prompts, so that `generate.prompts` and `generate.negative_prompt` have a meaning."""
    sampling_of_base: ClassVar[bool] = False
    """Says whether `generate.guidance` and `generate.steps` are those of the base's family if a study does not set them."""

    steps: Annotated[int, Field(ge=1)] = 1500
    """Sets the number of optimizer steps."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Sets the number of training images per batch."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Sets the learning rate after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Sets the number of steps over which the learning rate rises from 0."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Sets the decay of the exponential moving average of the weights, which is what is stored. 0 stores the last weights."""
    class_power: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Sets the strength of class balancing. An image is sampled with a probability proportional to n^-class_power, where n is the number of
    training images of its rarest class: 0 is the natural distribution, 0.5 square-root balancing, 1 balanced."""
    condition_dropout: Share = 0.1
    """Sets the share of the training images whose labels or caption are left out, for classifier-free guidance."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 250
    """Sets the number of steps between two checkpoints in the store. A text-to-image model skips a checkpoint that is due while
    another one is being uploaded."""

    def trainings(self, rare: int) -> int:
        """Returns how many times `steps` steps are trained if so many classes are rare."""
        return 1

    @property
    def base_location(self) -> str | None:
        """Returns the folder, `s3://bucket/prefix` or hub name of its pretrained base; None if it is trained from scratch."""
        return None

    @property
    def base_revision(self) -> str | None:
        """Returns the commit that pins a base from the hub; None if nothing pins it."""
        return None


class PixelFinetune(Finetune):
    """Trains a small label-conditioned rectified flow in pixel space from scratch, on all classes jointly. A CPU is enough."""

    generator: Literal["pixel"]
    """Chooses this generator."""
    resolution: Annotated[int, Field(ge=16, le=128, multiple_of=4)] = 32
    """Sets the side in pixels of the generated images, which are resized to the data set's resolution afterwards."""
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 32
    """Sets the number of channels of the first block; the others have two and three times as many."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Sets the number of training images per batch."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Sets the learning rate after the warm-up."""
    flip: bool = True
    """Says whether training images are mirrored at random, half of the time. Turn it off if left and right matter."""


class PretrainedFinetune(Finetune):
    """Holds the settings that the generators with a pretrained text-to-image model share."""

    finer_than_data: ClassVar[bool] = True
    has_prompts: ClassVar[bool] = True

    base: str | None = None
    """Names the pretrained base model: a folder, an `s3://bucket/prefix` or the name of a hub repository. If unset, it is
    `stable-diffusion-v1-5/stable-diffusion-v1-5` at the commit `451f4fe16113bff5a5d2269ed5ad43b0592e9a14`."""
    revision: str | None = None
    """Pins the commit of the hub repository that `base` names, which is recommended. If unset, it is the newest commit when the weights
    are downloaded."""
    method: Literal["full", "lora"] = "full"
    """Says whether all weights of the denoiser (a U-Net or transformer) are trained (`full`), or low-rank adapters only (`lora`)."""
    rank: Annotated[int, Field(ge=1)] = 16
    """Sets the rank of the LoRA matrices."""
    per_class: Annotated[bool, Field(exclude_if=lambda value: not value)] = False
    """Says whether, with `method: lora`, each rare class has adapters of its own, trained for `steps` steps on its images alone, in place of
    adapters for all. An image is drawn with those of the rarest of its classes, and by the base as it is if it has no rare class."""
    class_tokens: Annotated[int, Field(ge=0, le=16, exclude_if=lambda value: not value)] = 0
    """Sets how many tokens of its own each rare class has in captions, before its phrase. Their embeddings are trained beside the denoiser, from
    those of the phrase on (textual inversion, Gal et al. 2023), so that they come to mean what no word of the base does. Only bases of
    Stable Diffusion 1.x and 2.x have them."""
    class_tokens_learning_rate: Annotated[float, Field(gt=0, exclude_if=lambda value: value == 5e-4)] = 5e-4
    """Sets the learning rate of these embeddings after the warm-up."""
    images: Literal["all", "rare"] = "all"
    """Says whether it is trained on all training images, or only on those of the rare classes, as in the paper."""
    caption: str = "a photo of {labels}"
    """Sets the template of an image's caption. `{labels}` is replaced by the phrases of the image's classes in the order of the groups,
    `{<group>}` by the phrase of one group."""
    phrases: dict[str, str] = Field(default_factory=dict)
    """Sets the phrase for a class in captions, as `group/class: phrase`. The default is the class name with spaces in place of underscores."""
    batch_size: Annotated[int, Field(ge=1)] = 4
    """Sets the number of training images per batch. If a batch does not fit the memory of a GPU, which is tried before the first step, its
    gradient is averaged over smaller parts."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """Sets the learning rate after the warm-up."""
    min_snr: Annotated[float, Field(gt=0)] | None = 5.0
    """Sets gamma of the min-SNR loss weight (Hang et al. 2023) of a diffusion model; null uses the unweighted loss, as flow models always do."""
    gradient_checkpointing: bool = True
    """Says whether activations are recomputed in the backward pass, which is a third slower and needs several times less GPU memory."""
    gradient_accumulation: Annotated[int, Field(ge=1)] = 1
    """Sets the number of batches of `batch_size` images whose gradients are averaged into one step."""
    flip: bool = True
    """Says whether training images are mirrored at random, half of the time. Turn it off if left and right matter."""

    @model_validator(mode="after")
    def _check_per_class(self) -> Self:
        if self.per_class and self.method != "lora":
            raise ValueError("per_class: true needs method: lora")
        if self.per_class and getattr(self, "text_encoder", False):
            raise ValueError("per_class: true needs text_encoder: false, as only the denoiser has adapters per class")
        if self.per_class and self.class_tokens:
            raise ValueError(
                "per_class: true needs class_tokens: 0, as each class would have a text encoder of its own"
            )
        if self.class_tokens and getattr(self, "text_encoder", False):
            raise ValueError("class_tokens needs text_encoder: false, as only the embeddings of the tokens are trained")
        return self

    @property
    def base_location(self) -> str:
        """Returns the location of the base, as the study names it."""
        return SD_15 if self.base is None else self.base

    def trainings(self, rare: int) -> int:
        """Returns how many times `steps` steps are trained if so many classes are rare: once per class with adapters per class."""
        return rare if self.per_class else 1

    @property
    def base_revision(self) -> str | None:
        """Returns the commit that the study pins, or that of the base that it has if it names none; None if nothing pins the base."""
        return SD_15_COMMIT if self.base is None and self.revision is None else self.revision


class StableDiffusionFinetune(PretrainedFinetune):
    """Fine-tunes any Stable Diffusion model of version 1 or 2."""

    generator: Literal["stable-diffusion"]
    """Chooses this generator."""
    text_encoder: bool = False
    """Says whether the text encoder is trained too."""
    resolution: Annotated[int, Field(ge=32, le=1024, multiple_of=8)] = 512
    """Sets the side in pixels of the training images and of the generated images."""
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Sets the precision of training and sampling on a GPU; a CPU always uses fp32."""


class TextToImageFinetune(PretrainedFinetune):
    """Fine-tunes a text-to-image model of any family that is known, which is found by the base's `model_index.json`: Stable Diffusion 1.x,
    2.x, XL and 3.5, FLUX.2-klein-base, and Z-Image. What is not set follows from the family, also `guidance` and `steps` of `generate`."""

    sampling_of_base: ClassVar[bool] = True

    generator: Literal["text-to-image"]
    """Chooses this generator."""
    resolution: Annotated[int, Field(ge=32, le=2048, multiple_of=8)] | None = None
    """Sets the side in pixels of the training images and of the generated images; null takes that of the base's family."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Sets the precision of training and sampling on a GPU; null takes that of the base's family. A CPU always uses fp32."""
    text_encoder: ClassVar[bool] = False


AnyPretrained = StableDiffusionFinetune | TextToImageFinetune
AnyFinetune = Annotated[PixelFinetune | AnyPretrained, Field(discriminator="generator")]


class ImageToImage(Section):
    """Starts some images from a real training image with noise, instead of from pure noise."""

    share: Share = 0.5
    """Sets the share of the images that start from a real one."""
    strength: Annotated[float, Field(gt=0, le=1)] = 0.65
    """Sets the share of noise that is added to the real image; 1 keeps nothing of the real image. With the generator `stable-diffusion` it is
    the share of `steps` that are run instead, as it always was: there 0.65 adds about 0.73 of noise."""
    start_from: Annotated[Literal["own", "similar"], Field(exclude_if=lambda value: value == "own")] = "own"
    """Says from which real image: `own` is the one whose labels the image has. `similar` is one of another class of the same label group, which
    is not rare and looks like the filled class; the label is then shared between both images (Diff-Mix, Wang et al. 2024), as
    `synthetic.label_power` says."""
    similar_classes: Annotated[int, Field(ge=1, exclude_if=lambda value: value == SIMILAR_CLASSES)] = SIMILAR_CLASSES
    """Sets from how many classes images start with `start_from: similar`: from those that look most like the filled class, or from all if there
    are fewer. Each of them is as likely."""

    @model_validator(mode="after")
    def _check_similar_classes(self) -> Self:
        if self.similar_classes != SIMILAR_CLASSES and self.start_from != "similar":
            raise ValueError("similar_classes: has no meaning without start_from: similar")
        return self


class FewStep(Section):
    """Draws images in a few steps, by a distilled LoRA on the denoiser beside what `finetune` trained. `generate.steps` is then 4 and
    `generate.guidance` 1 (none) if they are unset."""

    adapter: str
    """Names the LoRA: a file `….safetensors`, `s3://bucket/key.safetensors` or the name of a hub repository, such as
    `latent-consistency/lcm-lora-sdv1-5`."""
    revision: str | None = None
    """Pins the commit of the hub repository that `adapter` names, which is recommended. If unset, it is the newest commit when the LoRA
    is downloaded."""
    file: str | None = None
    """Names the file in the hub repository; null takes `pytorch_lora_weights.safetensors`."""
    scheduler: Literal["lcm", "euler"] = "lcm"
    """Chooses how steps are made, as the LoRA was distilled for: `lcm` (latent consistency) draws new noise in each step, and `euler` follows
    the flow by steps that begin at pure noise, as the LoRA of Lightning and Turbo models do."""

    @property
    def on_hub(self) -> bool:
        """Returns whether `adapter` names a repository of the hub."""
        return not self.adapter.endswith(SAFETENSORS)

    @property
    def hub_file(self) -> str:
        """Returns the name of the file in the hub repository."""
        return LORA_FILE if self.file is None else self.file

    @field_validator("adapter")
    @classmethod
    def _check_adapter(cls, value: str) -> str:
        if not value.endswith(SAFETENSORS) and not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", value, re.ASCII):
            raise ValueError(
                f"must be a file ….safetensors, s3://bucket/key.safetensors or a hub repository owner/name, got {value!r}"
            )
        return value

    @model_validator(mode="after")
    def _check_file(self) -> Self:
        for name in ("revision", "file"):
            if not self.on_hub and getattr(self, name) is not None:
                raise ValueError(
                    f"{name}: has no meaning with the file {self.adapter}, which is not on the hub; remove it"
                )
        if not self.hub_file.endswith(SAFETENSORS):
            raise ValueError(f"file: must be a safetensors file, got {self.file!r}")
        return self


class Generate(Section):
    """Says how many images of which classes are generated, and how they are sampled."""

    fill_to: Annotated[int, Field(ge=1)] = 500
    """Sets the number of training images, real and generated, up to which each rare class is filled, as far as `cap` allows."""
    cap: Annotated[float, Field(gt=0)] = 5.0
    """Limits the images generated for a class, as a multiple of its real ones."""
    quota: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """Sets the exact number of images to generate, by `group/class` or a combination `group/class & group/class`. It replaces
    `fill_to` and `cap` for these."""
    total: Annotated[int, Field(ge=1)] | None = None
    """Sets the exact number of images over all rare classes (1,236 in the paper), shared in proportion to what each class lacks."""
    guidance: Annotated[float, Field(ge=0)] | None = 2.0
    """Sets the scale of classifier-free guidance; 1 turns it off, and null takes that of the generator. It is null if it is unset and the
    generator is `text-to-image`, or `few_step` is set."""
    steps: Annotated[int, Field(ge=1)] | None = 25
    """Sets the number of evaluations of the network per image; null takes that of the generator. They are the DPM-Solver++ steps of Stable
    Diffusion; a step of the pixel generator takes two. It is null if it is unset and the generator is `text-to-image`, or `few_step` is
    set."""
    guidance_interval: Annotated[tuple[Share, Share] | None, Field(exclude_if=lambda value: value is None)] = None
    """Sets the part of the steps in which guidance is used, from the first (0) to the last (1), such as `[0.2, 0.8]`; outside of it a step
    costs half, and images vary more (Kynkäänniemi et al. 2024). null uses guidance in all steps."""
    prompts: Annotated[tuple[str, ...], Field(exclude_if=lambda value: not value)] = ()
    """Sets templates of prompts like `finetune.caption`, of which each image takes one by its seed; if empty, the caption is the prompt."""
    negative_prompt: Annotated[str, Field(exclude_if=lambda value: not value)] = ""
    """Sets what guidance leads away from, in place of the empty prompt."""
    few_step: Annotated[FewStep | None, Field(exclude_if=lambda value: value is None)] = None
    """Draws in a few steps by a distilled LoRA, if it is set. It needs a generator with a pretrained base."""
    image_to_image: ImageToImage | None = None
    """Starts a share of the images from real ones, if it is set; null starts all from noise."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Sets the number of images per shard. A shard is a fixed block of indices, so that its images do not depend on the process that makes it."""

    @property
    def starts_from_similar(self) -> bool:
        """Returns whether some images start from one of a similar class, and therefore have soft labels."""
        return self.image_to_image is not None and self.image_to_image.start_from == "similar"

    @field_validator("guidance_interval")
    @classmethod
    def _check_interval(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError(f"the first bound must be below the second, got {list(value)}")
        return value

    @model_validator(mode="after")
    def _check_few_step(self) -> Self:
        if self.few_step is not None and self.few_step.scheduler == "lcm" and (self.steps or 0) > LCM_STEPS:
            raise ValueError(f"steps: must be <= {LCM_STEPS} with few_step.scheduler: lcm, got {self.steps}")
        return self


class Score(Section):
    """Describes the out-of-fold judges of generated images, which are trained once for all pools of images, or once per repetition if each tests on
    a fold of its own. They are trained on real images only, with the `classifier`, `augmentation` and `training` of the study's top level; an
    experiment's own values of these do not change them.
    """

    folds: Annotated[int, Field(ge=2)] = 3
    """Sets the number of folds of the training images, with one judge each."""
    epochs: Annotated[int, Field(ge=1)] = 12
    """Sets the number of epochs for which a judge is trained."""
    model: str | None = None
    """Names the timm model of the judges. If unset, it is the top level's classifier."""


class Accept(Section):
    """Says which generated images an arm trains on: a filter over the columns of `score`, so that changing it generates nothing again."""

    plausibility: tuple[Share, Share] = (0.2, 0.95)
    """Sets the least and the greatest probability that the judges may give to the requested label of the filled class."""
    copies: Literal["refuse", "allow"] = "refuse"
    """Says whether copies of training images are refused: those with nearly the same perceptual hash, mirrored or not, and those
    that are nearer to a training image than real images are to each other (`copy_quantile`). Copies of validation and test
    images are refused in either case, unless every image is accepted: with `plausibility: [0, 1]` and `copies: allow` nothing is scored."""
    copy_quantile: Annotated[float, Field(ge=0, le=0.5)] = 0.01
    """Says how near is too near, with `copies: refuse`: an image is refused if less than this share of the validation images is as near to a
    training image. About as many honest images are refused with the copies; 0 refuses by perceptual hash only."""
    reviewed: Annotated[str | None, Field(min_length=1, exclude_if=lambda value: value is None)] = None
    """Names the review of a person, the CSV that `review.html` of `tailfill export generated --review` downloads: a file, or `s3://bucket/key`,
    which a cluster needs. A rejected image is not used. A kept one is used even if its scores refuse it, unless it is a copy of a validation
    or test image. Images that are not listed follow their scores. Images are scored in any case then."""

    @property
    def takes_all(self) -> bool:
        """Returns whether it accepts every image, whatever its scores."""
        return self.plausibility == (0.0, 1.0) and self.copies == "allow" and self.reviewed is None

    @field_validator("copies", mode="before")
    @classmethod
    def _refuse_share(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            word = "allow" if value == 0 else "refuse"
            raise ValueError(f"must be 'refuse' or 'allow', no longer a share of the images, got {value}; write {word}")
        return value

    @model_validator(mode="after")
    def _check_order(self) -> Accept:
        if self.plausibility[0] >= self.plausibility[1]:
            raise ValueError(f"plausibility: the first bound must be below the second, got {list(self.plausibility)}")
        return self
