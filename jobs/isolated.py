"""Runs the command `tailfill` in a process that `shared/pipeline/processes.py` starts, as `python -P jobs/isolated.py ...`.

`-P` keeps the current folder and this file's folder off the search path. Our packages are imported from beside this file, so that a process
runs the same code as the one that started it, whatever the search path has. Multiprocessing runs this file in its processes too, as
`__mp_main__`.
"""

from __future__ import annotations

import importlib
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

sys.path.insert(0, ROOT)
for package in ("jobs", "shared"):
    importlib.import_module(package)  # both are empty, so nothing else is looked up in this folder
sys.path.remove(ROOT)

if __name__ == "__main__":
    from jobs.entry import main

    main()
