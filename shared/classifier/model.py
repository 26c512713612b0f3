"""Builds the network: a timm trunk, frozen up to its first trainable module, and a head of Linear, ReLU and Dropout.

The trunk is split in two at its first trainable module. The frozen backbone before it gives the same output for the same image in every
epoch and trial, so this output is computed once (`shared.classifier.frozen_features`); the rest is trained.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import cast

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shared.config.training import Classifier
from shared.errors import ConfigError
from shared.log import Log
from shared.weights import pretrained

CPU_PIXELS = 8 * 224 * 224
"""Limits the pixels of images that go through the frozen backbone together on a CPU. glibc maps and unmaps every tensor beyond 32 MiB; with
the page faults of that, 32 images of 224 px take twice as long per image as 8 do."""

log = Log("classifier")


@dataclass(frozen=True)
class Trunk:
    """Holds a timm model without its classifier, split into two parts that run one after the other."""

    model: nn.Module
    frozen_part: nn.Module
    """Maps normalised images `[n, 3, r, r]` to the inputs of `trained_part`; it has no trainable parameter."""
    trained_part: nn.Module
    """Maps the outputs of `frozen_part` to pooled features `[n, F]`."""
    trainable: tuple[str, ...]
    """Names the trainable parameters of `model`."""
    prefix: str
    """Holds the value of `classifier.trainable`."""
    features: int
    """Counts the pooled features, F."""
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def has_frozen_layers(self) -> bool:
        """Returns whether there is a frozen backbone: then its outputs can be kept instead of pixels."""
        return not isinstance(self.frozen_part, nn.Identity)

    @property
    def all_frozen(self) -> bool:
        """Returns whether only the head is trained: then the frozen outputs are the pooled features."""
        return not self.trainable

    def to(self, device: torch.device) -> Trunk:
        """Moves the model in place and returns the trunk."""
        self.model.to(device)
        return self

    @property
    def at_once(self) -> int:
        """Returns the largest number of images that should go through the frozen backbone together on a CPU."""
        return max(1, CPU_PIXELS // self.resolution**2)

    def copy(self) -> Trunk:
        """Returns a trunk with a trained part of its own; the frozen part, which nothing changes, is shared."""
        return copy.deepcopy(self, {id(module): module for module in self.frozen_part.modules()})

    def frozen_outputs(self, images: Tensor) -> Tensor:
        """Returns the inputs of `trained_part` for float images `[n, 3, r, r]` in 0 to 1, without gradients."""
        if not self.has_frozen_layers:
            return self.normalised(images)
        at_once = self.at_once if images.device.type == "cpu" else len(images)
        with torch.no_grad():
            return torch.cat([self.frozen_part(self.normalised(part)) for part in torch.split(images, at_once)])

    def normalised(self, images: Tensor) -> Tensor:
        """Normalises float images `[n, 3, r, r]` in 0 to 1 as the pretrained weights expect."""
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1)
        return (images - mean) / std


def build_trunk(
    classifier: Classifier, resolution: int, seed: int = 0, fetched: Mapping[str, Path] = MappingProxyType({})
) -> Trunk:
    """Returns the trunk with its weights, on the CPU.

    `seed` is for weights that are not pretrained; `fetched` maps models to weights from the hub. Raises ConfigError for an unknown model or
    prefix or an impossible resolution, and what `pretrained.create` raises.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = pretrained.create(
            classifier.model, classifier.pretrained, fetched, **pretrained.size_option(classifier.model, resolution)
        )
    return split_trunk(classifier, model, resolution)


def split_trunk(classifier: Classifier, model: nn.Module, resolution: int) -> Trunk:
    """Returns the trunk of a timm model that has its weights: rotary positions may depend on them.

    Raises ConfigError for an unknown prefix or an impossible resolution.
    """
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
        frozen, trained = _split_at_first_trainable(model, classifier.trainable, images, pooled)
    return Trunk(
        model, frozen, trained, trainable, classifier.trainable, pooled.shape[1], resolution, tuple(config["mean"]), tuple(config["std"])
    )  # fmt: skip


def build_head(features: int, hidden: tuple[int, ...], classes: int, dropout: float) -> nn.Sequential:
    """Returns linear layers features → hidden… → classes; ReLU and Dropout follow each hidden one.

    There is no batch-norm: the paper's parameter count leaves no room for it.
    """
    layers: list[nn.Module] = []
    width = features
    for hidden_width in hidden:
        layers += [nn.Linear(width, hidden_width), nn.ReLU(), nn.Dropout(dropout)]
        width = hidden_width
    return nn.Sequential(*layers, nn.Linear(width, classes))


class Network(nn.Module):
    """Joins trunk and head, whose parameters are named `trunk.<timm's name>` and `head.<index>.*`."""

    def __init__(self, trunk: Trunk, head: nn.Sequential) -> None:
        super().__init__()
        self.trunk = trunk.model
        self.head = head
        self.parts = trunk  # not a module: its parts are registered above already, under timm's names

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns logits `[n, C]` for outputs of the frozen backbone."""
        return cast(Tensor, self.head(self.parts.trained_part(inputs)))

    def frozen_outputs(self, images: Tensor) -> Tensor:
        """Returns the frozen backbone's outputs for float images `[n, 3, r, r]` in 0 to 1, without gradients."""
        return self.parts.frozen_outputs(images)

    def train(self, mode: bool = True) -> Network:
        """Sets the mode as in torch, but frozen modules stay in eval mode: batch-norm keeps its statistics, and dropout does nothing."""
        self.training = mode
        self.head.train(mode)
        if not self.parts.all_frozen:  # a frozen trunk stays as `build_trunk` left it, and has hundreds of modules
            set_mode(self.trunk, self.parts.prefix, mode)
        return self

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Returns the parameters for the optimizer, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def trained_state(self) -> dict[str, Tensor]:
        """Returns everything that training changes, by name: parameters, and buffers of trainable modules (batch-norm statistics)."""
        if self.parts.all_frozen:
            return dict(self.head.state_dict(prefix="head."))
        frozen = {name for name, p in self.named_parameters() if not p.requires_grad}
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if name not in frozen
            and (name.startswith("head.") or _has_prefix(name.removeprefix("trunk."), self.parts.prefix))
        }


def trains_on_one(network: Network, image: Tensor) -> bool:
    """Returns whether the network can be trained on a batch of one image, whose `Network.forward` inputs are `image`, `[1, …]`.

    Batch-norm cannot if its map is 1 x 1: a single value has no variance. This is tried on a copy, so that neither the network nor the state
    of the random numbers changes.
    """
    trial = copy.deepcopy(network).train()
    devices = [image.device] if image.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        try:
            trial(image)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            return False
    return True


def set_mode(model: nn.Module, prefix: str, training: bool) -> None:
    """Sets the training mode for the modules under the trainable prefix, and eval mode for all others."""
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


def _split_at_first_trainable(
    model: nn.Module, prefix: str, images: Tensor, pooled: Tensor
) -> tuple[nn.Module, nn.Module]:
    """Returns the model as two modules that run one after the other, or (Identity, model) if it cannot be split.

    The children of a timm model mostly run in order, but timm does not promise it. So the split is tried on `images`, and used only if
    the result is the same bit for bit.
    """
    if prefix == "head":
        return model, nn.Identity()
    if prefix == "all":
        return nn.Identity(), model
    try:
        parts = _split_transformer(model, prefix, images) or _split_children(model, prefix)
        if parts is None:
            return nn.Identity(), model
        same = torch.equal(parts[1](parts[0](images)), pooled)
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError):  # they do not run in this order
        same = False
    if parts is None or not same:
        log.warning(
            "the frozen backbone is computed in every epoch: the model's parts do not run one after the other",
            prefix=prefix,
        )
        return nn.Identity(), model
    return parts


class _FrozenBlocks(nn.Module):
    """Runs a transformer up to a block: patches, positions, class and register tokens, and the blocks before it."""

    def __init__(self, model: nn.Module, blocks: int) -> None:
        super().__init__()
        self.architecture = str(cast(dict[str, object], model.pretrained_cfg).get("architecture"))
        # timm's own forward pass over fewer blocks; modules and parameters are those of the model
        self.model = _shallow_copy(model)
        self.model.blocks = cast(nn.Sequential, model.blocks)[:blocks]
        self.model.norm = nn.Identity()
        for name in ("fc_norm", "head_drop", "head", "attn_pool"):
            setattr(self.model, name, None)

    def forward(self, images: Tensor) -> Tensor:
        """Returns tokens `[n, t, d]` for normalised images `[n, 3, r, r]`."""
        return cast(Callable[[Tensor], Tensor], self.model.forward_features)(images)

    def extra_repr(self) -> str:
        """Returns the architecture, which says what the modules do not: how tokens and positions are joined."""
        return self.architecture


class _TrainedBlocks(nn.Module):
    """Runs a transformer from a block on: the other blocks, the norm and the pooling."""

    def __init__(self, model: nn.Module, blocks: int, images: Tensor) -> None:
        super().__init__()
        self.blocks = cast(nn.Sequential, model.blocks)[blocks:]
        self.norm = model.norm
        self.pool = _shallow_copy(model)
        for name in ("patch_embed", "blocks", "norm", "norm_pre"):
            setattr(self.pool, name, None)
        self.pool._parameters = {}  # of the tokens and positions
        self.rope = _rotations(model, images)[blocks:]
        """Holds the rotary position embedding per block, which depends only on the size of the images."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns pooled features `[n, F]` for tokens `[n, t, d]`."""
        if any(rope is not None and rope.device != tokens.device for rope in self.rope):
            self.rope = [None if rope is None else rope.to(tokens.device) for rope in self.rope]
        for block, rope in zip(self.blocks, self.rope, strict=True):
            tokens = block(tokens) if rope is None else block(tokens, rope=rope)
        tokens = cast(nn.Module, self.norm)(tokens)
        return cast(Callable[..., Tensor], self.pool.forward_head)(tokens, pre_logits=True)


def _rotations(model: VisionTransformer | Eva, images: Tensor) -> list[Tensor | None]:
    """Returns the rotary position embedding that each block is given, or None per block."""
    rope = getattr(model, "rope", None)
    if rope is None:
        return [None] * len(model.blocks)
    if getattr(rope, "feat_shape", None) is not None:
        embedding = rope.get_embed()
    else:
        embedding = rope.get_embed(shape=model.patch_embed.dynamic_feat_size(images.shape[-2:]))
    return list(embedding) if getattr(model, "rope_mixed", False) else [embedding] * len(model.blocks)


def _shallow_copy(module: nn.Module) -> nn.Module:
    """Returns a module with the same submodules and parameters; replacing one there does not change the original."""
    result = copy.copy(module)
    for registry in ("_modules", "_parameters", "_buffers"):
        setattr(result, registry, dict(getattr(module, registry)))
    return result


def _split_transformer(model: nn.Module, prefix: str, images: Tensor) -> tuple[nn.Module, nn.Module] | None:
    """Returns a vision transformer of timm split before the first block, or the norm, that `prefix` names; None if it is neither.

    Its children do not run one after the other: tokens and positions are parameters of the model itself.
    """
    if not isinstance(model, VisionTransformer | Eva) or not isinstance(model.blocks, nn.Sequential | nn.ModuleList):
        return None
    first, _, rest = prefix.partition(".")
    if first == "blocks":
        number = int(rest.partition(".")[0] or 0)
    elif first in ("norm", "fc_norm", "attn_pool"):
        number = len(model.blocks)
    else:
        return None
    return _FrozenBlocks(model, number), _TrainedBlocks(model, number, images)


def _split_children(module: nn.Module, prefix: str) -> tuple[nn.Module, nn.Module] | None:
    """Returns the model split before the child that `prefix` names; None if that is the first."""
    before, after = _children_around(module, prefix)
    return (nn.Sequential(*before), nn.Sequential(*after)) if before else None


def _children_around(module: nn.Module, prefix: str) -> tuple[list[nn.Module], list[nn.Module]]:
    """Returns the children before the one that `prefix` names, and those from it on; splits nested Sequentials on the way."""
    first, _, rest = prefix.partition(".")
    children = dict(module.named_children())
    position = list(children).index(first)
    before, after = list(children.values())[:position], list(children.values())[position + 1 :]
    inner = children[first]
    if rest and isinstance(inner, nn.Sequential) and rest.partition(".")[0] in dict(inner.named_children()):
        inner_before, inner_after = _children_around(inner, rest)
        return before + inner_before, inner_after + after
    return before, [inner, *after]
