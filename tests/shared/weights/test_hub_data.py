"""Tests data sets of a hub on this machine: fetched once at a commit, read by every stage from the cache, refused in words."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.cli.init import init
from jobs.cli.upload import upload
from jobs.prepare import prepare
from shared.artifacts.hub_location import hub_folder, parse_hub, share_fetched
from shared.artifacts.remote import local_folder
from shared.artifacts.s3 import S3Store
from shared.config.load import load_study
from shared.config.stages import PrepareConfig
from shared.data.dataset import read_info
from shared.data.sources.digest import source_digest
from shared.errors import ConfigError, DataError, UnavailableError
from shared.settings import Settings
from shared.stop import StopSignal
from shared.weights import hub as hub_module
from shared.weights.hub_data import ensure_data, fetch_data
from tests.support.hub_endpoint import point_at
from tests.support.hub_server import COMMIT, TOKEN, Hub, serve_hub
from tests.support.parquet_files import write_parquet

NAME = "some/birds"
URL = f"hf://{NAME}"
PINNED = f"{URL}@{COMMIT}"


def parquet(path: Path, labels: list[int], first: int) -> None:
    images = []
    for number, _ in enumerate(labels, first):
        content = io.BytesIO()
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(content, "PNG")
        images.append(content.getvalue())
    write_parquet(path, images, labels, ["jay", "owl"])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = tmp_path / "birds"
    parquet(folder / "data/train-00000-of-00002.parquet", [0] * 12 + [1] * 3, 0)
    parquet(folder / "data/train-00001-of-00002.parquet", [0] * 8, 100)
    parquet(folder / "data/test-00000-of-00001.parquet", [0] * 4 + [1] * 3, 200)
    (folder / "README.md").write_text("never fetched")
    (folder / "script.py").write_text("raise SystemExit('never run')")
    monkeypatch.setattr(hub_module, "ATTEMPTS", 1)
    with serve_hub({f"datasets/{NAME}": folder}) as hub:
        point_at(hub.url, monkeypatch)
        yield hub


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("TAILFILL_CACHE", str(tmp_path / "cache"))
    return Settings.from_environment()


def fetch(location: str, settings: Settings) -> str:
    return fetch_data(location, settings, StopSignal())


def test_init_pins_the_commit_and_prepare_reads_the_cache(hub: Hub, settings: Settings, tmp_path: Path) -> None:
    lines = init(URL, tmp_path / "study.yaml")
    study = load_study(tmp_path / "study.yaml")
    assert (study.name, study.dataset.root) == ("birds", PINNED)
    assert any("found: 30 images, label groups label (one, 2 classes)" in line for line in lines)
    assert {Path(name).suffix for name in hub.asked} == {".parquet"}
    hub.repositories = {}  # nothing goes online after this
    ensure_data(study.dataset.root, settings, StopSignal())
    root = local_folder(PINNED, settings, tmp_path)
    (tmp_path / "out").mkdir()
    config = PrepareConfig(dataset=study.dataset, rare=study.written.rare, seed=0)
    prepared = prepare(config, root, tmp_path / "out", StopSignal())
    counts = read_info(prepared.files["dataset.json"]).counts
    assert (counts["test"]["label/jay"], counts["test"]["label/owl"]) == (4, 3)
    assert counts["train"]["label/owl"] + counts["val"]["label/owl"] == 3
    copied = shutil.copytree(root, tmp_path / "copied")  # as `tailfill upload` copies it into a bucket
    here = study.dataset.model_copy(update={"root": str(copied)})
    assert source_digest(study.dataset, settings) == source_digest(here, settings) is not None
    assert not list((tmp_path / "cache/hub").glob("datasets--*"))


def test_a_work_directory_s_cache_reads_what_was_fetched(hub: Hub, settings: Settings, tmp_path: Path) -> None:
    fetch(PINNED, settings)
    for _ in range(2):
        share_fetched(settings.cache, tmp_path / "work/cache")
    stage = Settings.from_environment({"TAILFILL_CACHE": str(tmp_path / "work/cache")})
    assert sorted(path.name for path in (local_folder(PINNED, stage, tmp_path) / "data").iterdir())[0].startswith(
        "test-"
    )


def test_an_interrupted_download_continues(hub: Hub, settings: Settings) -> None:
    hub.cut = 1
    assert fetch(PINNED, settings) == PINNED
    kept = hub_folder(PINNED, settings) / "data"
    sent = hub.repositories[f"datasets/{NAME}"] / "data"
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {p.name: p.read_bytes() for p in sent.iterdir()}
    asked = len(hub.asked)
    assert fetch(PINNED, settings) == PINNED
    assert len(hub.asked) == asked


def test_of_two_at_once_one_keeps_the_files(hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def late(*paths: Path) -> None:
        real(*paths)
        hub_folder(PINNED, settings).mkdir(exist_ok=True)
        (hub_folder(PINNED, settings) / "of-the-other").touch()

    monkeypatch.setattr("shared.weights.hub_data.os.link", late)
    assert fetch(PINNED, settings) == PINNED
    assert [path.name for path in hub_folder(PINNED, settings).parent.iterdir()] == ["all"]
    assert [path.name for path in hub_folder(PINNED, settings).iterdir()] == ["of-the-other"]


def test_a_file_system_without_links_gets_copies(hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("shared.weights.hub_data.os.link", refuse)
    assert fetch(PINNED, settings) == PINNED
    sent = hub.repositories[f"datasets/{NAME}"] / "data"
    kept = hub_folder(PINNED, settings) / "data"
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {p.name: p.read_bytes() for p in sent.iterdir()}


def test_upload_copies_a_data_set_of_the_hub(
    hub: Hub, settings: Settings, s3_store: S3Store, s3_server: Settings
) -> None:
    there = replace(s3_server, cache=settings.cache)
    assert json.loads(upload(URL, s3_store.url, there, True))["sent"] == 3
    assert {Path(file.key).suffix for file in s3_store.files()} == {".parquet"}


def test_a_full_disk_leaves_nothing_that_counts(hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("shared.weights.hub_data.os.link", full)
        with pytest.raises(UnavailableError, match="full"):
            fetch(PINNED, settings)
    assert not hub_folder(PINNED, settings).exists()
    assert fetch(PINNED, settings) == PINNED


def test_a_changed_file_is_refused(hub: Hub, settings: Settings) -> None:
    hub.wrong_digests = True
    with pytest.raises(UnavailableError, match="arrived with digest"):
        fetch(PINNED, settings)
    assert not hub_folder(PINNED, settings).exists()


def test_a_gated_set_says_what_is_needed(
    hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.gated.add(f"datasets/{NAME}")
    with pytest.raises(
        ConfigError, match=r"dataset.root some/birds@.*: its owner must grant access first; set HF_TOKEN"
    ):
        fetch(PINNED, settings)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert fetch(PINNED, Settings.from_environment()) == PINNED
    said = capsys.readouterr()
    assert TOKEN not in said.out + said.err


def test_what_it_refuses(hub: Hub, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"dataset.root: some/absent is neither a folder here nor a public repository"
    ):
        fetch("hf://some/absent", settings)
    with pytest.raises(ConfigError, match=r"dataset.root: some/birds has no revision '0000"):
        fetch(f"{URL}@{'0' * 40}", settings)
    with pytest.raises(ConfigError, match="names no commit"):
        ensure_data(URL, settings, StopSignal())
    with pytest.raises(
        DataError, match=r"is not in the cache of this machine.*tailfill upload hf://some/birds@5+ s3://"
    ):
        local_folder(PINNED, settings, tmp_path)
    plain = tmp_path / "plain"
    (plain / "images").mkdir(parents=True)
    (plain / "images/a.jpg").write_bytes(b"x")
    hub.repositories["datasets/some/plain"] = plain
    with pytest.raises(DataError, match=r"has no Parquet files but .*\.jpg.*hf://some/plain@refs/convert/parquet"):
        fetch("hf://some/plain", settings)
    several = tmp_path / "several"
    for name in ("full", "small"):
        parquet(several / name / "train/0000.parquet", [0, 1], 300)
    hub.repositories["datasets/some/several"] = several
    with pytest.raises(
        DataError, match=rf"`tailfill init hf://some/several/full@{COMMIT}` or `tailfill init .*/small@"
    ):
        fetch("hf://some/several", settings)
    assert fetch("hf://some/several/small", settings) == f"hf://some/several/small@{COMMIT}"
    monkeypatch.setattr("shared.weights.hub_data.SPARE", 1e12)
    with pytest.raises(DataError, match="more than is free"):
        fetch(URL, settings)
    monkeypatch.setattr("shared.weights.hub_data.MOST_FILES", 1)
    with pytest.raises(DataError, match="at most 1 are read"):
        fetch(URL, settings)


def test_offline_says_so(hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises((ConfigError, UnavailableError), match=r"dataset.root some/birds"):
        fetch(URL, settings)


@pytest.mark.parametrize(
    "location",
    [
        "hf://", "hf://name", "hf://../name", "hf://owner/..", "hf://owner/name/../../etc", "hf://owner/name/..", "hf://owner/na me", "hf://owner/name@",
        "hf://owner/name@../x", "hf://owner/name@a/../../b", "hf:///etc/passwd", "hf://owner/name\n", "hf://ow\0ner/name", "hf://" + "a" * 500 + "/b", "hf://owner//name",
    ],
)  # fmt: skip
def test_a_hostile_name_is_refused(location: str) -> None:
    with pytest.raises(ConfigError, match="must be like hf://owner/name"):
        parse_hub(location)
