"""Writes a trained network in forms that others load without tailfill: as timm and safetensors load it, and as an ONNX graph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import timm
import torch
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn

from shared.classifier.model import Network, build_head
from shared.classifier.predictor import Predictor, probabilities
from shared.config.training import Classifier
from shared.data.schema import LabelSchema
from shared.errors import ConfigError
from shared.tensors import save_tensors
from shared.weights import pretrained

BACKBONE, HEAD, CONFIG = "model.safetensors", "head.safetensors", "config.json"
AGREEMENT = 1e-4
"""Bounds the difference of any probability between the network and what is loaded from its export."""
EXAMPLES, PROBES = 2, 3
"""Count the images with which a graph is traced, and those by which it is checked: it takes another number of them."""
CROP_MODES = {"squash": "squash", "crop": "center", "pad": "border"}
"""Maps `dataset.fit` to timm's name for it; timm pads with the mean colour, and not with that of the border."""


@dataclass(frozen=True)
class TimmExport:
    """Describes what was written for timm."""

    files: tuple[str, ...]
    whole: bool
    """Says whether timm alone loads the whole classifier; otherwise the head is a file of its own."""


def write_timm(
    predictor: Predictor, classifier: Classifier, folder: Path, fit: Literal["squash", "crop", "pad"] = "squash"
) -> TimmExport:
    """Writes `config.json` and `model.safetensors`, which `timm.create_model("local-dir:…", pretrained=True)` loads, and the head.

    `fit` says how an image becomes square, as `dataset.fit` does. A head of one layer becomes timm's own classifier if timm's model then
    computes the same; every other is written as `head.safetensors`. Raises ConfigError if what timm loads does not agree with the network.
    """
    network, side = predictor.network, predictor.network.parts.resolution
    whole = _whole_model(network, classifier, side) if not classifier.head else None
    model = network.trunk if whole is None else whole
    with _quiet():
        save_config_for_hf(
            model,
            str(folder / CONFIG),
            model_args=pretrained.size_option(classifier.model, side),
            data_config={
                "input_size": (3, side, side),
                "mean": network.parts.mean,
                "std": network.parts.std,
                "interpolation": "bicubic",
                "crop_pct": 1.0,
                "crop_mode": CROP_MODES[fit],
            },
        )
    save_tensors(model.state_dict(), folder / BACKBONE)
    files = [CONFIG, BACKBONE]
    if whole is None:
        save_tensors(network.head.state_dict(), folder / HEAD)
        files.append(HEAD)
    _check(predictor, load_timm(folder, classifier.head, predictor.schema.width))
    return TimmExport(tuple(files), whole is not None)


def load_timm(folder: Path, hidden: tuple[int, ...], classes: int) -> nn.Module:
    """Returns the classifier that an export holds, as the lines of its model card load it: normalised images `[n, 3, r, r]` to logits `[n, C]`."""
    from safetensors.torch import load_file

    model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    if not (folder / HEAD).exists():
        return model
    head = build_head(cast(int, model.num_features), hidden, classes, 0.0)
    state = load_file(folder / HEAD)
    if (width := state["0.weight"].shape[1]) != model.num_features:  # some models pool to more features than they name
        head = build_head(width, hidden, classes, 0.0)
    head.load_state_dict(state)
    return nn.Sequential(model, head.eval())


def write_onnx(
    predictor: Predictor,
    temperatures: Mapping[str, float],
    path: Path,
    names: tuple[str, str, str],
    run: Callable[[Path, Tensor], Tensor],
) -> None:
    """Writes the whole classifier as an ONNX graph with a dynamic batch; `names` are its input and its outputs, logits and calibrated
    probabilities, and `run` returns the probabilities that a graph computes of normalised images.

    Raises ConfigError if torch cannot export the network, or if the graph does not agree with it.
    """
    whole = _Calibrated(predictor.network, predictor.schema, temperatures).eval()
    try:
        with _quiet(), torch.no_grad():
            # the exporter by tracing: it takes 0.3 to 4 s of CPU time per network, where that by torch.export takes 6 to 30 and needs onnxscript
            torch.onnx.export(
                whole,
                (_noise(predictor.network, EXAMPLES),),
                str(path),
                dynamo=False,
                input_names=[names[0]],
                output_names=list(names[1:]),
                dynamic_axes={name: {0: "n"} for name in names},
            )
    except (RuntimeError, TypeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"--format onnx: torch cannot export this network ({reason}); export it with --format hf"
        ) from error
    probes = _noise(predictor.network, PROBES)
    with torch.no_grad():
        difference = float((whole(probes)[1] - run(path, probes)).abs().max())
    _refuse_difference(difference, "the ONNX graph")


class _Calibrated(nn.Module):
    """Computes logits and calibrated probabilities of normalised images."""

    def __init__(self, network: Network, schema: LabelSchema, temperatures: Mapping[str, float]) -> None:
        super().__init__()
        self.trunk, self.head = network.trunk, network.head
        self.groups = [
            (columns.start, columns.stop, schema.group(name).kind, temperatures[name])
            for name, columns in schema.slices().items()
        ]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.head(self.trunk(images))
        parts = []
        for start, stop, kind, temperature in self.groups:
            scaled = logits[:, start:stop] / temperature
            parts.append(scaled.softmax(1) if kind == "one" else scaled.sigmoid())
        return logits, torch.cat(parts, 1)


def _whole_model(network: Network, classifier: Classifier, side: int) -> nn.Module | None:
    """Returns timm's model with our head of one layer as its classifier; None if it is not a Linear, or computes something else."""
    (layer,) = network.head
    last = cast(nn.Linear, layer)
    model: nn.Module = timm.create_model(
        classifier.model,
        pretrained=False,
        num_classes=last.out_features,
        **pretrained.size_option(classifier.model, side),
    ).eval()
    own = cast(Callable[[], object], model.get_classifier)()
    name = next((name for name, module in model.named_modules() if module is own), None)
    if name is None or not isinstance(own, nn.Linear) or own.weight.shape != last.weight.shape or own.bias is None:
        return None
    state = dict(network.trunk.state_dict()) | {f"{name}.weight": last.weight, f"{name}.bias": last.bias}
    if set(state) != set(model.state_dict()):
        return None
    model.load_state_dict(state)
    images = _noise(network, EXAMPLES)
    with torch.no_grad():
        same = torch.allclose(model(images), network.head(network.trunk(images)), atol=AGREEMENT)
    return model if same else None


def _check(predictor: Predictor, loaded: nn.Module) -> None:
    """Raises ConfigError if probabilities of what was loaded from timm's form differ from those of the network."""
    probes = _noise(predictor.network, PROBES)
    with torch.no_grad():
        wanted, found = (
            probabilities(module(probes), predictor.schema) for module in (predictor.network.eval(), loaded)
        )
    _refuse_difference(float(np.abs(wanted - found).max()), "what timm loads")


def _noise(network: Network, count: int) -> Tensor:
    """Returns images of noise, normalised, `[count, 3, r, r]`."""
    trunk = network.parts
    generator = torch.Generator().manual_seed(count)
    return trunk.normalised(torch.rand(count, 3, trunk.resolution, trunk.resolution, generator=generator))


def _refuse_difference(difference: float, what: str) -> None:
    if not difference <= AGREEMENT:  # also NaN
        raise ConfigError(
            f"export: {what} and the network differ by {difference:.2g} in a probability, at most {AGREEMENT:g} is allowed; try the other --format"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the warnings of torch's exporter, which are about its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def pretrained_licence(classifier: Classifier) -> str | None:
    """Returns the licence that timm names for the pretrained weights from the hub; None if it names none or other weights are used."""
    if classifier.pretrained is not True:
        return None
    config = timm.get_pretrained_cfg(classifier.model, allow_unregistered=True)
    return None if config is None or not config.license else str(config.license)
