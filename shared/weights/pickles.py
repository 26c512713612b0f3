"""Reads pickled state dicts by torch's restricted reader, which runs no code of the file, and converts them to safetensors."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from shared.errors import DataError
from shared.log import Log
from shared.names import shown
from shared.tensors import save_tensors

log = Log("weights")

_ADVICE = ("Weights only load failed", "Please file an issue", "Check the documentation")
"""Begins the lines of torch's message that say how to read the file with its code, which we never do."""


def read_pickle(
    path: Path, what: str, remedy: str, mapped: bool = False, wrappers: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Returns the tensors of a pickled state dict, on the CPU and in the file's order.

    With `mapped` they stay in the file, which must then outlive them. If the file holds a dictionary of other things under the first of the
    `wrappers` that it has, as a checkpoint of a training does, that one is read. Raises DataError, which begins with `what` and ends with `remedy`,
    if the restricted reader refuses the file or if it holds anything but tensors by name.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and zipfile.is_zipfile(path))
    except Exception as error:  # the restricted reader raises whatever the pickle's fault leads to
        raise DataError(f"{what} cannot be read as a state dict ({_reason(error)}); {remedy}") from error
    if not isinstance(state, dict):
        raise DataError(f"{what} holds no plain state dict of tensors, but {_kind(state)}; {remedy}")
    wrapper = next((name for name in wrappers if isinstance(state.get(name), dict)), None)
    if wrapper is not None:
        log.info("reading the weights of a checkpoint", file=path, under=wrapper)
        state = state[wrapper]
    for name, value in state.items():
        whole = isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu"  # not meta
        if not isinstance(name, str) or not whole:
            raise DataError(
                f"{what} holds no plain state dict of tensors, as {shown(name)} is {_kind(value)}; {remedy}"
            )
    plain: dict[str, Tensor] = state
    return plain


def convert(source: Path, target: Path, what: str, remedy: str) -> None:
    """Writes the tensors of a pickled state dict as safetensors, under the same names; raises DataError as read_pickle does.

    Tensors that share memory are written apart, each in full and contiguous, as safetensors wants it.
    """
    state = read_pickle(source, what, remedy, mapped=True)
    uses = Counter(tensor.untyped_storage().data_ptr() for tensor in state.values())
    plain = {
        name: tensor.contiguous()
        if uses[tensor.untyped_storage().data_ptr()] == 1
        else tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_tensors(plain, target, {"format": "pt"})
    except (KeyError, ValueError) as error:  # a type of number that safetensors lacks
        raise DataError(f"{what} cannot be written as safetensors ({error}); {remedy}") from error


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of the type {value.type()}"
    return f"of the type {type(value).__name__}"


def _reason(error: Exception) -> str:
    """Returns the line that says what is wrong, which may quote the file: printable characters only, and not too many."""
    lines = [line.strip() for line in str(error).splitlines()]
    line = next((line for line in lines if line and not line.startswith(_ADVICE)), type(error).__name__)
    return "".join(character for character in line if character.isprintable())[:200]
