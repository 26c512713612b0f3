"""A folder as a user may have one, whose modules have the names of others: of the standard library, of what we depend on and of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

OURS = ("jobs", "shared")
AT_STARTUP = ("sitecustomize", "usercustomize", "contextlib", "functools", "pathlib")
"""What Python imports before any code of ours runs, from an empty entry of PYTHONPATH, too."""
OTHERS = (
    "random", "secrets", "logging", "dataclasses", "json", "tempfile", "socket", "subprocess", "multiprocessing", "click", "numpy",
    "torch", "yaml", "pydantic", "boto3", "optuna", "matplotlib", "wandb",
)  # fmt: skip


class HostileFolder:
    """Each of its modules leaves its name when it is imported, and then fails; its `matplotlibrc` spoils figures."""

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
