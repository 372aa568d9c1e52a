"""Published Gaussian approximation potentials: energies, forces and stresses of QUIP, refits, and files that are refused by name."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.io import read, write
from taylor import assert_derivative

import soapkrr
from soapkrr import InputError
from soapkrr.baselines import PairSpline
from soapkrr.cli.entry import run
from soapkrr.descriptors.cutoff import Cosine
from soapkrr.descriptors.quip import QuipPair, QuipSOAP, equispaced, equispaced_gaussians
from soapkrr.gap.parts import feature_order
from soapkrr.structures import Batch

#: Made with gap_fit of QUIP on structures of our own: argon by Lennard-Jones, Cu–Au by EMT on top of a core potential, with the
#: energies, forces and stresses that QUIP gives of other structures.
FILES = Path(__file__).parent / "files" / "gap"


@pytest.fixture
def argon(tmp_path):
    """A copy of the argon potential that a test may damage."""
    for file in FILES.glob("argon.xml*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "argon.xml"


def edited(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def largest_errors(model, frames, reference):
    """eV/atom, eV/Å and eV/Å³."""
    p = model.predict(frames)
    energy = max(abs(p.energy[k] - r["energy"]) / len(frames[k]) for k, r in enumerate(reference))
    forces = max(np.abs(p.forces[k] - np.array(r["forces"])).max() for k, r in enumerate(reference))
    stress = np.nanmax([np.abs(p.stress[k] - np.array(r["stress"])).max() for k, r in enumerate(reference) if frames[k].cell.rank == 3])
    return energy, forces, stress


@pytest.mark.parametrize("name", ["argon", "cuau"])
def test_energies_forces_and_stresses_are_those_of_quip(name):
    frames, reference = read(FILES / f"{name}.xyz", ":"), json.loads((FILES / f"{name}.json").read_text())
    assert max(largest_errors(soapkrr.load_gap(FILES / f"{name}.xml"), frames, reference)) < 1e-7


def test_of_quippy_itself_where_it_is_installed(tmp_path):
    potential = pytest.importorskip("quippy.potential", reason="quippy-ase, QUIP's Python package, is not installed")
    rng, frames = np.random.default_rng(2), []
    for _ in range(10):
        atoms = bulk("Ar", a=5.4 * (1 + 0.02 * rng.normal()), cubic=True)
        atoms.positions += rng.normal(scale=0.2, size=(4, 3))
        atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0)
        atoms.info["e"], atoms.arrays["f"] = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = None
        frames.append(atoms)
    write(tmp_path / "train.xyz", frames)
    descriptors = (
        "distance_2b cutoff=5.5 cutoff_transition_width=0.7 covariance_type=ard_se delta=0.2 theta_uniform=0.9 sparse_method=uniform "
        "n_sparse=10 : soap l_max=5 n_max=6 cutoff=5.3 cutoff_transition_width=0.6 atom_sigma=0.7 zeta=3 delta=0.1 "
        "covariance_type=dot_product sparse_method=cur_points n_sparse=12 central_weight=0.7"
    )
    options = "energy_parameter_name=e force_parameter_name=f e0=0.2 gp_file=gap.xml"
    words = ["gap_fit", "at_file=train.xyz", f"gap={{{descriptors}}}", "default_sigma={0.001 0.01 0.0 0.0}", *options.split()]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    calculator, reference = potential.Potential(param_filename=str(tmp_path / "gap.xml")), []
    for atoms in frames:
        atoms.calc = calculator
        reference.append({"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()})
    assert max(largest_errors(soapkrr.load_gap(tmp_path / "gap.xml"), frames, reference)) < 1e-6


def test_it_is_a_calculator_without_error_bars():
    model, atoms = soapkrr.load_gap(FILES / "argon.xml"), read(FILES / "argon.xyz", 0)
    atoms.calc = model.calculator()
    assert atoms.get_potential_energy() == pytest.approx(model.predict(atoms).energy[0], abs=1e-12)
    assert "energy_std" not in atoms.calc.results
    for ask in (
        lambda: model.predict(atoms, uncertainty=True),
        lambda: model.sample(1, 0).predict([atoms]),
        lambda: model.posterior([soapkrr.Energy(atoms)]),
        lambda: model.variance_drop([atoms], [soapkrr.Energy(atoms)]),
    ):
        with pytest.raises(InputError, match="holds coefficients and no"):
            ask()


def test_forces_are_derivatives():
    atoms = read(FILES / "cuau.xyz", 0)
    model, direction = soapkrr.load_gap(FILES / "cuau.xml"), np.random.default_rng(0).normal(size=(4, 3))

    def energy(t):
        moved = atoms.copy()
        moved.positions += t * direction
        return model.predict(moved).energy[0]

    assert_derivative(energy, -float((model.predict(atoms).forces[0] * direction).sum()))


def test_a_saved_one_predicts_the_same(tmp_path, capsys):
    frames = read(FILES / "cuau.xyz", ":")
    assert run(["convert", str(FILES / "cuau.xml"), "-o", str(tmp_path / "m.soapkrr")]) == 0
    before, after = soapkrr.load_gap(FILES / "cuau.xml").predict(frames), soapkrr.load(tmp_path / "m.soapkrr").predict(frames)
    np.testing.assert_array_equal(after.energy, before.energy)
    assert run(["info", str(tmp_path / "m.soapkrr")]) == 0


def test_a_refit_has_error_bars_and_nearly_the_same_energies(tmp_path, capsys):
    frames = read(FILES / "argon.xyz", ":3")
    before = soapkrr.load_gap(FILES / "argon.xml").predict(frames)
    model = soapkrr.load_gap(FILES / "argon.xml", refit=True)
    p = model.predict(frames, uncertainty=True)
    assert np.abs(p.energy - before.energy).max() < 4 * 1e-4
    assert (p.energy_std > 0).all() and model.n_sparse_[1] == {"Ar": 8}
    assert set(model.leave_out(soapkrr.gap_structures(FILES / "argon.xml")).errors()) == {"energy", "forces", "stress"}


def test_the_radial_functions_are_orthonormal():
    r, transform = equispaced_gaussians(5.0, 6, 0.7)
    x = np.linspace(0, 14, 20001)
    g = np.exp(-0.5 / 0.7**2 * (x[:, None] - r) ** 2) @ np.linalg.inv(transform.T @ np.exp(-0.5 / 0.7**2 * (r[:, None] - r) ** 2))
    overlap = np.trapezoid(g[:, :, None] * g[:, None, :] * x[:, None, None] ** 2, x, axis=0)
    lower = np.linalg.inv(np.linalg.cholesky(overlap))
    np.testing.assert_allclose(overlap, np.eye(6), atol=2e-5)
    np.testing.assert_allclose(lower, np.eye(6), atol=2e-5)


def test_radial_functions_have_the_derivatives_that_they_state():
    r, h = np.linspace(0.1, 4.9, 40), 1e-4
    low, here, high = (equispaced(r + step, 5.0, 6, 4, 0.5) for step in (-h, 0.0, h))
    for k in (0, 1):
        np.testing.assert_allclose(here[k + 1], (high[k] - low[k]) / (2 * h), atol=1e-5 * np.abs(here[k + 1]).max())


def test_features_of_several_species_are_permuted():
    descriptor = QuipSOAP(["Cu", "Au"], 4.0, n_max=2, l_max=1)
    order = feature_order(descriptor, [79, 29])
    assert sorted(order) == list(range(descriptor.n_features))
    # Our first feature, l = 0 of Cu:0 with itself, is QUIP's channel 2 with itself: pair 3 + 2 of the lower triangle.
    assert order[0] == 5 * 2


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("soap l_max", "soap_turbo l_max", "soap_turbo"),
        ("soap l_max=3", "soap nu_R=1 l_max=3", "nu_R"),
        ("soap l_max=3", "soap mystery=4 l_max=3", "mystery"),
        ("soap l_max=3", "soap normalise=F l_max=3", "normalise"),
        ("n_species=1", "n_species=2", "n_species"),
        ("cutoff=6.0", "cutoff=6.0 only_intra=T", "only_intra"),
        ('covariance_type="1"', 'covariance_type="4"', "covariance_type"),
        ('signal_mean=".00000000000000000E+000"', 'signal_mean="0.5"', "signal_mean"),
        ("<GAP_data", "<water_params/><GAP_data", "water_params"),
        ("</gpSparse>", "<extra/></gpSparse>", "extra"),
        ('do_core="F"', 'do_core="T"', "do_core"),
        ('<sparseX i="1"', '<sparseY i="1"', "sparseY"),
        ('dimensions="1"', 'dimensions="2"', "numbers, expected"),
        ("sparseX_md5sum=", 'sparseX_md5sum="00" old=', "old"),
    ],
)
def test_what_is_not_understood_is_said_by_name(argon, old, new, named):
    with pytest.raises(InputError, match=named):
        soapkrr.load_gap(edited(argon, old, new))


def test_external_entities_are_refused(argon):
    declaration = '<!DOCTYPE gap [<!ENTITY secret SYSTEM "file:///etc/hostname">]>\n'
    argon.write_text(declaration + argon.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(InputError, match="document type"):
        soapkrr.load_gap(argon)


def test_files_of_sparse_points_are_checked(argon):
    name = sorted(argon.parent.glob("*.sparseX.*2"))[0]
    text = name.read_text()
    for content, message in (
        (text + "0.5\n", "329 numbers, expected 8 sparse points × 41 = 328"),
        (text.replace("1", "2", 1), "MD5"),
        ("x" + text, "else than numbers"),
    ):
        name.write_text(content)
        with pytest.raises(InputError, match=re.escape(message)):
            soapkrr.load_gap(argon)
    name.unlink()
    with pytest.raises(FileNotFoundError):
        soapkrr.load_gap(argon)


@pytest.mark.parametrize("content", ["", "no xml", "<a><b></a>", "<Params/>"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x.xml").write_text(content)
    with pytest.raises(InputError, match=r"x\.xml"):
        soapkrr.load_gap(tmp_path / "x.xml")


def test_elements_that_the_potential_does_not_know():
    with pytest.raises(InputError, match="species Ne was not in the training data"):
        soapkrr.load_gap(FILES / "argon.xml").predict(bulk("Ne", cubic=True))


def test_a_refit_needs_data_and_noise(argon):
    with pytest.raises(InputError, match="embeds no training structures"):
        soapkrr.load_gap(FILES / "cuau.xml", refit=True)
    with pytest.raises(InputError, match="default_sigma"):
        soapkrr.load_gap(edited(argon, "default_sigma=", "other_sigma="), refit=True)


def test_a_core_is_straight_below_its_first_point_and_zero_beyond_its_last():
    core = PairSpline([("Cu-Au", (1.0, 1.5, 2.0), (8.0, 1.0, 0.0), (-30.0, None))])
    at = [core.evaluate(Batch.from_atoms([bulk("Cu", cubic=True)])).energies.sum()]
    for d in (0.5, 1.5, 2.5):
        atoms = read(FILES / "cuau.xyz", 3)[:2]
        atoms.positions[1] = atoms.positions[0] + [0, 0, d]
        at.append(core.evaluate(Batch.from_atoms([atoms])).energies.sum())
    np.testing.assert_allclose(at, [0.0, 23.0, 1.0, 0.0], atol=1e-12)
    with pytest.raises(InputError, match="ascending"):
        PairSpline([("Cu-Au", (1.0, 1.0), (8.0, 1.0), (0.0, 0.0))])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: QuipSOAP(["Si"], 5.0, cutoff="poly"), "cutoff"),
        (lambda: QuipSOAP(["Si"], 5.0, central_weight=-1.0), "central_weight"),
        (lambda: QuipSOAP(["Si"], 5.0, rbf="bessel"), "rbf"),
        (lambda: QuipPair(["Si"], 5.0, cutoff=Cosine(1.0), curves=[(1.0, (2.0,), ())]), "curves"),
    ],
)
def test_impossible_parameters(make, named):
    with pytest.raises(InputError, match=named):
        make()
