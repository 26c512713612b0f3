"""The command `tailfill` as `shared/pipeline/processes.py` starts it: `python -P jobs/isolated.py ...`, by this file's path.

`-P` keeps the current folder and this file's off the search path. Our packages are those beside this file, so that a process runs the code of
the one that started it, whatever else the search path leads to. Multiprocessing runs this file in its processes, too, as `__mp_main__`.
"""

from __future__ import annotations

import importlib
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

sys.path.insert(0, ROOT)
for package in ("jobs", "shared"):
    importlib.import_module(package)  # both are empty: nothing else is looked for in this folder
sys.path.remove(ROOT)

if __name__ == "__main__":
    from jobs.__main__ import main

    main()
