"""Tests weights that are downloaded from a hub on this machine, and a Stable Diffusion and a timm model that use the committed files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from pydantic import SecretStr
from safetensors.torch import save_file

from jobs import finetune, generate, weights
from shared.artifacts.manifest import Manifest
from shared.classifier.model import build_trunk
from shared.config.dataset import Rare
from shared.config.generation import Generate, StableDiffusionFinetune
from shared.config.stages import FinetuneConfig, GenerateConfig, Stage, WeightsConfig
from shared.config.task import Input
from shared.config.training import Classifier
from shared.context import Context
from shared.errors import ConfigError, DataError, Stopped, UnavailableError
from shared.settings import Settings
from shared.stop import StopSignal
from shared.weights import hub as hub_module
from shared.weights.inputs import fetched_base, fetched_judges, fetched_models
from shared.weights.roles import BASE, JUDGES, role_of
from tests.support.configs import any_config
from tests.support.hub_server import COMMIT, TOKEN, Hub, serve_hub
from tests.support.pixel_study import PixelStudy
from tests.support.tiny_pipeline import SCHEMA, tiny_images, tiny_pipeline

MODEL = "test_resnet.r160_in1k"
STABLE = WeightsConfig(kind="stable-diffusion", name="some/model", revision=COMMIT)
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
    (root / "pickles/unet").mkdir(parents=True)
    (root / "pickles/unet/diffusion_pytorch_model.bin").write_bytes(b"pickle")
    return {"some/model": base, f"timm/{MODEL}": model, "some/pickles": root / "pickles"}


@pytest.fixture
def hub(repositories: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub(repositories) as hub:
        point_at(hub.url, monkeypatch)
        yield hub


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the effect of HF_ENDPOINT on a process that starts with it."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment({"TAILFILL_CACHE": str(tmp_path / "cache")})


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "ATTEMPTS", 1)


def fetch(config: WeightsConfig, settings: Settings) -> dict[str, Path]:
    return weights.weights(config, settings, StopSignal())[1]


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
    wanted = save_and_load(hub.repositories[f"timm/{MODEL}"] / "model.safetensors")
    assert torch.equal(trunk.model.state_dict()["conv1.0.weight"], wanted["conv1.0.weight"])


def save_and_load(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(path))


def test_stages_without_hub_weights_have_none(tmp_path: Path) -> None:
    context = PixelStudy(tmp_path).context("final", any_config("final"))
    assert fetched_base(context) is None
    assert fetched_models(context) == fetched_judges(context) == {}


@pytest.mark.usefixtures("hub")
def test_what_no_retry_mends(hub: Hub, settings: Settings) -> None:
    for name, said in (
        ("some/other", "some/other is neither a folder here nor a public repository"),
        ("not a/name!", "neither a folder nor a hub name"),
        ("some/pickles", r"only the pickle unet/diffusion_pytorch_model\.bin.*finetune\.revision that has it"),
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
        weights.weights(STABLE, settings, StopSignal())
    hub.tag, hub.commit = None, "../../stolen"
    with pytest.raises(DataError, match=r"the hub gives '\.\./\.\./stolen' for its commit"):
        weights.weights(STABLE, settings, StopSignal())
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
        weights.weights(STABLE, settings, stop)


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
