"""The command line: what it prints, what it writes, and how it fails."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from functools import partial
from io import StringIO

import numpy as np
import pytest
import stored_models
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from command_line import outcome
from small import OPTIONS, crystals, labelled, small_gp

import soapkrr
from soapkrr import SOAP, cli, progress
from soapkrr.cli import entry
from soapkrr.descriptors.cutoff import Cosine, Polynomial, Smoothstep
from soapkrr.modelfile import writing
from soapkrr.regression.sparse import fit as sparse_fit

ERRORS = ["energy_mae_mev_per_atom", "energy_rmse_mev_per_atom", "energy_within_1_std", "energy_within_2_std"]
ERRORS += ["forces_mae_ev_per_angstrom", "forces_rmse_ev_per_angstrom", "forces_within_1_std", "forces_within_2_std"]
ERRORS += ["stress_mae_gpa", "stress_rmse_gpa", "stress_within_1_std", "stress_within_2_std"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train.xyz, test.xyz, energies.xyz, bare.xyz, neon.xyz, slab.xyz and m.soapkrr, which is fitted to train.xyz."""
    folder = tmp_path_factory.mktemp("cli")
    frames = crystals(10)
    write(folder / "train.xyz", frames[:6])
    write(folder / "test.xyz", frames[6:])
    write(folder / "energies.xyz", [labelled(a, energy=a.get_potential_energy()) for a in frames])
    write(folder / "bare.xyz", [a.copy() for a in frames[:2]])
    write(folder / "neon.xyz", labelled(bulk("Ne", cubic=True, a=4.4), energy=0.0))
    write(folder / "slab.xyz", Atoms("Ar2", positions=[[0, 0, 5], [1.9, 1.9, 7.5]], cell=[3.8, 3.8, 0], pbc=[True, True, False]))
    (folder / "junk.xyz").write_text("hello\nworld\n")
    (folder / "empty.xyz").touch()
    assert cli.main(["fit", str(folder / "train.xyz"), "--output", str(folder / "m.soapkrr"), *OPTIONS]) == 0
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys, tmp_path):
    """Run a command line in the folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(folder)
    return partial(outcome, capsys)


@pytest.fixture
def fails(run):
    """Run a command line that must fail with code 2, one line on standard error and nothing on standard output."""

    def fails(*arguments):
        code, out, err = run(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("soapkrr: error: ") and "Traceback" not in err
        return err

    return fails


def strict(text):
    """The one JSON object in ``text``; NaN and Infinity are not JSON."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    assert text.count("\n") == 1
    return json.loads(text, parse_constant=refuse)


def python(folder, *arguments, **options):
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, **options)


def shell(folder, *arguments, **options):
    return python(folder, "-m", "soapkrr.cli", *arguments, **options)


# --- as a process ---


def test_help_imports_nothing_heavy(folder):
    code = "import sys; from soapkrr import cli; cli.build_parser(); print(sorted({'numpy', 'ase', 'numba', 'scipy'} & set(sys.modules)))"
    result = python(folder, "-c", code)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_fit_and_evaluate_as_processes(folder):
    fitted = shell(folder, "fit", "train.xyz", "--test", "test.xyz", "--output", "process.soapkrr", *OPTIONS)
    assert (fitted.returncode, fitted.stderr) == (0, "")
    assert "train.xyz (6 structures, 24 atoms)" in fitted.stdout and "test.xyz (4 structures, 16 atoms)" in fitted.stdout
    result = shell(folder, "evaluate", "process.soapkrr", "test.xyz", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    assert strict(result.stdout)["n_structures"] == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "nothing.xyz", "--output", "x.soapkrr"],
        ["fit", "train.xyz", "--output", "no/such/folder/x.soapkrr"],
        ["info", "train.xyz"],
    ],
    ids=" ".join,
)
def test_failures_as_processes(folder, arguments):
    result = shell(folder, *arguments)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("soapkrr: error: ")


@pytest.mark.parametrize("arguments", ["--help", "fit --help", "relax --help", "--version"])
def test_help_survives_an_ascii_terminal(folder, arguments):
    result = shell(folder, *arguments.split(), env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stderr) == (0, "")
    assert "soapkrr" in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts are sent differently on Windows")
def test_ctrl_c_in_a_process(folder):
    code = (
        "import os, signal, sys; from soapkrr import cli; from soapkrr.regression.sparse import fit\n"
        "fit.kernel_triangles = lambda *a: os.kill(os.getpid(), signal.SIGINT)\n"
        f"sys.exit(cli.main({['fit', 'train.xyz', '--output', 'interrupted.soapkrr', *OPTIONS]!r}))"
    )
    before = sorted(folder.iterdir())
    result = python(folder, "-c", code)
    assert result.returncode == 128 + signal.SIGINT
    assert result.stderr == "soapkrr: error: interrupted; nothing half-written is left behind\n"
    assert sorted(folder.iterdir()) == before


# --- fit ---


def test_a_plan_is_printed_and_nothing_written(run, folder):
    before = sorted(folder.iterdir())
    code, out, err = run("fit", "train.xyz", "--plan", "--memory-limit", "1GB", *OPTIONS)
    assert (code, err) == (0, "")
    assert "rows 114: 6 energy + 72 forces + 36 stress" in out and "limit 1 GB" in out
    assert sorted(folder.iterdir()) == before


def test_a_plan_as_json_has_what_its_table_has(run, folder):
    data = strict(run("fit", "train.xyz", "--plan", "--json", *OPTIONS)[1])
    plan = small_gp().plan(read(folder / "train.xyz", ":"), calibrate=True)
    assert data["rows"] == plan.rows and data["flops"] == pytest.approx(plan.flops)
    assert data["peak_memory"] == pytest.approx(plan.peak_memory)


def test_too_small_a_limit_is_one_line_that_says_what_is_enough(run, tmp_path):
    code, out, err = run("fit", "train.xyz", "--output", tmp_path / "m.soapkrr", "--memory-limit", "1MB", *OPTIONS)
    assert (code, out, err.count("\n")) == (2, "", 1) and "would be enough" in err
    code, out, err = run("fit", "train.xyz", *OPTIONS)
    assert code == 2 and "`--output`" in err


def test_fit_json(run, tmp_path):
    code, out, err = run("fit", "train.xyz", "--test", "test.xyz", "--output", tmp_path / "m.soapkrr", "--json", *OPTIONS)
    assert (code, err) == (0, "")
    data = strict(out)
    assert set(ERRORS) <= set(data) and set(ERRORS) <= set(data["test"])
    assert data["fit_seconds"] > 0 and data["peak_memory_mb"] > 10
    assert (data["n_structures"], data["n_atoms"], data["test"]["n_structures"]) == (6, 24, 4)
    assert data["n_sparse"] == {"Ar": 12} and data["n_observations"] == {"energy": 6, "forces": 72, "stress": 36}


def test_fit_json_agrees_with_the_python_interface(run, folder, tmp_path):
    _, out, _ = run("fit", "train.xyz", "--test", "test.xyz", "--output", tmp_path / "m.soapkrr", "--json", *OPTIONS)
    data = strict(out)
    model = soapkrr.load(tmp_path / "m.soapkrr")
    test, train = read(folder / "test.xyz", ":"), read(folder / "train.xyz", ":")
    expected = soapkrr.metrics.error_table(test, model.predict(test, uncertainty=True))
    assert {key: data["test"][key] for key in expected} == pytest.approx(expected)
    expected = soapkrr.metrics.error_table(train, model.predict(train, uncertainty="energy"))
    assert {key: data[key] for key in expected} == pytest.approx(expected)
    assert data["forces_within_1_std"] is None and data["stress_within_2_std"] is None


def test_fit_without_a_test_file(run, tmp_path):
    _, out, _ = run("fit", "train.xyz", "--output", tmp_path / "m.soapkrr", "--json", *OPTIONS)
    assert strict(out)["test"] is None


def test_kinds_without_labels_are_null(run, tmp_path):
    _, out, _ = run("fit", "energies.xyz", "--output", tmp_path / "m.soapkrr", "--json", *OPTIONS)
    data = strict(out)
    assert data["energy_mae_mev_per_atom"] >= 0
    assert all(data[key] is None for key in ERRORS if not key.startswith("energy"))


def test_fit_table(run, tmp_path):
    code, out, err = run("fit", "train.xyz", "--test", "test.xyz", "--output", tmp_path / "m.soapkrr", *OPTIONS)
    assert (code, err) == (0, "")
    assert "Ar 12 sparse points, fitted in" in out and "peak memory" in out
    assert out.count("within 1 std") == 2
    rows = [line.split() for line in out.splitlines() if line.startswith("  ") and "MAE" not in line]
    assert [row[:2] for row in rows] == 2 * [["energy", "meV/atom"], ["forces", "eV/Å"], ["stress", "GPa"]]
    assert rows[1][4:] == ["-", "-"] and rows[4][4].endswith("%")


@pytest.mark.parametrize("choice", ["energy", "none"])
def test_less_uncertainty(run, tmp_path, choice):
    arguments = ["--output", tmp_path / "m.soapkrr", "--uncertainty", choice, "--json", *OPTIONS]
    data = strict(run("fit", "train.xyz", "--test", "test.xyz", *arguments)[1])
    assert data["test"]["forces_within_1_std"] is None
    assert (data["test"]["energy_within_1_std"] is None) == (choice == "none")


def test_every_option_reaches_the_model(run, tmp_path):
    options = "--species Ar,Ne --r-cut 4.2 --n-max 4 --l-max 3 --sigma 0.6 --cutoff cosine --cutoff-width 1.2 --rbf bessel --scaling-r0 2.5"
    options += " --scaling-m 5 --scaling-c 0.8 --zeta 3 --n-sparse Ar=7 --selection cur --noise-energy 0.003 --noise-forces 0.1"
    options += " --noise-stress 0.004 --signal 2 --baseline Ar=-0.5,Ne=1 --tolerance 1e-9 --no-repulsion --threads 1 --memory-limit 1GB"
    assert run("fit", "train.xyz", "--output", tmp_path / "m.soapkrr", *options.split())[0] == 0
    model = soapkrr.load(tmp_path / "m.soapkrr")
    scaling = soapkrr.RadialScaling(r0=2.5, m=5, c=0.8)
    soap = SOAP(["Ar", "Ne"], r_cut=4.2, n_max=4, l_max=3, sigma=0.6, cutoff=Cosine(width=1.2), rbf="bessel", scaling=scaling)
    assert model.get_params(deep=False) == {
        "descriptor": soap,
        "kernel": soapkrr.DotProduct(zeta=3),
        "n_sparse": {"Ar": 7},
        "noise": {"energy": 0.003, "forces": 0.1, "stress": 0.004},
        "signal": 2.0,
        "selection": "cur",
        "baseline": {"Ar": -0.5, "Ne": 1.0},
        "tolerance": 1e-9,
        "observations": None,
        "representers": "environments",
        "threads": None,  # belongs to the machine, not to the model: not in the file
        "device": "cpu",  # likewise
        "memory_limit": None,  # likewise
    }
    assert model.reference_energies_ == {"Ar": -0.5, "Ne": 1.0}


def test_without_options_everything_is_chosen_as_in_python(run, folder, tmp_path):
    code, out, err = run("fit", "train.xyz", "-o", tmp_path / "m.soapkrr")
    assert (code, err) == (0, "")
    model, frames = soapkrr.fit(read(folder / "train.xyz", ":")), read(folder / "test.xyz", ":")
    assert soapkrr.auto.summary(model) in out
    ours = soapkrr.load(tmp_path / "m.soapkrr")
    assert isinstance(ours, soapkrr.GaussianProcess) and ours.choices_ == model.choices_
    np.testing.assert_allclose(ours.predict(frames).energy, model.predict(frames).energy, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "cutoff"),
    [
        (["--cutoff", "poly"], Polynomial()),
        (["--cutoff", "poly", "--cutoff-exponent", "3"], Polynomial(m=3)),
        (["--cutoff", "cosine"], Cosine()),
        (["--cutoff-width", "0.7"], Smoothstep(width=0.7)),
    ],
    ids=str,
)
def test_cutoffs(run, tmp_path, options, cutoff):
    assert run("fit", "train.xyz", "--output", tmp_path / "m.soapkrr", *OPTIONS, *options)[0] == 0
    assert soapkrr.load(tmp_path / "m.soapkrr").descriptor.cutoff == cutoff


def test_warnings_are_one_line_each(run, tmp_path):
    code, out, err = run("fit", "train.xyz", "--output", tmp_path / "m.soapkrr", "--json", *OPTIONS, "--n-sparse", 999)
    assert code == 0 and strict(out)["n_sparse"] == {"Ar": 24}
    assert err == "soapkrr: `--n-sparse 999` exceeds the 24 environments of the data; all of them are used\n"
    assert run("fit", "train.xyz", "--output", tmp_path / "m.soapkrr", *OPTIONS, "--n-sparse", 999, "--quiet")[2] == ""


class Terminal(StringIO):
    """Standard error of a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(("options", "drawn"), [([], True), (["--quiet"], False)], ids=["default", "quiet"])
def test_progress_bars_on_a_terminal(run, monkeypatch, tmp_path, options, drawn):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = run("fit", "train.xyz", "--output", tmp_path / "m.soapkrr", "--json", *OPTIONS, *options)
    assert code == 0 and strict(out)["n_structures"] == 6
    assert ("leave-out" in terminal.getvalue()) == drawn  # what is done at once has no bar


def test_some_structures_of_a_file(run):
    data = strict(run("evaluate", "m.soapkrr", "test.xyz@1:3", "--json")[1])
    assert data["n_structures"] == 2


# --- evaluate and info ---


def test_evaluate(run):
    code, out, err = run("evaluate", "m.soapkrr", "test.xyz")
    assert (code, err) == (0, "")
    assert "m.soapkrr on test.xyz (4 structures, 16 atoms)" in out and "intervals" in out and "ENCE" in out


def test_evaluate_json(run):
    code, out, err = run("evaluate", "m.soapkrr", "test.xyz", "--json")
    assert (code, err) == (0, "")
    data = strict(out)
    assert all(data[key] >= 0 for key in ERRORS) and 0 <= data["calibration"]["forces"]["coverage_90"] <= 1


def test_info(run):
    code, out, err = run("info", "m.soapkrr")
    assert (code, err) == (0, "")
    for text in ("Ar 12 (fps)", "r_cut=4.5", "energy 6, forces 72, stress 36", "DotProduct(zeta=2.0)", "format 2", "condition number"):
        assert text in out


def test_info_json(run):
    data = strict(run("info", "m.soapkrr", "--json")[1])
    assert data["species"] == ["Ar"] and data["format_version"] == 2 and data["n_sparse"] == {"Ar": 12}
    assert data["parameters"]["descriptor"]["n_max"] == 3 and data["condition"] > 1


def test_info_says_when_and_to_what_it_was_fitted(run):
    data, (_, out, _) = strict(run("info", "m.soapkrr", "--json")[1]), run("info", "m.soapkrr")
    origin = soapkrr.load("m.soapkrr").origin_
    assert {name: data[name] for name in origin} == origin
    assert all(text in out for text in origin.values())


def test_verify_says_in_one_line_that_a_model_is_intact(run):
    code, out, err = run("info", "m.soapkrr", "--verify")
    assert (code, err, out.count("\n")) == (0, "", 1)
    with zipfile.ZipFile("m.soapkrr") as archive:
        arrays = sum(name.endswith(".npy") for name in archive.namelist())
    assert "m.soapkrr: SparseGP, format 2" in out and f"SHA-256 of the header and {arrays} arrays agree" in out
    assert strict(run("info", "m.soapkrr", "--verify", "--json")[1])["intact"] is True


def test_verify_of_a_model_that_was_changed(fails, folder, tmp_path):
    """Exit code 2 and one line, although the checksums of the zip are right."""
    with zipfile.ZipFile(folder / "m.soapkrr") as old, zipfile.ZipFile(tmp_path / "m.soapkrr", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'"Ar"', b'"Ne"'))
    assert "m.soapkrr: model.json is damaged or was changed" in fails("info", tmp_path / "m.soapkrr", "--verify")


def test_verify_of_a_file_without_digests(run):
    code, out, err = run("info", stored_models.HERE / "1-sparse-terms.soapkrr", "--verify")
    assert (code, err) == (0, "") and "format 1" in out and "no SHA-256 in it to compare" in out


def test_numbers_json_does_not_have_become_null():
    assert json.loads(entry._strict_json({"a": [np.inf, np.float64(np.nan)], "b": np.int64(3)})) == {"a": [None, None], "b": 3}


# --- relax ---


@pytest.mark.parametrize("options", [[], ["--cell"], ["--optimizer", "fire"]], ids=" ".join)
def test_relax(run, folder, tmp_path, options):
    code, out, err = run("relax", "m.soapkrr", "train.xyz", "--output", tmp_path / "o.xyz", "--fmax", 0.05, *options)
    assert (code, err) == (0, "")
    assert "± std (eV)" in out and "6 structures, all converged" in out
    relaxed, model = read(tmp_path / "o.xyz", ":"), soapkrr.load(folder / "m.soapkrr")
    p = model.predict(relaxed, uncertainty="energy")
    np.testing.assert_allclose([a.get_potential_energy() for a in relaxed], p.energy, atol=1e-4)
    np.testing.assert_allclose([a.info["energy_std"] for a in relaxed], p.energy_std, atol=1e-4)
    np.testing.assert_allclose(relaxed[0].get_stress(), p.stress[0], atol=1e-5)
    assert max(np.linalg.norm(a.get_forces(), axis=1).max() for a in relaxed) < 0.0501


def test_relax_json(run, tmp_path):
    code, out, err = run("relax", "m.soapkrr", "bare.xyz", "--output", tmp_path / "o.xyz", "--fmax", 0.05, "--json")
    assert (code, err) == (0, "")
    data = strict(out)
    assert data["all_converged"] is True and len(data["structures"]) == 2
    assert {"energy_ev", "energy_std_ev", "steps", "converged", "fmax_ev_per_angstrom"} <= set(data["structures"][0])


def test_relax_that_does_not_converge_says_so(run, tmp_path):
    code, out, _ = run("relax", "m.soapkrr", "train.xyz", "--output", tmp_path / "o.xyz", "--fmax", 1e-9, "--steps", 2)
    assert code == 1 and "6 of 6 not converged in 2 steps" in out and out.count("not converged\n") == 6
    assert len(read(tmp_path / "o.xyz", ":")) == 6
    code, out, _ = run("relax", "m.soapkrr", "train.xyz", "--output", tmp_path / "o.xyz", "--fmax", 1e-9, "--steps", 2, "--json")
    assert code == 1 and strict(out)["all_converged"] is False


def test_relax_a_slab(run, tmp_path):
    assert run("relax", "m.soapkrr", "slab.xyz", "--output", tmp_path / "o.xyz", "--fmax", 0.05)[0] == 0
    assert "stress" not in read(tmp_path / "o.xyz").calc.results


# --- failures ---


@pytest.mark.parametrize(
    ("file", "match"),
    [
        ("nothing.xyz", "no file nothing.xyz"),
        ("junk.xyz", "cannot read structures from junk.xyz"),
        ("empty.xyz", "empty.xyz"),
        (".", "is a directory"),
        ("bare.xyz", "bare.xyz: none of the 2 structures has an energy"),
        ("train.xyz@9:", "holds no structures"),
        ("train.xyz@first", "cannot read structures"),
        ("m.soapkrr", "cannot read structures"),
    ],
)
def test_files_that_cannot_be_used(fails, tmp_path, file, match):
    assert match in fails("fit", file, "--output", tmp_path / "m.soapkrr", *OPTIONS)
    assert match in fails("evaluate", "m.soapkrr", file)
    assert match in fails("fit", "train.xyz", "--test", file, "--output", tmp_path / "m.soapkrr", *OPTIONS)
    assert not list(tmp_path.iterdir())


def test_bad_frames_are_named_with_their_file(fails, folder, tmp_path):
    frames = crystals(3)
    forces = np.zeros((4, 3))
    forces[2, 1] = np.inf
    write(tmp_path / "inf.xyz", [*frames[:2], labelled(frames[2], forces=forces)])
    assert "inf.xyz: frame 2, atom 2: force" in fails("fit", tmp_path / "inf.xyz", "--output", folder / "x.soapkrr", *OPTIONS)
    frames[1].positions[3] = frames[1].positions[0]
    write(tmp_path / "twins.xyz", [atoms.copy() for atoms in frames])
    twins = f"{tmp_path / 'twins.xyz'}@1:2"
    assert "frame 0: atoms 0 and 3 coincide" in fails("relax", "m.soapkrr", twins, "--output", folder / "x.xyz")
    assert not (folder / "x.soapkrr").exists() and not (folder / "x.xyz").exists()


@pytest.mark.parametrize("arguments", [["evaluate", "m.soapkrr", "neon.xyz"], ["relax", "m.soapkrr", "neon.xyz", "--output", "x.xyz"]])
def test_species_unknown_to_the_model(fails, arguments):
    assert "neon.xyz: frame 0: species Ne is not in the training data, which has ['Ar']" in fails(*arguments)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--n-max", "0"], "`--n-max`"),
        (["--n-max", "3.5"], "--n-max"),
        (["--sigma", "-1"], "`--sigma`"),
        (["--r-cut", "nan"], "`--r-cut`"),
        (["--zeta", "0.5"], "`--zeta`"),
        (["--n-sparse", "0"], "--n-sparse"),
        (["--n-sparse", "Ar=3,Ar=4"], "twice"),
        (["--n-sparse", "Ne=3"], "'Ar'"),
        (["--noise-energy", "0"], "energy"),
        (["--noise-forces", "-1"], "forces"),
        (["--noise-stress", "nan"], "stress"),
        (["--signal", "0"], "`--signal`"),
        (["--tolerance", "-1"], "`--tolerance`"),
        (["--baseline", "zero"], "--baseline"),
        (["--baseline", "Ar=low"], "--baseline"),
        (["--baseline", "Ne=1"], "missing ['Ar']"),
        (["--baseline", "isolated"], "no isolated atom"),
        (["--species", "Ne"], "train.xyz: frame 0: species Ar"),
        (["--species", "Xx"], "'Xx'"),
        (["--cutoff", "step"], "--cutoff"),
        (["--cutoff", "poly", "--cutoff-width", "1"], "--cutoff-exponent"),
        (["--cutoff-exponent", "2"], "--cutoff-width"),
        (["--scaling-m", "1"], "`--scaling-m`"),
        (["--rbf", "wavelet"], "--rbf"),
        (["--selection", "best"], "--selection"),
        (["--threads", "0"], "--threads"),
        (["--threads", "many"], "--threads"),
        (["--surprise"], "--surprise"),
        (["--test", "neon.xyz"], "neon.xyz: frame 0: species Ne"),
    ],
    ids=str,
)
def test_options_that_cannot_be_used(fails, tmp_path, options, match):
    assert match in fails("fit", "train.xyz", "--output", tmp_path / "m.soapkrr", *OPTIONS, *options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "required"),
        (["learn"], "learn"),
        (["fit"], "FILE"),
        (["fit", "train.xyz"], "--output"),
        (["relax", "m.soapkrr", "bare.xyz"], "--output"),
        (["relax", "m.soapkrr", "bare.xyz", "--output", "o.xyz", "--fmax", "0"], "--fmax"),
        (["relax", "m.soapkrr", "bare.xyz", "--output", "o.xyz", "--steps", "0"], "--steps"),
        (["relax", "m.soapkrr", "bare.xyz", "--output", "o.xyz", "--optimizer", "newton"], "--optimizer"),
        (["relax", "m.soapkrr", "bare.xyz", "--output", "o.cif"], "extended XYZ"),
        (["relax", "m.soapkrr", "bare.xyz", "--output", "bare.xyz"], "is an input file"),
        (["relax", "m.soapkrr", "slab.xyz", "--output", "o.xyz", "--cell"], "frame 0 is not periodic in three directions"),
        (["info", "nothing.soapkrr"], "nothing.soapkrr"),
        (["info", "train.xyz"], "not a readable soapkrr model"),
        (["evaluate", "train.xyz", "train.xyz"], "not a readable soapkrr model"),
    ],
    ids=" ".join,
)
def test_commands_that_cannot_be_done(fails, arguments, match):
    assert match in fails(*arguments)


@pytest.mark.parametrize("output", ["no/such/m.soapkrr", ".", "train.xyz/m.soapkrr", "train.xyz", "other.xyz", 300 * "m"])
def test_output_is_checked_before_the_fit(fails, monkeypatch, output):
    def fit(*args, **kwargs):
        raise AssertionError("the fit was started")

    monkeypatch.setattr(soapkrr.SparseGP, "fit", fit)
    fails("fit", "train.xyz", "--output", output, *OPTIONS)


def test_output_of_relax_is_checked_before_the_relaxation(fails, monkeypatch):
    monkeypatch.setattr(soapkrr.SparseGP, "predict", None)
    assert "does not exist" in fails("relax", "m.soapkrr", "bare.xyz", "--output", "no/such/o.xyz")


@pytest.mark.parametrize("target", ["unwhitened", "kernel_triangles", "log_likelihood"])
def test_ctrl_c_in_a_fit_leaves_no_file(run, monkeypatch, tmp_path, target):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(sparse_fit, target, interrupted)
    code, out, err = run("fit", "train.xyz", "--output", tmp_path / "m.soapkrr", *OPTIONS)
    assert (code, out, err) == (130, "", "soapkrr: error: interrupted; nothing half-written is left behind\n")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_old_model(fails, monkeypatch, tmp_path):
    (tmp_path / "m.soapkrr").write_bytes(b"old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "replace", full)
    error = fails("fit", "train.xyz", "--output", tmp_path / "m.soapkrr", *OPTIONS)
    assert "No space left on device" in error and "m.soapkrr" in error
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_a_failed_command_leaves_no_log_handlers(run):
    before = list(entry.logging.getLogger("soapkrr").handlers)
    run("fit", "nothing.xyz", "--output", "x.soapkrr")
    assert entry.logging.getLogger("soapkrr").handlers == before
