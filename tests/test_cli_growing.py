"""`relax` and `predict` write as they go: failures, interruptions, and going on."""

import csv
import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from ase.db import connect
from ase.io import read, write
from command_line import outcome
from small import OPTIONS, crystals, small_gp

import soapkrr
from soapkrr import PropertyGP, estimators

PROCESS = {"capture_output": True, "text": True, "timeout": 120}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """m.soapkrr, good.xyz (four crystals), bad.xyz (the second has a species, the third a position, that it must not have)."""
    folder = tmp_path_factory.mktemp("growing")
    frames = crystals(10)
    small_gp().fit(frames[:6]).save(folder / "m.soapkrr")
    write(folder / "train.xyz", frames[:6])
    good = [atoms.copy() for atoms in frames[6:]]
    write(folder / "good.xyz", good)
    good[1].numbers[0] = 10
    good[2].positions[1] = good[2].positions[0]
    write(folder / "bad.xyz", good)
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Run a command line in the folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(folder)
    return partial(outcome, capsys)


def relax(output, *options):
    return ["relax", "m.soapkrr", "bad.xyz", "-o", output, "--fmax", "0.05", *options]


# --- relax ---


def test_structures_that_fail_do_not_lose_the_others(run, folder, tmp_path):
    code, out, err = run(*relax(tmp_path / "o.xyz", "--json"))
    rows = json.loads(out)["structures"]
    assert code == 1 and [row["failed"] is None for row in rows] == [True, False, False, True]
    assert rows[1]["failed"].startswith("species Ne") and rows[2]["failed"].startswith("atoms 0 and 1 coincide")
    assert "2 of 4 structures cannot be relaxed" in err and err.count("\n") == 1
    frames = read(tmp_path / "o.xyz", ":")
    assert [atoms.info.get("relax_failed") for atoms in frames] == [row["failed"] for row in rows]
    p = soapkrr.load(folder / "m.soapkrr").predict([frames[0], frames[3]])
    np.testing.assert_allclose([frames[0].get_potential_energy(), frames[3].get_potential_energy()], p.energy, atol=1e-6)
    np.testing.assert_array_equal(frames[1].numbers, read(folder / "bad.xyz", 1).numbers)


def test_a_failure_in_the_middle_of_a_relaxation_is_recorded(run, monkeypatch, tmp_path):
    calls = []

    def collides(self, atoms, *args, **options):
        calls.append(atoms)
        if len(calls) == 2:
            raise soapkrr.InputError("frame 0: atoms 0 and 3 coincide")
        return predict(self, atoms, *args, **options)

    predict = estimators.Potential.predict
    monkeypatch.setattr(estimators.Potential, "predict", collides)
    code, out, _ = run("relax", "m.soapkrr", "good.xyz", "-o", tmp_path / "o.xyz", "--fmax", "0.05", "--json")
    data = json.loads(out)
    assert code == 1 and data["n_failed"] == 1 and data["structures"][0]["failed"] == "atoms 0 and 3 coincide"
    assert all(row["converged"] for row in data["structures"][1:])


@pytest.mark.parametrize("kept", [1, 2.5, 4])
def test_an_interrupted_run_goes_on(run, tmp_path, kept):
    full, part = tmp_path / "full.xyz", tmp_path / "part.xyz"
    expected = run(*relax(full, "--json"))[1]
    lines = full.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[: int(6 * kept)]))
    code, out, _ = run(*relax(part, "--json", "--resume"))
    assert code == 1 and part.read_text() == full.read_text()
    for row, told in zip(json.loads(out)["structures"], json.loads(expected)["structures"], strict=True):
        assert (row["energy_ev"] or 0.0) == pytest.approx(told["energy_ev"] or 0.0, rel=1e-7) and row["steps"] == told["steps"]


def test_ctrl_c_keeps_what_is_done(run, monkeypatch, tmp_path):
    done = []

    def interrupted(*args):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(optimised(*args))
        return done[-1]

    module = sys.modules["soapkrr.cli.relax"]
    optimised = module._optimised
    monkeypatch.setattr(module, "_optimised", interrupted)
    code, out, err = run("relax", "m.soapkrr", "good.xyz", "-o", tmp_path / "o.xyz", "--fmax", "0.05")
    assert code == 130 and "1 of 4 structures are in" in err and "--resume goes on" in err
    assert len(read(tmp_path / "o.xyz", ":")) == 1 and len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(module, "_optimised", optimised)
    again = ["relax", "m.soapkrr", "good.xyz", "-o", tmp_path / "o.xyz", "--fmax", "0.05"]
    code, _, err = run(*again)
    assert code == 2 and "holds 1 of 4 structures" in err and len(read(tmp_path / "o.xyz", ":")) == 1
    assert run(*again, "--resume")[0] == 0 and len(read(tmp_path / "o.xyz", ":")) == 4


def test_resume_refuses_the_output_of_another_file(run, folder, tmp_path):
    write(tmp_path / "o.xyz", crystals(2))
    code, _, err = run(*relax(tmp_path / "o.xyz", "--resume"))
    assert code == 2 and "is not of a run of `soapkrr relax` on bad.xyz" in err and len(read(tmp_path / "o.xyz", ":")) == 2


# --- predict ---


@pytest.mark.parametrize("options", [[], ["--forces-std"]], ids=str)
def test_predict_as_a_table(run, folder, tmp_path, options):
    code, out, err = run("predict", "m.soapkrr", "good.xyz", "-o", tmp_path / "o.csv", "--sort", "energy", *options)
    assert (code, err) == (0, "") and "4 structures" in out
    p = soapkrr.load(folder / "m.soapkrr").predict(read(folder / "good.xyz", ":"), uncertainty=True)
    with open(tmp_path / "o.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == list(np.argsort(p.energy))
    for row in rows:
        s = int(row["id"])
        assert float(row["energy_ev"]) == pytest.approx(p.energy[s]) and float(row["energy_std_ev"]) == pytest.approx(p.energy_std[s])
        assert float(row["energy_per_atom_ev"]) == pytest.approx(p.energy[s] / 4) and row["formula"] == "Ar4"
        assert float(row.get("forces_std_max_ev_per_angstrom", p.forces_std[s].max())) == pytest.approx(p.forces_std[s].max())
    assert ("forces_std_max_ev_per_angstrom" in rows[0]) == bool(options)


@pytest.mark.parametrize("suffix", [".csv", ".xyz", ".db"])
@pytest.mark.parametrize("sort", [[], ["--sort", "energy"]], ids=["as given", "sorted"])
def test_one_bad_row_does_not_lose_the_rest(run, tmp_path, suffix, sort):
    output = tmp_path / f"o{suffix}"
    code, out, _ = run("predict", "m.soapkrr", "bad.xyz", "-o", output, "--json", *sort)
    rows = json.loads(out)["structures"]
    assert code == 1 and {row["id"] for row in rows if row["failed"]} == {1, 2}
    assert [row["id"] for row in rows] == ([3, 0, 1, 2] if sort and rows[0]["id"] == 3 else [0, 3, 1, 2] if sort else [0, 1, 2, 3])
    assert [p.name for p in tmp_path.iterdir()] == [output.name]
    assert _ids_and_energies(output) == [(row["id"], pytest.approx(row["energy_ev"], abs=1e-7)) for row in rows]


def _ids_and_energies(path):
    """(id, energy or None) of every row of an output."""
    if path.suffix == ".csv":
        with open(path, newline="") as file:
            return [(int(row["id"]), float(row["energy_ev"]) if row["energy_ev"] else None) for row in csv.DictReader(file)]
    if path.suffix == ".db":
        return [(row.row, row.get("energy")) for row in connect(path, use_lock_file=False).select()]
    return [(atoms.info["row"], atoms.calc and atoms.get_potential_energy()) for atoms in read(path, ":")]


def test_no_structure_can_be_predicted(run, tmp_path):
    code, out, err = run("predict", "m.soapkrr", "bad.xyz@1:3", "-o", tmp_path / "o.csv")
    assert (code, out) == (2, "") and "none of the 2 structures can be predicted; the first: species Ne" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["predict", "m.soapkrr", "good.xyz", "-o", "o.txt"], ".csv, .xyz, .extxyz or .db"),
        (["predict", "m.soapkrr", "good.xyz", "-o", "o.csv", "--sort", "forces_std"], "needs `--forces-std`"),
        (["predict", "good.xyz", "m.soapkrr", "-o", "o.csv"], "swapped: m.soapkrr is a model, good.xyz is not"),
        (["evaluate", "good.xyz", "m.soapkrr"], "`soapkrr evaluate m.soapkrr good.xyz`"),
        (["relax", "good.xyz", "m.soapkrr", "-o", "o.xyz"], "MODEL and FILE are swapped"),
        (["evaluate", "m.soapkrr", "m.soapkrr"], "it is a model file"),
        (["relax", "m.soapkrr", "good.xyz", "--ouput", "o.xyz"], "did you mean --output?"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_said(run, arguments, match):
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and match in err


def test_a_model_of_a_property_is_no_potential(run, folder):
    frames = crystals(4)
    gp = small_gp()
    PropertyGP(gp.descriptor, gp.kernel, target="intensive").fit(frames, np.arange(4.0)).save(folder / "p.soapkrr")
    code, _, err = run("predict", "p.soapkrr", "good.xyz", "-o", "o.csv")
    assert code == 2 and "p.soapkrr is a PropertyGP, not a potential" in err


# --- as a process ---


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent differently on Windows")
@pytest.mark.parametrize("module", ["numpy", "ase", "soapkrr.cli.entry", "sklearn"])
def test_ctrl_c_during_the_imports(folder, module):
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from soapkrr.cli import main\n"
        "sys.exit(main(['evaluate', 'm.soapkrr', 'train.xyz']))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, **PROCESS)
    assert (result.returncode, result.stdout) == (130, "")
    assert result.stderr == "soapkrr: error: interrupted; nothing half-written is left behind\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent differently on Windows")
def test_sigterm_in_code_that_is_executed_from_text(folder, tmp_path):
    """As the methods of dataclasses are during imports: CPython's ``-m`` would end by SIGINT."""
    (tmp_path / "cut.py").write_text(
        "import os, signal, sys, soapkrr.cli.entry\n"
        "soapkrr.cli.entry.run = lambda argv: exec('os.kill(os.getpid(), signal.SIGTERM)', globals())\n"
        "sys.exit(soapkrr.cli.main(['info', 'm.soapkrr']))"
    )
    code = {"env": os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])}}
    result = subprocess.run([sys.executable, "-m", "cut"], cwd=folder, **code, **PROCESS)
    assert (result.returncode, result.stdout) == (143, "")
    assert result.stderr == "soapkrr: error: terminated; nothing half-written is left behind\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent differently on Windows")
def test_no_database_without_tables_after_ctrl_c(folder, tmp_path):
    code = (
        "import os, signal, sys, ase.db.sqlite as sqlite\n"
        "class Statements(list):\n"
        "    def __iter__(self):\n"
        "        yield from self[:3]\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        yield from self[3:]\n"
        "sqlite.init_statements = Statements(sqlite.init_statements)\n"
        "from soapkrr.cli import main\n"
        f"sys.exit(main(['predict', 'm.soapkrr', 'good.xyz', '-o', {str(tmp_path / 'o.db')!r}]))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, **PROCESS)
    assert result.returncode == 130 and not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent differently on Windows")
def test_no_temporary_files_after_sigterm(folder, tmp_path):
    code = (
        "import os, signal, sys, zipfile\n"
        "zipfile.ZipFile.writestr = lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM)\n"
        "from soapkrr.cli import main\n"
        f"sys.exit(main(['fit', 'train.xyz', '-o', {str(tmp_path / 'm.soapkrr')!r}, *{OPTIONS!r}]))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, **PROCESS)
    assert result.returncode == 143 and result.stderr == "soapkrr: error: terminated; nothing half-written is left behind\n"
    assert not list(tmp_path.iterdir())
