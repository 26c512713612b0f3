"""Makes a user's folder with modules whose names are also those of the standard library, of our dependencies or of our packages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

OURS = ("jobs", "shared")
AT_STARTUP = ("sitecustomize", "usercustomize", "contextlib", "functools", "pathlib")
"""The modules that Python imports before any of our code runs, also from an empty entry of PYTHONPATH."""
OTHERS = (
    "random", "secrets", "logging", "dataclasses", "json", "tempfile", "socket", "subprocess", "multiprocessing", "click", "numpy",
    "torch", "yaml", "pydantic", "boto3", "optuna", "matplotlib", "wandb",
)  # fmt: skip


class HostileFolder:
    """Holds modules that record their name when they are imported, and then fail, and a `matplotlibrc` that spoils figures."""

    def __init__(
        self, folder: Path, modules: Sequence[str] = (*OURS, *AT_STARTUP, *OTHERS), packages: Sequence[str] = ()
    ) -> None:
        self.folder, self._imported = folder, folder / "imported"
        folder.mkdir()
        code = f"open({str(self._imported)!r}, 'a').write(__name__ + ' ')\nraise RuntimeError('a module of the user')\n"
        for name in modules:
            (folder / f"{name}.py").write_text(code)
        for name in packages:
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text(code)
        (folder / "matplotlibrc").write_text("font.size: 30\nlines.linewidth: 9\nsavefig.bbox: tight\n")

    @property
    def imported(self) -> list[str]:
        """The names of its modules that were imported."""
        return self._imported.read_text().split() if self._imported.exists() else []
