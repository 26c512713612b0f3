from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.diffusion.stable_diffusion_base import find_base, load_parts
from shared.errors import DataError, UnavailableError
from shared.settings import Settings


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def load(base: Path, settings: Settings, tmp_path: Path) -> None:
    load_parts(find_base(str(base), None, settings, tmp_path))


def test_the_tokenizer_reads_vocab_and_merges(base: Path, settings: Settings, tmp_path: Path) -> None:
    tokenizer = load_parts(find_base(str(base), None, settings, tmp_path)).tokenizer
    assert len(tokenizer) == 514
    assert len(set(tokenizer("red").input_ids)) == 5  # the start, three letters, the end


def test_weights_by_the_names_of_the_first_repositories(base: Path, settings: Settings, tmp_path: Path) -> None:
    found = load_parts(find_base(str(base), None, settings, tmp_path))
    text, vae = base / "text_encoder/model.safetensors", base / "vae/diffusion_pytorch_model.safetensors"
    save_file({f"text_model.{n}": t for n, t in load_file(text).items()}, text, {"format": "pt"})
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in load_file(vae).items():
        for new_part, old_part in old.items():
            name = name.replace(new_part, old_part)
        renamed[name] = tensor
    save_file(renamed, vae, {"format": "pt"})
    again = load_parts(find_base(str(base), None, settings, tmp_path))
    for one, other in ((found.text_encoder, again.text_encoder), (found.vae, again.vae)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_pickles_are_refused(base: Path, settings: Settings, tmp_path: Path, part: str) -> None:
    (weights,) = (base / part).glob("*.safetensors")
    pickled = weights.with_suffix(".bin")
    torch.save(load_file(weights), pickled)
    weights.unlink()
    with pytest.raises(DataError, match=f"{part}/ holds only the pickle {pickled.name}"):
        load(base, settings, tmp_path)
    pickled.unlink()
    with pytest.raises(DataError, match=f"{part}/ holds no weights"):
        load(base, settings, tmp_path)


@pytest.mark.parametrize(
    ("part", "missing"),
    [
        ("unet", "unet/config.json"),
        ("vae", "vae/config.json"),
        ("text_encoder", "text_encoder/config.json"),
        ("tokenizer", "tokenizer/vocab.json"),
        ("scheduler", "scheduler/scheduler_config.json"),
    ],
)
def test_a_missing_part_is_named(base: Path, settings: Settings, tmp_path: Path, part: str, missing: str) -> None:
    shutil.rmtree(base / part)
    with pytest.raises(DataError, match=missing) as error:
        find_base(str(base), None, settings, tmp_path).digests(
            ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]
        )
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=part):
        load(base, settings, tmp_path)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_of_the_wrong_shape_are_refused(base: Path, settings: Settings, tmp_path: Path, part: str) -> None:
    (weights,) = (base / part).glob("*.safetensors")
    state = load_file(weights)
    key = next(key for key in sorted(state) if state[key].ndim == 2)
    for changed in ({**state, key: torch.zeros(3, 5)}, {k: v for k, v in state.items() if k != key}):
        save_file(changed, weights, {"format": "pt"})
        with pytest.raises(DataError, match=f"{part}/") as error:
            load(base, settings, tmp_path)
        assert "\n" not in str(error.value)
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(DataError, match=f"{part}/ cannot be loaded"):
        load(base, settings, tmp_path)


def test_a_model_of_another_kind_is_refused(base: Path, settings: Settings, tmp_path: Path) -> None:
    path = base / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "sample"}))
    with pytest.raises(DataError, match="prediction_type is 'sample'"):
        load(base, settings, tmp_path)


def test_a_folder_that_is_not_there(settings: Settings, tmp_path: Path) -> None:
    for name in (str(tmp_path / "nothing"), "./nothing", "nothing", "a/b/c"):
        with pytest.raises(DataError, match="there is no folder"):
            find_base(name, None, settings, tmp_path)
    with pytest.raises(DataError, match="neither a folder nor a hub name"):
        find_base("not a/name!", None, settings, tmp_path)


COMMIT = "5" * 40


class Hub(BaseHTTPRequestHandler):
    """Speaks as much of the hub's protocol as downloading one repository takes."""

    base: Path
    asked: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        files = {str(f.relative_to(self.base)): f.read_bytes() for f in self.base.rglob("*") if f.is_file()}
        headers = {}
        if path.startswith("/api/models/some/model/revision/"):
            body = json.dumps(
                {"id": "some/model", "sha": COMMIT, "siblings": [{"rfilename": n} for n in files]}
            ).encode()
        elif path.startswith("/api/models/some/model/tree/"):
            rows = [{"type": "file", "path": n, "size": len(b), "oid": digest(b)} for n, b in files.items()]
            body = json.dumps(rows).encode()
        elif path.startswith("/some/model/resolve/"):
            name = path.split(f"/{COMMIT}/")[1]
            body = files[name]
            headers = {"ETag": f'"{digest(body)}"', "X-Repo-Commit": COMMIT}
            self.asked.append(name)
        else:
            closed = path.startswith("/api/models/some/closed/")
            body, headers = b"", {"X-Error-Code": "GatedRepo" if closed else "RepoNotFound"}
        self.send_response((403 if closed else 404) if not body else 200)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def digest(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@pytest.fixture
def hub(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub on this machine with one repository, some/model."""
    (base / "safety_checker").mkdir()
    (base / "safety_checker/model.safetensors").write_bytes(b"black images")
    (base / "unet/diffusion_pytorch_model.fp16.safetensors").write_bytes(b"another variant")
    handler = type("OneHub", (Hub,), {"base": base, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    yield handler
    server.shutdown()
    server.server_close()


def test_a_base_from_the_hub(hub: type[Hub], settings: Settings, tmp_path: Path) -> None:
    found = find_base("some/model", None, settings, tmp_path)
    assert found.revision == COMMIT
    assert found.folder.is_relative_to(settings.cache)
    load_parts(found)
    assert not [name for name in hub.asked if "safety_checker" in name or "fp16" in name]
    asked = len(hub.asked)
    again = find_base("some/model", COMMIT, settings, tmp_path)
    assert (again.folder, len(hub.asked)) == (found.folder, asked)  # from the cache


def test_the_hub_refuses_for_good(hub: type[Hub], settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="some/other is neither a folder here nor a public repository"):
        find_base("some/other", None, settings, tmp_path)
    with pytest.raises(DataError, match="some/closed: its owner must grant access first; set HF_TOKEN"):
        find_base("some/closed", None, settings, tmp_path)


def test_the_hub_is_away(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    with pytest.raises(
        UnavailableError, match="some/model@main: is no folder here, and fetching it from the hub failed"
    ) as error:
        find_base("some/model", "main", settings, tmp_path)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 75
