"""What `soapkrr fit` understood a file to hold, also of files that other programs wrote."""

import json
from importlib.resources import files

import pytest
from ase.io import write

from soapkrr import datasets
from soapkrr.cli.entry import run
from soapkrr.cli.files import read_structures
from soapkrr.cli.understood import as_text, understood

#: Real outputs that come with ASE: structures, species, kinds of labels.
OUTPUTS = {
    "vasp/OUTCAR_example_1": (1, {"energy", "forces", "stress"}),
    "vasp/vasprun_pstress.xml": (1, {"energy", "forces", "stress"}),
    "gpaw_expected_text_output": (1, {"energy", "forces"}),
    "castep/md.castep": (3, {"energy", "forces", "stress"}),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # ASE's reader passes on what CASTEP warned of
@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_of_other_programs(name):
    path = files("ase.test") / "testdata" / name
    if not path.is_file():
        pytest.skip(f"this ASE does not bring {name}")
    found = understood(read_structures(str(path)), path, None)
    assert (found["structures"], {kind for kind, n in found["labels"].items() if n}) == OUTPUTS[name]
    assert found["species"] and found["atoms"] > 0


@pytest.mark.parametrize("name", ["s.xyz", "s.traj", "s.db", "s.json"])
def test_formats_of_ase_keep_labels_and_types(name, tmp_path):
    frames = datasets.silicon().test[:4]
    write(tmp_path / name, frames)
    found = understood(read_structures(str(tmp_path / name)), name, None)
    assert found["labels"] == {"energy": 4, "forces": 4, "stress": 4} and found["species"] == ["Si"]


def test_the_report_begins_with_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("s.xyz", datasets.silicon().train[:12])
    assert run(["fit", "s.xyz", "-o", "m.soapkrr", "--no-search", "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("s.xyz: 12 structures of ")
    assert run(["fit", "s.xyz", "-o", "m.soapkrr", "--no-search", "--quiet", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["data"]
    assert told["labels"] == {"energy": 12, "forces": 12, "stress": 11}
    assert "; config types: isolated_atom 1, " in as_text(told)


def test_a_terminal_sees_it_before_the_fit(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("s.xyz", datasets.silicon().train[:12])
    monkeypatch.setattr("soapkrr.cli.understood.sys.stderr.isatty", lambda: True)
    assert run(["fit", "s.xyz", "--plan"]) == 0
    assert "soapkrr: s.xyz: 12 structures of " in capsys.readouterr().err
