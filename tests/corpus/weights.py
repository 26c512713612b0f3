"""Holds files and folders of weights, as a study names them and `validate --plan` looks at them."""

from __future__ import annotations

import gzip
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import timm
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from shared.config.generation import StableDiffusionFinetune, TextToImageFinetune
from shared.diffusion.text_to_image.base_files import INDEX
from shared.weights import pretrained
from shared.weights.check import check_base
from tests.corpus.case import Case

MODEL = "test_resnet"
FIRST = "conv1.0.weight"


@cache
def _state() -> Mapping[str, Tensor]:
    return dict(timm.create_model(MODEL, pretrained=False).state_dict())


def _file(write: Callable[[Path], object], name: str = "w.safetensors") -> Callable[[Path], object]:
    """Returns an attempt that looks at a file of weights, loads it, and returns a value of the model's first tensor."""

    def attempt(folder: Path) -> object:
        path = folder / name
        write(path)
        pretrained.check_weights(MODEL, str(path))
        model = pretrained.create(MODEL, str(path))
        wanted = _state()[FIRST].half().float() if "fp16" in name else _state()[FIRST]
        return "the same weights" if torch.equal(model.state_dict()[FIRST], wanted) else "other weights"

    return attempt


def _bytes(data: Callable[[], bytes]) -> Callable[[Path], object]:
    return _file(lambda path: path.write_bytes(data()))


def _header(entries: object, tensors: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + tensors


def _prefixed(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in _state().items()}


def _half() -> dict[str, Tensor]:
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in _state().items()}


class _Runs:
    """Makes a folder if it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.mkdir, (Path("ran"),)  # type: ignore[return-value]


def _code(folder: Path) -> object:
    path = folder / "w.pt"
    torch.save({"state_dict": dict(_state()), "args": _Runs()}, path)
    try:
        return pretrained.check_weights(MODEL, str(path))
    finally:
        assert not Path("ran").exists()


def _base(**files: bytes) -> Callable[[Path], object]:
    """Returns an attempt that looks at a base folder with all small files, and with these weights per part and file name."""

    def attempt(folder: Path) -> object:
        small = {
            "unet/config.json": b"{}",
            "vae/config.json": b"{}",
            "text_encoder/config.json": b"{}",
            "tokenizer/vocab.json": b"{}",
            "tokenizer/merges.txt": b"",
            "scheduler/scheduler_config.json": b"{}",
        }
        good = save({"a": torch.zeros(2)})
        whole = {
            "vae/diffusion_pytorch_model.safetensors": good,
            "text_encoder/model.safetensors": good,
            "unet/diffusion_pytorch_model.safetensors": good,
        }
        if files:
            del whole["unet/diffusion_pytorch_model.safetensors"]
        given = {f"unet/{name}": data for name, data in files.items()}
        for name, data in (small | whole | given).items():
            (folder / "base" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "base" / name).write_bytes(data)
        check_base(StableDiffusionFinetune(generator="stable-diffusion", base=str(folder / "base")))
        return "the base is whole"

    return attempt


def _base_of(pipeline: str) -> Callable[[Path], object]:
    """Returns an attempt that looks at a base whose model_index.json names a pipeline."""

    def attempt(folder: Path) -> object:
        _base()(folder)
        (folder / "base" / INDEX).write_text(json.dumps({"_class_name": pipeline}))
        check_base(TextToImageFinetune(generator="text-to-image", base=str(folder / "base")))
        return "the base is whole"

    return attempt


def _named_base(name: str) -> Callable[[Path], object]:
    return lambda _: check_base(StableDiffusionFinetune(generator="stable-diffusion", base=name)) or "not looked at"


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.safetensors", b"x")


GOOD = save({"a": torch.zeros(64)})
SAME = ("the same weights",)
AGAIN = "download or copy it again"

CASES = [
    Case("safetensors", _bytes(lambda: save(dict(_state()))), 0, SAME),
    Case("safetensors with the prefix of DataParallel", _bytes(lambda: save(_prefixed("module."))), 0, SAME),
    Case("safetensors with two prefixes", _bytes(lambda: save(_prefixed("module.model."))), 0, SAME),
    Case("safetensors with more tensors beside a prefix", _bytes(lambda: save({**_prefixed("backbone."), "other.weight": torch.zeros(2)})), 0, SAME),
    Case("half precision", _file(lambda path: save_file(_half(), path), "w.fp16.safetensors"),
        0, SAME),
    Case("a pickled state dict", _file(lambda path: torch.save(dict(_state()), path), "w.pth"), 0, SAME),
    Case("a checkpoint with state_dict", _file(lambda path: torch.save({"epoch": 3, "state_dict": _prefixed("module.")}, path), "w.pth"), 0, SAME),
    Case("a checkpoint with model", _file(lambda path: torch.save({"model": dict(_state()), "optimizer": {"lr": 1.0}}, path), "w.pth"), 0, SAME),
    Case("a checkpoint that could run code", _code, 2, ("cannot be read as a state dict", "name a file of tensors alone, best as safetensors")),
    Case("a pickle of a list", _file(lambda path: torch.save([1, 2], path), "w.pt"), 2, ("holds no plain state dict of tensors, but of the type list",)),
    Case("an optimizer's state", _file(lambda path: torch.save({"optimizer": {"lr": 1.0}}, path), "w.pt"),
        2, ("as 'optimizer' is of the type dict", "name a file of tensors alone")),
    Case("a zip archive of safetensors", _file(_zip), 2, ("cannot be read as a state dict",)),
    Case("no file", _file(lambda path: None), 2, ("there is no such file",)),
    Case("an empty file", _bytes(lambda: b""), 2, ("is empty", AGAIN)),
    Case("a file that is cut short", _bytes(lambda: save(dict(_state()))[:-100]), 2, ("is cut short: it has", AGAIN)),
    Case("a file that is cut within its header", _bytes(lambda: save(dict(_state()))[:99]), 2, ("is cut short within its header, at 99 bytes", AGAIN)),
    Case("five bytes", _bytes(lambda: b"\x01\0\0\0\0"), 2, ("is no safetensors file",)),
    Case("a header of 2 GB", _bytes(lambda: _header({}, length=2 << 30)), 2, ("its header would have 2,147,483,648 bytes",)),
    Case("a header that is no JSON", _bytes(lambda: struct.pack("<Q", 4) + b"{abc"), 2, ("is no safetensors file", "its header")),
    Case("a header of deep lists", _bytes(lambda: struct.pack("<Q", 90_000) + b'{"a":' + b"[" * 89_995), 2, ("is no safetensors file",)),
    Case("a shape below zero", _bytes(lambda: _header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"0000")),
        2, ("'a' has no valid shape or offsets",)),
    Case("a tensor that is a number", _bytes(lambda: _header({"a": 3})), 2, ("'a' is described by '3'",)),
    Case("a pointer of Git LFS", _bytes(lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 99\n"),
        2, ("is a pointer of Git LFS", "`git lfs pull`")),
    Case("a web page", _bytes(lambda: b"\n<!DOCTYPE html><html><body>Sign in</body></html>"), 2, ("is a web page", "download the weights again")),
    Case("a compressed file", _bytes(lambda: gzip.compress(GOOD)), 2, ("is compressed by gzip; unpack it",)),
    Case("an HDF5 file", _bytes(lambda: b"\x89HDF\r\n\x1a\n" + b"\0" * 99), 2, ("is an HDF5 file",)),
    Case("an index of parts", _bytes(lambda: b'{"metadata": {}, "weight_map": {}}'), 2, ("such as the index of weights in parts",)),
    Case("another model's weights", _bytes(lambda: save({FIRST: torch.zeros(1), "b": torch.zeros(1)})),
        2, ("does not fit test_resnet: it lacks", "name the file of this model, or its model in classifier.model")),
    Case("another shape", _bytes(lambda: save({**_state(), FIRST: torch.zeros(1, 2)})), 2, (f"{FIRST} has the shape [1, 2], expected",)),
    Case("a whole base", _base(), 0, ("the base is whole",)),
    Case("a whole base of a family", _base_of("StableDiffusionPipeline"), 0, ("the base is whole",)),
    Case("a whole base of no family", _base_of("FluxPipeline"), 2, ("names the pipeline 'FluxPipeline'", "of no family")),
    Case("a base in half precision only", _base(**{"diffusion_pytorch_model.fp16.safetensors": GOOD}), 0, ("the base is whole",)),
    Case("a base in parts", _base(**{"diffusion_pytorch_model-00001-of-00002.safetensors": GOOD}), 2, ("its weights are in parts", "max_shard_size")),
    Case("a base of pickles", _base(**{"diffusion_pytorch_model.bin": b"\x80"}),
        2, ("only the pickle, which could run code when read; convert it with safetensors",)),
    Case("a base without weights", _base(**{"readme.md": b""}), 2, ("has no unet/diffusion_pytorch_model.safetensors; name a folder that has it",)),
    Case("a base with a pointer of Git LFS", _base(**{"diffusion_pytorch_model.safetensors": b"version https://git-lfs.github.com/spec/v1\n"}),
        2, ("unet/diffusion_pytorch_model.safetensors is a pointer of Git LFS",)),
    Case("a base that is cut short", _base(**{"diffusion_pytorch_model.safetensors": GOOD[:-1]}), 2, ("is cut short",)),
    Case("a base that is not there", _named_base("/absent/base"),
        2, ("there is no folder /absent/base; name a folder, an s3://bucket/prefix or a hub name",)),
    Case("a base of the hub", _named_base("owner/name"), 0, ("not looked at",)),
]  # fmt: skip
