"""Compares what is said of weights in a bucket with what is said of the same ones in a folder; the server is a real one."""

from __future__ import annotations

import json
import pickle
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save, save_file

from jobs.cli.run import run_study
from jobs.cli.validate import validate
from shared.artifacts.s3 import S3Store
from shared.config.generation import StableDiffusionFinetune, TextToImageFinetune
from shared.diffusion.text_to_image.base_files import INDEX
from shared.errors import ConfigError, DataError, TailfillError
from shared.settings import Settings
from shared.weights import pretrained
from shared.weights.check import check_adapter, check_base
from tests.support.small_study import SMALL_STUDY

MODEL = "test_resnet"
SMALL = {
    "unet/config.json": b'{"block_out_channels": [8, 8, 8]}',
    "vae/config.json": b'{"block_out_channels": [8, 8, 8, 8]}',
    "text_encoder/config.json": b"{}",
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"",
    "scheduler/scheduler_config.json": b"{}",
}
TENSOR = save({"a": torch.zeros(64)})
WHOLE = SMALL | {
    f"{part}/{name}.safetensors": TENSOR
    for part, name in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    )
}
UNET = "unet/diffusion_pytorch_model"


def unet(**files: bytes) -> dict[str, bytes]:
    others = {name: data for name, data in WHOLE.items() if name != f"{UNET}.safetensors"}
    return others | {f"{UNET}{ending}": data for ending, data in files.items()}


def parts(*there: str, index: object = None) -> dict[str, bytes]:
    named = {
        "weight_map": {
            "a": "diffusion_pytorch_model-00001-of-00002.safetensors",
            "b": "diffusion_pytorch_model-00002-of-00002.safetensors",
        }
    }
    given = json.dumps(named if index is None else index).encode()
    return unet(**{".safetensors.index.json": given} | {f"-{number}.safetensors": TENSOR for number in there})


BASES: dict[str, tuple[Mapping[str, bytes], str]] = {
    "whole": (WHOLE, ""),
    "in parts": (parts("00001-of-00002", "00002-of-00002"), ""),
    "a part is missing": (parts("00001-of-00002"), "its weights are in parts"),
    "the index names another part": (
        parts("00001-of-00002", "00002-of-00002", index={"weight_map": {"a": "other.safetensors"}}),
        "names the part 'other.safetensors', which is not there",
    ),
    "the index names no part": (parts("00001-of-00002", "00002-of-00002", index={}), "has no weight_map"),
    "the index is no JSON": (unet(**{".safetensors.index.json": b"[", "-00001-of-00001.safetensors": TENSOR}), "is no JSON"),
    "pickles": (unet(**{".bin": b"\x80\x04"}), "only the pickle, which could run code when read; convert it with safetensors"),
    "half precision": (unet(**{".fp16.safetensors": TENSOR}), ""),
    "half precision beside a pickle": (unet(**{".fp16.safetensors": TENSOR, ".bin": b"\x80"}), "rename that to"),
    "one file of another layout": (
        {name: data for name, data in WHOLE.items() if not name.startswith("unet/diff")} | {"v1-5.safetensors": TENSOR},
        "a checkpoint in another layout",
    ),
    "no weights": (SMALL, "has no"),
    "a pointer of Git LFS": (unet(**{".safetensors": b"version https://git-lfs.github.com/spec/v1\n"}), "is a pointer of Git LFS"),
    "cut short": (unet(**{".safetensors": TENSOR[:-1]}), "is cut short"),
    "empty": (unet(**{".safetensors": b""}), "is empty"),
    "nothing": ({}, ""),
}  # fmt: skip


@pytest.fixture
def bucket(s3_server: Settings, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """Returns a store on the server that the environment names; nothing is read whole from it."""
    assert s3_server.s3_endpoint
    assert s3_server.s3_access_key
    assert s3_server.s3_secret_key
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.s3_access_key.get_secret_value())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.s3_secret_key.get_secret_value())

    def whole(*_: object) -> None:
        raise AssertionError("read whole")

    for read in ("get_file", "get", "digest"):
        monkeypatch.setattr(S3Store, read, whole)
    monkeypatch.setattr(S3Store, "_probe", lambda _: None)  # which reads back what it wrote
    return s3_store


def said(attempt: Callable[[], object], location: str) -> str:
    try:
        attempt()
    except TailfillError as error:
        return str(error).replace(location, "AT")
    return ""


def base_at(location: str) -> Callable[[], object]:
    return lambda: check_base(StableDiffusionFinetune(generator="stable-diffusion", base=location))


@pytest.mark.parametrize("name", BASES)
def test_a_base_in_a_bucket_is_looked_at_as_one_in_a_folder(name: str, tmp_path: Path, bucket: S3Store) -> None:
    files, words = BASES[name]
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
        bucket.put(f"base/{path}", data)
    here = said(base_at(str(tmp_path)), str(tmp_path))
    there = said(base_at(f"{bucket.url}/base"), f"{bucket.url}/base")
    if name == "nothing":
        assert there == "finetune.base: there is nothing below AT; check bucket and prefix"
    else:
        assert here == there
        assert words in there
        assert bool(there) == (name not in ("whole", "in parts", "half precision"))


def test_a_lora_in_a_bucket_is_looked_at_as_one_in_a_folder(tmp_path: Path, bucket: S3Store) -> None:
    """Before anything is computed, it is there, whole, and in safetensors; only its header is read."""
    found = {"whole": TENSOR, "cut": TENSOR[:-1], "empty": b"", "pickle": pickle.dumps({"a": 1})}
    for name, data in found.items():
        (tmp_path / f"{name}.safetensors").write_bytes(data)
        bucket.put(f"{name}.safetensors", data)
        here, there = (f"{place}/{name}.safetensors" for place in (tmp_path, bucket.url))
        words, there_too = (said(partial(check_adapter, place), place) for place in (here, there))
        if name == "pickle":  # each names the remedy that it has
            words, there_too = (text.partition("is a pickle")[1] for text in (words, there_too))
        assert words == there_too
        assert bool(words) == (name != "whole")


def test_tokens_of_classes_suit_the_base() -> None:
    """It is said before anything is computed, if the base is a known one."""
    values = {"generator": "text-to-image", "class_tokens": 2}
    check_base(TextToImageFinetune.model_validate(values))
    with pytest.raises(ConfigError, match=r"class_tokens: stabilityai/.* is a Stable Diffusion XL, and only"):
        check_base(TextToImageFinetune.model_validate({**values, "base": "stabilityai/stable-diffusion-xl-base-1.0"}))


@pytest.mark.parametrize(("side", "fits"), [(64, True), (96, True), (104, False), (40, False)])
def test_the_resolution_suits_the_base(side: int, fits: bool, bucket: S3Store) -> None:
    for path, data in (WHOLE | {INDEX: b'{"_class_name": "StableDiffusionPipeline"}'}).items():
        bucket.put(f"base/{path}", data)
    base = f"{bucket.url}/base"
    for finetune in (
        StableDiffusionFinetune(generator="stable-diffusion", base=base, resolution=side),
        TextToImageFinetune(generator="text-to-image", base=base, resolution=side),
    ):
        if fits:
            check_base(finetune)
        else:
            with pytest.raises(
                ConfigError, match=rf"finetune\.resolution: must be a multiple of 32 for s3://.*, got {side}"
            ):
                check_base(finetune)


STATE = dict(timm.create_model(MODEL, pretrained=False).state_dict())
FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "plain": (lambda path: save_file(STATE, path), ""),
    "module.": (lambda path: save_file({f"module.{n}": t for n, t in STATE.items()}, path), ""),
    "state_dict.": (lambda path: save_file({f"state_dict.{n}": t for n, t in STATE.items()}, path), ""),
    "half precision": (lambda path: save_file({n: t.half() if t.is_floating_point() else t for n, t in STATE.items()}, path), ""),
    "a shape": (lambda path: save_file({**STATE, "conv1.0.weight": torch.zeros(1, 2)}, path), "has the shape [1, 2], expected"),
    "another model": (lambda path: save_file({"a": torch.zeros(1)}, path), "does not fit test_resnet: it lacks"),
    "cut short": (lambda path: path.write_bytes(save(STATE)[:-9]), "is cut short"),
    "a header without an end": (lambda path: path.write_bytes((2 << 30).to_bytes(8, "little") + b"{" * 99), "is no safetensors file"),
    "a long header": (lambda path: save_file({**STATE}, path, {"note": "x" * 200_000}), ""),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "an index": (lambda path: path.write_bytes(b'{"weight_map": {}}'), "is JSON, such as the index of weights in parts"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_in_a_bucket_is_looked_at_as_one_here(name: str, tmp_path: Path, bucket: S3Store) -> None:
    write, words = FILES[name]
    path = tmp_path / "w.safetensors"
    write(path)
    bucket.put_file("w.safetensors", path)
    there = f"{bucket.url}/w.safetensors"
    answers = {at: said(lambda at=at: pretrained.check_weights(MODEL, at), at) for at in (str(path), there)}
    assert answers[str(path)] == answers[there]
    assert words in answers[there]
    assert bool(words) == bool(answers[there])


def test_a_pickle_in_a_bucket_is_refused_unread(tmp_path: Path, bucket: S3Store) -> None:
    torch.save({"state_dict": STATE}, tmp_path / "w.pth")
    pretrained.check_weights(MODEL, str(tmp_path / "w.pth"))
    bucket.put_file("w.pth", tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"w\.pth is a pickle; from a bucket only safetensors are read, convert it"):
        pretrained.check_weights(MODEL, f"{bucket.url}/w.pth")


@pytest.mark.parametrize(
    ("names", "here", "there"),
    [
        (["config.json", "model.safetensors"], "such as AT/model.safetensors", "such as AT/model.safetensors"),
        (["model.fp16.safetensors"], "such as AT/model.fp16.safetensors", "such as AT/model.fp16.safetensors"),
        (["pytorch_model.bin"], "such as AT/pytorch_model.bin", "convert it with safetensors"),
        (["model-00001-of-00002.safetensors"], "its weights are in parts", "its weights are in parts"),
        (["readme.md"], "name a file of weights", "name a file of weights"),
    ],
)
def test_a_folder_in_place_of_a_file(names: list[str], here: str, there: str, tmp_path: Path, bucket: S3Store) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
        bucket.put(f"folder/{name}", b"x")
    for location, words in ((str(tmp_path), here), (f"{bucket.url}/folder", there)):
        assert words in said(lambda at=location: pretrained.check_weights(MODEL, at), location)


def test_of_large_weights_only_the_header_is_read(
    tmp_path: Path, bucket: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"a": torch.zeros(10_000_000)}, tmp_path / "w.safetensors")
    bucket.put_file("w.safetensors", tmp_path / "w.safetensors")
    received = []
    monkeypatch.setattr(S3Store, "start", counted(S3Store.start, received))
    with pytest.raises(DataError, match="does not fit"):
        pretrained.check_weights(MODEL, f"{bucket.url}/w.safetensors")
    assert sum(received) < 100_000


def counted(start: Callable[[S3Store, str, int], bytes], received: list[int]) -> Callable[[S3Store, str, int], bytes]:
    def count(store: S3Store, key: str, length: int) -> bytes:
        data = start(store, key, length)
        received.append(len(data))
        return data

    return count


@pytest.mark.parametrize("name", ["no object", "pickle", "base"])
def test_validate_and_run_look_before_they_compute(
    name: str, tmp_path: Path, bucket: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILFILL_STORE", f"{bucket.url}/store")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/x")
    bucket.put("w.pt", b"\x80\x04")
    bucket.put("base/unet/diffusion_pytorch_model.bin", b"\x80")
    sets, words = {
        "no object": ([f"classifier.pretrained={bucket.url}/{uuid.uuid4().hex}"], "there is no such object"),
        "pickle": ([f"classifier.pretrained={bucket.url}/w.pt"], "from a bucket only safetensors are read"),
        "base": (
            ["finetune={generator: stable-diffusion, resolution: 32}", f"finetune.base={bucket.url}/base"],
            "only the pickle, which could run code when read",
        ),
    }[name]
    with pytest.raises(DataError, match=words):
        validate(SMALL_STUDY, sets, show_plan=True, as_json=False)
    with pytest.raises(DataError, match=words):
        run_study(SMALL_STUDY, sets, tmp_path / "work", None, (), "text", False)
