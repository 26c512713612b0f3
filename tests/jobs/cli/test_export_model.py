from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from jobs.cli.export_model import export_model
from shared.classifier.portable import load_timm
from shared.digests import file_digest
from shared.errors import ConfigError, UnavailableError
from shared.weights import hub as hub_module
from tests.support.hub_push import PushHub, serve_push_hub
from tests.support.hub_server import TOKEN

ROOT = Path(__file__).parents[3]


@pytest.fixture
def hub(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PushHub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hub_module, "ATTEMPTS", 1)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serve_push_hub() as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        yield served


def export(out: Path, form: Any = "hf", push: str | None = None, licence: str = "apache-2.0") -> str:
    return export_model(out, form, None, licence, push, None)


def metadata(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return found


@pytest.mark.usefixtures("trained")
def test_an_export_for_timm_and_its_card(tmp_path: Path) -> None:
    out = tmp_path / "model"
    said = export(out)
    assert re.fullmatch(rf"4 files \([0-9.]+ MiB\) in {out}", said)
    assert {path.name for path in out.iterdir()} == {
        "config.json", "model.safetensors", "head.safetensors", "README.md",
    }  # fmt: skip
    config = json.loads((out / "config.json").read_text())
    described = config["tailfill"]
    assert config["architecture"] == "test_resnet"
    assert [group["classes"] for group in described["groups"]] == [["blue", "green", "red"], ["dark", "framed"]]
    assert set(described["temperatures"]) == {"colour", "marks"}
    assert set(described["thresholds"]) == {"marks/dark", "marks/framed"}
    assert described["licences"]["model"] == "apache-2.0"
    assert described["licences"]["data"] == {"source": "csv", "licence": None, "note": None}
    assert {origin["stage"] for origin in described["lineage"]} == {"final", "prepare", "report"}
    assert described["sha256"]["model.safetensors"] == file_digest(out / "model.safetensors")
    card = (out / "README.md").read_text()
    block = metadata(out)
    assert (block["license"], block["library_name"], block["pipeline_tag"]) == (
        "apache-2.0",
        "timm",
        "image-classification",
    )
    assert {"accuracy", "macro_f1"} <= {m["type"] for m in block["model-index"][0]["results"][0]["metrics"]}
    for said in (
        "It was found: {}",
        "- Data: csv, licence not known.",
        "- Model: apache-2.0.",
        "| marks/framed | ",
        "54 training",
        "## Limits",
        "95 % interval",
    ):
        assert said in card
    for origin in described["lineage"]:
        assert origin["digest"] in card


@pytest.mark.usefixtures("trained")
def test_the_lines_of_the_card_load_the_model(tmp_path: Path) -> None:
    out = tmp_path / "model"
    export(out)
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    image = tmp_path / "image.jpg"
    Image.open("data/1.png").resize((32, 32)).save(image, "PNG")
    names: dict[str, Any] = {}
    exec(code.replace("DIR", str(out)).replace("image.jpg", str(image)), names)  # noqa: S102 - the card's own lines
    pixels = names["look"](Image.open(image).convert("RGB")).unsqueeze(0)
    with torch.no_grad():
        assert torch.allclose(names["logits"], load_timm(out, (8,), 5)(pixels), atol=1e-5)
    assert float(names["p_1"].sum()) == pytest.approx(1)
    assert names["p_2"].shape == (1, 2)
    assert len([line for line in code.split("look =")[0].splitlines() if line]) <= 10


@pytest.mark.usefixtures("trained")
def test_the_lines_of_an_onnx_card_run_the_graph(tmp_path: Path) -> None:
    out = tmp_path / "model"
    export(out, "onnx", licence="Acme internal")
    assert {path.name for path in out.iterdir()} == {"config.json", "model.onnx", "README.md"}
    block = metadata(out)
    assert (block["library_name"], block["license"], block["license_name"]) == ("onnx", "other", "acme-internal")
    assert "- Model: Acme internal.\n" in (out / "README.md").read_text()
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code.replace("DIR", str(out)).replace("image.jpg", "data/1.png"), names)  # noqa: S102
    assert names["probabilities"].shape == (1, 5)
    assert names["probabilities"][0, :3].sum() == pytest.approx(1)
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    for count in (1, 7):
        assert session.run(None, {"pixel_values": np.zeros((count, 3, 32, 32), np.float32)})[0].shape == (count, 5)


@pytest.mark.usefixtures("trained")
def test_only_an_empty_folder_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not an empty folder"):
        export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.usefixtures("trained")
def test_a_package_that_is_missing_is_said_before_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)  # so that Python does not find it
    out = tmp_path / "model"
    with pytest.raises(
        ConfigError, match=r"onnx: is not installed \(.*\); run `make venv`, or pip install 'CHECKOUT\[onnx\]'"
    ):
        export(out, "onnx")
    assert not out.exists()


@pytest.mark.parametrize("form", ["hf", "onnx"])
@pytest.mark.usefixtures("trained")
def test_a_refused_export_leaves_its_folder_as_it_was(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("shared.classifier.portable.AGREEMENT", -1.0)  # which no difference is below
        with pytest.raises(ConfigError, match="try the other --format"):
            export(tmp_path, form)
    assert not list(tmp_path.iterdir())
    export(tmp_path, form)


@pytest.mark.usefixtures("trained")
def test_what_is_wrong_with_a_command_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    new = str(tmp_path / "new")
    commands = {
        "is not an empty folder": ["export", "model", str(tmp_path)],
        "must have letters or digits": ["export", "model", new, "--licence", " "],
        "no such experiment": ["export", "model", new, "--experiment", "rael"],
        "did you mean real": ["predict", "data", "--experiment", "rael"],
        "name owner/name": ["export", "model", new, "--push", "squares"],
    }
    program = (
        "import json, sys\n"
        "from jobs.__main__ import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        main(words)\n"
        "    except SystemExit as ended:\n"
        "        assert ended.code == 2, ended.code\n"
        "assert not {'torch', 'timm'} & set(sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, json.dumps(list(commands.values()))],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for said, line in zip(commands, run.stderr.splitlines(), strict=True):
        assert said in line
    assert not Path(new).exists()


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of httpx2, in huggingface_hub
def test_it_is_pushed_to_the_hub(hub: PushHub, tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert export(out, push="me/squares").endswith("; pushed to me/squares as commit 55555555")
    pushed = hub.repositories["me/squares"]
    assert pushed == {path.name: path.read_bytes() for path in out.iterdir()}
    assert hub.private["me/squares"] in (True, "private")
    assert hub.cards
    assert "license: apache-2.0" in hub.cards[0]
    loaded = tmp_path / "loaded"
    loaded.mkdir()
    for name, content in pushed.items():
        (loaded / name).write_bytes(content)
    assert timm.create_model(f"local-dir:{loaded}", pretrained=True).num_features
    assert load_file(loaded / "head.safetensors")


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [(401, ConfigError, "the hub refuses us"), (403, ConfigError, "fix HF_TOKEN"), (500, UnavailableError, "is complete: push it again")],
)  # fmt: skip
def test_a_hub_that_refuses_costs_nothing(
    hub: PushHub, tmp_path: Path, status: int, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http._DEFAULT_RETRY_ON_STATUS_CODES", (), raising=False)
    hub.status = status
    out = tmp_path / "model"
    with pytest.raises(error) as caught:
        export(out, push="me/squares")
    assert said in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert (out / "README.md").exists()


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of httpx2, in huggingface_hub
def test_a_card_that_the_hub_refuses_is_one_line(hub: PushHub, tmp_path: Path) -> None:
    hub.faults = ['"license" must be one of [apache-2.0, mit]', '"tags" must be a list']
    out = tmp_path / "model"
    with pytest.raises(ConfigError) as caught:
        export(out, push="me/squares")
    said = str(caught.value)
    assert '- "license" must be one of [apache-2.0, mit] - "tags" must be a list' in said
    assert "mend" in said
    assert "\n" not in said
    assert hub.repositories["me/squares"] == {}
    assert (out / "README.md").exists()


@pytest.mark.usefixtures("trained")
def test_a_push_that_cannot_work_is_refused_before_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model"
    with pytest.raises(ConfigError, match="--push: HF_TOKEN is not set"):
        export(out, push="me/squares")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in ("squares", "a/b/c", "../x", "me/sq uares"):
        with pytest.raises(ConfigError, match="--push: "):
            export(out, push=name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="--push: HF_HUB_OFFLINE forbids to push; unset it"):
        export(out, push="me/squares")
    assert not out.exists()
