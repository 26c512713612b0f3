"""Tests that a classifier is the same in timm and in ONNX Runtime as it was here: probabilities differ by at most 1e-4."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from PIL import Image, ImageOps
from torch.nn.modules.batchnorm import _BatchNorm

from shared.classifier.data import frozen_backbone
from shared.classifier.model import Network, build_head, build_trunk
from shared.classifier.portable import AGREEMENT, load_timm, write_onnx, write_timm
from shared.classifier.predictor import Predictor, probabilities
from shared.classifier.runtime import Runtime
from shared.config.search import Resources
from shared.config.training import Classifier
from shared.data.canonical import canonical_bytes
from shared.data.imageset import decode
from shared.data.schema import LabelGroup, LabelSchema
from shared.deploy.usage import onnx_lines
from shared.errors import ConfigError
from shared.metrics.calibration import calibrated

SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="kind", classes=("a", "b", "c")),
        LabelGroup(name="tags", kind="any", classes=("new", "sale")),
    )
)
TEMPERATURES = {"kind": 1.7, "tags": 0.6}
NAMES = ("pixel_values", "logits", "probabilities")
FAST: list[tuple[str, int, tuple[int, ...]]] = [
    ("test_resnet", 32, ()),
    ("test_vit", 32, ()),
    ("lcnet_035", 64, ()),
    ("test_resnet", 32, (16,)),
    ("test_vit", 32, (16,)),
]
FAMILIES = [
    ("resnet18", 64), ("resnext26ts", 64), ("seresnext26t_32x4d", 64), ("regnetx_002", 64), ("mobilenetv3_small_050", 64),
    ("efficientnet_b0", 64), ("tf_efficientnet_lite0", 64), ("densenet121", 64), ("convnext_atto", 64), ("convnextv2_atto", 64),
    ("vit_tiny_patch16_224", 64), ("deit_tiny_patch16_224", 64), ("swin_tiny_patch4_window7_224", 224), ("eva02_tiny_patch14_224", 56),
    ("levit_128s", 224), ("mobilevit_xxs", 64), ("edgenext_xx_small", 64), ("ghostnet_050", 64), ("hardcorenas_a", 64),
    ("repvgg_a0", 64), ("dla34", 64), ("hrnet_w18_small", 64), ("mixer_s32_224", 224), ("resmlp_12_224", 224), ("tinynet_e", 64),
]  # fmt: skip


def classifier(model: str, side: int, head: tuple[int, ...]) -> tuple[Classifier, Predictor]:
    """Returns a network with random weights, whose batch-norms have seen images, and whose logits are scaled so that its probabilities spread."""
    described = Classifier(model=model, pretrained=False, trainable="all", head=head)
    trunk = build_trunk(described, side)
    torch.manual_seed(0)
    network = Network(trunk, build_head(trunk.features, head, SCHEMA.width, 0.5))
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = None  # its statistics become those of the images: else random weights blow up, or die out, over many layers
    with torch.no_grad():
        network.train()(trunk.normalised(noise(8, side)))
        network.eval()
        logits = network(trunk.normalised(noise(8, side)))
        last = network.head[-1]
        scale = 3 / logits.std(0)
        last.weight.mul_(scale[:, None])
        last.bias.copy_((last.bias - logits.mean(0)) * scale)
    runtime = Runtime(torch.device("cpu"), Resources())
    return described, Predictor(network, SCHEMA, runtime.device, frozen_backbone(trunk, runtime))


def noise(count: int, side: int) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def run(path: Path, images: torch.Tensor, output: str = "probabilities") -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run([output], {"pixel_values": images.numpy()})[0])


def check(model: str, side: int, head: tuple[int, ...], folder: Path) -> bool:
    """Compares torch, ONNX Runtime and timm on eight images, and returns whether timm loads the whole classifier."""
    described, predictor = classifier(model, side, head)
    images = predictor.network.parts.normalised(noise(8, side))
    with torch.no_grad():
        logits = predictor.network(images)
    p = probabilities(logits, SCHEMA)
    assert (p.max(axis=0) - p.min(axis=0)).min() > 0.1, "the probabilities do not spread, so agreement says nothing"
    written = write_timm(predictor, described, folder)
    with torch.no_grad():
        reloaded = load_timm(folder, head, SCHEMA.width)(images)
    assert np.abs(probabilities(reloaded, SCHEMA) - p).max() <= AGREEMENT
    graph = folder / "model.onnx"
    write_onnx(predictor, TEMPERATURES, graph, NAMES, run)
    assert np.abs(probabilities(run(graph, images, "logits"), SCHEMA) - p).max() <= AGREEMENT
    sure = calibrated(SCHEMA, logits.numpy(), TEMPERATURES)
    for count in (1, 8):  # the batch is dynamic
        assert np.abs(run(graph, images[:count]).numpy() - sure[:count]).max() <= AGREEMENT
    return written.whole


@pytest.mark.parametrize(("model", "side", "head"), FAST)
def test_torch_timm_and_onnx_runtime_agree(model: str, side: int, head: tuple[int, ...], tmp_path: Path) -> None:
    assert check(model, side, head, tmp_path) == (head == ())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("model", "side"), FAMILIES)
def test_families_agree(model: str, side: int, tmp_path: Path) -> None:
    check(model, side, (), tmp_path)


def test_a_linear_head_loads_by_timm_alone(tmp_path: Path) -> None:
    described, predictor = classifier("test_resnet", 32, ())
    assert write_timm(predictor, described, tmp_path).files == ("config.json", "model.safetensors")
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    data: dict[str, Any] = timm.data.resolve_model_data_config(model)
    trunk = predictor.network.parts
    assert (data["input_size"], tuple(data["mean"]), tuple(data["std"])) == ((3, 32, 32), trunk.mean, trunk.std)
    assert (data["interpolation"], data["crop_pct"]) == ("bicubic", 1.0)
    images = trunk.normalised(noise(4, 32))
    with torch.no_grad():
        assert torch.allclose(model(images), predictor.network(images), atol=1e-5)


@pytest.mark.parametrize(("fit", "width"), [("squash", 90), ("crop", 90), ("pad", 96)])
def test_the_lines_of_the_cards_show_an_image_as_training_did(fit: Any, width: int, tmp_path: Path) -> None:
    # these widths leave even margins: each library halves odd ones in its own way, which moves the picture by half a pixel
    described, predictor = classifier("test_resnet", 32, ())
    write_timm(predictor, described, tmp_path, fit)
    y, x = np.mgrid[0:60, 0:width]
    picture = np.stack([2.5 * x, 4 * y, 120 + 60 * np.sin(x / 9)], axis=2).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "image.png")
    wanted = decode(canonical_bytes(tmp_path / "image.png", 32, fit)[0], 32, "image")
    rows = slice(7, 25) if fit == "pad" else slice(None)  # the margin has other colours
    look = timm.data.create_transform(
        **timm.data.resolve_model_data_config(timm.create_model(f"local-dir:{tmp_path}", pretrained=True))
    )
    with Image.open(tmp_path / "image.png") as image:
        trunk = predictor.network.parts
        shown = look(image.convert("RGB")).permute(1, 2, 0).numpy() * trunk.std + trunk.mean
    assert np.abs(255 * shown[rows] - wanted[rows]).mean() < 2
    line = next(line for line in onnx_lines(fit).splitlines() if line.startswith("image ="))
    names: dict[str, Any] = {"Image": Image, "ImageOps": ImageOps, "size": (32, 32)}
    exec(line.replace("image.jpg", str(tmp_path / "image.png")), names)  # noqa: S102 - the card's own line
    assert np.abs(np.asarray(names["image"], np.float32)[rows] - wanted[rows]).mean() < 2


def test_a_transformer_keeps_its_size(tmp_path: Path) -> None:
    described, predictor = classifier("test_vit", 64, (16,))
    write_timm(predictor, described, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_args"]["img_size"] == [64, 64]


def test_a_head_that_timm_has_no_place_for_is_a_file_of_its_own(tmp_path: Path) -> None:
    described, predictor = classifier("levit_128s", 224, ())  # its classifier is a batch-norm and a Linear
    written = write_timm(predictor, described, tmp_path)
    assert written.files == ("config.json", "model.safetensors", "head.safetensors")


def test_an_export_that_differs_is_refused(tmp_path: Path) -> None:
    _, predictor = classifier("test_resnet", 32, ())
    with pytest.raises(ConfigError, match=r"the ONNX graph and the network differ by 0\.5"):
        write_onnx(predictor, TEMPERATURES, tmp_path / "m.onnx", NAMES, lambda path, x: run(path, x) + 0.5)


def test_what_timm_loads_and_what_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described, predictor = classifier("test_resnet", 32, (16,))
    _, other = classifier("test_vit", 32, (16,))
    monkeypatch.setattr("shared.classifier.portable.load_timm", lambda *_: other.network)
    with pytest.raises(ConfigError, match="what timm loads and the network differ by"):
        write_timm(predictor, described, tmp_path)
