"""``soapkrr neb``, ``dimer`` and ``explore``: what they print and write, how they go on after a kill, and how they fail."""

import json
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read, write
from ase.optimize import BFGS
from command_line import outcome

import soapkrr
from soapkrr import OnTheFly

#: A reference that is killed, fails or gives nonsense, for ``module:function``.
REFERENCES = """
    import os, signal
    import numpy as np
    from ase.calculators.emt import EMT
    from ase.calculators.calculator import Calculator, all_changes

    class Strange(Calculator):
        implemented_properties = ["energy", "forces"]

        def __init__(self, what, at):
            super().__init__()
            self.what, self.at, self.calls = what, at, 0

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            self.calls += 1
            fresh = self.atoms.copy()
            fresh.calc = EMT()
            energy, forces = fresh.get_potential_energy(), fresh.get_forces()
            if self.calls >= self.at:
                if self.what == "fail":
                    raise RuntimeError("did not converge")
                if self.what == "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                if self.what == "species":
                    atoms.numbers[0] = 79
                forces = forces * (np.nan if self.what == "nan" else 1.0)
            self.results = {"energy": energy, "forces": forces}

    fail, fail3, nan, die3, species = (
        lambda what=what, at=at: Strange(what, at)
        for what, at in (("fail", 1), ("fail", 3), ("nan", 1), ("die", 3), ("species", 1))
    )

    def forceless():
        made = Strange("no", 1000)
        made.implemented_properties = ["energy"]
        return made
"""


@pytest.fixture(scope="module")
def ends():
    """Water before and after its inversion, at rest."""
    initial = molecule("H2O")
    initial.calc = EMT()
    BFGS(initial, logfile=None).run(fmax=0.01)
    initial.positions -= initial.positions[0]
    final = initial.copy()
    final.positions[:, 2] *= -1
    return Atoms(initial.symbols, initial.positions), Atoms(final.symbols, final.positions)


@pytest.fixture
def folder(tmp_path, monkeypatch, ends):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "strange.py").write_text(textwrap.dedent(REFERENCES))
    sys.modules.pop("strange", None)
    for name, atoms in zip(("initial.xyz", "final.xyz"), ends, strict=True):
        write(name, atoms)
    write("copper.xyz", bulk("Cu", cubic=True))
    return tmp_path


NEB = ["neb", "initial.xyz", "final.xyz", "--reference", "emt", "--images", "5", "--fmax", "0.1", "-o", "path.xyz"]
DIMER = ["dimer", "initial.xyz", "--reference", "emt", "--towards", "final.xyz", "--fmax", "0.1", "-o", "saddle.xyz"]
EXPLORE = ["explore", "copper.xyz", "--reference", "emt", "--threshold", "0.2", "--temperature", "900", "--timestep", "4", "--steps", "25"]
EXPLORE += ["--dynamics", "bussi", "--interval", "5", "-o", "run"]


def other(words, **options):
    """Words with other values of options."""
    words = list(words)
    for name, value in options.items():
        words[words.index(f"--{name}") + 1] = value
    return words


def test_a_barrier_from_the_command_line(folder, capsys):
    code, out, err = outcome(capsys, *NEB, "--save-model", "m.soapkrr", "--json")
    data, images = json.loads(out), read("path.xyz", ":")
    assert (code, err, data["converged"], len(images)) == (0, "", True, 5)
    saddle = images[data["saddle"]].copy()
    saddle.calc = EMT()
    force = np.linalg.norm(saddle.get_forces(), axis=1).max()
    assert force == pytest.approx(data["fmax_ev_per_angstrom"], abs=1e-6) and force < 0.1
    barrier = saddle.get_potential_energy() - images[0].get_potential_energy()
    assert [data["barrier_ev"], data["reverse_barrier_ev"]] == pytest.approx([barrier, barrier], abs=1e-3)
    assert [row["calculated"] for row in data["images"]] == [bool(image.info["neb_calculated"]) for image in images]
    assert data["calls"] == len(read("path.calls.xyz", ":")) == len(soapkrr.load("m.soapkrr").process_.structures.frames)
    text = outcome(capsys, *NEB)[1]
    assert "saddle, calculated" in text and "converged" in text


def test_a_saddle_from_the_command_line(folder, capsys):
    code, out, err = outcome(capsys, *DIMER, "--json")
    data, saddle = json.loads(out), read("saddle.xyz")
    assert (code, err, data["converged"]) == (0, "", True) and data["curvature_ev_per_angstrom2"] < 0
    again = saddle.copy()
    again.calc = EMT()
    np.testing.assert_allclose(again.get_forces(), saddle.get_forces(), atol=1e-6)
    assert data["energy_ev"] == pytest.approx(again.get_potential_energy(), abs=1e-6)
    assert np.linalg.norm(saddle.arrays["mode"]) == pytest.approx(1.0, abs=1e-6)
    assert "a saddle, " in outcome(capsys, *DIMER)[1]
    assert len(read("saddle.calls.xyz", ":")) == data["calls"]  # nothing was calculated again


def test_atoms_that_are_displaced_say_to_which_saddle(folder, capsys):
    words = [
        "dimer",
        "initial.xyz",
        "--reference",
        "emt",
        "--displace",
        "1=0,0,0.3",
        "--displace",
        "2=0,0,0.3",
        "--steps",
        "3",
        "-o",
        "s.xyz",
    ]
    outcome(capsys, *words)
    moved = read("s.calls.xyz", 1).positions - read("initial.xyz").positions
    np.testing.assert_allclose(moved, [[0, 0, 0], [0, 0, 0.3], [0, 0, 0.3]], atol=1e-7)


def test_dynamics_from_the_command_line(folder, capsys):
    code, out, err = outcome(capsys, *EXPLORE, "--json")
    data, trajectory = json.loads(out), read("run/trajectory.xyz", ":")
    assert (code, err, data["steps"]) == (0, "", 25)
    assert data["n_calls"] == len(data["calls"]) == len(read("run/calls.xyz", ":")) >= 2
    assert [atoms.info["step"] for atoms in trajectory] == [0, 5, 10, 15, 20, 25]
    assert data["calls"][0]["deviation_ev_per_angstrom"] is None  # infinite, where no model was
    assert len(soapkrr.load("run/model.soapkrr").process_.structures.frames) == data["n_calls"]
    longer = json.loads(outcome(capsys, *other(EXPLORE, steps="30"), "--json")[1])
    assert longer["steps"] == 30 and longer["calls"][: len(data["calls"])] == data["calls"]
    assert [atoms.info["step"] for atoms in read("run/trajectory.xyz", ":")] == [0, 5, 10, 15, 20, 25, 30]


def test_a_model_that_knows_the_way_asks_for_nothing(folder, capsys):
    outcome(capsys, *EXPLORE)
    words = [*other(EXPLORE, threshold="0.4"), "--model", "run/model.soapkrr"]
    words[words.index("-o") + 1] = "second"
    assert json.loads(outcome(capsys, *words, "--json")[1])["n_calls"] == 0


@pytest.mark.parametrize(("words", "calls", "out"), [(NEB, "path.calls.xyz", "path.xyz"), (EXPLORE, "run/calls.xyz", "run/model.soapkrr")])
def test_a_reference_that_is_killed_loses_nothing(folder, capsys, words, calls, out):
    command = [sys.executable, "-m", "soapkrr.cli", *other(words, reference="strange:die3")]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    before = (folder / calls).read_bytes()
    assert before.count(b"Properties=") == 2 and not (folder / out).exists()
    (folder / "strange.py").write_text((folder / "strange.py").read_text().replace("signal.SIGKILL", "0"))
    code, text, err = outcome(capsys, *other(words, reference="strange:die3"), "--json")
    assert code == 0 and (folder / calls).read_bytes().startswith(before), err
    assert len(read(calls, ":")) == 2 + json.loads(text)["calls"] if words is NEB else len(read(calls, ":")) > 2


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("fail", "did not converge). Nothing was calculated before"),
        ("fail3", "did not converge"),
        ("nan", "finite: False"),
        ("species", "changed the atoms"),
        ("forceless", "forces property not implemented"),
    ],
)
@pytest.mark.parametrize("words", [NEB, DIMER, EXPLORE], ids=lambda words: words[0])
def test_references_that_fail_are_named_and_nothing_is_lost(folder, capsys, words, reference, message):
    code, _, err = outcome(capsys, *other(words, reference=f"strange:{reference}"), "--quiet")
    calls = {"neb": "path.calls.xyz", "dimer": "saddle.calls.xyz", "explore": "run/calls.xyz"}[words[0]]
    assert (code, err.count("\n")) == (2, 1) and message in err
    kept = (folder / calls).read_bytes().count(b"Properties=") if (folder / calls).exists() else 0
    assert kept == (2 if reference == "fail3" else 0)
    assert (f"{kept} calculations are in {calls}" in err) == bool(kept)


def test_a_skipped_calculation_is_recorded(folder, capsys, monkeypatch):
    """One that fails once is told in the table, and in the exit code."""
    text = (folder / "strange.py").read_text().replace("self.calls >= self.at", "self.calls == self.at")
    (folder / "strange.py").write_text(text)
    code, out, _ = outcome(capsys, *other(EXPLORE, reference="strange:fail3", threshold="0.05"), "--quiet")
    assert code == 1 and out.count("did not converge") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*NEB[:2], "copper.xyz", *NEB[3:]], "`FINAL` must have the atoms of `INITIAL`"),
        ([*NEB[:2], "initial.xyz", *NEB[3:]], "`FINAL` must differ from `INITIAL`"),
        ([*NEB[:2], "two.xyz", *NEB[3:]], "holds 2 structures, and one is needed: two.xyz@0"),
        ([*NEB[:2], "broken.xyz", *NEB[3:]], "cannot read structures from broken.xyz"),
        ([*NEB[:2], "missing.xyz", *NEB[3:]], "there is no file missing.xyz"),
        ([*NEB[:1], "fixed.xyz", *NEB[2:]], "fixed.xyz: constraints fix every atom"),
        (other(NEB, images="2"), "`--images` counts the ends"),
        (other(NEB, fmax="0"), "--fmax"),
        ([*NEB, "--std", "0"], "`--std` must be positive"),
        ([*NEB, "--prior", "emt", "--model", "m"], "`--model` and `--prior`"),
        ([*NEB[:-1], "path.cif"], "extended XYZ is written"),
        ([*NEB[:-1], "initial.xyz"], "is an input file"),
        ([*DIMER, "--displace", "0=0,0,1"], "`--displace` and `--towards`"),
        (other(DIMER, towards="copper.xyz"), "must have the atoms of initial.xyz"),
        (other(DIMER, towards="initial.xyz"), "must move an atom that is not fixed"),
        (["dimer", "initial.xyz", "--reference", "emt", "--displace", "7=0,0,1", "-o", "s.xyz"], "there is no atom 7"),
        (other(EXPLORE, threshold="0"), "`--threshold` must be a positive"),
        (other(EXPLORE, threshold="nan"), "`--threshold` must be a positive"),
        (other(EXPLORE, temperature="0"), "`--temperature` must be a positive"),
        (other(EXPLORE, timestep="inf"), "`--timestep` must be a positive"),
        ([*EXPLORE, "--committee", "1"], "`--committee` counts samples"),
        ([*EXPLORE[:1], "fixed.xyz", *EXPLORE[2:]], "fixed.xyz: constraints fix every atom"),
        ([*EXPLORE[:-1], "copper.xyz"], "is a file; the output is a folder"),
        (["explore", "copper.xyz", "--reference", "emt", "-o", "run"], "`--threshold` must be given"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_what_cannot_be_is_one_line(folder, capsys, ends, words, message):
    write("two.xyz", ends)
    (folder / "broken.xyz").write_text("3\n\nH 0 0\n")
    fixed = ends[0].copy()
    fixed.set_constraint(FixAtoms(range(3)))
    write("fixed.xyz", fixed)
    before = sorted(folder.iterdir())
    code, out, err = outcome(capsys, *words)
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err
    assert sorted(folder.iterdir()) == before


def test_values_of_options_that_cannot_be(folder, capsys):
    code, _, err = outcome(capsys, "dimer", "initial.xyz", "--reference", "emt", "--displace", "1=0,0", "-o", "s.xyz")
    assert code == 2 and "expected an atom and its displacement" in err


@pytest.mark.parametrize(
    ("words", "change"), [(NEB, {"images": "7"}), (EXPLORE, {"temperature": "300"}), (EXPLORE, {"reference": "strange:fail"})]
)
def test_files_of_another_run_are_refused(folder, capsys, words, change):
    outcome(capsys, *words)
    code, _, err = outcome(capsys, *other(words, **change))
    assert code == 2 and f"of another run, whose {next(iter(change))} differs" in err


def test_ends_that_are_not_at_rest_are_said(folder, capsys, ends):
    bent = ends[0].copy()
    bent.positions[1, 2] += 0.1
    write("initial.xyz", bent)
    code, _, err = outcome(capsys, *other(NEB, fmax="0.5"), "--steps", "3")
    assert code in (0, 1) and "initial.xyz is not at rest" in err


def test_the_command_is_the_class(folder, capsys):
    """The same calculations as `OnTheFly` makes."""
    from ase import units
    from ase.md.bussi import Bussi

    outcome(capsys, *EXPLORE)
    atoms = read("copper.xyz")
    width = np.sqrt(atoms.get_masses()[:, None] * units.kB * 900)
    atoms.set_momenta(width * np.random.default_rng(0).standard_normal((4, 3)))
    run = OnTheFly(
        None, EMT(), lambda a: Bussi(a, 4 * units.fs, 900, taut=100 * units.fs, rng=np.random.default_rng(1)), threshold=0.2
    ).run(atoms, 25)
    found = read("run/calls.xyz", ":")
    assert len(found) == len(run.references)
    np.testing.assert_allclose(found[-1].positions, run.references[-1].atoms.positions, atol=1e-6)
