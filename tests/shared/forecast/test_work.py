"""Tests how kinds of work are timed, and the imports of modules, which compute for a while."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shared.benchmark import NotTimed
from shared.config.generation import Generate, PixelFinetune
from shared.config.search import Resources
from shared.data.schema import LabelGroup, LabelSchema
from shared.forecast import work
from shared.forecast.timings import KeptTimings, Machine
from shared.forecast.work import Workbench
from shared.settings import Settings

SCHEMA = LabelSchema(groups=(LabelGroup(name="label", kind="one", classes=("a", "b")),))
SPIN = "import time\nends = time.process_time() + 0.2\nwhile time.process_time() < ends: pass\n"


@pytest.mark.parametrize("before", ["", "import sys, types; sys.modules['torch'] = types.ModuleType('torch')\n"])
def test_the_import_of_a_generator_includes_what_it_shares_with_a_classifier(tmp_path: Path, before: str) -> None:
    (tmp_path / "classifying.py").write_text(SPIN)
    (tmp_path / "drawing.py").write_text("import classifying\n" + SPIN)
    code = (
        f"{before}import os, sys\n"
        f"sys.path.append({str(tmp_path)!r}); os.environ['PYTHONPATH'] = {str(tmp_path)!r}\n"
        "from shared.forecast import work\n"
        "work.CLASSIFIER = 'classifying'\n"
        "print(work.import_seconds('drawing'), work.import_seconds('classifying'), 'drawing' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    drawing, classifying, here = done.stdout.split()
    assert float(drawing) >= 0.4
    assert 0.2 <= float(classifying) < float(drawing)
    assert here == str(not before)  # a process that has torch already lets another one import


def test_work_that_cannot_be_timed_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def refuse(*_: object) -> None:
        tried.append(1)
        raise NotTimed("the hub is away")

    monkeypatch.setattr("shared.diffusion.pixel.timing.time_pixel", refuse)
    monkeypatch.setattr(work, "_refused", {})
    for _ in range(2):
        kept = KeptTimings(tmp_path, Machine("a processor", 2, ()), "cpu", 1)
        bench = Workbench(kept, Resources(device="cpu"), Settings.from_environment({}), SCHEMA, 32)
        assert bench.generator(PixelFinetune(generator="pixel"), Generate()) is None
        assert bench.why_not == "the hub is away"
    assert tried == [1]
    bench = Workbench(kept, Resources(device="cpu"), Settings.from_environment({}), SCHEMA, 32, measures=False)
    assert bench.generator(PixelFinetune(generator="pixel", width=8), Generate()) is None
    assert bench.why_not == "no timing of it is kept"
