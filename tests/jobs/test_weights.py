"""Tests weights that are downloaded from a hub on this machine, and a Stable Diffusion and a timm model that use the committed files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from pydantic import SecretStr
from safetensors.torch import load_file, save_file

from jobs import finetune, generate, weights
from shared.artifacts.manifest import Manifest
from shared.artifacts.s3 import S3Store
from shared.classifier.model import build_trunk
from shared.config.dataset import Rare
from shared.config.generation import SD_15, SD_15_COMMIT, FewStep, Generate, StableDiffusionFinetune
from shared.config.stages import FinetuneConfig, GenerateConfig, Stage, WeightsConfig
from shared.config.task import Input
from shared.config.training import Classifier
from shared.context import Context
from shared.data.imageset import read_shards
from shared.diffusion.generator import BaseSource
from shared.diffusion.text_to_image.base import find_base
from shared.diffusion.text_to_image.base_files import TEXT_TO_IMAGE
from shared.diffusion.text_to_image.families.family import find_family
from shared.digests import file_digest
from shared.errors import ConfigError, DataError, Stopped, UnavailableError
from shared.settings import Settings
from shared.stop import StopSignal
from shared.weights import hub as hub_module
from shared.weights.inputs import fetched_base, fetched_judges, fetched_models
from shared.weights.roles import BASE, JUDGES, role_of
from tests.support.configs import any_config
from tests.support.few_step import few_step_lora
from tests.support.hub_endpoint import point_at
from tests.support.hub_server import COMMIT, TOKEN, Hub, serve_hub
from tests.support.pixel_study import PixelStudy
from tests.support.tiny_families import tiny_base
from tests.support.tiny_pipeline import SCHEMA, tiny_images, tiny_pipeline

MODEL = "test_resnet.r160_in1k"
STABLE = WeightsConfig(kind="stable-diffusion", name="some/model", revision=COMMIT)
WEIGHTS = (
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)
PICKLES = ("unet/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin")
"""The pickles that old repositories have in place of WEIGHTS."""
TIMM = WeightsConfig(kind="timm", name=MODEL, revision=None)


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns the repositories of a tiny Stable Diffusion and of timm's smallest network, with more files than are needed."""
    root = tmp_path_factory.mktemp("hub")
    base, model = tiny_pipeline(root / "base"), root / "timm"
    for extra in ("safety_checker/model.safetensors", "unet/diffusion_pytorch_model.bin", "v1.ckpt"):
        (base / extra).parent.mkdir(exist_ok=True)
        (base / extra).write_bytes(b"never fetched")
    model.mkdir()
    save_file(timm.create_model(MODEL, pretrained=False).state_dict(), model / "model.safetensors")
    (model / "pytorch_model.bin").write_bytes(b"never fetched")
    return {"some/model": base, f"timm/{MODEL}": model}


@pytest.fixture
def hub(repositories: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub(repositories) as hub:
        point_at(hub.url, monkeypatch)
        yield hub


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment({"TAILFILL_CACHE": str(tmp_path / "cache")})


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "ATTEMPTS", 1)


def fetch(config: WeightsConfig, settings: Settings) -> dict[str, Path]:
    return dict(weights.weights(config, settings, settings.cache / "scratch", StopSignal()).files)


def commit(study: PixelStudy, config: WeightsConfig) -> Manifest:
    study.inputs.clear()
    return weights.run(config, study.context("weights", config))


def source(manifest: Manifest) -> Input:
    return Input(stage="weights", key=manifest.key, digest=manifest.digest)


def given(study: PixelStudy, stage: Stage = "final", **inputs: Manifest) -> Context:
    study.inputs = {role: source(manifest) for role, manifest in inputs.items()}
    return study.context(stage, any_config(stage))


def test_a_stable_diffusion_is_committed_and_read_of_the_store(hub: Hub, tmp_path: Path) -> None:
    study = PixelStudy(tmp_path)
    manifest = commit(study, STABLE)
    assert manifest.summary["repository"] == "some/model"
    assert manifest.summary["commit"] == COMMIT
    assert manifest.summary["bytes"] == sum(file.size for file in manifest.files)
    assert "converted" not in manifest.summary
    names = {file.name for file in manifest.files}
    assert {
        "unet/diffusion_pytorch_model.safetensors",
        "tokenizer/vocab.json",
        "scheduler/scheduler_config.json",
    } < names
    assert not [name for name in (*names, *hub.asked) if "safety" in name or name.endswith((".bin", ".ckpt"))]
    assert not list((tmp_path / "cache/hub").glob("models--*"))  # it is in the store now
    hub.repositories = {}  # nothing goes online after this
    context = given(study, **{BASE: manifest})
    base = fetched_base(context)
    assert base is not None
    folder = base.folder(["unet/config.json", "tokenizer/vocab.json"])
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {"unet/config.json", "tokenizer/vocab.json"}


def test_a_fine_tuning_and_its_images_from_the_fetched_base(hub: Hub, tmp_path: Path) -> None:
    study = PixelStudy(tmp_path)
    manifest = commit(study, STABLE)
    hub.repositories = {}
    study.prepare(tiny_images())
    prepare = study.inputs["prepare"]
    config = FinetuneConfig(
        finetune=StableDiffusionFinetune(
            generator="stable-diffusion",
            base="some/model",
            revision=COMMIT,
            steps=2,
            batch_size=2,
            resolution=32,
            method="lora",
            rank=2,
        ),
        rare=Rare(below=5),
        seed=1,
    )
    study.inputs = {"prepare": prepare, BASE: source(manifest)}
    tuned = finetune.run(config, study.context("finetune", config))
    made = json.loads(study.context("generate", any_config("generate")).fetch(tuned, "generator.json").read_bytes())
    assert (made["base"], made["revision"]) == ("some/model", COMMIT)
    assert made["base_files"] == {file.name: file.digest for file in manifest.files}
    study.keep(tuned)
    drawing = GenerateConfig(
        generate=Generate(fill_to=4, steps=2, batch_size=4), base="some/model", rare=Rare(below=5), seed=1, pool=0
    )
    images = generate.run(drawing, study.context("generate", drawing))
    assert images is not None
    assert images.summary["images"] > 0
    assert SCHEMA.width == 4
    varied = Generate(
        fill_to=20, cap=10, steps=2, batch_size=8, prompts=("a {shape} in {colour}", "{labels} on a table"),
        negative_prompt="dark", guidance_interval=(0.5, 1.0),
    )  # fmt: skip
    drawing = drawing.model_copy(update={"generate": varied})
    images = generate.run(drawing, study.context("generate", drawing))
    assert images is not None
    context = study.context("generate", drawing)
    extra = read_shards(context.fetch_all(images, "images"), SCHEMA).extra
    assert extra is not None
    prompts = extra["prompt"].to_pylist()
    beginnings = {prompt.partition(" ")[0] for prompt in prompts}
    assert beginnings == {"a", "green"}, "each image takes one of the templates"
    assert all(prompt.endswith((" in green", " on a table")) for prompt in prompts)


def test_images_in_few_steps_by_a_lora_from_the_hub(
    hub: Hub, repositories: dict[str, Path], tmp_path: Path, s3_server: Settings, s3_store: S3Store
) -> None:
    """The LoRA is an input of `generate` alone; from a file or a bucket it gives the same images, and another file than was planned is refused."""
    base, lora = repositories["some/model"], tmp_path / "lora"
    lora.mkdir()
    few_step_lora(find_family(find_base(str(base), BaseSource(Settings.from_environment({}), tmp_path))), lora)
    (lora / "more.safetensors").write_bytes(b"never fetched")
    hub.repositories = {"some/lora": lora}
    study = PixelStudy(tmp_path)
    adapter = WeightsConfig(kind="few-step", name="some/lora", revision=COMMIT, file="pytorch_lora_weights.safetensors")
    fetched = commit(study, adapter)
    assert [file.name for file in fetched.files] == ["pytorch_lora_weights.safetensors"]
    assert not [name for name in hub.asked if "more" in name]
    with pytest.raises(
        ConfigError,
        match=r"generate.few_step.adapter some/lora@.*: has no lcm.safetensors; set generate.few_step.file to more",
    ):
        fetch(adapter.model_copy(update={"file": "lcm.safetensors"}), study.context("weights", adapter).settings)
    hub.repositories = {}
    study.prepare(tiny_images())
    values = {"generator": "stable-diffusion", "base": str(base), "steps": 1, "batch_size": 2, "resolution": 32}
    config = FinetuneConfig(finetune=StableDiffusionFinetune.model_validate(values), rare=Rare(below=5), seed=1)
    study.keep(finetune.run(config, study.context("finetune", config)))
    few = FewStep(adapter="some/lora", revision=COMMIT)
    drawing = GenerateConfig(
        generate=Generate(fill_to=4, guidance=None, steps=None, batch_size=4, few_step=few),
        base=str(base),
        rare=Rare(below=5),
        seed=1,
        pool=0,
    )
    study.inputs["weights/few-step"] = source(fetched)
    images = generate.run(drawing, study.context("generate", drawing))
    assert images is not None
    context = study.context("generate", drawing)
    drawn = read_shards(context.fetch_all(images, "images"), SCHEMA)
    assert drawn.extra is not None
    assert set(drawn.extra["guidance"].to_pylist()) == {1.0}
    del study.inputs["weights/few-step"]
    file = lora / "pytorch_lora_weights.safetensors"
    s3_store.put_file("lora.safetensors", file)
    for place in (str(file), f"{s3_store.url}/lora.safetensors"):
        there = drawing.generate.model_copy(update={"few_step": FewStep(adapter=place)})
        planned = drawing.model_copy(update={"generate": there, "weights": {place: file_digest(file)}})
        context = study.context("generate", planned)
        again = generate.run(planned, replace(context, settings=replace(s3_server, cache=context.settings.cache)))
        assert again is not None
        assert again.key != images.key
        assert list(read_shards(context.fetch_all(again, "images"), SCHEMA).encoded) == list(drawn.encoded)
    other = planned.model_copy(update={"weights": {place: "0" * 64}})
    context = study.context("generate", other)
    with pytest.raises(DataError, match=r"generate.few_step.adapter: s3://.* has digest .* when the run began"):
        generate.run(other, replace(context, settings=replace(s3_server, cache=context.settings.cache)))


def test_a_base_of_a_newer_family_in_shards(hub: Hub, tmp_path: Path) -> None:
    sharded = tiny_base("ZImagePipeline", tmp_path / "z", max_shard_size="50KB")
    (sharded / "whole.safetensors").write_bytes(b"never fetched")
    (sharded / "vae/diffusion_pytorch_model.fp16.safetensors").write_bytes(b"never fetched")
    hub.repositories = {"some/model": sharded}
    study = PixelStudy(tmp_path)
    manifest = commit(study, STABLE.model_copy(update={"kind": "text-to-image"}))
    names = {file.name for file in manifest.files}
    assert "transformer/diffusion_pytorch_model.safetensors.index.json" in names
    assert len([name for name in names if name.startswith("transformer/") and "-of-" in name]) > 1
    assert not [name for name in hub.asked if "whole" in name or "fp16" in name]
    hub.repositories = {}
    context = given(study, **{BASE: manifest})
    source = BaseSource(context.settings, context.scratch, fetched=fetched_base(context))
    family = find_family(find_base("some/model", source, TEXT_TO_IMAGE))
    wanted = find_family(find_base(str(sharded), BaseSource(context.settings, context.scratch), TEXT_TO_IMAGE))
    for part in (family.denoiser, "text_encoder"):
        one, other = family.load(part).state_dict(), wanted.load(part).state_dict()
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_base_of_no_family_is_refused_before_its_weights_are_fetched(
    hub: Hub, settings: Settings, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(hub.repositories["some/model"], tmp_path / "inpainting"))
    index = json.loads((base / "model_index.json").read_text())
    (base / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDiffusionInpaintPipeline"}))
    hub.repositories = {"some/model": base}
    with pytest.raises(DataError, match=r"finetune.base some/model: model_index.json names the pipeline '.*Inpaint"):
        fetch(STABLE.model_copy(update={"kind": "text-to-image"}), settings)
    assert {Path(name).name for name in hub.asked} == {"model_index.json"}
    (base / "model_index.json").unlink()
    with pytest.raises(ConfigError, match=r"has no model_index\.json; take"):
        fetch(STABLE.model_copy(update={"kind": "text-to-image"}), settings)


def old_repository(base: Path, folder: Path) -> Path:
    """Copies a base, with the pickles that old repositories have in place of its safetensors."""
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.ckpt"))
    unet, vae, text = (load_file(base / name) for name in WEIGHTS)
    turned = next(name for name, tensor in unet.items() if tensor.ndim == 2)
    unet[turned] = unet[turned].t().contiguous().t()  # as channels-last weights are, not contiguous
    one, other = (name for name, tensor in list(vae.items())[:2])
    whole = torch.cat([vae[one].flatten(), vae[other].flatten()])  # two tensors that share memory
    vae[one], vae[other] = (
        part.view(vae[name].shape)
        for part, name in zip(whole.split([vae[one].numel(), vae[other].numel()]), (one, other), strict=True)
    )
    text = {f"text_model.{name}": tensor for name, tensor in text.items()}
    text["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    torch.save(unet, folder / PICKLES[0])
    torch.save(vae, folder / PICKLES[1], _use_new_zipfile_serialization=False)
    torch.save(text, folder / PICKLES[2])
    return folder


def test_the_pickles_of_an_old_repository_are_converted(hub: Hub, tmp_path: Path) -> None:
    base = hub.repositories["some/model"]
    hub.repositories = {"some/model": old_repository(base, tmp_path / "old")}
    digests = {name: file_digest(tmp_path / "old" / name) for name in PICKLES}
    study = PixelStudy(tmp_path)
    manifest = commit(study, STABLE)
    assert not [file.name for file in manifest.files if not file.name.endswith((".safetensors", ".json", ".txt"))]
    assert manifest.summary["converted"] == {
        name: {"sha256": manifest.file(name).digest, "from": pickled, "from_sha256": digests[pickled]}
        for name, pickled in zip(WEIGHTS, PICKLES, strict=True)
    }
    assert manifest.summary["bytes"] == sum(file.size for file in manifest.files)
    hub.repositories = {}
    context = given(study, **{BASE: manifest})
    source = BaseSource(context.settings, context.scratch, fetched=fetched_base(context))
    loaded = find_family(find_base("some/model", source))
    wanted = find_family(find_base(str(base), BaseSource(context.settings, context.scratch)))
    for part in ("unet", "vae", "text_encoder"):
        one, other = loaded.load(part).state_dict(), wanted.load(part).state_dict()
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_one_pickle_among_safetensors_is_converted_alone(hub: Hub, settings: Settings, tmp_path: Path) -> None:
    base = Path(shutil.copytree(hub.repositories["some/model"], tmp_path / "mixed"))
    torch.save(load_file(base / WEIGHTS[2]), base / PICKLES[2])
    (base / WEIGHTS[2]).unlink()
    (base / PICKLES[1]).write_bytes(b"never fetched")
    hub.repositories = {"some/model": base}
    assert set(WEIGHTS) < set(fetch(STABLE, settings))
    assert {name for name in hub.asked if name.endswith(".bin")} == {PICKLES[2]}


class Harmful:
    """Runs a command when it is unpickled with its code."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_a_pickle_of_more_than_tensors_is_refused(hub: Hub, settings: Settings, tmp_path: Path) -> None:
    repository = old_repository(hub.repositories["some/model"], tmp_path / "old")
    hub.repositories = {"some/model": repository}
    tensor, marker = torch.zeros(2), tmp_path / "ran"
    for held, said in (
        (
            {"a": tensor, "b": Harmful(marker)},
            r"cannot be read as a state dict \(Trying to load unsupported GLOBAL posix\.system",
        ),
        ({"state_dict": {"a": tensor}}, "no plain state dict of tensors, as 'state_dict' is of the type dict"),
        ([tensor], "no plain state dict of tensors, but of the type list"),
        ({"a": tensor, "b": tensor.to_sparse()}, "as 'b' is a tensor of the type torch.sparse.FloatTensor"),
        ({"a": tensor.to("meta")}, "as 'a' is a tensor of the type torch.meta.FloatTensor"),
        ({"a": tensor.to(torch.complex128)}, r"cannot be written as safetensors \(.*complex128"),
        (None, r"cannot be read as a state dict \(Unsupported operand"),
    ):
        file = repository / PICKLES[0]
        torch.save(held, file) if held else file.write_bytes(b"pickle")
        with pytest.raises(DataError, match=said) as error:
            fetch(STABLE, settings)
        assert str(error.value).startswith(f"finetune.base some/model@{COMMIT[:8]}: {PICKLES[0]} ")
        assert f"; take finetune: {{base: {SD_15}, revision: {SD_15_COMMIT}}}" in str(error.value)
        assert "\n" not in str(error.value)
        shutil.rmtree(settings.cache)  # the next file has the same name and commit
    assert not marker.exists()


def test_what_cannot_be_converted_is_said_before_any_download(hub: Hub, settings: Settings, tmp_path: Path) -> None:
    def repository(change: Callable[[Path], object]) -> Path:
        folder = old_repository(hub.repositories["some/model"], tmp_path / f"old{len(hub.repositories)}")
        change(folder)
        return folder

    def shard(folder: Path) -> None:
        for i in (1, 2):
            (folder / f"unet/diffusion_pytorch_model-0000{i}-of-00002.bin").write_bytes(b"a part")
        (folder / "unet/diffusion_pytorch_model.bin.index.json").write_text("{}")
        (folder / PICKLES[0]).unlink()

    def leave_a_checkpoint(folder: Path) -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "v1-1.ckpt").write_bytes(b"all parts")

    neither = f"has neither {WEIGHTS[0]} nor {PICKLES[0]}"
    for change, said in (
        (
            shard,
            rf"{neither}; its weights are in parts \('unet/diffusion_pytorch_model-00001-of-00002\.bin'\), which are not joined",
        ),
        (leave_a_checkpoint, rf"{neither}, and lacks \d more; it has 'v1-1\.ckpt', a checkpoint in another layout"),
        (
            lambda folder: (folder / PICKLES[0]).rename(folder / "unet/model.fp16.bin"),
            rf"{neither}; it has 'unet/model\.fp16\.bin', which is not read",
        ),
        (
            lambda folder: shutil.rmtree(folder / "vae"),
            f"has neither {WEIGHTS[1]} nor {PICKLES[1]}, and lacks 1 more; take",
        ),
        (lambda folder: (folder / "unet/config.json").unlink(), r"has no unet/config\.json; take"),
        (lambda folder: (folder / "tokenizer/merges.txt").unlink(), r"has no tokenizer/merges\.txt; take"),
    ):
        name = f"some/model{len(hub.repositories)}"
        hub.repositories = {**hub.repositories, name: repository(change)}
        with pytest.raises(ConfigError, match=said) as error:
            fetch(STABLE.model_copy(update={"name": name}), settings)
        assert str(error.value).startswith(f"finetune.base {name}@{COMMIT[:8]}: has ")
        assert (
            f"; take finetune: {{base: {SD_15}, revision: {SD_15_COMMIT}}}, or name another finetune.revision"
            in str(error.value)
        )
        assert "\n" not in str(error.value)
    assert hub.asked == []


def test_a_timm_model_by_its_newest_commit(hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = PixelStudy(tmp_path)
    with caplog.at_level("WARNING", "tailfill"):
        manifest = commit(study, TIMM)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["not pinned"]
    assert [file.name for file in manifest.files] == ["model.safetensors"]
    assert manifest.summary["commit"] == COMMIT
    assert manifest.config == {"kind": "timm", "name": MODEL, "revision": None}
    context = given(study, **{role_of(MODEL): manifest, JUDGES: manifest})
    models = fetched_models(context)
    assert models == fetched_judges(context)
    trunk = build_trunk(Classifier(model=MODEL, trainable="head"), 32, fetched=models)
    wanted = load_file(hub.repositories[f"timm/{MODEL}"] / "model.safetensors")
    assert torch.equal(trunk.model.state_dict()["conv1.0.weight"], wanted["conv1.0.weight"])


def test_stages_without_hub_weights_have_none(tmp_path: Path) -> None:
    context = PixelStudy(tmp_path).context("final", any_config("final"))
    assert fetched_base(context) is None
    assert fetched_models(context) == fetched_judges(context) == {}


@pytest.mark.usefixtures("hub")
def test_what_no_retry_mends(hub: Hub, settings: Settings) -> None:
    for name, said in (
        ("some/other", "some/other is neither a folder here nor a public repository"),
        ("not a/name!", "neither a folder nor a hub name"),
    ):
        with pytest.raises(ConfigError, match=said) as error:
            fetch(STABLE.model_copy(update={"name": name}), settings)
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"finetune\.revision: some/model has no revision 'nowhere' on the hub"):
        fetch(STABLE.model_copy(update={"revision": "nowhere"}), settings)
    with pytest.raises(ConfigError, match=r"timm has no weights for resnet18d\.nonsense"):
        fetch(TIMM.model_copy(update={"name": "resnet18d.nonsense"}), settings)
    hub.gated = {"some/model"}
    with pytest.raises(
        ConfigError, match=r"finetune\.base some/model@5+: its owner must grant access first; set HF_TOKEN"
    ):
        fetch(STABLE, settings)


def test_a_token_opens_what_is_gated_and_is_never_shown(
    hub: Hub, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    hub.gated = {"some/model"}
    with caplog.at_level("DEBUG", "tailfill"):
        assert fetch(STABLE, replace(settings, hub_token=SecretStr(TOKEN)))
    assert TOKEN not in caplog.text


@pytest.mark.usefixtures("no_waits")
def test_the_hub_away_or_a_damaged_file(hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.wrong_digests = True
    with pytest.raises(UnavailableError, match=r"arrived with digest .*, the hub says 0+; run again"):
        fetch(STABLE, settings)
    hub.wrong_digests = False
    assert fetch(STABLE, settings)  # the damaged file was not kept
    point_at("http://127.0.0.1:9", monkeypatch)  # the discard port, where nothing listens
    with pytest.raises(UnavailableError, match=r"some/model@5+: fetching it from the hub failed") as error:
        fetch(STABLE, settings)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 75
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE forbids"):
        fetch(TIMM, settings)


def test_a_hub_chooses_no_place(hub: Hub, settings: Settings) -> None:
    """The hub's answers become paths in the cache of huggingface_hub."""
    hub.tag = "../../../../stolen"
    with pytest.raises(DataError, match=r"hub at 127\.0\.0\.1: the name '\.\./\.\./"):
        fetch(STABLE, settings)
    hub.tag, hub.commit = None, "../../stolen"
    with pytest.raises(DataError, match=r"the hub gives '\.\./\.\./stolen' for its commit"):
        fetch(STABLE, settings)
    assert not list(settings.cache.parent.rglob("stolen*"))


def test_a_body_that_is_cut_short_is_read_on(hub: Hub, settings: Settings) -> None:
    hub.cut = 2
    files = fetch(TIMM, settings)
    wanted = hub.repositories[f"timm/{MODEL}"] / "model.safetensors"
    assert files["model.safetensors"].read_bytes() == wanted.read_bytes()


def test_a_signal_between_two_files(hub: Hub, settings: Settings) -> None:
    stop = StopSignal()
    stop.set()
    with pytest.raises(Stopped):
        weights.weights(STABLE, settings, settings.cache / "scratch", stop)


def test_the_command_and_its_exit_codes(hub: Hub, tmp_path: Path) -> None:
    study = PixelStudy(tmp_path)

    def stage(config: WeightsConfig, **environment: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "task.json"
        file.write_text(study.task("weights", config).model_dump_json(by_alias=True))
        command = [sys.executable, "-m", "jobs", "--log", "json", "stage", "weights", "--config", str(file)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        own = {
            "TAILFILL_STORE": str(tmp_path / "store"),
            "TAILFILL_CACHE": str(tmp_path / "cache"),
            "HF_ENDPOINT": hub.url,
        }
        return subprocess.run(
            command,
            cwd=Path(__file__).parents[2],
            env={**kept, **own, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    hub.gated = {"some/model"}
    refused = stage(STABLE)
    assert (refused.returncode, len(refused.stderr.strip().splitlines())) == (2, 2)
    assert "set HF_TOKEN" in refused.stderr
    done = stage(STABLE, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stderr + done.stdout
    assert study.context("weights", STABLE).artifacts.find("weights", study.task("weights", STABLE).key)
    assert stage(TIMM, HF_ENDPOINT="http://127.0.0.1:9").returncode == 75
