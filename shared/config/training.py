"""`classifier:`, `augmentation:`, `images:`, `training:` and `synthetic:`: one arm's classifier and how it is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shared.config.base import Section
from shared.config.generation import Share

Augmentation = Literal["none", "basic", "soft", "hard"]
"""The paper's Table 2 (`synthetic` there is `hard` with `images: real+synthetic`); `none` is for cached features."""
Images = Literal["real", "real+synthetic", "real+copies"]
"""`real+copies` is the placebo: the recipe, counts and schedule of `real+synthetic`, with copies of real images."""


class Classifier(Section):
    """The network."""

    model: str = "seresnext50_32x4d.gluon_in1k"
    """Any timm model."""
    pretrained: bool | str = True
    """Weights: timm's from the Hugging Face hub, none, or a safetensors (or timm-ordered .pth state dict) file by path,
    `package:<name>/<file>` or `s3://`."""
    revision: str | None = Field(default=None, exclude_if=lambda revision: revision is None)
    """With `pretrained: true`, the commit of the model's hub repository; pin it. Unset takes the newest when the weights are fetched."""
    trainable: str = "layer4"
    """`all`, `head`, or the prefix of the parameter names that train beside the head."""
    head: tuple[Annotated[int, Field(ge=1)], ...] = (512, 128)
    """Widths of the hidden layers between the pooled features and the classes."""
    resolution: Annotated[int, Field(ge=16, le=1024)] | None = None
    """Side in pixels of its input; the data set's where unset."""


class Training(Section):
    """How the classifier is trained. The paper's seven tunable parameters come first."""

    lr: Annotated[float, Field(gt=0)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    batch_size: Annotated[int, Field(ge=2)] = 256
    optimizer: Literal["adam", "adamw"] = "adam"
    """`adam` adds weight decay to the gradient (L2), as in the paper; `adamw` decouples it."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 5
    """Epochs over which the learning rate rises from 0, before the cosine."""
    loss: Literal["weighted", "plain", "balanced_softmax"] = "weighted"
    """`weighted`: cross-entropy with w = 250/(11 N) a class (paper, equation 1). `balanced_softmax`: logits shifted by
    tau · log of the class shares (Ren et al. 2020, Menon et al. 2021)."""
    tau: Annotated[float, Field(ge=0)] = 1.0
    """Strength of the shift of `balanced_softmax`."""
    class_power: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Sampling: an image is drawn in proportion to n to the power of -class_power, n the training images of its rarest
    class: 0 natural (each image once an epoch), 1 balanced."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixup's Beta distribution; 0 is none."""
    erasing: Share = 0.0
    """Probability of erasing a random rectangle."""
    refit_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs in which, after the training, the last layer alone is refit on real images, class-balanced."""
    manual_images: Literal["none", "rare", "all"] = "none"
    """The paper's manual images: adds a copy with more contrast and sharpened edges of each (rare) training image."""
    views: Annotated[int, Field(ge=1)] | Literal["auto", "fresh"] = "auto"
    """Augmented views an image that go through the network's frozen part once, to be drawn from each epoch; `fresh` augments anew
    each epoch, which runs the whole network. `auto`: 8; for `basic` 2, the image and its mirror image, which loses nothing; fresh
    where nothing is frozen, or the augmentation is searched over."""


class Synthetic(Section):
    """How images that are not plainly real enter the training."""

    share: Share | None = None
    """Share of each batch that is generated; unset mixes them as they are."""
    loss_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of a generated image in the loss."""
    until: Share = 1.0
    """Share of the epochs in which they are used; afterwards real images only."""
    groups: Literal["all", "checked"] = "all"
    """Label groups whose loss counts for a generated image: all, or those whose wanted label the judges found plausible."""
