"""`soapkrr new`: the script and the notebook that it writes run as they are, and nothing of the user's is overwritten."""

import json
import runpy

import matplotlib
import nbformat
import pytest
from ase.io import read, write

from soapkrr import datasets
from soapkrr.cli.entry import run
from soapkrr.cli.new import TEMPLATE, notebook

matplotlib.use("Agg")


@pytest.mark.slow
def test_the_script_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("mine.traj", datasets.silicon().train[:24])
    assert run(["new", "project", "--data", "mine.traj"]) == 0
    monkeypatch.chdir(tmp_path / "project")
    runpy.run_path("potential.py")
    assert "largest novelty" in capsys.readouterr().out
    assert {p.suffix for p in (tmp_path / "project").iterdir()} == {".py", ".ipynb", ".xyz", ".soapkrr", ".png"}
    matplotlib.pyplot.close("all")


def test_the_notebook_is_the_script():
    book = nbformat.reads(notebook(TEMPLATE), as_version=4)
    nbformat.validate(book)
    code = "\n".join(cell.source for cell in book.cells if cell.cell_type == "code")
    assert [line for line in code.splitlines() if line] == [line for line in TEMPLATE.splitlines() if line and not line.startswith("#")]
    assert book.cells[0].source.startswith("# A potential with error bars")


def test_without_data_it_brings_silicon(tmp_path, capsys):
    assert run(["new", str(tmp_path / "si"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["structures"] == 211
    assert len(read(tmp_path / "si" / "train.xyz", ":")) == 211


@pytest.mark.parametrize("inside", ["", "/potential.py"], ids=["a file", "a folder with something in it"])
def test_nothing_is_overwritten(tmp_path, inside, capsys):
    mine = tmp_path / f"x{inside}"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    assert run(["new", str(tmp_path / "x")]) == 2
    assert "exists and is not an empty folder" in capsys.readouterr().err and mine.read_text() == "mine"
