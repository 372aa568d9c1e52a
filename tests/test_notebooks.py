"""Every notebook runs from top to bottom, holds no outputs and uses only the public names of the package."""

import ast
import re
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import soapkrr

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def code(path):
    """Source of the code cells, one string."""
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")


def test_there_are_notebooks():
    recipes = {"04_relaxing_with_few_calls", "13_barriers", "06_on_the_fly", "05_screening", "07_observables", "08_alloys"}
    assert {"01_first_fit", "02_small_data", "14_from_nothing"} | recipes <= {path.stem for path in NOTEBOOKS}


def test_a_newcomer_needs_twenty_five_lines():
    lines = code(ROOT / "notebooks/14_from_nothing.ipynb").splitlines()
    assert len([line for line in lines if line.strip()]) <= 25


def test_the_extra_installs_what_notebooks_import():
    """Beside the package's own requirements; a kernel runs them."""
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    wanted = parser["options"]["install_requires"] + parser["options.extras_require"]["notebooks"]
    names = set(re.findall(r"^([\w-]+)", wanted, re.MULTILINE))
    nodes = [node for path in NOTEBOOKS for node in ast.walk(ast.parse(code(path)))]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    imported = {module.split(".")[0] for module in modules} - sys.stdlib_module_names - {"soapkrr"}
    assert imported | {"ipykernel", "phonopy", "spglib"} <= names


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
