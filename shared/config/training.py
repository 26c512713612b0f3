"""Defines the sections `classifier:`, `augmentation:`, `images:`, `training:` and `synthetic:`: an arm's classifier and its training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shared.config.base import Section
from shared.config.generation import Share

Augmentation = Literal["none", "basic", "soft", "hard"]
"""Names the augmentation: one of those in the paper's Table 2, or `none`."""
Images = Literal["real", "real+synthetic", "real+copies"]
"""Says on which images an arm trains; `real+copies` is the placebo."""


class Classifier(Section):
    """Describes the classifier's network."""

    model: str = "seresnext50_32x4d.gluon_in1k"
    """Names any timm model."""
    pretrained: bool | str = True
    """Says from which weights it starts: `true` for timm's from the Hugging Face hub, `false` for none, or a safetensors (or timm-ordered .pth
    state dict) file by path, `package:<name>/<file>` or `s3://`."""
    revision: str | None = Field(default=None, exclude_if=lambda revision: revision is None)
    """Pins, with `pretrained: true`, the commit of the model's hub repository, which is recommended. If unset, it is the newest commit when
    the weights are downloaded."""
    trainable: str = "layer4"
    """Says which parameters are trained: `all`, `head`, or a prefix of the names of those that are trained beside the head."""
    head: tuple[Annotated[int, Field(ge=1)], ...] = (512, 128)
    """Lists the widths of the hidden layers between the pooled features and the classes."""
    resolution: Annotated[int, Field(ge=16, le=1024)] | None = None
    """Sets the side in pixels of the network's input. If unset, it is the data set's resolution."""


class Training(Section):
    """Says how the classifier is trained. The paper's seven tunable parameters come first."""

    lr: Annotated[float, Field(gt=0)] = 3e-3
    """Sets the learning rate after the warm-up."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    """Sets the weight decay of the trained parameters."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Sets the share of a label that is spread evenly: over all classes of its group or, in a group of kind `any`, over yes and no."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Sets the dropout probability in the head."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Sets Adam's decay of the mean of the gradients."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Sets Adam's decay of the mean of the squared gradients."""
    batch_size: Annotated[int, Field(ge=2)] = 256
    """Sets the number of training images per batch."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Names the optimizer: `adam` adds weight decay to the gradient (L2), as in the paper; `adamw` decouples it."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 5
    """Sets the number of epochs over which the learning rate rises from 0, before its cosine decay."""
    loss: Literal["weighted", "plain", "balanced_softmax"] = "weighted"
    """Names the loss: `weighted` is cross-entropy with the weight 250/(11 N) per class (equation 1 of the paper), `plain` has no weights, and
    `balanced_softmax` shifts the logits by tau · log of the class shares (Ren et al. 2020, Menon et al. 2021) among the images that the
    epoch draws, by their weight in the loss."""
    tau: Annotated[float, Field(ge=0)] = 1.0
    """Sets the strength of the shift of `balanced_softmax`."""
    class_power: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Sets the strength of class balancing. An image is sampled with a probability proportional to n^-class_power, where n is the number of
    training images of its rarest class: 0 is the natural distribution (no image again before all others), 1 balanced. An epoch takes as
    many images as there are real ones, whatever generated images add."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Sets alpha of mixup's Beta distribution; 0 turns mixup off."""
    erasing: Share = 0.0
    """Sets the probability that a random rectangle of an image is erased."""
    refit_epochs: Annotated[int, Field(ge=0)] = 0
    """Sets the number of epochs after the training in which the last layer alone is refitted, on real images with balanced classes."""
    manual_images: Literal["none", "rare", "all"] = "none"
    """Makes the paper's manual images: adds a copy with more contrast and sharper edges of each training image, or of each of a rare class."""
    views: Annotated[int, Field(ge=1)] | Literal["auto", "fresh"] = "auto"
    """Sets the number of augmented views per image whose features, computed once by the network's frozen layers, each epoch samples from; a
    training uses a random half of them, or both of `basic`. `fresh` augments the images again in each epoch, and then runs the whole
    network on them. `auto` is 8; for the augmentation `basic` it is 2, the image and its mirror image, which are all its views; it is
    `fresh` if nothing is frozen or the augmentation is searched."""


LABEL_POWER = 0.8
"""Sets the exponent of soft labels if a study does not: that of the command for long-tailed data in the code of Diff-Mix (Wang et al. 2024)."""


class Synthetic(Section):
    """Says how generated images, or the placebo's copies, enter the training."""

    share: Share | None = None
    """Sets the share of each batch that is generated. If unset, it follows from the number of generated images."""
    loss_weight: Annotated[float, Field(gt=0)] = 1.0
    """Sets the weight of a generated image in the loss."""
    until: Share = 1.0
    """Sets the share of the epochs in which generated images are used; later epochs use real images only."""
    groups: Literal["all", "checked"] = "all"
    """Says for which label groups the loss counts for a generated image: for all, or only for those whose requested label the
    judges found plausible."""
    label_power: Annotated[float, Field(gt=0, exclude_if=lambda value: value == LABEL_POWER)] = LABEL_POWER
    """Sets the exponent of the soft label of an image that starts from one of a similar class (`image_to_image.start_from: similar`): with a
    share s of noise, its own label counts s^label_power, and that of the image at the start the rest. Copies of the placebo have their own
    label alone."""
