from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from shared.errors import DataError
from shared.tensors import check_shapes, read_tensors, save_tensors


def test_tensors_come_back_whatever_their_memory_format(tmp_path: Path) -> None:
    weights = torch.arange(24.0, requires_grad=True).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    save_tensors({"w": weights}, tmp_path / "a.safetensors")
    read = read_tensors({"a.safetensors": tmp_path / "a.safetensors"}, "a.safetensors", "finetune")
    assert torch.equal(read["w"], weights)


def test_a_missing_file_and_a_pickle_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(DataError, match=r"^a\.safetensors: is no readable safetensors file .*--rerun finetune"):
        read_tensors({path.name: path}, path.name, "finetune")
    with pytest.raises(DataError, match=r"^b\.safetensors: missing beside \['a\.safetensors'\]; .*--rerun judge"):
        read_tensors({path.name: path}, "b.safetensors", "judge")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"w": torch.ones(2)}, r"w should be \(3,\), got \(2,\)"),
        ({}, r"w should be \(3,\), got no such tensor"),
        ({"w": torch.ones(3), "x": torch.ones(1)}, r"x should be no such tensor, got \(1,\)"),
    ],
)
def test_tensors_of_another_model_are_named(found: dict[str, torch.Tensor], message: str) -> None:
    check_shapes("a", {"w": torch.zeros(3)}, {"w": torch.ones(3)}, "judge")
    with pytest.raises(DataError, match=f"^a: {message}; they belong to another model"):
        check_shapes("a", found, {"w": torch.ones(3)}, "judge")
