"""The notebook runs without errors and is saved without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import REPOSITORY

NOTEBOOK = REPOSITORY / "notebooks" / "tutorial.ipynb"


def test_the_notebook_is_saved_without_outputs() -> None:
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.slow
def test_the_notebook_trains_explains_and_exports(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    *_, parity = (cell for cell in notebook.cells if cell.cell_type == "code")
    assert float(parity.outputs[-1].data["text/plain"]) < 1e-4
    tested = next(cell for cell in notebook.cells if "trainer.test" in cell.source).outputs[-1].data["text/plain"]
    assert float(tested.partition("'test/acc': ")[2].partition(",")[0].rstrip("}]")) > 0.7, tested
    assert any("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
