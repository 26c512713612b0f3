from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file

from shared.diffusion.generator import BaseSource
from shared.diffusion.text_to_image.base import find_base, load_part
from shared.diffusion.text_to_image.base_files import TEXT_TO_IMAGE
from shared.diffusion.text_to_image.families.family import Family, find_family
from shared.errors import DataError
from tests.support.tiny_families import tiny_base as tiny_base_of


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    """Returns a copy of the base that a test may damage."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def family(base: Path, source: BaseSource) -> Family:
    return find_family(find_base(str(base), source))


def load(base: Path, source: BaseSource) -> dict[str, Any]:
    """Returns the parts that have weights."""
    found = family(base, source)
    return {part: found.load(part) for part in ("unet", "vae", "text_encoder")}


def test_the_tokenizer_reads_vocab_and_merges(base: Path, source: BaseSource) -> None:
    tokenizer = family(base, source).load("tokenizer")
    assert len(tokenizer) == 514
    assert len(set(tokenizer("red").input_ids)) == 5  # the start, three letters, the end


def test_weights_by_the_names_of_the_first_repositories(base: Path, source: BaseSource) -> None:
    found = load(base, source)
    text, vae = base / "text_encoder/model.safetensors", base / "vae/diffusion_pytorch_model.safetensors"
    save_file({f"text_model.{n}": t for n, t in load_file(text).items()}, text, {"format": "pt"})
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in load_file(vae).items():
        for new_part, old_part in old.items():
            name = name.replace(new_part, old_part)
        renamed[name] = tensor
    save_file(renamed, vae, {"format": "pt"})
    again = load(base, source)
    for part in ("text_encoder", "vae"):
        one, other = found[part].parameters(), again[part].parameters()
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_pickles_are_refused(base: Path, source: BaseSource, part: str) -> None:
    (weights,) = (base / part).glob("*.safetensors")
    pickled = weights.with_suffix(".bin")
    torch.save(load_file(weights), pickled)
    weights.unlink()
    with pytest.raises(
        DataError, match=f"has no {part}/{weights.name}; it has '{part}/{pickled.name}', .*only the pickle"
    ):
        load(base, source)
    pickled.unlink()
    with pytest.raises(DataError, match=f"has no {part}/{weights.name}; name a folder that has it"):
        load(base, source)


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
def test_a_missing_part_is_named(base: Path, source: BaseSource, part: str, missing: str) -> None:
    shutil.rmtree(base / part)
    with pytest.raises(DataError, match=missing) as error:
        find_base(str(base), source).digests(["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=part):
        load(base, source)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_of_the_wrong_shape_are_refused(base: Path, source: BaseSource, part: str) -> None:
    (weights,) = (base / part).glob("*.safetensors")
    state = load_file(weights)
    key = next(key for key in sorted(state) if state[key].ndim == 2)
    for changed in ({**state, key: torch.zeros(3, 5)}, {k: v for k, v in state.items() if k != key}):
        save_file(changed, weights, {"format": "pt"})
        with pytest.raises(DataError, match=f"{part}/") as error:
            load(base, source)
        assert "\n" not in str(error.value)
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(DataError, match=f"{part}/ cannot be loaded"):
        load(base, source)


def test_a_model_of_another_kind_is_refused(base: Path, source: BaseSource) -> None:
    path = base / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "sample"}))
    with pytest.raises(DataError, match="prediction_type is 'sample'"):
        load(base, source)


def test_a_newer_base_needs_the_other_generator(source: BaseSource, tmp_path: Path) -> None:
    base = tiny_base_of("StableDiffusionXLPipeline", tmp_path / "xl")
    with pytest.raises(DataError, match=r"a model with two text encoders.*set finetune.generator to text-to-image"):
        family(base, source)


def test_a_folder_that_is_not_there(source: BaseSource, tmp_path: Path) -> None:
    for name in (str(tmp_path / "nothing"), "./nothing", "nothing", "a/b/c"):
        with pytest.raises(DataError, match="there is no folder"):
            find_base(name, source)


def test_a_tokenizer_of_sentencepiece_alone(source: BaseSource, tmp_path: Path) -> None:
    """Older repositories have T5's tokenizer as spiece.model and no tokenizer.json."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a photo of a red square", "a green stripe"] * 20),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (tmp_path / "tokenizer_3").mkdir()
    (tmp_path / "tokenizer_3/spiece.model").write_bytes(model.getvalue())
    settings = {"tokenizer_class": "T5Tokenizer", "model_max_length": 512, "extra_ids": 0}
    (tmp_path / "tokenizer_3/tokenizer_config.json").write_text(json.dumps(settings))
    base = find_base(str(tmp_path), source, TEXT_TO_IMAGE)
    tokenizer = load_part(base, "tokenizer_3", "T5TokenizerFast")
    assert tokenizer.decode(tokenizer("a red square").input_ids) == "a red square</s>"
    with pytest.raises(DataError, match=r"has no tokenizer_3/vocab\.json"):  # a tokenizer of CLIP has no such file
        find_base(str(tmp_path), source).files(["tokenizer_3"])
