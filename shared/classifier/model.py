"""The network: a timm trunk, frozen up to where training begins, and a head of Linear, ReLU and Dropout.

The trunk is cut where its first trainable module begins. What lies below the cut gives the same output for the same image in every
epoch and trial, so it is computed once (`shared.classifier.frozen_features`); what lies above is trained.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import cast

import timm
import torch
from torch import Tensor, nn

from shared.config.training import Classifier
from shared.errors import ConfigError
from shared.log import Log
from shared.weights import pretrained

CPU_PIXELS = 8 * 224 * 224
"""Of the images that go through the frozen part together on a CPU. glibc maps and unmaps every tensor beyond 32 MiB; with the page faults
of that, 32 images of 224 px take twice as long each as 8 do."""

log = Log("classifier")


@dataclass(frozen=True)
class Trunk:
    """A timm model without classifier, cut in two; `lower` holds no trainable parameter."""

    model: nn.Module
    lower: nn.Module
    """Normalised images `[n, 3, r, r]` → what `upper` reads."""
    upper: nn.Module
    """→ pooled features `[n, F]`."""
    trainable: tuple[str, ...]
    """Names of the parameters of `model` that train."""
    prefix: str
    """`classifier.trainable`."""
    features: int
    """F."""
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def has_frozen_layers(self) -> bool:
        """Whether anything lies below the cut: then its output can be kept instead of pixels."""
        return not isinstance(self.lower, nn.Identity)

    @property
    def all_frozen(self) -> bool:
        """Whether only the head trains: then what is kept are the pooled features."""
        return not self.trainable

    def to(self, device: torch.device) -> Trunk:
        """Moves it, in place, and returns it."""
        self.model.to(device)
        return self

    def copy(self) -> Trunk:
        """Its own trainable part; the frozen part, which nobody changes, is shared."""
        return copy.deepcopy(self, {id(module): module for module in self.lower.modules()})

    def below(self, images: Tensor) -> Tensor:
        """What `upper` reads, for float images `[n, 3, r, r]` in 0 to 1, without gradients."""
        if not self.has_frozen_layers:
            return self.normalised(images)
        at_once = max(1, CPU_PIXELS // self.resolution**2) if images.device.type == "cpu" else len(images)
        with torch.no_grad():
            return torch.cat([self.lower(self.normalised(part)) for part in torch.split(images, at_once)])

    def normalised(self, images: Tensor) -> Tensor:
        """Float images `[n, 3, r, r]` in 0 to 1 as the pretrained weights want them."""
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1)
        return (images - mean) / std


def build_trunk(
    classifier: Classifier, resolution: int, seed: int = 0, fetched: Mapping[str, Path] = MappingProxyType({})
) -> Trunk:
    """The trunk with its weights, on the CPU. `seed` draws those that are not pretrained, `fetched` are those of the hub, by model.

    Raises ConfigError for an unknown model or prefix or an impossible resolution; what `pretrained.create` raises.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = pretrained.create(
            classifier.model, classifier.pretrained, fetched, **_size_option(classifier, resolution)
        )
    config = cast(dict[str, tuple[float, ...]], model.pretrained_cfg)
    trainable = _trainable(model, classifier.trainable)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable)
    set_mode(model, classifier.trainable, training=False)
    images = torch.rand(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            pooled = model(images)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"classifier.resolution: {classifier.model} does not take {resolution} px images ({str(error).splitlines()[0]}); "
                "set another"
            ) from error
        lower, upper = _split_at_first_trainable(model, classifier.trainable, images, pooled)
    return Trunk(
        model, lower, upper, trainable, classifier.trainable, pooled.shape[1], resolution, tuple(config["mean"]), tuple(config["std"])
    )  # fmt: skip


def build_head(features: int, hidden: tuple[int, ...], classes: int, dropout: float) -> nn.Sequential:
    """Linear layers features → hidden… → classes, each hidden one followed by ReLU and Dropout (no batch-norm: paper's count)."""
    layers: list[nn.Module] = []
    width = features
    for hidden_width in hidden:
        layers += [nn.Linear(width, hidden_width), nn.ReLU(), nn.Dropout(dropout)]
        width = hidden_width
    return nn.Sequential(*layers, nn.Linear(width, classes))


class Network(nn.Module):
    """Trunk and head. Parameters are named `trunk.<timm's name>` and `head.<index>.*`."""

    def __init__(self, trunk: Trunk, head: nn.Sequential) -> None:
        super().__init__()
        self.trunk = trunk.model
        self.head = head
        self.parts = trunk  # not a module: its parts are registered above already, under timm's names

    def forward(self, below: Tensor) -> Tensor:
        """Logits `[n, C]` from what lies below the cut (`below`)."""
        return cast(Tensor, self.head(self.parts.upper(below)))

    def below(self, images: Tensor) -> Tensor:
        """The frozen part's output for float images `[n, 3, r, r]` in 0 to 1, without gradients."""
        return self.parts.below(images)

    def train(self, mode: bool = True) -> Network:
        """As in torch, but what is frozen stays in eval: batch-norm keeps its statistics, dropout does nothing."""
        super().train(mode)
        set_mode(self.trunk, self.parts.prefix, mode)
        return self

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Those that an optimizer gets, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def trained_state(self) -> dict[str, Tensor]:
        """Everything that training changes, by name: parameters and, of trainable modules, buffers (batch-norm statistics)."""
        frozen = {name for name, p in self.named_parameters() if not p.requires_grad}
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if name not in frozen
            and (name.startswith("head.") or _has_prefix(name.removeprefix("trunk."), self.parts.prefix))
        }


def set_mode(model: nn.Module, prefix: str, training: bool) -> None:
    """Training mode for the modules under the trainable prefix, eval for all others."""
    for name, module in model.named_modules():
        module.training = training and _has_prefix(name, prefix)


def _has_prefix(name: str, prefix: str) -> bool:
    return prefix == "all" or (prefix != "head" and (name == prefix or name.startswith(f"{prefix}.")))


def _trainable(model: nn.Module, prefix: str) -> tuple[str, ...]:
    names = tuple(name for name, _ in model.named_parameters() if _has_prefix(name, prefix))
    if not names and prefix != "head":
        parts = {".".join(name.split(".")[:depth]) for name, _ in model.named_parameters() for depth in (1, 2)}
        near = difflib.get_close_matches(prefix, sorted(parts), 5, 0.4) or sorted({p for p in parts if "." not in p})
        raise ConfigError(
            f'classifier.trainable: the model has no parameters under "{prefix}"; must be all, head or e.g. {", ".join(near)}'
        )
    return names


def _size_option(classifier: Classifier, resolution: int) -> dict[str, int]:
    """Transformers must be told their input's size when they are made; convolutional networks know no such option."""
    config = timm.get_pretrained_cfg(classifier.model, allow_unregistered=True)
    return {"img_size": resolution} if config is not None and config.fixed_input_size else {}


def _split_at_first_trainable(
    model: nn.Module, prefix: str, images: Tensor, pooled: Tensor
) -> tuple[nn.Module, nn.Module]:
    """The model as two modules one after the other; (Identity, model) where it cannot be cut.

    A timm model's children mostly run one after the other, but nothing promises it, so the cut is tried on `images` and kept only
    where the result is the same bit for bit.
    """
    if prefix == "head":
        return model, nn.Identity()
    if prefix == "all":
        return nn.Identity(), model
    lower, upper = _split_children(model, prefix)
    if not lower:
        return nn.Identity(), model
    try:
        same = torch.equal(nn.Sequential(*upper)(nn.Sequential(*lower)(images)), pooled)
    except (RuntimeError, TypeError, ValueError, NotImplementedError):  # the children do not fit one after the other
        same = False
    if not same:
        log.warning(
            "the frozen part cannot be computed once: the model's parts do not run one after the other", prefix=prefix
        )
        return nn.Identity(), model
    return nn.Sequential(*lower), nn.Sequential(*upper)


def _split_children(module: nn.Module, prefix: str) -> tuple[list[nn.Module], list[nn.Module]]:
    """Children before, and from the one on, that `prefix` names; nested Sequentials on the way are opened."""
    first, _, rest = prefix.partition(".")
    children = dict(module.named_children())
    position = list(children).index(first)
    before, after = list(children.values())[:position], list(children.values())[position + 1 :]
    inner = children[first]
    if rest and isinstance(inner, nn.Sequential) and rest.partition(".")[0] in dict(inner.named_children()):
        inner_before, inner_after = _split_children(inner, rest)
        return before + inner_before, inner_after + after
    return before, [inner, *after]
