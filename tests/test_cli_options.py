"""The command line on every kind of model, and the options of `fit` and `evaluate` beyond SOAP's hyperparameters."""

import json

import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from ase.io import read, write
from command_line import outcome
from small import OPTIONS, crystals, soap

import soapkrr
from soapkrr import (
    ACSF,
    ZBL,
    CalculatorBaseline,
    DotProduct,
    DScribe,
    GaussianProcess,
    KernelRidge,
    Pair,
    SparseGP,
    SquaredExponential,
    Term,
)
from soapkrr.cli import fit_arguments
from soapkrr.kernels import Linear
from soapkrr.selection.specifications import NAMED

ACSF_TERM = Term(ACSF.layout(["Ar"], r_cut=4.5, n_radial=4, n_angular=2), SquaredExponential(5.0), n_sparse=8)


def _dscribe():
    from dscribe.descriptors import ACSF as DScribeACSF

    return DScribe(DScribeACSF(r_cut=4.5, g2_params=[[1.0, 0.0], [1.0, 3.0]], species=["Ar"], periodic=True))


#: Every kind of model that a file can hold, unfitted.
MODELS = {
    "soap": lambda: SparseGP(soap(), DotProduct(2), n_sparse=12),
    "terms": lambda: SparseGP([Term(Pair(["Ar"], r_cut=5.0), Linear()), Term(soap(), DotProduct(2), n_sparse=9, selection="cur")]),
    "acsf": lambda: SparseGP([ACSF_TERM]),
    "compressed": lambda: SparseGP(soapkrr.Compressed(soap(), n_components=5), DotProduct(2), n_sparse=6),
    "dscribe": lambda: SparseGP(_dscribe(), DotProduct(2), n_sparse=6),
    "baselines": lambda: SparseGP(soap(), DotProduct(2), n_sparse=6, baseline=["least-squares", ZBL()]),
    "exact": lambda: GaussianProcess(soap(), DotProduct(2), baseline=ZBL()),
    "exact terms": lambda: GaussianProcess([ACSF_TERM, Term(soap(), DotProduct(2), signal=0.5)]),
    "ridge": lambda: KernelRidge(ACSF_TERM.descriptor, SquaredExponential(5.0)),
}


def renamed(frames):
    """The same labels as dft_energy, dft_forces, dft_virial, wrong ones under ASE's names, and two kinds of structures."""
    renamed = []
    for k, atoms in enumerate(frames):
        copy = atoms.copy()
        copy.info |= {"dft_energy": atoms.get_potential_energy(), "dft_virial": -atoms.get_volume() * atoms.get_stress(voigt=False)}
        copy.info["kind"] = ["warm", "hot"][k % 2]
        copy.arrays["dft_forces"] = atoms.get_forces()
        renamed.append(copy)
    return renamed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train.xyz and test.xyz with config types, named.xyz with labels of other names, and a model file of every kind."""
    folder = tmp_path_factory.mktemp("options")
    frames = crystals(10)
    for k, atoms in enumerate(frames):
        atoms.info["config_type"] = ["warm", "hot"][k % 2]
    write(folder / "train.xyz", frames[:6])
    write(folder / "test.xyz", frames[6:])
    write(folder / "named.xyz", renamed(frames))
    for name, build in MODELS.items():
        build().fit(frames[:6]).save(folder / f"{name}.soapkrr")
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Run a command line in the folder, which must succeed without a word on standard error: standard output."""
    monkeypatch.chdir(folder)

    def run(*arguments, code=0):
        ended, out, err = outcome(capsys, *arguments)
        assert (ended, err) == (code, "")
        return out

    return run


@pytest.fixture
def fails(folder, monkeypatch, capsys):
    """Run a command line that must fail with code 2 and one line on standard error: that line."""
    monkeypatch.chdir(folder)

    def fails(*arguments):
        code, out, err = outcome(capsys, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        return err

    return fails


def fit(run, folder, *arguments):
    """(The fitted model, what `fit --json` printed.)"""
    out = run("fit", arguments[0], "--output", folder / "fitted.soapkrr", "--json", *OPTIONS, *arguments[1:])
    return soapkrr.load(folder / "fitted.soapkrr"), json.loads(out)


# --- every kind of model ---


@pytest.mark.parametrize("name", MODELS)
def test_info_states_terms_noise_and_prior_means(run, folder, name):
    text, data = run("info", f"{name}.soapkrr"), json.loads(run("info", f"{name}.soapkrr", "--json"))
    model = soapkrr.load(folder / f"{name}.soapkrr")
    terms = [model] if not isinstance(model.descriptor, list) else model.descriptor
    assert len(data["terms"]) == len(terms)
    for term, told in zip(terms, data["terms"], strict=True):
        assert (told["descriptor"], told["kernel"]) == (repr(term.descriptor), repr(term.kernel))
        assert repr(term.descriptor) in text and repr(term.kernel) in text and told["signal"] > 0
    assert data["noise"] == model.noise_ and data["estimator"] == type(model).__name__ and data["species"] == ["Ar"]
    assert f"{model.noise_['forces']:.4g} eV/Å" in text
    assert data["n_sparse"] == getattr(model, "n_sparse_", None) and data["n_observations"] == model.n_observations_
    assert data["prior_means"] == (["ZBL(r_inner=None, r_outer=None)"] if name in ("baselines", "exact") else [])
    assert ("prior mean" in text) == bool(data["prior_means"])


def test_info_keeps_to_one_line_each(run, folder):
    frames = crystals(4)
    projected = soapkrr.Compressed(soap(), n_components=5).fitted(soap().create(frames))
    SparseGP(projected, DotProduct(2), n_sparse=4).fit(frames).save(folder / "projected.soapkrr")
    lines = run("info", "projected.soapkrr").splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["model", "fitted", "data", "species", "descriptor", "kernel"]


def test_info_numbers_the_terms_and_counts_their_sparse_points(run):
    text = run("info", "terms.soapkrr")
    assert "descriptor 1 " in text and "descriptor 2 " in text and "Ar 9 (cur)" in text
    assert "energy 6, forces 72, stress 36" in run("info", "exact.soapkrr")


@pytest.mark.parametrize("name", MODELS)
def test_evaluate(run, name):
    data = json.loads(run("evaluate", f"{name}.soapkrr", "test.xyz", "--json", "--uncertainty", "energy"))
    assert data["n_structures"] == 4
    assert 0 < data["forces_mae_ev_per_angstrom"] < 0.2
    assert 0 <= data["energy_within_1_std"] <= 1


@pytest.mark.parametrize("name", MODELS)
def test_relax(run, folder, tmp_path, name):
    model = soapkrr.load(folder / f"{name}.soapkrr")
    data = json.loads(run("relax", f"{name}.soapkrr", "test.xyz@0:1", "--output", tmp_path / "o.xyz", "--fmax", 0.05, "--json"))
    assert data["all_converged"]
    relaxed = read(tmp_path / "o.xyz")
    p = model.predict(relaxed, uncertainty="energy")
    assert data["structures"][0]["energy_ev"] == pytest.approx(p.energy[0], abs=1e-4)
    assert relaxed.info["energy_std"] == pytest.approx(p.energy_std[0], abs=1e-4)


def test_a_model_on_top_of_a_calculator_needs_python(run, fails, folder):
    baseline = CalculatorBaseline(LennardJones(sigma=3.4, epsilon=0.01, rc=6.0, smooth=True))
    SparseGP(soap(), DotProduct(2), n_sparse=4, baseline=baseline).fit(crystals(4)).save(folder / "delta.soapkrr")
    assert "LennardJones" in run("info", "delta.soapkrr")
    for arguments in (["evaluate", "delta.soapkrr", "test.xyz"], ["relax", "delta.soapkrr", "test.xyz", "--output", "o.xyz"]):
        message = fails(*arguments)
        assert "(LennardJones), which files do not hold" in message and "soapkrr.load(path, baseline_calculator=...)" in message


# --- options of fit ---


def test_selections_are_those_of_the_package():
    assert fit_arguments.SELECTIONS == sorted(NAMED)


@pytest.mark.parametrize("name", sorted(NAMED))
def test_selection(run, folder, name):
    model, data = fit(run, folder, "train.xyz", "--selection", name)
    assert model.selection == name and data["n_sparse"] == {"Ar": 12}


def test_evidence(run, folder):
    arguments = ["train.xyz", "--noise-forces", "0.4"]
    start, before = fit(run, folder, *arguments)
    data = fit(run, folder, *arguments, "--optimize")[1]
    assert start.noise_["forces"] == before["noise"]["forces"] == 0.4
    frames = read(folder / "train.xyz", ":")
    expected = SparseGP(soap(), DotProduct(2.0), n_sparse=12, noise={"forces": 0.4}).fit(frames, optimize=True)
    assert data["noise"] == pytest.approx(expected.noise_, rel=1e-6) and data["noise"]["forces"] < 0.1
    assert data["signals"] == pytest.approx([t.signal for t in expected.process_.terms], rel=1e-6)
    text = run("fit", "train.xyz", "--optimize", "--output", folder / "fitted.soapkrr", *OPTIONS)
    assert "eV/Å, evidence" in text and "signal" in text


@pytest.mark.parametrize(("options", "reference"), [([], None), (["--baseline", "Ar=-0.5"], {"Ar": -0.5})], ids=["default", "given"])
def test_core_repulsion(run, folder, options, reference):
    model, _ = fit(run, folder, "train.xyz", "--zbl", "--no-repulsion", *options)
    assert model.baseline == [reference, ZBL()] and model.prior_means_ == (ZBL(),)
    close = crystals(1)[0]
    close.positions[1] = close.positions[0] + [0.8, 0.0, 0.0]
    assert model.predict(close).energy[0] > 100.0


def test_labels_under_other_names(run, folder):
    names = ["--energy-key", "dft_energy", "--forces-key", "dft_forces", "--virial-key", "dft_virial", "--config-type-key", "kind"]
    model, data = fit(run, folder, "named.xyz@0:6", "--test", "named.xyz@6:", *names)
    plain, expected = fit(run, folder, "train.xyz", "--test", "test.xyz")
    assert model.observations.config_type == "kind" and plain.observations is None
    assert data["n_observations"] == {"energy": 6, "forces": 72, "stress": 36}
    keys = ["energy_mae_mev_per_atom", "forces_mae_ev_per_angstrom", "stress_mae_gpa"]
    np.testing.assert_allclose([data["test"][k] for k in keys], [expected["test"][k] for k in keys], rtol=1e-4)


def test_stress_of_another_name(run, folder):
    frames = renamed(crystals(4))
    for atoms, original in zip(frames, crystals(4), strict=True):
        atoms.info["dft_stress"] = original.get_stress()
        del atoms.info["dft_energy"], atoms.arrays["dft_forces"]  # labels that are not read would be named
    write(folder / "stressed.xyz", frames)
    model, data = fit(run, folder, "stressed.xyz", "--stress-key", "dft_stress")
    assert model.observations.stress == "dft_stress" and data["n_observations"] == {"stress": 24}


def test_evaluate_and_relax_know_the_names_of_the_model(run, folder, tmp_path):
    _, data = fit(run, folder, "named.xyz", "--energy-key", "dft_energy", "--forces-key", "dft_forces", "--virial-key", "dft_virial")
    evaluated = json.loads(run("evaluate", "fitted.soapkrr", "named.xyz", "--json"))
    for key in ("energy_mae_mev_per_atom", "forces_mae_ev_per_angstrom", "stress_mae_gpa"):
        assert evaluated[key] == pytest.approx(data[key], rel=1e-9)
    run("relax", "fitted.soapkrr", "named.xyz@0:1", "--output", tmp_path / "o.xyz", "--fmax", 0.05)
    relaxed = read(tmp_path / "o.xyz")
    assert not {"dft_energy", "dft_virial", "dft_forces"} & {*relaxed.info, *relaxed.arrays} and "kind" in relaxed.info
    assert "dft_energy" in run("info", "fitted.soapkrr")


def test_noise_by_config_type(run, folder):
    model, data = fit(run, folder, "train.xyz", "--config-noise", "hot:forces=0.5,energy=0.01", "--config-noise", "warm:stress=0.004")
    assert model.observations.config_noise == {"hot": {"forces": 0.5, "energy": 0.01}, "warm": {"stress": 0.004}}
    frames = read(folder / "train.xyz", ":")
    expected = SparseGP(soap(), DotProduct(2.0), n_sparse=12, observations=model.observations).fit(frames)
    np.testing.assert_allclose(model.predict(frames).energy, expected.predict(frames).energy, atol=1e-9)


# --- errors by config type ---


def test_errors_by_config_type(run, folder):
    model, data = fit(run, folder, "train.xyz", "--test", "test.xyz", "--by", "config_type")
    frames = read(folder / "test.xyz", ":")
    expected = soapkrr.metrics.error_table(frames, model.predict(frames, uncertainty=True), by="config_type")
    assert set(data["by"]) == set(data["test"]["by"]) == {"hot", "warm"}
    for name, table in expected.items():
        told = data["test"]["by"][name]
        assert {key: told[key] for key in table} == pytest.approx(table) and (told["n_structures"], told["n_atoms"]) == (2, 8)
    evaluated = json.loads(run("evaluate", "fitted.soapkrr", "test.xyz", "--by", "config_type", "--json"))
    assert evaluated["by"]["hot"] == pytest.approx(data["test"]["by"]["hot"])


def test_table_by_config_type(run):
    lines = run("evaluate", "soap.soapkrr", "test.xyz", "--by", "config_type").splitlines()
    table, worst = [line for line in lines if line.split()[:1] in (["config_type"], ["hot"], ["warm"])], lines[-3:]
    assert table[0].split()[:3] == ["config_type", "structures", "atoms"]
    assert [line.split()[:3] for line in table[1:]] == [["hot", "2", "8"], ["warm", "2", "8"]]
    assert len({len(line) for line in table}) == 1
    assert [line.split()[:2] for line in worst] == [["largest", kind] for kind in ("energy", "forces", "stress")]


def test_a_config_type_without_labels(run, folder):
    frames = crystals(3)
    bare = frames[2].copy()
    bare.info["config_type"] = "bare"
    write(folder / "some.xyz", [*frames[:2], bare])
    data = json.loads(run("evaluate", "soap.soapkrr", "some.xyz", "--by", "config_type", "--json"))
    assert data["by"]["bare"]["energy_mae_mev_per_atom"] is None and data["by"]["bare"]["n_structures"] == 1
    assert run("evaluate", "soap.soapkrr", "some.xyz", "--by", "config_type").splitlines()[-2].count(" -") == 6


def test_only_asked_for(run):
    assert "by" not in json.loads(run("evaluate", "soap.soapkrr", "test.xyz", "--json"))


# --- failures ---


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--config-noise", "hot"], "TYPE:KIND=NUMBER"),
        (["--config-noise", "hot:forces=low"], "NAME=NUMBER"),
        (["--config-noise", "hot:forces=1,forces=2"], "twice"),
        (["--config-noise", "hot:forces=1", "--config-noise", "hot:energy=1"], "twice"),
        (["--config-noise", "hot:force=1"], "`--config-noise hot`"),
        (["--config-noise", "hot:forces=-1"], "`--config-noise hot:forces`"),
        (["--config-noise", "liquid:forces=1"], "liquid"),
        (["--energy-key", "dft_energy"], "dft_energy"),
        (["--config-type-key", "phase"], "phase"),
        (["--stress-key", "a", "--virial-key", "b"], "both name the stress"),
        (["--by", "phase"], "train.xyz: `--by` phase is in the `info` of no structure; there are ['config_type']"),
        (["--by", "config_type", "--test", "named.xyz"], "named.xyz"),
    ],
    ids=" ".join,
)
def test_options_that_cannot_be_used(fails, tmp_path, options, match):
    assert match in fails("fit", "train.xyz", "--output", tmp_path / "m.soapkrr", *OPTIONS, *options)
    assert not list(tmp_path.iterdir())


def test_evaluate_by_what_no_structure_has(fails):
    assert "`--by` phase" in fails("evaluate", "soap.soapkrr", "test.xyz", "--by", "phase")
