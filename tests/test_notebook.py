"""Runs docs/notebook.ipynb as a user does, in a copy of the checkout's files that it uses."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq", "ignore::DeprecationWarning:jupyter_client")
def test_the_notebook_runs(tmp_path: Path) -> None:
    for folder in ("studies", "shared", "jobs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "docs").mkdir()
    notebook = nbformat.read(ROOT / "docs/notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear the outputs before you commit it"
    NotebookClient(notebook, timeout=800, resources={"metadata": {"path": tmp_path / "docs"}}).execute()
    study, run, results, figures = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"][1:]
    assert "placebo" in study[-1].data["text/html"]
    assert "work/notebook/report/index.html" in run[-1].data["text/plain"]
    assert "rare_macro_f1" in results[-1].data["text/html"]
    assert sum("image/png" in output.get("data", {}) for output in figures) >= 2
