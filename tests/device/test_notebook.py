"""The notebook runs from its first cell to its last, and is stored without what it printed."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "finet_on_a_phone.ipynb"


def test_the_notebook_runs_and_shows_what_it_promises() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    printed = [
        "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    assert all(output.output_type != "error" for cell in notebook.cells for output in cell.get("outputs", []))
    assert "finet_small G=4 SE cifar" in printed[1]
    assert "ok algebra/fp64" in printed[3]
    assert "certificate passed" in printed[4]
    assert "Finet-small onnxruntime 2 samples" in printed[5]
    assert "# Measured throughput" in printed[6]


def test_the_notebook_is_stored_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
