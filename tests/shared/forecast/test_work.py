"""Tests how the import of a module is timed, with modules that compute for a while."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
