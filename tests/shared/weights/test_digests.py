"""Tests which changes of weights change a key."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from shared.artifacts.folder import FolderStore
from shared.artifacts.s3 import S3Store
from shared.config.load import load_study
from shared.config.study import Study
from shared.errors import DataError
from shared.pipeline.plan import plan
from shared.settings import Settings
from shared.weights.digests import weight_digests
from tests.support.small_study import SMALL_STUDY

STUDIES = Path(__file__).parents[3] / "studies"
SETTINGS = Settings.from_environment({})


def with_file(file: object) -> Study:
    return load_study(SMALL_STUDY, [f"classifier.pretrained={file}"])


def with_base(base: object) -> Study:
    sets = ["finetune={generator: stable-diffusion, resolution: 32}", f"finetune.base={base}"]
    return load_study(SMALL_STUDY, sets)


def steps_of(study: Study, kept: FolderStore, settings: Settings = SETTINGS) -> set[str]:
    return {step.id for step in plan(study, None, weight_digests(study, settings, kept))}


def write_base(folder: Path, weights: bytes = b"u") -> Path:
    for name, data in {"unet/config.json": b"{}", "unet/diffusion_pytorch_model.safetensors": weights}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_another_file_under_the_same_name_is_another_key(tmp_path: Path, folder_store: FolderStore) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"1")
    before = steps_of(with_file(file), folder_store)
    assert before == steps_of(with_file(file), folder_store)
    file.write_bytes(b"2")
    os.utime(file, ns=(0, 1))  # the same size as before
    changed = steps_of(with_file(file), folder_store)
    stages = {step.stage for step in plan(with_file(file)) if step.stage in ("prepare", "finetune", "generate")}
    assert len(before & changed) == len(stages)  # the stages that use no classifier keep their keys


def test_a_moved_file_is_the_same(tmp_path: Path, folder_store: FolderStore) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"1")
    before = steps_of(with_file(file), folder_store)
    moved = file.rename(tmp_path / "elsewhere.safetensors")
    assert steps_of(with_file(moved), folder_store) == before


def test_a_file_is_read_once(tmp_path: Path, folder_store: FolderStore) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"1")
    time = file.stat().st_mtime_ns
    before = weight_digests(with_file(file), SETTINGS, folder_store)
    assert before == {str(file): hashlib.sha256(b"1").hexdigest()}
    file.write_bytes(b"2")
    os.utime(file, ns=(time, time))
    assert weight_digests(with_file(file), SETTINGS, folder_store) == before


def test_a_base_counts_by_the_files_that_are_read(tmp_path: Path, folder_store: FolderStore) -> None:
    base = write_base(tmp_path / "base")
    before = steps_of(with_base(base), folder_store)
    (base / "README.md").write_text("never read")
    shutil.move(base, tmp_path / "moved")
    assert steps_of(with_base(tmp_path / "moved"), folder_store) == before
    changed = steps_of(with_base(write_base(tmp_path / "moved", b"v")), folder_store)
    assert {s.stage for s in plan(with_base(base)) if s.id in before & changed} <= {"prepare", "judge", "tune", "final"}
    assert len(before - changed) > len(before) / 2


def test_names_of_a_hub_or_a_package_stay_names(folder_store: FolderStore) -> None:
    for study in (with_base("CompVis/stable-diffusion-v1-1"), load_study(STUDIES / "deepfashion-lite.yaml")):
        assert weight_digests(study, SETTINGS, folder_store) == {}


def test_a_search_over_files_goes_by_their_names_too(tmp_path: Path, folder_store: FolderStore) -> None:
    files = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for file in files:
        file.write_bytes(file.name.encode())

    def found() -> set[str]:
        choice = f"search.space={{classifier.pretrained: {{values: ['{files[0]}', '{files[1]}']}}}}"
        return steps_of(load_study(SMALL_STUDY, [choice]), folder_store)

    before = found()
    files[1].write_bytes(b"changed")
    changed = found()
    assert before != changed
    files[1] = files[1].rename(tmp_path / "c.safetensors")  # the best parameters will contain its name
    assert found() not in (before, changed)


def test_a_file_that_is_missing(tmp_path: Path, folder_store: FolderStore) -> None:
    with pytest.raises(DataError, match=r"classifier\.pretrained: there is no file .*w\.safetensors; name"):
        weight_digests(with_file(tmp_path / "w.safetensors"), SETTINGS, folder_store)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"finetune\.base: .*empty holds no model"):
        weight_digests(with_base(tmp_path / "empty"), SETTINGS, folder_store)


def test_a_bucket_and_a_folder_with_the_same_content_agree(
    tmp_path: Path, folder_store: FolderStore, s3_store: S3Store, s3_server: Settings
) -> None:
    base, file = write_base(tmp_path / "base"), tmp_path / "w.safetensors"
    file.write_bytes(b"1")
    for path in (*(p for p in base.rglob("*") if p.is_file()), file):
        s3_store.put(path.relative_to(tmp_path).as_posix(), path.read_bytes())
    for here, there in (
        (with_base(base), with_base(f"{s3_store.url}/base")),
        (with_file(file), with_file(f"{s3_store.url}/w.safetensors")),
    ):
        assert steps_of(here, folder_store) == steps_of(there, folder_store, s3_server)
    s3_store.put("w.safetensors", b"2")
    changed = weight_digests(with_file(f"{s3_store.url}/w.safetensors"), s3_server, folder_store)
    assert list(changed.values()) == [hashlib.sha256(b"2").hexdigest()]
    with pytest.raises(DataError, match="there is no object"):
        weight_digests(with_file(f"{s3_store.url}/w.saf"), s3_server, folder_store)


def with_adapter(file: object) -> Study:
    sets = ["finetune={generator: stable-diffusion, resolution: 32}", f"generate.few_step={{adapter: {file}}}"]
    return load_study(SMALL_STUDY, sets)


def test_the_lora_for_few_steps_is_in_the_key_of_what_it_draws(
    tmp_path: Path, folder_store: FolderStore, s3_store: S3Store, s3_server: Settings
) -> None:
    file, moved = tmp_path / "lora.safetensors", tmp_path / "moved.safetensors"
    with pytest.raises(DataError, match=r"generate.few_step.adapter: there is no file"):
        weight_digests(with_adapter(file), SETTINGS, folder_store)
    file.write_bytes(b"1")
    before = steps_of(with_adapter(file), folder_store)
    moved.write_bytes(b"1")
    assert steps_of(with_adapter(moved), folder_store) == before
    s3_store.put("lora.safetensors", b"1")
    in_bucket = with_adapter(f"{s3_store.url}/lora.safetensors")
    assert steps_of(in_bucket, folder_store, s3_server) == before
    moved.write_bytes(b"22")
    changed = plan(with_adapter(moved), None, weight_digests(with_adapter(moved), SETTINGS, folder_store))
    assert {step.stage for step in changed if step.id in before} >= {"prepare", "finetune"}
    assert not [step for step in changed if step.stage == "generate" and step.id in before]
    s3_store.put("lora.safetensors", b"22")
    assert steps_of(in_bucket, folder_store, s3_server) == {step.id for step in changed}
    with pytest.raises(DataError, match=r"generate.few_step.adapter: there is no object s3://"):
        weight_digests(with_adapter(f"{s3_store.url}/other.safetensors"), s3_server, folder_store)
