"""Tests what memory a process may fill."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from shared.memory import _limits, machine_memory, spare_memory


def limit(folder: Path, name: str, text: str) -> None:
    """Writes the limit of a control group."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text + "\n")


def test_the_groups_around_a_process_limit_it_too(tmp_path: Path) -> None:
    limit(tmp_path / "user" / "job", "memory.max", "max")
    limit(tmp_path / "user", "memory.max", "4096")
    assert _limits("0::/user/job\n", tmp_path) == [4096]


def test_version_1_has_a_folder_of_its_own_for_memory(tmp_path: Path) -> None:
    limit(tmp_path / "memory" / "job", "memory.limit_in_bytes", "1024")
    limit(tmp_path / "memory", "memory.limit_in_bytes", "9223372036854771712")
    limit(tmp_path / "cpu" / "job", "memory.limit_in_bytes", "1")
    assert _limits("5:cpu,cpuacct:/job\n4:memory:/job\n", tmp_path) == [1024, 9223372036854771712]


def test_in_a_container_the_root_is_its_own_group(tmp_path: Path) -> None:
    limit(tmp_path, "memory.max", "2048")
    assert _limits("0::/kubepods/pod-1\n", tmp_path) == [2048]


def test_a_machine_without_limits_has_its_memory(tmp_path: Path) -> None:
    assert _limits("0::/\n", tmp_path) == []
    assert 0 < machine_memory() <= psutil.virtual_memory().total


def test_half_of_what_is_free_is_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.memory.machine_memory", lambda: 4000)
    assert spare_memory(2000, used=500) == 750
    assert spare_memory(1000, used=1500) == 0
    assert spare_memory(None, used=0) == 2000
    assert spare_memory(1000) == 0  # this process alone takes more
