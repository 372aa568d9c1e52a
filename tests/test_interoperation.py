"""Other packages with predictions, models and calculators: what they read is what was predicted."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import chemiscope
import joblib
import numpy as np
import pandas
import pytest
from ase import units
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from pymatgen.io.ase import AseAtomsAdaptor
from small import crystals, small_gp

import soapkrr
from soapkrr import InputError


@pytest.fixture(scope="module")
def frames():
    return crystals(7)


@pytest.fixture(scope="module")
def model(frames):
    return small_gp(threads=1).fit(frames)


@pytest.fixture(scope="module")
def mixed(frames):
    """Structures of four and of eight atoms, which are not fitted."""
    return [frames[0] * (2, 1, 1), *crystals(3, seed=5)]


@pytest.fixture(scope="module")
def calibrated(frames):
    return small_gp(threads=1).fit(frames).calibrate(frames)


# --- extended XYZ ----------------------------------------------------------------------------------------------------


def test_columns_come_back(calibrated, mixed, tmp_path):
    prediction = calibrated.predict(mixed, uncertainty=True)
    soapkrr.write(tmp_path / "x.xyz", mixed, prediction)
    for s, atoms in enumerate(read(tmp_path / "x.xyz", ":")):
        columns = {
            "local_energy": prediction.energies,
            "local_energy_std": prediction.energies_std,
            "forces_std": prediction.forces_std,
            "novelty": prediction.novelty,
        }
        for name, values in columns.items():
            np.testing.assert_allclose(atoms.arrays[name], values[s], atol=1e-8, err_msg=name)
        np.testing.assert_allclose(atoms.arrays["force_std"], np.linalg.norm(prediction.forces_std[s], axis=1), atol=1e-8)
        np.testing.assert_allclose(atoms.get_forces(), prediction.forces[s], atol=1e-8)
        np.testing.assert_allclose(atoms.get_stress(), prediction.stress[s], atol=1e-8)
        assert atoms.get_potential_energy() == pytest.approx(prediction.energy[s], abs=1e-8)
        assert atoms.info["energy_std"] == pytest.approx(prediction.energy_std[s])
        assert atoms.info["largest_novelty"] == pytest.approx(prediction.novelty[s].max())
        assert atoms.info["outside"] == bool(prediction.outside[s])


def test_the_header_names_columns_as_ovito_reads_them(calibrated, mixed, tmp_path):
    soapkrr.write(tmp_path / "x.xyz", mixed, calibrated.predict(mixed, uncertainty=True))
    header = (tmp_path / "x.xyz").read_text().splitlines()[1]
    properties = next(word for word in header.split() if word.startswith("Properties=")).removeprefix("Properties=").split(":")
    columns = dict(zip(properties[::3], zip(properties[1::3], properties[2::3], strict=True), strict=True))
    expected = {"pos": ("R", "3"), "forces": ("R", "3"), "forces_std": ("R", "3")}
    expected |= dict.fromkeys(("local_energy", "local_energy_std", "force_std", "novelty"), ("R", "1"))
    assert expected.items() <= columns.items()
    assert len(columns) == len(properties) // 3


def test_without_standard_deviations_there_are_energies_and_forces(model, mixed, tmp_path):
    soapkrr.write(tmp_path / "x.extxyz", mixed, model.predict(mixed))
    atoms = read(tmp_path / "x.extxyz", 0)
    assert {"local_energy"} == set(atoms.arrays) - {"numbers", "positions"} and "outside" in atoms.info


def test_writing_refuses_what_is_not_that_prediction(model, mixed, tmp_path):
    prediction = model.predict(mixed)
    with pytest.raises(InputError, match="must end in .xyz or .extxyz"):
        soapkrr.write(tmp_path / "x.traj", mixed, prediction)
    with pytest.raises(InputError, match="`frames` holds 2 structures"):
        soapkrr.write(tmp_path / "x.xyz", mixed[:2], prediction)
    with pytest.raises(InputError, match="`prediction` must be what"):
        soapkrr.write(tmp_path / "x.xyz", mixed, {"energy": 1.0})
    assert not (tmp_path / "x.xyz").exists()


def test_chemiscope_takes_all_properties(calibrated, mixed, tmp_path):
    prediction = calibrated.predict(mixed, uncertainty=True)
    soapkrr.write(tmp_path / "x.xyz", mixed, prediction)
    frames = read(tmp_path / "x.xyz", ":")
    properties = chemiscope.extract_properties(frames)
    for name in ("local_energy", "local_energy_std", "force_std", "novelty", "forces", "forces_std"):
        assert properties[name]["target"] == "atom" and len(properties[name]["values"]) == sum(map(len, mixed))
    np.testing.assert_allclose(properties["energy"]["values"], prediction.energy, atol=1e-8)
    np.testing.assert_allclose(properties["energy_std"]["values"], prediction.energy_std)
    environments = chemiscope.all_atomic_environments(frames, cutoff=4.0)
    chemiscope.write_input(str(tmp_path / "x.json.gz"), structures=frames, properties=properties, environments=environments)
    assert (tmp_path / "x.json.gz").stat().st_size > 0


# --- tables, copies, processes ---------------------------------------------------------------------------------------


def test_pandas_has_a_row_for_each_structure_or_atom(calibrated, mixed):
    prediction = calibrated.predict(mixed, uncertainty=True)
    table, atoms = prediction.to_dataframe(), prediction.to_dataframe(per="atom")
    assert isinstance(table, pandas.DataFrame) and len(table) == len(mixed) and len(atoms) == sum(map(len, mixed))
    np.testing.assert_array_equal(table["energy_std"], prediction.energy_std)
    np.testing.assert_array_equal(atoms["novelty"], np.concatenate(prediction.novelty))
    np.testing.assert_array_equal(table["novelty"], [novelty.max() for novelty in prediction.novelty])
    sums = atoms.groupby("structure")["energy"].sum()
    np.testing.assert_allclose(sums, prediction.energy, rtol=1e-12)
    assert table["outside"].dtype == bool


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"])
def test_copies_predict_the_same(calibrated, mixed, copied):
    a, b = (m.predict(mixed, uncertainty=True) for m in (calibrated, copied(calibrated)))
    for name in ("energy", "energy_std", "stress", "stress_std"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    again = copied(a)
    np.testing.assert_array_equal(again.interval("energy")[0], a.interval("energy")[0])


def test_joblib_dumps_and_runs_models(calibrated, mixed, tmp_path):
    joblib.dump(calibrated, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib")
    expected = calibrated.predict(mixed).energy
    np.testing.assert_array_equal(loaded.predict(mixed).energy, expected)
    found = joblib.Parallel(n_jobs=2, prefer="threads")(joblib.delayed(calibrated.predict)(atoms) for atoms in mixed)
    np.testing.assert_allclose([p.energy[0] for p in found], expected, rtol=1e-12)


def test_pymatgen_structures_pass_through_ase(model, mixed):
    adaptor = AseAtomsAdaptor()
    structure = adaptor.get_structure(mixed[1])
    p, q = model.predict(mixed[1]), model.predict(adaptor.get_atoms(structure))
    np.testing.assert_allclose(q.energy, p.energy, rtol=1e-10)
    np.testing.assert_allclose(q.forces[0], p.forces[0], atol=1e-10)


# --- ASE -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [BFGS, FIRE])
def test_a_cell_filter_relaxes_the_stress_away(model, frames, optimizer):
    atoms = frames[0].copy()
    atoms.calc = model.calculator()
    assert optimizer(FrechetCellFilter(atoms), logfile=None).run(fmax=0.002, steps=300)
    assert np.abs(atoms.get_stress()).max() * atoms.get_volume() < 0.01
    assert np.abs(atoms.get_forces()).max() < 0.002


def test_a_band_shares_one_calculator_among_its_images(model, frames):
    """The same band as with a calculator for each, also where ASE predicts images in threads, for which it wants one for each."""
    start, end = frames[0].copy(), frames[1].copy()
    end.set_cell(start.cell, scale_atoms=True)
    shared = model.calculator()

    def relaxed(calculators, **options):
        images = [start.copy(), *(start.copy() for _ in range(2)), end.copy()]
        for image, calculator in zip(images, calculators, strict=True):
            image.calc = calculator
        band = NEB(images, **options)
        band.interpolate()
        FIRE(band, logfile=None).run(fmax=0.02, steps=5)
        return np.concatenate([image.positions for image in images])

    alone = relaxed([model.calculator() for _ in range(4)], method="improvedtangent")
    np.testing.assert_allclose(relaxed([shared] * 4, method="improvedtangent", allow_shared_calculator=True), alone, atol=1e-12)
    threaded = relaxed([model.calculator() for _ in range(4)], method="improvedtangent", parallel=True)
    np.testing.assert_allclose(threaded, alone, atol=1e-12)


def heated(atoms, seed, kelvin=40):
    """(n, 3) momenta of a temperature, without drift."""
    p = np.sqrt(atoms.get_masses()[:, None] * units.kB * kelvin) * np.random.default_rng(seed).standard_normal((len(atoms), 3))
    return p - p.mean(axis=0)


def dynamics(model, atoms, seed):
    atoms = atoms.copy()
    atoms.calc = model.calculator(uncertainty=False)
    atoms.set_momenta(heated(atoms, seed))
    thermostat = {"temperature_K": 30, "friction": 0.01 / units.fs, "fixcm": False, "rng": np.random.default_rng(seed)}
    Langevin(atoms, 2 * units.fs, **thermostat).run(5)
    return atoms.get_total_energy()


def test_dynamics_in_threads_are_those_of_one(model, frames):
    expected = [dynamics(model, frames[0], seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        np.testing.assert_array_equal(list(pool.map(dynamics, [model] * 4, [frames[0]] * 4, range(4))), expected)


def test_newtonian_dynamics_conserve_energy(model, frames):
    """The fluctuation of a velocity-Verlet trajectory falls as the square of the time step: no force is missing."""

    def spread(step, n):
        atoms = frames[0].copy()
        atoms.calc = model.calculator(uncertainty=False)
        atoms.set_momenta(heated(atoms, 0))
        energies = []
        run = VelocityVerlet(atoms, step * units.fs)
        run.attach(lambda: energies.append(atoms.get_total_energy()))
        run.run(n)
        return np.ptp(energies)

    assert spread(8, 25) / spread(4, 50) == pytest.approx(4, rel=0.3)
