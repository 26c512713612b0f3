from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from shared.config.dataset import Dataset, FolderSource, GarmentsSource
from shared.data.problems import Problems
from shared.data.sources.table import SOURCES, DrawnSource, StoredSource, open_source, source_entry
from shared.errors import ConfigError

WITHOUT = """
import sys
sys.modules |= dict.fromkeys(("PIL", "imagehash", "torch", "scipy", "pyarrow"))  # their import fails
from shared.data.sources.table import SOURCES
print(*SOURCES)
"""


def test_the_table_has_every_source_that_a_study_can_name() -> None:
    kinds = {get_args(kind.model_fields["source"].annotation)[0]: kind for kind in get_args(get_args(Dataset)[0])}
    entries = {name: entry.config for name, entry in SOURCES.items()}
    assert entries == kinds, "SOURCES (left) and Dataset (right, shared/config/dataset.py) must have the same"


@pytest.mark.parametrize("entry", SOURCES.values(), ids=SOURCES)
def test_readers_take_the_config_of_their_entry(entry: StoredSource | DrawnSource) -> None:
    assert get_type_hints(entry.read)["config"] is entry.config
    assert ("root" in entry.config.model_fields) == isinstance(entry, StoredSource)


def test_the_table_can_be_read_without_libraries_for_images() -> None:
    ended = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert ended.stdout.split() == list(SOURCES), ended.stderr


def test_an_unknown_source_is_answered_with_near_names_or_all() -> None:
    with pytest.raises(ConfigError, match=r"'cvs' is not an image source; did you mean csv\?"):
        source_entry("cvs")
    with pytest.raises(ConfigError, match=f"there are {', '.join(sorted(SOURCES))}"):
        source_entry("webdataset")


def test_stored_images_come_from_their_root_and_drawn_ones_from_the_seed(tmp_path: Path) -> None:
    for name in ("cat/a.png", "dog/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    stored = open_source(FolderSource(source="folder", root="elsewhere"), tmp_path, 0, Problems("fail"))
    assert [image.path for image in stored.images] == ["cat/a.png", "dog/b.png"]
    config = GarmentsSource(source="garments", resolution=16, train=100, val=50, test=50, rare_eval=0)
    first, same, other = (
        next(iter(open_source(config, None, seed, Problems("fail")).images)).content for seed in (1, 1, 2)
    )
    assert (first == same).all()
    assert (first != other).any()
