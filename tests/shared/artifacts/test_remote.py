from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.artifacts import remote
from shared.artifacts.remote import local_file, local_folder
from shared.artifacts.s3 import Listed, S3Store
from shared.errors import ArtifactError, ConfigError, DataError
from shared.settings import Settings


def test_local_paths_stay(tmp_path: Path) -> None:
    settings = Settings.from_environment({})
    (tmp_path / "file").touch()
    assert local_folder(str(tmp_path), settings, tmp_path / "scratch") == tmp_path
    assert local_file(str(tmp_path / "file"), settings) == tmp_path / "file"
    with pytest.raises(DataError, match="there is no such folder"):
        local_folder(str(tmp_path / "none"), settings, tmp_path)
    with pytest.raises(DataError, match="there is no such file"):
        local_file(str(tmp_path / "none"), settings, tmp_path)


def test_a_prefix_becomes_a_folder(s3_store: S3Store, s3_server: Settings, tmp_path: Path) -> None:
    files = {f"set/img/{i}.png": b"%d" % i for i in range(40)} | {"set/labels.csv": b"path\n"}
    for key, data in files.items():
        s3_store.put(key, data)
    s3_store.put("set-of-another/x", b"")
    # web consoles create folders in this way
    s3_store._client.put_object(Bucket=s3_store.bucket, Key=f"{s3_store._at.prefix}set/img/")
    folder = local_folder(f"{s3_store.url}/set/", s3_server, tmp_path)
    found = {f"set/{p.relative_to(folder)}": p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == files


def test_a_file_that_grows_after_it_was_listed(
    s3_store: S3Store, s3_server: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_store.put("set/a.png", b"12345")
    listed = S3Store.files

    def files(store: S3Store) -> object:
        found = listed(store)
        s3_store.put("set/a.png", b"x" * 3_000_000)
        return found

    monkeypatch.setattr(S3Store, "files", files)
    with pytest.raises(ArtifactError, match=r"set/a\.png: has more than the 5 bytes that were expected"):
        local_folder(f"{s3_store.url}/set", s3_server, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 5


def test_nothing_there(s3_store: S3Store, s3_server: Settings, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is nothing under this prefix"):
        local_folder(f"{s3_store.url}/none", s3_server, tmp_path)
    with pytest.raises(DataError, match="there is no such object"):
        local_file(f"{s3_store.url}/none", s3_server, tmp_path)
    with pytest.raises(ArtifactError, match="has no bucket"):
        local_folder("s3://no-such-bucket/none", s3_server, tmp_path)


def test_one_object(s3_store: S3Store, s3_server: Settings, tmp_path: Path) -> None:
    s3_store.put("weights/model.safetensors", b"w")
    location = f"{s3_store.url}/weights/model.safetensors"
    assert local_file(location, s3_server, tmp_path).read_bytes() == b"w"
    with_cache = dataclasses.replace(s3_server, cache=tmp_path / "cache")
    path = local_file(location, with_cache)
    assert path.name == "model.safetensors"
    assert path.is_relative_to(tmp_path / "cache")


@pytest.mark.parametrize("key", ["../evil", "a/../../evil", "/evil", "a//b", "./a", "a\\b", "a\nb"])
def test_keys_that_would_leave_the_folder(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bucket:
        def files(self) -> list[Listed]:
            return [Listed("good.png", "", 1), Listed(key, "", 1)]

    monkeypatch.setattr(remote, "open_bucket", lambda *_: Bucket())
    with pytest.raises(DataError, match=r"s3://bucket/set: the name .* names are relative and normal"):
        local_folder("s3://bucket/set", Settings.from_environment({}), tmp_path / "scratch")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("read", [local_folder, local_file])
def test_locations_that_are_no_paths(read: Callable[[str, Settings, Path], Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="~nobody-here/x: there is no home folder ~nobody-here; write the whole path"):
        read("~nobody-here/x", Settings.from_environment({}), tmp_path)
    with pytest.raises(DataError, match="has a NUL, which no path has; remove it"):
        read("a\0b", Settings.from_environment({}), tmp_path)


@pytest.mark.parametrize("location", ["s3://bucket/..", "s3://../x", "s3://bucket/a/../../x", "s3://bucket/a\\b"])
def test_locations_that_are_no_names(location: str, tmp_path: Path) -> None:
    for bring in (local_folder, local_file):
        with pytest.raises(ConfigError, match="names are relative and normal"):
            bring(location, Settings.from_environment({}), tmp_path)
