"""Every notebook runs from top to bottom, holds no outputs and uses only the public names of the package."""

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import soapkrr

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def code(path):
    """Source of the code cells, one string."""
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")


def test_there_are_notebooks():
    recipes = {"04_relaxing_with_few_calls", "13_barriers", "06_on_the_fly", "05_screening"}
    assert {"01_first_fit", "02_small_data"} | recipes <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_stored(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_only_public_names_are_imported(path):
    imports = [node for node in ast.walk(ast.parse(code(path))) if isinstance(node, ast.ImportFrom) and node.module.startswith("soapkrr")]
    assert {node.module for node in imports} <= {"soapkrr"}
    assert {alias.name for node in imports for alias in node.names} <= set(soapkrr.__all__)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the notebook machinery; the kernel's own are errors of the cells
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path):
    notebook = read(path)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
